"""Tokens of a cleaned answer, and the items of a list.

Covered: numbers with thousands separators, names, words, LaTeX commands, signs; `5, 6`, `5 or 6`. Not
covered: units (`units`), what the tokens mean (`expressions`).
"""

import dataclasses
import re

from jaxtool.judges.latex_clean import TEXT_CLOSE, TEXT_OPEN


class Unreadable(Exception):
    """The text is not in the grammar, or over a limit; its message says why in a few words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    kind: str  # "number", "name", "word", "text", "command", "sign"
    value: str
    is_spaced: bool  # a blank stands before it


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan asin acos atan sinh cosh tanh ln log lg "
    "exp sqrt cbrt abs factorial binomial binom comb floor ceil ceiling root"
)
PYTHON_CALLS = word_set(
    "Fraction Rational Integer Float Decimal mpf float str array Matrix ImmutableMatrix "
    "ImmutableDenseMatrix MutableDenseMatrix list tuple set frozenset FiniteSet Tuple "
    "Point Interval IntervalRopen IntervalLopen Intervalopen Union Eq Abs Pow Mul Add "
    "EmptySet"
)
CONSTANTS = {
    "pi": "pi", "oo": "oo", "inf": "oo", "infty": "oo", "infinity": "oo", "Infinity": "oo", "zoo": "?",
    "Reals": "R", "EmptySet": "empty", "emptyset": "empty", "varnothing": "empty",
}  # fmt: skip
GREEK = word_set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda "
    "mu nu xi rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi "
    "Psi Omega ell"
)
SHORT_WORDS = word_set(
    "no on is or of to in it at an as am pm be by do go he if me my so up us we hi ok ax "
    "ox rd st nd th yes not and the for but all any one two six ten odd sin cos tan log "
    "ln"
)
SEPARATORS = {",", ";", "and", "or", "\\lor", "\\land", "\\vee", "\\wedge", "\\text"}

_MAX_TOKENS = 400
_NUMBER = (
    r"(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![A-Za-z]))?"
)
_PLAIN_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+(?![A-Za-z]))?"
_REST = (
    rf"|(?P<text>{TEXT_OPEN}[^{TEXT_CLOSE}]*{TEXT_CLOSE})|(?P<command>\\(?:[A-Za-z]+|[{{}}|\\]))"
    r"|(?P<letters>[A-Za-z]+|[\u00c0-\uffff]+)|(?P<sign>\*\*|<=|>=|==|!=|[-+*/^_=<>!%(){}\[\]|,;:&'])"
)
_OUTSIDE = re.compile(rf"(?P<number>{_NUMBER}){_REST}", re.ASCII)
_INSIDE = re.compile(rf"(?P<number>{_PLAIN_NUMBER}){_REST}", re.ASCII)
_OPENING, _CLOSING = {"(", "[", "\\{", "{"}, {")", "]", "\\}", "}"}


def tokens_of(text: str, *, has_thousands: bool = True) -> list[Token]:
    """The tokens. Inside brackets a comma separates; outside it may group thousands.

    Raises:
      Unreadable: a character that is in no answer, or too many tokens.
    """
    tokens: list[Token] = []
    position = depth = 0
    while position < len(text):
        start = position
        while position < len(text) and text[position] == " ":
            position += 1
        if position == len(text):
            break
        pattern = _OUTSIDE if has_thousands and depth == 0 else _INSIDE
        match = pattern.match(text, position)
        if match is None:
            raise Unreadable(f"the sign {text[position]!r}")
        token = _token(match, position > start)
        depth += (token.value in _OPENING - {"{"}) - (token.value in _CLOSING - {"}"})
        tokens.append(token)
        position = match.end()
        if len(tokens) > _MAX_TOKENS:
            raise Unreadable("too long")
    return tokens


def _token(match: re.Match[str], is_spaced: bool) -> Token:
    kind, value = match.lastgroup or "", match[0]
    if kind == "number":
        value = value.replace(",", "")
    elif kind == "text":
        value = value[1:-1].strip().lower()
    elif kind == "letters":
        is_name = (
            value in FUNCTIONS or value in PYTHON_CALLS or value in CONSTANTS or value in GREEK
        )
        kind = "name" if (len(value) == 1 and value.isascii()) or is_name else "word"
    elif value == "**":
        value = "^"
    return Token(kind, value, is_spaced)


def is_separator(token: Token) -> bool:
    """A comma, a semicolon, `and`, `or`."""
    if token.kind in ("text", "word"):
        return token.value.strip(" ,").lower() in ("and", "or", "")
    return token.kind in ("sign", "command") and token.value in SEPARATORS


def split_items(tokens: list[Token]) -> list[list[Token]]:
    """The items of a list that stands in no brackets."""
    items: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += token.kind in ("sign", "command") and token.value in _OPENING
        depth -= token.kind in ("sign", "command") and token.value in _CLOSING
        if depth == 0 and is_separator(token):
            items.append([])
        else:
            items[-1].append(token)
    return [item for item in items if item]
