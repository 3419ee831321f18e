"""Problem sets of a made-up task: levels in their shares, drawn level by level and then shuffled together."""

import random
from collections.abc import Callable, Iterator, Sequence

from jaxtool.core.types import Problem
from jaxtool.data.problems import apportion


def mixed_problems(
    levels: Sequence[str],
    shares: Sequence[float],
    count: int,
    questions: Callable[[str], Iterator[str]],
    make_problem: Callable[[str, str], Problem],
    draw: random.Random,
) -> list[Problem]:
    """`count` problems, each level with its share of them, in a random order.

    Args:
      shares: of the levels; they sum to 1.
      questions: endless questions of a level, drawn with `draw`, the same generator.
      make_problem: of a question and its level.
    """
    problems = []
    for level, wanted in zip(levels, apportion(tuple(shares), count), strict=True):
        source = questions(level)
        problems += [make_problem(next(source), level) for _ in range(wanted)]
    draw.shuffle(problems)
    return problems
