"""Words of an answer, made comparable as SQuAD's evaluation does it (1606.05250, section 6.1).

Lower case, without punctuation and articles, blanks made one. Beyond SQuAD: LaTeX's text commands are
opened (\\text{Paris} is Paris), typographic and full-width characters are read as the plain ones, and
numbers keep their value: a decimal point and a sign stay, other marks between two digits part them
(SQuAD takes 3.5 and 3/5 for 35, and -5 for 5). An answer that is an article stays what it is.
"""

import re
import unicodedata
from collections import Counter

_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|textrm|texttt|mathrm|mathbf|mathit|mbox|emph|underline)\s*\{([^{}]*)\}"
)
_SPACING = re.compile(r"\\[ ,;:!]|~|\\quad|\\qquad")
_ESCAPED = re.compile(r"\\([%$&#_{}])")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[^\w\s.\ue000](?=\d)")
# A point between digits and a sign before a number, kept through the removal of punctuation.
_POINT = re.compile(r"(?<=\d)\.(?=\d)|(?<![\w.])\.(?=\d)")
_SIGN = re.compile(r"(?<![\w)])-(?=\.?\d)")
_KEPT = {"\ue000": ".", "\ue001": "-"}
_COMMAND = re.compile(r"\\[A-Za-z]+")
_OPERATOR = re.compile(r"[=<>^_*/+|\[\]{}]")
_WORD = re.compile(r"[^\W\d_]{2,}")
_MATHEMATICAL = frozenset(
    [
        "pi",
        "oo",
        "inf",
        "infty",
        "infinity",
        "nan",
        "sqrt",
        "cbrt",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "exp",
        "log",
        "ln",
        "lg",
        "min",
        "max",
        "gcd",
        "lcm",
        "mod",
        "binom",
        "choose",
        "matrix",
        "rational",
        "fraction",
        "and",
        "or",
    ]
)
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—−"), "-")


def normalized(text: str) -> str:
    """The words of a text, in order, one blank between two.

    "The Chief of Protocol." is "chief of protocol", "\\text{Evelyn}" is "evelyn", "$1,000" is "1000".
    Empty only for a text of blanks.
    """
    text = unicodedata.normalize("NFKC", text).translate(_DASHES).casefold()
    text = _without_text_commands(text)
    text = _ESCAPED.sub(r"\1", _SPACING.sub(" ", text))
    text = _THOUSANDS.sub("", text)
    text = _SIGN.sub("\ue001", _POINT.sub("\ue000", text))
    text = _BETWEEN_DIGITS.sub(" ", text)
    bare = "".join(character for character in text if not _is_punctuation(character))
    for mark, character in _KEPT.items():
        text, bare = text.replace(mark, character), bare.replace(mark, character)
    without_articles = " ".join(_ARTICLES.sub(" ", bare).split())
    return without_articles or " ".join(bare.split()) or " ".join(text.split())


def is_words(text: str) -> bool:
    """Whether a reference is words and no mathematics: "Chief of Protocol", "\\text{Evelyn}", "Yes".

    Names of functions and constants, single letters, and anything with a digit are mathematics.
    """
    bare = _COMMAND.sub(" ", _without_text_commands(text))
    if any(character.isdigit() for character in bare) or _OPERATOR.search(bare):
        return False
    found = [word for word in _WORD.findall(bare) if word.casefold() not in _MATHEMATICAL]
    return any(len(word) > 2 for word in found) or len(found) > 1


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of the precision and the recall of words, 0 to 1, SQuAD's.

    Against "yes", "no" and "noanswer" a part counts nothing, as in HotpotQA's evaluation.
    """
    words, wanted = normalized(answer).split(), normalized(reference).split()
    if words == wanted:
        return 1.0 if words else 0.0
    if {" ".join(words), " ".join(wanted)} & {"yes", "no", "noanswer"}:
        return 0.0
    common = sum((Counter(words) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _without_text_commands(text: str) -> str:
    while (opened := _TEXT_COMMAND.sub(r"\1", text)) != text:
        text = opened
    return text


def _is_punctuation(character: str) -> bool:
    """ASCII's punctuation, as in SQuAD, and Unicode's."""
    return unicodedata.category(character)[0] == "P" or character in "$+<=>^`|~\\"
