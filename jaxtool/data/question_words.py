"""Questions as sequences of words, by which they are compared: what spacing and capitals do not change."""

import re

_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> tuple[str, ...]:
    """Words and signs in order, folded: `Let x = 3.` is ("let", "x", "=", "3", ".")."""
    return tuple(_WORD.findall(text.casefold()))


def ngrams(words: tuple[str, ...], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` words; a shorter text is one run."""
    if len(words) <= n:
        return [words] if words else []
    return [words[i : i + n] for i in range(len(words) - n + 1)]
