"""Problems chosen by how often they were solved: those that are always or never solved teach nothing.

With 0 < solve rate < 1 every group of samples may hold right and wrong answers (DAPO, 2503.14476, section 3.2,
drops the others step by step; Demystifying, 2510.11701, chooses them before training by 8 samples of the policy
itself). Not covered: measuring, which is an evaluation's; rates that change as a run goes on.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jaxtool.core.types import Problem
from jaxtool.data.evaluated import COLUMNS, evaluated_files, is_evaluation
from jaxtool.data.problem_rows import question_hash
from jaxtool.data.problems import Split, Task
from jaxtool.data.rows import Row, read_rows

_RATE, _COUNTS, _VERDICT = "solve_rate", ("correct", "samples"), "is_correct"
_FORM = f"{_RATE!r}, or {_COUNTS[0]!r} and {_COUNTS[1]!r}, or {_VERDICT!r} of one answer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difficulty:
    """The training problems of a task whose measured solve rate is between two bounds.

    The other splits stay as they are, so that figures of two runs are about the same questions.
    """

    task: Task
    # Rows of `question` or `problem_id`, and `solve_rate` in 0..1, or `correct` and `samples`, or, where a row is
    # one answer, `is_correct`. Several rows of a problem are taken together. Or the work directory of an evaluation:
    # "runs/eval", "runs/eval:POLICY" or "runs/eval:POLICY/CONDITION".
    rates: str
    above: float = 0.0  # the solve rate must be above this
    below: float = 1.0  # and below this
    unmeasured: Literal["drop", "keep"] = "drop"  # problems without a rate

    def __post_init__(self) -> None:
        if not -1 <= self.above < self.below <= 2:
            raise ValueError(
                f"Difficulty.above={self.above} must be less than Difficulty.below={self.below}"
            )
        if self.unmeasured not in ("drop", "keep"):
            raise ValueError(f"Difficulty.unmeasured={self.unmeasured!r} must be 'drop' or 'keep'")

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` problems of a split, drawn by the seed; None: all.

        Raises:
          ValueError: fewer are left, or the file of rates cannot be read.
        """
        if split != "train":
            return self.task.problems(split, count, seed)
        pool = self.task.problems(split, None, seed)  # in an order that the seed drew
        kept = [problem for problem in pool if self._is_kept(problem)]
        if count is not None and count > len(kept):
            raise ValueError(f"{count} training problems asked for, and {self._left(pool, kept)}")
        if not kept:
            raise ValueError(f"no training problem is left: {self._left(pool, kept)}")
        return kept if count is None else kept[:count]

    def summary(self, seed: int) -> str:
        """One line: how many are left."""
        pool = self.task.problems("train", None, seed)
        return self._left(pool, [problem for problem in pool if self._is_kept(problem)])

    def _is_kept(self, problem: Problem) -> bool:
        rate = self._rates.get(_key(problem.question), self._rates.get(problem.problem_id))
        if rate is None:
            return self.unmeasured == "keep"
        return self.above < rate < self.below

    def _left(self, pool: list[Problem], kept: list[Problem]) -> str:
        rates = self._rates
        known = sum(_key(p.question) in rates or p.problem_id in rates for p in pool)
        return (
            f"{len(kept):,} of {len(pool):,} are left by {self.above:g} < solve rate < {self.below:g} of "
            f"{self.rates}, which measures {known:,} of them"
        )

    @functools.cached_property
    def _rates(self) -> dict[str, float]:
        """Solve rates by question, or by problem_id where a row has no question."""
        right: dict[str, float] = {}
        asked: dict[str, float] = {}
        for row in self._rows():
            if row.values.get("is_lost") is True:  # nobody knows whether it is right
                continue
            name = _name_of(row)
            correct, samples = _counts_of(row)
            right[name] = right.get(name, 0.0) + correct
            asked[name] = asked.get(name, 0.0) + samples
        if not asked:
            raise ValueError(f"{self.rates}: the file holds no solve rate")
        return {name: right[name] / asked[name] for name in asked}

    def _rows(self) -> Iterator[Row]:
        if not is_evaluation(self.rates):
            yield from read_rows(self.rates)
            return
        for file in evaluated_files(self.rates):
            yield from read_rows(file, COLUMNS)


def _key(question: str) -> str:
    return f"question {question_hash(question)}"


def _name_of(row: Row) -> str:
    for key in ("question", "problem_id"):
        value = row.values.get(key)
        if isinstance(value, str) and value:
            return _key(value) if key == "question" else value
    raise ValueError(f"{row.where}: the row names no problem: 'question' or 'problem_id' is needed")


def _counts_of(row: Row) -> tuple[float, float]:
    """Right answers and answers of a row."""
    values: Mapping[str, Any] = row.values
    verdict = values.get(_VERDICT)
    if isinstance(verdict, bool):
        return float(verdict), 1.0
    correct, samples = (_number(values.get(key)) for key in _COUNTS)
    if correct is not None and samples is not None and 0 <= correct <= samples and samples > 0:
        return correct, samples
    rate = _number(values.get(_RATE))
    if rate is not None and 0 <= rate <= 1:
        return rate, 1.0
    shown = {key: values[key] for key in (_RATE, *_COUNTS, _VERDICT) if key in values}
    raise ValueError(
        f"{row.where}: the row has no solve rate: {_FORM} is needed, and it has {shown}"
    )


def _number(value: Any) -> float | None:
    """A finite number; None: it is something else."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_one and math.isfinite(value) else None
