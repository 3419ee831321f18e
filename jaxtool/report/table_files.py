"""A table as CSV and as LaTeX: the one place that writes either, for files and for the buttons of a page.

CSV is RFC 4180 in UTF-8. Cells may hold text of a policy or of a data set, so a cell that a spreadsheet would take for
a formula gets an apostrophe in front of it; figures such as -0.5 or +1.2 ± 0.4 stay as they are. LaTeX needs the
package `booktabs`. Every character that LaTeX reads as a command is escaped; those that its fonts may lack (Chinese, say)
stay, and want lualatex or xelatex.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the page holds what this module writes
    from jaxtool.report.page import Table

# Beginnings that Excel, LibreOffice and Google Sheets read as a formula, full-width ones included (OWASP, "CSV
# Injection"). An apostrophe in front of them says "text".
_FORMULA = tuple("=+-@\t\r＝＋－＠")
# A figure, as the tables write them: a sign, digits, then a spread or the other end of an interval.
_NUMBER = r"[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_FIGURE = re.compile(
    rf"{_NUMBER}(?: ?%)?(?:(?: ± | / |\.\.){_NUMBER})*(?: ?%)?"
    rf"(?: \({_NUMBER}\.\.{_NUMBER}\))?"
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    # After \\ and \toprule these would begin an argument.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≠": r"$\ne$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "π": r"$\pi$",
    "σ": r"$\sigma$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "↵": r"$\hookleftarrow$",
}
_ESCAPES = str.maketrans(_LATEX)


def table_csv(table: Table) -> str:
    """The table as RFC 4180 text, column names first, lines ended by CR LF.

    Example: `=1+1` becomes `'=1+1`, and `-0.5` stays. None is an empty cell.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    for row in (table.columns, *table.rows):
        writer.writerow([_csv_cell(value) for value in row])
    return out.getvalue()


def table_latex(table: Table) -> str:
    r"""The table as a LaTeX float: caption, `tabular` with booktabs' rules, the note below, `\label{tab:slug}`.

    Columns of figures are right-aligned, others left.
    """
    numeric = [
        all(is_figure(row[i]) for row in table.rows) and bool(table.rows)
        for i in range(len(table.columns))
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(table.title)}}}",
        rf"\label{{tab:{slug(table.title)}}}",
        rf"\begin{{tabular}}{{{''.join('r' if is_right else 'l' for is_right in numeric)}}}",
        r"\toprule",
        _latex_row(table.columns),
        r"\midrule",
        *map(_latex_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if table.note:
        lines.append(rf"\par\smallskip{{\footnotesize {latex_text(table.note)}\par}}")
    return "\n".join([*lines, r"\end{table}", ""])


def latex_text(text: str) -> str:
    r"""Text as LaTeX prints it, in one line: `50 % of a_b` becomes `50 \% of a\_b`."""
    line = " ".join(printable(text).split()).translate(_ESCAPES)
    return line.replace("--", "-{}-").replace("--", "-{}-")  # two hyphens would become one dash


def slug(text: str) -> str:
    """Text as a file name or label: letters, digits and `_`, 60 at the most. "By level, greedy" is `by_level_greedy`."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:60].strip("_") or "untitled"


def printable(text: str) -> str:
    """The text with U+FFFD for what XML and UTF-8 do not take: control characters, halves of surrogates."""
    return "".join("\ufffd" if _is_unwritable(c) else c for c in text)


def _is_unwritable(char: str) -> bool:
    if char in "\t\n\r":
        return False
    return unicodedata.category(char) in ("Cc", "Cs") or char in "\ufffe\uffff"


def cell_text(value: str | float | int | None) -> str:
    """A cell as people read it: six digits of a number, a dash for None."""
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _csv_cell(value: str | float | int | None) -> str | float | int:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value)
    is_formula = text.lstrip(" \n").startswith(_FORMULA) and not _FIGURE.fullmatch(text)
    return f"'{text}" if is_formula else text


def is_figure(value: str | float | int | None) -> bool:
    """Whether a cell is a number, with a spread or an interval perhaps, or a dash in place of one."""
    return not isinstance(value, str) or value == "–" or _FIGURE.fullmatch(value) is not None


def _latex_row(row: tuple[str | float | int | None, ...]) -> str:
    return " & ".join(map(_latex_cell, row)) + r" \\"


def _latex_cell(value: str | float | int | None) -> str:
    """A figure has a minus sign where text has a hyphen."""
    text = cell_text(value)
    return latex_text(text.replace("-", "−") if _FIGURE.fullmatch(text) else text)
