"""Calculations for small pretrained policies: products, chain sums, one-digit sums. A question is an expression.

A 135M-parameter chat model does the one-digit sums alone and the rest only with code, so that groups
have mixed rewards and fewer calls are possible. Split by a hash of the question, as every task here.
"""

import dataclasses
import random

from jaxtool.core.ranges import check_range
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem
from jaxtool.data.problems import Split, apportion, number_of, split_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalculationTask:
    """Shares of the three kinds of question."""

    one_digit_sum: float = 0.2
    chain_sum: float = 0.3  # two to four terms of one to three digits
    product: float = 0.5  # two or three digits times two digits

    def __post_init__(self) -> None:
        check_range(self, *(field.name for field in dataclasses.fields(self)), least=0, most=1)
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"the shares of CalculationTask must sum to 1, got {self.shares}")

    @property
    def shares(self) -> tuple[float, ...]:
        return (self.one_digit_sum, self.chain_sum, self.product)

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` problems of one split, kinds in their shares, shuffled."""
        draw = random.Random(stream_seed(seed, "calculations", split))
        problems: list[Problem] = []
        counts = apportion(self.shares, number_of(count, "CalculationTask"))
        for level, wanted in zip(_MAKERS, counts, strict=True):
            while wanted:
                question, answer = _MAKERS[level](draw)
                if split_of(question, salt="calculations") != split:
                    continue
                problems.append(
                    Problem(
                        problem_id=f"calculations/{question}",
                        question=question,
                        answer=str(answer),
                        level=level,
                    )
                )
                wanted -= 1
        draw.shuffle(problems)
        return problems


def _one_digit_sum(draw: random.Random) -> tuple[str, int]:
    a, b = draw.randrange(10), draw.randrange(10)
    return f"{a} + {b}", a + b


def _chain_sum(draw: random.Random) -> tuple[str, int]:
    total = draw.randrange(10, 1000)  # two digits or more: never a one-digit sum
    text = str(total)
    for _ in range(draw.randint(1, 3)):
        term = draw.randrange(1, 10 ** draw.randint(1, 3))
        sign = draw.choice((1, -1))
        text += f" {'+' if sign > 0 else '-'} {term}"
        total += sign * term
    return text, total


def _product(draw: random.Random) -> tuple[str, int]:
    a, b = draw.randrange(10, 1000), draw.randrange(10, 100)
    return f"{a} * {b}", a * b


_MAKERS = {"one_digit_sum": _one_digit_sum, "chain_sum": _chain_sum, "product": _product}
