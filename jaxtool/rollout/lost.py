"""Samples that the infrastructure lost: who they are, and asking for them once more.

Those that are lost are those that call. So what is left without them is no fair sample: of a group in
training, or of the answers of an evaluation.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from jaxtool.core.types import Group, Problem


def lost_to_text(lost_to: Mapping[str, int]) -> str:
    """Who lost how many, in words: `3 to python, 1 to the judge`; "" where nobody noted it."""
    return ", ".join(
        f"{count} to {'the judge' if name == 'judge' else name}" for name, count in lost_to.items()
    )


# Answers problems: of each of them the samples with these numbers.
Collect: TypeAlias = Callable[[Sequence[Problem], Sequence[Sequence[int]]], Sequence[Group]]


def ask_lost_again(groups: Sequence[Group], collect: Collect) -> list[Group]:
    """The groups, with what was lost replaced by what a second try brings; it may be lost again.

    Args:
      collect: answers problems as the first time, with the same random keys, so that a second try gives
        the answer that the first would have given.
    """
    broken = [group for group in groups if not group.is_whole]
    if not broken:
        return list(groups)
    numbers = [[sample.trajectory.sample for sample in group.samples] for group in broken]
    return with_second_try(groups, collect(lost_problems(groups), numbers))


def lost_problems(groups: Sequence[Group]) -> list[Problem]:
    """The problems of groups that lost a sample, in order."""
    return [group.problem for group in groups if not group.is_whole]


def with_second_try(groups: Sequence[Group], again: Sequence[Group]) -> list[Group]:
    """The groups, with the lost samples of each broken one taken from its second try.

    Args:
      again: of `lost_problems(groups)`, in that order.
    """
    found = list(groups)
    broken = [i for i, group in enumerate(groups) if not group.is_whole]
    for i, second in zip(broken, again, strict=True):
        samples = tuple(
            new if old.is_masked else old
            for old, new in zip(groups[i].samples, second.samples, strict=True)
        )
        found[i] = dataclasses.replace(groups[i], samples=samples)
    return found
