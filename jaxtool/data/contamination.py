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
        self._with: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
        for index, (_, words) in enumerate(self._questions):
            for gram in set(ngrams(words, NGRAM_WORDS)):
                self._with[gram].append(index)

    def __len__(self) -> int:
        return len(self._questions)

    def match(self, question: str) -> Match | None:
        """The evaluation question that `question` covers most; None where it is in none."""
        row = words_of(question)
        grams = ngrams(row, NGRAM_WORDS)
        candidates = sorted({i for gram in grams for i in self._with.get(gram, ())})
        covered = {i: covered_words(self._questions[i][1], row) for i in candidates}
        best = max(covered, key=lambda i: covered[i], default=None)
        if best is None or covered[best] <= MOST_COVERED:
            return None
        return Match(
            where=self._questions[best][0].where,
            covered=covered[best],
            shared=_first_shared(grams, self._questions[best][1]),
        )


def _first_shared(grams: Sequence[tuple[str, ...]], words: tuple[str, ...]) -> str:
    theirs = set(ngrams(words, NGRAM_WORDS))
    return " ".join(next(gram for gram in grams if gram in theirs))
