"""Questions that are in an evaluation set: shared runs of words, by the rule of Tülu 3 (2411.15124).

An evaluation question is in a row if more than half of its words lie in runs of 8 words that the row's
question has as well. One that is shorter than 8 words counts only where the words are the same.
Deviation: signs count as words. Not covered: paraphrases, translations, answers.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from jaxtool.data.question_words import ngrams, words_of

NGRAM_WORDS = 8
MOST_COVERED = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationQuestion:
    where: str  # file:line
    question: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """The evaluation question that a row holds."""

    where: str
    covered: float  # share of its words
    shared: str  # the first run of words that both have


def covered_words(evaluation: tuple[str, ...], row: tuple[str, ...], n: int = NGRAM_WORDS) -> float:
    """Share of the evaluation question's words in runs of `n` that the row has as well."""
    if len(evaluation) < n:
        return float(evaluation == row)
    shared = set(ngrams(row, n))
    covered = [False] * len(evaluation)
    for start, gram in enumerate(ngrams(evaluation, n)):
        if gram in shared:
            covered[start : start + n] = [True] * n
    return sum(covered) / len(covered)


class EvaluationQuestions:
    """Evaluation questions by their runs of words."""

    def __init__(self, questions: Iterable[EvaluationQuestion]):
        self._questions = [(entry, words_of(entry.question)) for entry in questions]
        # Run of words -> where it begins: number of the question, and of the word in it.
        self._begins: dict[tuple[str, ...], list[tuple[int, int]]] = collections.defaultdict(list)
        for index, (_, words) in enumerate(self._questions):
            for start, gram in enumerate(ngrams(words, NGRAM_WORDS)):
                self._begins[gram].append((index, start))

    def __len__(self) -> int:
        return len(self._questions)

    def match(self, question: str) -> Match | None:
        """The evaluation question that `question` covers most, by `covered_words`; None: it is in none."""
        grams = list(dict.fromkeys(ngrams(words_of(question), NGRAM_WORDS)))
        starts: dict[int, list[int]] = collections.defaultdict(list)
        for gram in grams:
            for index, start in self._begins.get(gram, ()):
                starts[index].append(start)
        covered = {index: self._covered(index, starts[index]) for index in sorted(starts)}
        best = max(covered, key=lambda index: covered[index], default=None)
        if best is None or covered[best] <= MOST_COVERED:
            return None
        entry, words = self._questions[best]
        theirs = set(ngrams(words, NGRAM_WORDS))
        shared = " ".join(next(gram for gram in grams if gram in theirs))
        return Match(where=entry.where, covered=covered[best], shared=shared)

    def _covered(self, index: int, starts: Sequence[int]) -> float:
        """Share of the question's words in the runs that begin there."""
        size = len(self._questions[index][1])
        covered, end = 0, 0
        for start in sorted(starts):
            stop = min(start + NGRAM_WORDS, size)
            covered += stop - max(start, end)
            end = stop
        return covered / size
