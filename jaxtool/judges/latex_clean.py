"""One spelling for what LaTeX, Unicode and Python spell in many ways: text in, text out.

Covered: text styles, spacing, dollar signs, Unicode signs, thousands separators, the names of Python
libraries, labels before an answer, the full stop behind it. A text group stays whole between the marks
TEXT_OPEN and TEXT_CLOSE. Not covered: what the text means (`expressions`).
"""

import re
import unicodedata

TEXT_OPEN, TEXT_CLOSE = "⟦", "⟧"

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8"}
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "－": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "÷": "/", "√": " sqrt ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ", "ℝ": r"\mathbb{R}", "…": r"\ldots ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "’": "'", "‘": "'",
    "“": '"', "”": '"', "′": "'", "，": ",", "。": ".", "€": "", "£": "", "¥": "", "￥": "",
    "\u200b": "", "\ufeff": "", "✅": "",
}  # fmt: skip

_BRACED = r"\{((?:[^{}\\]|\\.)*)\}"
_STYLES = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|sc|md)?|mbox|hbox|mathrm|operatorname\*?|mathsf|mathtt)\s*"
    + _BRACED
)
_MATH_STYLES = re.compile(
    r"\\(?:mathbf|mathit|boldsymbol|bm|mathcal|mathnormal|ensuremath|underline|bf|rm|it)\s*"
    + _BRACED
)
_NOTHING = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|bf|rm|it)(?![A-Za-z])\.?"
)
_BLANKS = re.compile(
    r"(?<!\\)\\(?:[;: >]|q?quad(?![A-Za-z])|thinspace(?![A-Za-z])|hspace\{[^{}]*\})|~"
)
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!)\s*(?=\d{3}(?!\d))")
_THIN_THOUSANDS = re.compile(r"(?<=\d)\\,\s*(?=\d{3}(?!\d))")
_MODULES = re.compile(r"\b(?:np|numpy|sympy|sp|math|fractions|decimal|mpmath|mp)\.(?=[A-Za-z])")
_HALF_OPEN = re.compile(r"\bInterval\.(Ropen|Lopen|open)\(")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?(?!\d)")
_NUMPY_TYPE = re.compile(r"\b(?:u?int|float|complex)(?:8|16|32|64|128)?_?(?=\()")
_QUOTED_VALUE = re.compile(r"""\b(?:float|Decimal|mpf|Fraction|int)\(\s*(['"])([^'"]*)\1\s*\)""")
_QUOTED_KEY = re.compile(r"""(['"])([A-Za-z]\w*)\1(?=\s*:)""")
_POINT = re.compile(r"\bPoint[23]D(?=\()")
_COMPLEX = re.compile(r"(?<=\d)[jJ](?![A-Za-z])")
_DTYPE = re.compile(r",\s*dtype\s*=\s*[\w.']+")
_LABEL = re.compile(
    r"(?:so|thus|hence|therefore)?,?\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is\s*:?|[:=])\s*", re.I
)
_DOLLARS = re.compile(r"(?<!\\)\$")
_QUOTED = re.compile(r"""(["'`])([^"'`]*)\1""")
_BUILDER = re.compile(
    r"\\?\{\s*[a-z](?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\\mid|[|:])\s*([^|{}]*)\\?\}"
)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{(.*)\}", re.S)


def clean(text: str) -> str:
    """The text in one spelling. Blanks separate; none between two digits is ever deleted."""
    text = unicode_signs(text).strip()
    text = unwrap(text)
    text = _THIN_THOUSANDS.sub("", _THOUSANDS.sub("", text))
    text = text.replace("\\!", "").replace("\\,", " ").replace("\\$", "").replace("\\%", "%")
    text = _BLANKS.sub(" ", _NOTHING.sub("", text))
    text = _styles_marked(text)
    text = _DOLLARS.sub("", text)
    text = text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ").replace("\\]", " ")
    text = _HALF_OPEN.sub(r"Interval\1(", _DTYPE.sub("", _MODULES.sub("", text)))
    text = _QUOTED_KEY.sub(r"\2", _QUOTED_VALUE.sub(r"\2", text))
    text = _POINT.sub("Point", _NUMPY_TYPE.sub("float", _COMPLEX.sub("i", text)))
    text = _REPEATING.sub(_fraction, text)
    text = re.sub(r"\\([dtc])frac(?![A-Za-z])", r"\\frac", text)
    text = _without_label(text.strip())
    if (builder := _BUILDER.fullmatch(text)) and re.search(r"[<>]|\\[lgn]e", text):
        text = builder[1].rstrip("\\")  # {x | x > 2}
    return re.sub(r"\s+", " ", strip_stops(text))


def is_balanced(text: str) -> bool:
    """Whether every brace that opens a group is closed; escaped ones count as well, one kind each."""
    depth = escaped = 0
    for match in re.finditer(r"\\\\|\\[{}]|[{}]|\\right\s*\.|\\left\s*\.", text):
        token = match[0]
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
        elif token == "\\{":
            escaped += 1
        elif token == "\\}":
            escaped -= 1
        if depth < 0 or escaped < 0:
            return False
    return depth == escaped == 0


def unicode_signs(text: str) -> str:
    """ASCII and LaTeX for the signs of Unicode: 30°, –5, x², ５, 1½."""
    out: list[str] = []
    for character in text:
        if character in _SUPERSCRIPTS:
            out.append("^{" + _SUPERSCRIPTS[character] + "}")
        elif character in _VULGAR:
            out.append(" " + _VULGAR[character])
        else:
            out.append(_SIGNS.get(character, character))
    text = (
        re.sub(r"\}\^\{", "", "".join(out))
        if any(c in text for c in _SUPERSCRIPTS)
        else "".join(out)
    )
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def unwrap(text: str) -> str:
    """Without what stands round the whole: dollar signs, bold marks, quotes, a second box."""
    for _ in range(8):
        before = text
        text = text.strip()
        for mark in ("**", "__", "$$", "$", "```", "`"):
            inner = text[len(mark) : -len(mark)]
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = inner if mark not in inner else text
        if (match := _QUOTED.fullmatch(text)) or (match := _BOX.fullmatch(text)):
            inner = match[match.re.groups]
            text = inner if is_balanced(inner) else text
        if text == before:
            break
    return text


def strip_stops(text: str) -> str:
    """Without the punctuation that ends a sentence: `5.`, `5 ,`. A factorial is no such thing."""
    while text and text[-1] in ".,;:?":
        if text.endswith(("..", "\\ldots.")) or text[-2:-1] == "\\":
            break
        text = text[:-1].rstrip()
    return text.strip()


def _styles_marked(text: str) -> str:
    for _ in range(8):
        before = text
        text = _MATH_STYLES.sub(r" \1 ", text)
        text = _STYLES.sub(_marked, text)
        if text == before:
            break
    return text


def _marked(match: re.Match[str]) -> str:
    """A text group: its letters are words (`⟦cm⟧`), a number or a letter in brackets is itself."""
    content = _DOLLARS.sub("", match[1].replace(TEXT_OPEN, "").replace(TEXT_CLOSE, ""))
    has_letters = re.search(r"[A-Za-z\u0080-\uffff]", content)
    if not has_letters or re.search(r"\d", content) or re.fullmatch(r"\s*\(?[A-Z]\)\s*", content):
        return f" {content} " if content.strip() else " "
    if content in ("i", "e") and "operatorname" not in match[0]:
        return f" {content} "
    if "operatorname" in match[0]:
        return f"\\{content} " if content.isalpha() else content
    label = _LABEL.fullmatch(content.strip())
    return " " if label else f"{TEXT_OPEN}{content}{TEXT_CLOSE}"


def _without_label(text: str) -> str:
    match = _LABEL.match(text)
    return text[match.end() :] if match and match.end() < len(text) else text


def _fraction(match: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction of whole numbers."""
    whole, fixed, repeated = match.groups()
    if len(match[0]) > 60:
        return match[0]
    under = (10 ** len(repeated) - 1) * 10 ** len(fixed)
    over = int(whole + fixed + repeated) - int(whole + fixed or "0")
    return rf"\frac{{{over}}}{{{under}}}"
