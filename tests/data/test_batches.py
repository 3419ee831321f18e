"""The stream of problems: resumable exactly, shuffled anew, nothing twice in a batch."""

import itertools
import json

import pytest

from jaxtool.core.types import Problem
from jaxtool.data.batches import ProblemBatches


def make_problems(count: int) -> list[Problem]:
    return [Problem(problem_id=f"p{i}", question=str(i), answer="1") for i in range(count)]


def take(batches: ProblemBatches, count: int) -> list[list[str]]:
    return [[p.problem_id for p in batch] for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize("stop", [0, 1, 3, 5, 11])
def test_interrupted_equals_uninterrupted(stop: int):
    """Through JSON into another object; the stops lie before, in and after the epoch's last batch."""
    whole = take(ProblemBatches(make_problems(10), batch_size=3, seed=7), 20)
    first = ProblemBatches(make_problems(10), batch_size=3, seed=7)
    before = take(first, stop)
    state = json.loads(json.dumps(first.get_state()))
    resumed = ProblemBatches(make_problems(10), batch_size=3, seed=7)
    take(resumed, 2)
    resumed.set_state(state)
    assert before + take(resumed, 20 - stop) == whole


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (10, 5), (7, 7), (5, 1), (9, 2)])
def test_no_problem_twice_in_an_epoch(count: int, batch_size: int):
    batches = take(ProblemBatches(make_problems(count), batch_size=batch_size, seed=0), 60)
    an_epoch = count // batch_size
    for start in range(0, 60 - an_epoch + 1, an_epoch):
        seen = [p for batch in batches[start : start + an_epoch] for p in batch]
        assert len(seen) == len(set(seen)) == an_epoch * batch_size


def test_every_problem_comes_although_epochs_drop_a_rest():
    batches = take(ProblemBatches(make_problems(10), batch_size=4, seed=0), 40)
    assert {p for batch in batches for p in batch} == {f"p{i}" for i in range(10)}


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
    with pytest.raises(ValueError, match="'p0' stands for more than one problem"):
        ProblemBatches(make_problems(2) + make_problems(1), batch_size=1, seed=0)
