"""Contamination: questions of test sets in data to train on, by shared runs of words.

Two questions, each with a rule of its own:

- Which test question does this row hold? (`EvaluationQuestions.match`) Tülu 3's rule (2411.15124): more than half
  of the test question's words lie in runs of 8 words that the row has as well. Deviation: words, not tokens.
- Which test questions stand in this file? (`contaminated`) GPT-3's rule (2005.14165, appendix C): one common run of
  13 words is enough.

Words and runs are those of `question_words`; a test question that is shorter than a run counts only where it is the
whole of another. Not covered: paraphrases, translations, other numbers in the same words, answers.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from jaxtool.core.types import Problem
from jaxtool.data.question_words import runs_of, words_of

NGRAM_WORDS = 8
MOST_COVERED = 0.5
USUAL_N = 13


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationQuestion:
    where: str  # file:line
    question: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """The evaluation question that a row holds."""

    where: str
    covered: float  # share of its words
    shared: str  # the first run of words that both have


def covered_words(evaluation: str, row: str, n: int = NGRAM_WORDS) -> float:
    """Share of the evaluation question's words in runs of `n` that the row has as well (Tülu 3)."""
    shared = set(runs_of(row, n))
    covered = [False] * len(words_of(evaluation))
    for start, run in enumerate(runs_of(evaluation, n)):
        if run in shared:
            stop = min(start + n, len(covered))
            covered[start:stop] = [True] * (stop - start)
    return sum(covered) / len(covered) if covered else 0.0


class EvaluationQuestions:
    """Evaluation questions by their runs of words."""

    def __init__(self, questions: Iterable[EvaluationQuestion]):
        self._questions = [(entry, len(words_of(entry.question))) for entry in questions]
        # Run of words -> where it begins: number of the question, and of the word in it.
        self._begins: dict[tuple[str, ...], list[tuple[int, int]]] = collections.defaultdict(list)
        for index, (entry, _) in enumerate(self._questions):
            for start, run in enumerate(runs_of(entry.question, NGRAM_WORDS)):
                self._begins[run].append((index, start))

    def __len__(self) -> int:
        return len(self._questions)

    def match(self, question: str) -> Held | None:
        """The evaluation question that `question` covers most, by `covered_words`; None: it holds none."""
        runs = list(dict.fromkeys(runs_of(question, NGRAM_WORDS)))
        starts: dict[int, list[int]] = collections.defaultdict(list)
        for run in runs:
            for index, start in self._begins.get(run, ()):
                starts[index].append(start)
        covered = {index: self._covered(index, starts[index]) for index in sorted(starts)}
        best = max(covered, key=lambda index: covered[index], default=None)
        if best is None or covered[best] <= MOST_COVERED:
            return None
        entry, size = self._questions[best]
        theirs = set(runs_of(entry.question, NGRAM_WORDS))
        first = next(run for run in runs if run in theirs)
        shared = entry.question if size < NGRAM_WORDS else " ".join(first)
        return Held(where=entry.where, covered=covered[best], shared=shared)

    def _covered(self, index: int, starts: Sequence[int]) -> float:
        """Share of the question's words in the runs that begin there."""
        size = self._questions[index][1]
        covered, end = 0, 0
        for start in sorted(starts):
            stop = min(start + NGRAM_WORDS, size)
            covered += stop - max(start, end)
            end = stop
        return covered / size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """A test question that stands in the file, and where."""

    test: Problem
    found: Problem  # the question of the file that shares most
    share: float  # of the test question's runs that stand in the file, in any of its questions


def contaminated(
    training: Iterable[Problem],
    test: Sequence[Problem],
    *,
    n: int = USUAL_N,
    least_share: float = 0.0,
) -> list[Match]:
    """The test questions that share runs with questions to train on, those with the largest share first (GPT-3).

    Args:
      training: gone through once; only runs of the test set are kept in memory.
      least_share: of a test question's runs that must be common; 0: one run is enough.

    Raises:
      ValueError: n is less than 1, or the share is no share.
    """
    if n < 1 or not 0 <= least_share <= 1:
        raise ValueError(f"{n=} must be 1 or more, and {least_share=} in 0..1")
    runs = [set(runs_of(problem.question, n)) for problem in test]
    holders: dict[tuple[str, ...], list[int]] = {}
    for index, own in enumerate(runs):
        for run in own:
            holders.setdefault(run, []).append(index)
    seen: list[set[tuple[str, ...]]] = [set() for _ in test]
    nearest: dict[int, tuple[int, Problem]] = {}
    for problem in training:
        common = [run for run in set(runs_of(problem.question, n)) if run in holders]
        shared = collections.Counter(index for run in common for index in holders[run])
        for run in common:
            for index in holders[run]:
                seen[index].add(run)
        for index, count in shared.items():
            if count > nearest.get(index, (0, problem))[0]:
                nearest[index] = (count, problem)
    matches = [
        Match(test=test[index], found=problem, share=len(seen[index]) / len(runs[index]))
        for index, (_, problem) in nearest.items()
    ]
    kept = [match for match in matches if match.share >= least_share]
    return sorted(kept, key=lambda match: (-match.share, match.test.problem_id))
