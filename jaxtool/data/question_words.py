"""Questions as runs of words, by which they are compared: what spacing, capitals and signs do not change.

Words are runs of letters and digits after Unicode's NFKC, folded; punctuation, blanks and the signs of LaTeX part
them, as in GPT-3 (2005.14165, appendix C). A text of fewer words than a run is compared as a whole and with its
signs, so that 3+4 and 3*4 are two questions.
"""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> tuple[str, ...]:
    """`Find $x^2$, please.` is ("find", "x", "2", "please")."""
    return tuple(_WORD.findall(_folded(text)))


def runs_of(text: str, n: int) -> list[tuple[str, ...]]:
    """All runs of `n` words in order; a shorter text is one run, its signs included; none where it has no word."""
    words = words_of(text)
    if len(words) < n:
        return [(_whole(text),)] if words else []
    return [words[i : i + n] for i in range(len(words) - n + 1)]


def _whole(text: str) -> str:
    """`What is 3 + 4 ?` is whatis3+4: without blanks and the marks at its end."""
    return "".join(_folded(text).split()).rstrip(".?!")


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
