"""Units behind a value: `12 cm^2`, `9 (apples)`, `28 percent`.

A unit is not looked at, unless the answer and the reference both have a measure: then they must be the
same. Not covered: conversions; 100 cm is not 1 m.
"""

import dataclasses
import re

from jaxtool.judges.lexer import Token, word_set

# One name for the spellings of a measure. Two different measures are never equal; other words are not looked at.
UNITS = {
    spelling: names.split()[0]
    for names in (
        "cm centimeter centimeters centimetre centimetres",
        "m meter meters metre metres",
        "mm millimeter millimeters",
        "km kilometer kilometers kms",
        "ft foot feet",
        "inch inches in",
        "yd yard yards",
        "mi mile miles",
        "kg kilogram kilograms kgs",
        "g gram grams",
        "mg milligram milligrams",
        "lb lbs pound pounds",
        "oz ounce ounces",
        "l liter liters litre litres",
        "ml milliliter milliliters",
        "s sec secs second seconds",
        "min mins minute minutes",
        "h hr hrs hour hours",
        "day days",
        "week weeks wk wks",
        "month months",
        "year years yr yrs",
        "cent cents",
        "dollar dollars usd",
        "percent pct percentage",
        "degree degrees deg",
        "rad radian radians",
        "mph",
        "kmh kph",
        "unit units",
        "cc",
        "hz",
    )
    for spelling in names.split()
}
_SHORT_NOUNS = word_set(
    "men man dog cat hen pig egg car bus box bag cup can jar pie ant bee cow fox pen toy "
    "hat map set row way kid bpm pts pt per of the a an all out old big red sq cu 个 元 只 人 "
    "本 米"
)
# Words behind a number that are more than its unit, and short words that are no product of letters.
_NOT_UNITS = word_set(
    "or and not to than less more plus minus times million billion trillion thousand "
    "hundred dozen thousandths hundredths tenths if when where for no none st nd rd th "
    "but over by squared cubed between from mod"
)


def split_unit(tokens: list[Token], *, takes_letters: bool) -> tuple[list[Token], str]:
    """A value and the unit behind it, if there is one: `12 cm^{2}` is `12` and "cm 2".

    Args:
      takes_letters: whether one letter behind a blank is a unit (`12 m`), not a variable.
    """
    for k in range(1, len(tokens)):
        if _ends_value(tokens[k - 1]) and _is_unit(tokens[k:], takes_letters):
            return tokens[:k], _unit_name(tokens[k:])
    return tokens, ""


def is_label_word(word: str) -> bool:
    """Whether a word may stand before a colon or `=` as the name of what follows."""
    letters = word.strip(" :=")
    is_word = len(letters) > 3 or (len(letters) == 3 and letters.istitle())
    return is_word and not re.search(r"[\d<>+]", letters) and letters.lower() not in _NOT_UNITS


def _ends_value(token: Token) -> bool:
    return token.kind in ("number", "name", "command") or token.value in (")", "}", "]", "%")


def _is_unit(tail: list[Token], takes_letters: bool) -> bool:
    is_bracketed = tail[0].value == "(" and len(tail) > 1
    first = dataclasses.replace(tail[1], is_spaced=True) if is_bracketed else tail[0]
    if not _is_unit_word(first) and not (
        takes_letters and first.is_spaced and first.kind == "name" and first.value in "msghL"
    ):
        return False
    if sum(token.kind in ("word", "text") for token in tail) > 6:
        return False
    for before, token in zip([None, *tail], tail, strict=False):
        if token.kind == "number":
            if before is None or before.value not in ("^", "{", "-"):
                return False
        elif token.kind in ("word", "text"):
            is_bracketed = before is not None and before.value in ("(", "/")
            if not _is_unit_word(
                dataclasses.replace(token, is_spaced=token.is_spaced or is_bracketed)
            ):
                return False
        elif token.kind == "name":
            if len(token.value) > 1 or not token.value.isalpha():
                return False
        elif token.value not in ("^", "/", "(", ")", "{", "}", "-", "*", "\\cdot"):
            return False
    return True


def _is_unit_word(token: Token) -> bool:
    if token.kind == "text":
        words = re.findall(r"[a-z]+|[^\x00-\x7f]+", token.value)
        is_known = not re.search(r"\d[^\d]*\d|[=<>+]", token.value) and bool(words)
        return is_known and not _NOT_UNITS.intersection(words) and len(words) <= 6
    if token.kind != "word" or token.value.lower() in _NOT_UNITS:
        return False
    word = token.value.lower()
    if word in UNITS or not word.isascii() or word in _SHORT_NOUNS:
        return True
    return token.is_spaced and len(word) >= 4


def _unit_name(tail: list[Token]) -> str:
    """Its measures in one spelling, "" for words that are none: `\\text{ inches}^2` is "inch 2"."""
    text = " ".join(token.value.lower() for token in tail)
    text = re.sub(r"\b(?:square|sq)\b\.?\s*(\w+)", r"\1 2", text)
    text = re.sub(r"\bcubic\b\s*(\w+)", r"\1 3", text)
    words = re.findall(r"[a-z]+|\d+|/", re.sub(r"\bper\b", "/", text))
    known = [UNITS.get(word, word) for word in words if word in UNITS or word in ("2", "3", "/")]
    return " ".join(known) if any(word in UNITS for word in words) else ""
