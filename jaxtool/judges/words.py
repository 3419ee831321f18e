"""Answers that are words, times or ratios, and letters of a choice: compared as they are said.

Covered: case, articles, punctuation, ordinals, text groups. Not covered: meaning; `exact_match` is the
judge of data sets whose answers are words.
"""

import re

from jaxtool.judges.latex_clean import TEXT_CLOSE, TEXT_OPEN
from jaxtool.judges.lexer import CONSTANTS, FUNCTIONS, GREEK, PYTHON_CALLS, SHORT_WORDS

_ARTICLES = {"a", "an", "the"}
_MARKS = str.maketrans({TEXT_OPEN: " ", TEXT_CLOSE: " "})
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
_CLOCK = re.compile(r"\d\s*:\s*\d")
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_CHOSEN = re.compile(
    r"(?:(?i:option|choice|answer)\s*:?\s*)?(?:\(([A-Z])\)|([A-Z])(?:[.):]|$))\s*(.*)"
)
_NAMES = FUNCTIONS | PYTHON_CALLS | GREEK | frozenset(CONSTANTS)

_NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
NUMERALS = {word: str(value) for value, word in enumerate(_NUMERALS.split())}


def plain(cleaned: str) -> str:
    """A cleaned text without the marks of text groups."""
    return " ".join(cleaned.translate(_MARKS).split())


def is_clock(cleaned: str) -> bool:
    """Whether it holds a time or a ratio, 12:00 or 3 : 4."""
    return bool(_CLOCK.search(cleaned))


def are_words(cleaned: str) -> bool:
    """Whether the text says something in words, with or without numbers: no formula has such runs."""
    if re.search(r"\\[A-Za-z]+", cleaned) and TEXT_OPEN not in cleaned:
        return False  # LaTeX that the grammar lacks
    text = re.sub(r"\\[A-Za-z]+", " ", cleaned)
    runs = [run for run in re.findall(r"[^\W\d_]+", text) if run not in _NAMES]
    is_text = TEXT_OPEN in text and any(len(run) >= 1 for run in runs)
    return is_text or any(
        len(run) > 3
        or run.lower() in SHORT_WORDS
        or (len(run) > 1 and not run.islower() and not run.isupper())
        for run in runs
    )


def only_letters(cleaned: str) -> bool:
    """Whether it is letters alone, with a run of three or more, or with a blank between two runs of two."""
    text = plain(cleaned)
    runs = re.findall(r"[^\W\d_]+", text)
    has_others = re.search(r"[\d\\^_=+*/<>{}\[\]|]", text)
    is_name = len(runs) == 1 and runs[0] in _NAMES
    return (
        bool(runs) and not has_others and not is_name and max(map(len, runs)) >= 3 - (len(runs) > 1)
    )


def normal(cleaned: str) -> tuple[str, ...]:
    """The words that count: lower case, without articles, punctuation and ordinal endings."""
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", plain(cleaned).lower())
    text = re.sub(r"\s*:\s*", ":", text.replace("\\", " "))
    text = re.sub(r"(?<=\d) to (?=\d)", ":", _ORDINAL.sub("", text))
    text = re.sub(
        r"[^\w\s:+\-/.]|_|(?<!\d)\.|\.(?!\d)", lambda m: "" if m[0] in "'." else " ", text
    )
    words = [re.sub(r"^0+(?=\d:)", "", word) for word in text.split()]
    return tuple(word for word in words if word not in _ARTICLES) or tuple(words)


def choice_of(cleaned: str) -> str | None:
    """The letter of a reference that is a choice: (C), \\text{(C)}, C; None: it is none."""
    match = _CHOICE.fullmatch(plain(cleaned))
    return match[1] if match else None


def is_chosen(cleaned: str, letter: str) -> bool:
    """Whether a text names this one choice: C, (C), C., Option C, (C) 12."""
    match = _CHOSEN.fullmatch(plain(cleaned))
    if match is None:
        return False
    rest = match[3]
    has_another = re.search(r"\([A-Z]\)|\b(?:and|or|not)\b|^,?\s*[A-Z]\b", rest)
    return (match[1] or match[2]) == letter and not has_another
