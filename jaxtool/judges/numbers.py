"""Plain numbers in answers: read and compared exactly, without algebra.

Not covered: symbolic equivalence (`mathematics`), where the answer stands (`answer_format`).
"""

import re
from fractions import Fraction

# Longest text taken for a number, and largest exponent: int() and 10**e stay instant.
_MAX_DIGITS = 1000
_MAX_EXPONENT = 300

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_EXPONENT = r"(?:e|\\(?:times|cdot)10\^)\{?([+-]?\d+)\}?"
_DECIMAL_PATTERN = re.compile(rf"({_DECIMAL})(?:{_EXPONENT})?", re.ASCII)
_SLASH_PATTERN = re.compile(rf"({_INTEGER})/([+-]?)({_INTEGER})", re.ASCII)
_FRAC_ARGUMENT = r"(?:\{([+-]?\d+)\}|(\d))"
_FRAC_PATTERN = re.compile(rf"(\d*)\\[dt]?frac{_FRAC_ARGUMENT}{_FRAC_ARGUMENT}", re.ASCII)
_NUMBER_LITERAL = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")


def parse_number(text: str) -> Fraction | None:
    """Exact value of a plain number, or None.

    Integers (033, +5, −4, 1,234, 1{,}234, $70), decimals, 1.5e3, 1.5\\times10^{3}, 1/2, \\frac{1}{2},
    \\frac12 and mixed 1\\frac{1}{2}. No percent, no units, no arithmetic.
    """
    if len(text) > _MAX_DIGITS:
        return None
    text = text.replace("{,}", ",").replace("−", "-").replace("\\!", "")
    text = re.sub(r"\s+", "", text).replace("\\$", "").replace("$", "")
    sign = -1 if text.startswith("-") else 1
    text = text[1:] if text[:1] in ("+", "-") else text
    value = _unsigned(text)
    return None if value is None else sign * value


def equal_numbers(candidate: str, reference: str) -> bool | None:
    """Whether two answers are equal, where that needs no algebra; None if it does.

    Exact rational equality: 0.3333 is not 1/3. Against a reference that is a plain number, a candidate
    with two or more number literals or a factorial is wrong: math-verify would work out 123*456 or
    5!, and a policy would learn to answer with the question.
    """
    if candidate.strip() == reference.strip():
        return True
    expected = parse_number(reference)
    if expected is None:
        return None
    value = parse_number(candidate)
    if value is not None:
        return value == expected
    if len(_NUMBER_LITERAL.findall(candidate)) > 1 or "!" in candidate:
        return False
    return None


def _unsigned(text: str) -> Fraction | None:
    if match := _DECIMAL_PATTERN.fullmatch(text):
        exponent = int(match[2] or 0) if len(match[2] or "") <= 5 else _MAX_EXPONENT + 1
        if abs(exponent) > _MAX_EXPONENT:
            return None
        return Fraction(match[1].replace(",", "")) * Fraction(10) ** exponent
    if match := _SLASH_PATTERN.fullmatch(text):
        numerator, sign, denominator = match.groups()
        return _ratio(numerator.replace(",", ""), sign + denominator.replace(",", ""))
    if match := _FRAC_PATTERN.fullmatch(text):
        whole, *arguments = match.groups()
        numerator, denominator = arguments[0] or arguments[1], arguments[2] or arguments[3]
        ratio = _ratio(numerator, denominator)
        return None if ratio is None else int(whole or 0) + ratio
    return None


def _ratio(numerator: str, denominator: str) -> Fraction | None:
    return None if int(denominator) == 0 else Fraction(int(numerator), int(denominator))
