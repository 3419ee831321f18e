"""The stream of problems: resumable exactly, shuffled anew, nothing twice in a batch."""

import itertools
import json
from collections import Counter

import pytest

from jaxtool.core.types import Problem
from jaxtool.data.batches import ProblemBatches


def make_problems(count: int) -> list[Problem]:
    return [Problem(problem_id=f"p{i}", question=str(i), answer="1") for i in range(count)]


def take(batches: ProblemBatches, count: int) -> list[list[str]]:
    return [[p.problem_id for p in batch] for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize("stop", [0, 1, 3, 5, 11])
def test_interrupted_equals_uninterrupted(stop: int):
    """Through JSON into another object; the stops lie before, in and after the end of an epoch."""
    whole = take(ProblemBatches(make_problems(10), batch_size=3, seed=7), 20)
    first = ProblemBatches(make_problems(10), batch_size=3, seed=7)
    before = take(first, stop)
    state = json.loads(json.dumps(first.get_state()))
    resumed = ProblemBatches(make_problems(10), batch_size=3, seed=7)
    take(resumed, 2)
    resumed.set_state(state)
    assert before + take(resumed, 20 - stop) == whole


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (10, 5), (7, 7), (5, 1), (9, 2)])
def test_every_entry_comes_once_an_epoch(count: int, batch_size: int):
    """Up to those that wait, fewer than a batch."""
    stream = ProblemBatches(make_problems(count), batch_size=batch_size, seed=0)
    for batches in range(1, 40):
        [batch] = take(stream, 1)
        assert len(set(batch)) == batch_size
        if batches == 1:
            seen = Counter({f"p{i}": 0 for i in range(count)})
        seen.update(batch)
        assert max(seen.values()) - min(seen.values()) <= 2
    waiting = len(stream.get_state()["waiting"])
    assert waiting < batch_size


@pytest.mark.parametrize("stop", [1, 2, 9])
def test_copies_keep_their_share_and_never_meet_in_a_batch(stop: int):
    """p0 stands 5 times in 20, so it is in every batch of 4, once; it survives a restart too."""
    problems = make_problems(16) + make_problems(1) * 4
    stream = ProblemBatches(problems, batch_size=4, seed=1)
    before = take(stream, stop)
    state = json.loads(json.dumps(stream.get_state()))
    after = take(stream, 50 - stop)
    resumed = ProblemBatches(problems, batch_size=4, seed=1)
    resumed.set_state(state)
    assert take(resumed, 50 - stop) == after
    batches = before + after
    assert all(len(set(batch)) == 4 for batch in batches)
    copies = sum("p0" in batch for batch in batches)
    assert 45 <= copies <= 50
    assert len(stream.get_state()["waiting"]) <= 5


def test_epochs_and_seeds_have_orders_of_their_own():
    """Seed s, epoch 1 is not seed s + 1, epoch 0, as it is with grain's own seeds."""
    orders = [
        tuple(order)
        for seed in range(4)
        for order in take(ProblemBatches(make_problems(20), batch_size=20, seed=seed), 4)
    ]
    assert len(set(orders)) == 16


def test_the_same_seed_is_the_same_stream():
    first, second = (
        take(ProblemBatches(make_problems(9), batch_size=2, seed=3), 9) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(("count", "batch_size", "seed"), [(11, 3, 7), (10, 2, 7), (10, 3, 8)])
def test_a_position_in_another_stream_is_refused(count: int, batch_size: int, seed: int):
    state = ProblemBatches(make_problems(10), batch_size=3, seed=7).get_state()
    other = ProblemBatches(make_problems(count), batch_size=batch_size, seed=seed)
    with pytest.raises(ValueError, match="belongs to other problems, batch size or seed"):
        other.set_state(state)


@pytest.mark.parametrize("batch_size", [0, 4])
def test_a_batch_must_fit(batch_size: int):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size} must be in 1\.\.3"):
        ProblemBatches(make_problems(3), batch_size=batch_size, seed=0)


def test_one_id_for_two_problems_is_refused():
    numerics = Problem(problem_id="p0", question="another", answer="1")
    with pytest.raises(ValueError, match="'p0' stands for two different problems"):
        ProblemBatches([*make_problems(2), numerics], batch_size=1, seed=0)


def test_a_problem_that_would_fill_the_batches_is_refused():
    with pytest.raises(ValueError, match=r"'p0' stands 3 times among 5 problems: .* batch of 2"):
        ProblemBatches(make_problems(3) + make_problems(1) * 2, batch_size=2, seed=0)
