"""Whether questions of test sets stand in a file to train on: by n-grams of words.

The usual choice, and the default: n = 13 words, and one common n-gram is enough (GPT-3, 2005.14165, appendix C).
Tülu 3 (2411.15124) takes n = 8 and half of the test question's tokens; shares here are of its n-grams. Words are runs
of letters and digits in lower case after Unicode's NFKC; punctuation, blanks and the signs of LaTeX part them. A
question of fewer than n words is one n-gram as a whole.
Not covered: paraphrases, translations, other numbers in the same words.
"""

import dataclasses
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from jaxtool.core.types import Problem

_WORD = re.compile(r"[^\W_]+")
USUAL_N = 13


def words_of(text: str) -> list[str]:
    """`Find $x^2$, please.` -> find, x, 2, please."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def ngrams_of(text: str, n: int) -> set[tuple[str, ...]]:
    """All runs of n words; the whole text where it has fewer; none where it has no word."""
    words = words_of(text)
    if len(words) < n:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """A test question that stands in the file, and where."""

    test: Problem
    found: Problem  # the question of the file that shares most
    share: float  # of the test question's n-grams that stand in the file, in any of its questions


def contaminated(
    training: Iterable[Problem],
    test: Sequence[Problem],
    *,
    n: int = USUAL_N,
    least_share: float = 0.0,
) -> list[Match]:
    """The test questions that share n-grams with questions to train on, those with the largest share first.

    Args:
      training: gone through once; only n-grams of the test set are kept in memory.
      least_share: of a test question's n-grams that must be common; 0: one n-gram is enough.

    Raises:
      ValueError: n is less than 1, or the share is no share.
    """
    if n < 1 or not 0 <= least_share <= 1:
        raise ValueError(f"{n=} must be 1 or more, and {least_share=} in 0..1")
    grams = [ngrams_of(problem.question, n) for problem in test]
    holders: dict[tuple[str, ...], list[int]] = {}
    for index, own in enumerate(grams):
        for gram in own:
            holders.setdefault(gram, []).append(index)
    seen: list[set[tuple[str, ...]]] = [set() for _ in test]
    nearest: dict[int, tuple[int, Problem]] = {}
    for problem in training:
        common = [gram for gram in ngrams_of(problem.question, n) if gram in holders]
        shared = Counter(index for gram in common for index in holders[gram])
        for gram in common:
            for index in holders[gram]:
                seen[index].add(gram)
        for index, count in shared.items():
            if count > nearest.get(index, (0, problem))[0]:
                nearest[index] = (count, problem)
    matches = [
        Match(test=test[index], found=problem, share=len(seen[index]) / len(grams[index]))
        for index, (_, problem) in nearest.items()
    ]
    kept = [match for match in matches if match.share >= least_share]
    return sorted(kept, key=lambda match: (-match.share, match.test.problem_id))
