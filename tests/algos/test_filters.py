"""Groups that teach something, and GRPO-RoC's choice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtool.algos.filters import groups_with_spread, resample_on_correct


def test_groups_with_spread_by_hand():
    """(1, 0): std ½; (.1, .1, .1): none; (1, masked): one member; (0, .2): std .1."""
    rewards = np.array([1, 0, 0.1, 0.1, 0.1, 1, 9, 0, 0.2], np.float32)
    groups = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3], np.int32)
    is_valid = np.array([True] * 6 + [False, True, True])
    keeps = groups_with_spread(rewards, groups, 4, is_valid, min_std=0.0)
    assert keeps.tolist() == [True, False, False, True]
    keeps = groups_with_spread(rewards, groups, 4, is_valid, min_std=0.2)
    assert keeps.tolist() == [True, False, False, False]


@given(reward=st.floats(-10, 10, width=32), size=st.integers(1, 9))
def test_equal_rewards_never_count_as_spread(reward, size):
    rewards = np.full(size, reward, np.float32)
    group = np.zeros(size, np.int32), 1, np.ones(size, bool)
    assert not groups_with_spread(rewards, *group, min_std=0.0).any()


def test_resample_on_correct_by_hand():
    """Three right and one wrong, two are kept: 2 ⋅ ¼ = ½ wrong ones, rounded up to one.

    Keys of the right: ln .5 ⋅ 1 = -.69; ln .5 ⋅ .5 = -.35; ln .2 ⋅ .25 = -.40: the second is kept.
    """
    chosen = resample_on_correct(
        np.array([True, True, False, True]),
        np.array([1.0, 0.5, 9.0, 0.25]),
        2,
        np.array([0.5, 0.5, 0.1, 0.2]),
    )
    assert chosen.tolist() == [1, 2]


@settings(max_examples=60)
@given(
    right=st.lists(st.booleans(), min_size=1, max_size=16),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_the_share_of_wrong_ones_stays(right, seed, data):
    keep = data.draw(st.integers(1, len(right)))
    rng = np.random.default_rng(seed)
    chosen = resample_on_correct(
        np.array(right), rng.random(len(right)), keep, rng.random(len(right)) * 0.98 + 0.01
    )
    assert len(set(chosen.tolist())) == keep
    wrong = right.count(False)
    kept_wrong = sum(not right[i] for i in chosen)
    assert abs(kept_wrong - wrong * keep / len(right)) <= 0.5 + 1e-9


def test_clean_traces_are_kept_in_proportion_to_the_inverse_penalty():
    """Two right ones of penalties 1 and 3, one is kept: odds 3 to 1."""
    rng = np.random.default_rng(0)
    both = np.array([True, True]), np.array([1.0, 3.0]), 1
    kept = [int(resample_on_correct(*both, rng.random(2))[0]) for _ in range(4000)]
    assert np.mean(np.array(kept) == 0) == pytest.approx(0.75, abs=0.02)


def test_more_than_there_are_cannot_be_kept():
    with pytest.raises(ValueError, match="cannot keep 3 of 2"):
        resample_on_correct(np.ones(2, bool), np.ones(2), 3, np.full(2, 0.5))
