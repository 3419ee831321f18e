"""The store of n: what each estimator says, and that a checkpoint holds all of it."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.rewards.fewest_calls import (
    MAX_WINDOW_GROUPS,
    CallHistory,
    CallStore,
    FewestCalls,
    GlobalMinimum,
    KSuccesses,
    LowerQuantile,
    WindowMinimum,
)

GROUPS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=50)


def history_of(*groups: list[int]) -> CallHistory:
    history = CallHistory()
    for group in groups:
        history = history.with_group(group)
    return history


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (GlobalMinimum(), 0),
        (WindowMinimum(groups=1), 2),
        (WindowMinimum(groups=2), 1),
        (WindowMinimum(groups=3), 0),
        (LowerQuantile(q=0.1), 0),  # 1 of 10 made 0 calls
        (LowerQuantile(q=0.2), 1),  # 2 of 10 made at most 1
        (LowerQuantile(q=0.5), 2),
        (KSuccesses(k=1), 0),
        (KSuccesses(k=2), 1),
        (KSuccesses(k=11), None),
    ],
)
def test_estimators_by_hand(estimator: FewestCalls, expected: int | None):
    assert estimator(history_of([2, 0, 2, 2], [2, 1, 3], [], [2, 2, 2])) == expected


@pytest.mark.parametrize(
    "estimator", [GlobalMinimum(), WindowMinimum(), LowerQuantile(), KSuccesses()]
)
def test_nothing_is_known_of_a_problem_nobody_solved(estimator: FewestCalls):
    assert estimator(history_of([], [])) is None


def test_a_group_without_a_correct_trajectory_stores_nothing():
    store = CallStore()
    assert store.update("p", []) == CallHistory()
    assert len(store) == 0
    assert store.state_dict() == {}


@given(groups=GROUPS)
def test_estimators_agree_with_the_plain_definition(groups: list[list[int]]):
    history = history_of(*groups)
    everyone = sorted(calls for group in groups for calls in group)
    minima = [min(group) for group in groups if group]
    assert GlobalMinimum()(history) == min(everyone, default=None)
    assert KSuccesses(k=1)(history) == GlobalMinimum()(history)
    assert KSuccesses(k=3)(history) == (everyone[2] if len(everyone) >= 3 else None)
    assert WindowMinimum(groups=5)(history) == min(minima[-5:], default=None)
    assert LowerQuantile(q=1.0)(history) == max(everyone, default=None)


@given(groups=GROUPS)
def test_the_global_minimum_never_rises(groups: list[list[int]]):
    history, last = CallHistory(), None
    for group in groups:
        history = history.with_group(group)
        n = GlobalMinimum()(history)
        assert last is None or (n is not None and n <= last)
        last = n


@given(groups=st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 9)))))
def test_state_survives_json_and_later_updates_go_on_alike(groups: list[tuple[str, list[int]]]):
    whole, half = CallStore(), CallStore()
    for problem_id, calls in groups[: len(groups) // 2]:
        whole.update(problem_id, calls)
        half.update(problem_id, calls)
    resumed = CallStore.from_state_dict(json.loads(json.dumps(half.state_dict())))
    for problem_id, calls in groups[len(groups) // 2 :]:
        assert whole.update(problem_id, calls) == resumed.update(problem_id, calls)
    assert json.dumps(whole.state_dict()) == json.dumps(resumed.state_dict())


def test_state_does_not_depend_on_the_order_of_problems_or_members():
    one, other = CallStore(), CallStore()
    one.update("a", [3, 1])
    one.update("b", [2])
    other.update("b", [2])
    other.update("a", [1, 3])
    assert json.dumps(one.state_dict()) == json.dumps(other.state_dict())


def test_the_history_stays_small():
    history = history_of(*[[i % 3] for i in range(1000)])
    assert len(history.group_minima) == MAX_WINDOW_GROUPS
    assert len(history.counts) == 3


def test_an_update_leaves_earlier_histories_alone():
    store = CallStore()
    before = store.update("p", [2])
    store.update("p", [0])
    assert before == history_of([2])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WindowMinimum(groups=0), r"groups must be in 1\.\.32: self.groups=0"),
        (lambda: WindowMinimum(groups=MAX_WINDOW_GROUPS + 1), "self.groups=33"),
        (lambda: LowerQuantile(q=0.0), "self.q=0.0"),
        (lambda: LowerQuantile(q=1.5), "self.q=1.5"),
        (lambda: KSuccesses(k=0), "self.k=0"),
        (lambda: CallHistory().with_group([2, -1]), "calls cannot be negative"),
    ],
)
def test_bad_estimators_and_counts_are_refused(build: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_share_of_a_quantile_is_not_lost_to_rounding():
    """0.07 * 100 is 7.000000000000001: seven of a hundred are seven hundredths."""
    assert 0.07 * 100 > 7
    assert LowerQuantile(q=0.07)(history_of([0] * 7 + [1] * 93)) == 0
