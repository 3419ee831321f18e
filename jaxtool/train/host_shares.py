"""Which answers of a set of problems each host gives, and the whole set again from what all of them gave.

Answers to one problem are alike in length, so a host with all answers to a long problem ends last. With "samples" each
problem's answers are dealt out over the hosts, which leaves 1.03 to 1.04 times the mean work for the slowest of 16 where
"problems" leaves 1.11 to 1.16 (`jaxtool.plan.lengths.slowest_host`). The price: each prompt runs on several hosts.
Not covered: what an answer is; it is the same on every host.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxtool.core.types import Group, Problem, Sample, samples_of
from jaxtool.judges.judging import Judging
from jaxtool.parallel import hosts

HostShare = Literal["samples", "problems"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What one host is asked of a set: some problems, and of each the numbers of some samples."""

    indices: tuple[int, ...]  # of the problems in the set
    numbers: tuple[tuple[int, ...], ...]  # one tuple for each of them, not empty

    def of(self, problems: Sequence[Problem]) -> list[Problem]:
        return [problems[i] for i in self.indices]


def part_of(problems: int, samples: int, *, by: HostShare, host: int, num_hosts: int) -> Part:
    """The part of host number `host`; the parts of all hosts are the set, each answer once.

    Example, 3 problems of 2 samples on 2 hosts. "samples" deals 0.0 0.1 1.0 1.1 2.0 2.1 out in turn: host 0 has sample
    0 of each, host 1 sample 1. "problems": host 0 has problems 0 and 2, host 1 has problem 1.
    """
    numbers: dict[int, tuple[int, ...]] = {}
    for i in range(problems):
        if by == "problems":
            mine = tuple(range(samples)) if i % num_hosts == host else ()
        else:
            mine = tuple(s for s in range(samples) if (i * samples + s) % num_hosts == host)
        if mine:
            numbers[i] = mine
    return Part(indices=tuple(numbers), numbers=tuple(numbers.values()))


def own_part(problems: int, samples: int, by: HostShare) -> Part:
    """That of this process."""
    host, num_hosts = hosts.place()
    return part_of(problems, samples, by=by, host=host, num_hosts=num_hosts)


def merged(
    problems: Sequence[Problem], parts: Sequence[Part], groups: Sequence[Sequence[Group]]
) -> list[Group]:
    """One group of each problem with all its samples in order, from the groups of each part."""
    found: list[list[Sample]] = [[] for _ in problems]
    for part, own in zip(parts, groups, strict=True):
        for i, group in zip(part.indices, own, strict=True):
            found[i] += group.samples
    return [
        Group(problem=p, samples=tuple(sorted(samples, key=lambda s: s.trajectory.sample)))
        for p, samples in zip(problems, found, strict=True)
    ]


def judged_by_all_hosts(
    judging: Judging,
    problems: Sequence[Problem],
    asked: Sequence[tuple[int, Sequence[Group]]],
    by: HostShare,
) -> list[list[Group]]:
    """The groups of all hosts, judged: for each set that was asked one group of each problem.

    Each host judges its own answers. Then all hosts have all ledgers, so that rewards, n, filters, advantages, packing
    and metrics are those of one process on each of them.

    Args:
      problems: of all hosts.
      asked: for each set the samples of a problem, over all hosts, and the groups that this host collected.
    """
    # 1) One round of judging for all sets of this host.
    judged = judging.judged([group for _, own in asked for group in own])
    sizes, mine = [len(own) for _, own in asked], []
    for size in sizes:
        mine.append(judged[:size])
        judged = judged[size:]
    # 2) Everybody's, set by set.
    each = hosts.exchange(mine)
    whole = []
    for number, (samples, _) in enumerate(asked):
        parts = [
            part_of(len(problems), samples, by=by, host=host, num_hosts=len(each))
            for host in range(len(each))
        ]
        groups = merged(problems, parts, [one[number] for one in each])
        if any(len(group.samples) != samples for group in groups):
            lengths = sorted({len(group.samples) for group in groups})
            raise RuntimeError(
                f"hosts answered {len(samples_of(groups))} of {samples} x {len(problems)} samples ({lengths} of a "
                "problem): they do not run the same configuration"
            )
        whole.append(groups)
    return whole
