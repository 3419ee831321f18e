"""Tables as CSV and LaTeX: what a spreadsheet or TeX would take for something else than text is text."""

import csv
import io

import pytest

from jaxtool.report.page import Table
from jaxtool.report.table_files import is_figure, latex_text, slug, table_csv, table_latex

FORMULAS = ("=1+1", "+SUM(A1)", "-2+3+cmd|' /C calc'!A0", "@x", "\t=1", "＝1", " =1", "-", "-x")
FIGURES = (
    "-0.5",
    "−0.5",
    "+1.2 ± 0.4",
    "-26.7..+0.0",
    "1,200",
    "96.0 ± 2.0 / 0.30",
    "18.3 (10..28)",
)


def table(*rows, columns=("name", "value"), note=""):
    return Table(title="By level, greedy: a & b", columns=columns, rows=rows, note=note)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_is_rfc_4180():
    made = table(('say "hi",\nthen go', 1.5), (None, -3))
    assert table_csv(made) == 'name,value\r\n"say ""hi"",\nthen go",1.5\r\n,-3\r\n'
    assert read(table_csv(made))[1] == ['say "hi",\nthen go', "1.5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_what_a_spreadsheet_takes_for_a_formula_is_text(text):
    [_, [cell, other]] = read(table_csv(table((text, "x"))))
    assert (cell, other) == (f"'{text}", "x")


@pytest.mark.parametrize("text", FIGURES)
def test_figures_stay_figures(text):
    assert is_figure(text)
    assert read(table_csv(table((text, 1))))[1][0] == text


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        (r"a_b & 50 % of $x^2$", r"a\_b \& 50 \% of \$x\textasciicircum{}2\$"),
        (r"\input{x}~#1", r"\textbackslash{}input\{x\}\textasciitilde{}\#1"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ("[1pt]*", "{[}1pt{]}{*}"),
        ("---", "-{}-{}-"),
        ("“α ± 1…”", r"“$\alpha$ $\pm$ 1\ldots{}”"),
        ("two\n\nlines\t\x07", "two lines \ufffd"),
        ("'`\"", r"\textquotesingle{}\textasciigrave{}\char34{}"),
    ],
)
def test_every_character_that_latex_reads_is_escaped(text, latex):
    assert latex_text(text) == latex


def test_a_float_has_booktabs_rules_and_right_aligned_figures():
    made = table(("otc_grpo", "-0.5 ± 0.2"), ("grpo", None), note="50 % of them")
    assert table_latex(made).splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\caption{By level, greedy: a \& b}",
        r"\label{tab:by_level_greedy_a_b}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"name & value \\",
        r"\midrule",
        r"otc\_grpo & $-$0.5 $\pm$ 0.2 \\",
        r"grpo & \textendash{} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize 50 \% of them\par}",
        r"\end{table}",
    ]


def test_names_are_plain_short_and_never_empty():
    assert slug("By level, greedy: Genauigkeit % / Äpfel") == "by_level_greedy_genauigkeit_apfel"
    assert slug("../../x") == "x"
    assert slug("日本") == "untitled"
    assert len(slug("a b " * 100)) <= 60
