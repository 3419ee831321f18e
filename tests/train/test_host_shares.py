"""Each answer is given by one host, work is even, and the groups come back whole and in order."""

import itertools

import numpy as np
import pytest

from jaxtool.core.types import Group, Problem, Sample, Trajectory
from jaxtool.train.host_shares import merged, part_of

BOTH = ("samples", "problems")


def test_the_worked_example():
    first, second = (part_of(3, 2, by="samples", host=h, num_hosts=2) for h in range(2))
    assert (first.indices, first.numbers) == ((0, 1, 2), ((0,), (0,), (0,)))
    assert (second.indices, second.numbers) == ((0, 1, 2), ((1,), (1,), (1,)))
    first, second = (part_of(3, 2, by="problems", host=h, num_hosts=2) for h in range(2))
    assert (first.indices, first.numbers) == ((0, 2), ((0, 1), (0, 1)))
    assert (second.indices, second.numbers) == ((1,), ((0, 1),))


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize(("problems", "samples"), [(3, 4), (1, 16), (7, 1), (2, 3), (4, 0), (0, 4)])
@pytest.mark.parametrize("num_hosts", [1, 2, 3, 16])
def test_each_answer_once(by, problems, samples, num_hosts):
    parts = [
        part_of(problems, samples, by=by, host=h, num_hosts=num_hosts) for h in range(num_hosts)
    ]
    given = [
        (i, s)
        for part in parts
        for i, own in zip(part.indices, part.numbers, strict=True)
        for s in own
    ]
    assert sorted(given) == list(itertools.product(range(problems), range(samples)))
    assert all(own for part in parts for own in part.numbers)
    counts = [sum(map(len, part.numbers)) for part in parts]
    assert max(counts) - min(counts) <= (1 if by == "samples" else samples)


def group(problem: Problem, numbers) -> Group:
    none = np.zeros(0, np.int32)
    return Group(
        problem=problem,
        samples=tuple(
            Sample(
                trajectory=Trajectory(
                    problem=problem,
                    sample=s,
                    ids=none,
                    origins=none.astype(np.int8),
                    behaviour_logprobs=none.astype(np.float32),
                    policy_versions=none,
                )
            )
            for s in numbers
        ),
    )


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("num_hosts", [1, 2, 5])
def test_groups_come_back_whole_and_in_order(by, num_hosts):
    """Two problems of one name are still two groups."""
    problems = [Problem(problem_id=name, question="", answer="") for name in "abca"]
    parts = [part_of(4, 3, by=by, host=h, num_hosts=num_hosts) for h in range(num_hosts)]
    groups = [
        [group(p, own) for p, own in zip(part.of(problems), part.numbers, strict=True)]
        for part in parts
    ]
    found = merged(problems, parts, groups)
    assert [g.problem.problem_id for g in found] == list("abca")
    assert [[t.sample for t in g.trajectories] for g in found] == [[0, 1, 2]] * 4
