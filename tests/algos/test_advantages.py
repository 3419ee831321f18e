"""Group-relative advantages: hand-computed groups, invariances, masked and single members."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtool.algos.advantages import (
    batch_normalized_advantages,
    group_advantages,
    leave_one_out_advantages,
    shaped_advantages,
)


def one_group(rewards: list[float], *, with_std: bool) -> np.ndarray:
    size = len(rewards)
    return group_advantages(
        np.array(rewards, np.float32),
        np.zeros(size, np.int32),
        1,
        np.ones(size, bool),
        normalizes_by_std=with_std,
    )


def random_batch(seed: int, num_groups: int = 4, size: int = 5):
    rng = np.random.default_rng(seed)
    group_ids = rng.permutation(np.repeat(np.arange(num_groups, dtype=np.int32), size))
    rewards = rng.choice([-1.0, 0.0, 0.5, 1.0], group_ids.size).astype(np.float32)
    return rewards, group_ids, rng.random(group_ids.size) < 0.8


def test_hand_computed_group():
    # mean 1/4; deviations 3/4, -1/4 x 3; Σd² = 12/16; sample variance 1/4; std 1/2
    np.testing.assert_allclose(
        one_group([1, 0, 0, 0], with_std=True), [1.5, -0.5, -0.5, -0.5], rtol=1e-5
    )
    np.testing.assert_allclose(
        one_group([1, 0, 0, 0], with_std=False), [0.75, -0.25, -0.25, -0.25], rtol=1e-6
    )


def test_otc_turns_a_small_coefficient_into_the_main_signal():
    """All eight correct, six with one call and two with two at n = 1 (sin(2π/3) = .866)."""
    rewards = [1.0] * 6 + [0.8660254] * 2
    np.testing.assert_allclose(
        one_group(rewards, with_std=True), [0.54] * 6 + [-1.62] * 2, atol=5e-3
    )
    np.testing.assert_allclose(
        one_group(rewards, with_std=False), [0.0335] * 6 + [-0.1005] * 2, atol=1e-4
    )


@pytest.mark.parametrize("with_std", [True, False])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_order_of_rows_does_not_matter(with_std: bool, seed: int):
    rewards, group_ids, is_valid = random_batch(seed)
    order = np.random.default_rng(seed + 1).permutation(rewards.size)
    whole = group_advantages(rewards, group_ids, 4, is_valid, normalizes_by_std=with_std)
    permuted = group_advantages(
        rewards[order], group_ids[order], 4, is_valid[order], normalizes_by_std=with_std
    )
    np.testing.assert_allclose(permuted, whole[order], atol=1e-6)


@pytest.mark.parametrize("with_std", [True, False])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_each_group_is_scored_alone_and_masked_members_do_not_count(with_std: bool, seed: int):
    rewards, group_ids, is_valid = random_batch(seed)
    rewards = np.where(is_valid, rewards, np.nan)
    whole = group_advantages(rewards, group_ids, 4, is_valid, normalizes_by_std=with_std)
    for group in range(4):
        rows = (group_ids == group) & is_valid
        alone = one_group(list(rewards[rows]), with_std=with_std)
        wanted = alone if rows.sum() > 1 else np.zeros(rows.sum())
        np.testing.assert_allclose(whole[rows], wanted, atol=1e-6)
    np.testing.assert_array_equal(whole[~is_valid], 0.0)


@pytest.mark.parametrize("with_std", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.80901699, -1.0])
def test_equal_rewards_give_exactly_zero(with_std: bool, value: float):
    for size in range(2, 18):
        np.testing.assert_array_equal(one_group([value] * size, with_std=with_std), 0.0)


def test_a_group_of_one_has_mean_0_and_std_1():
    np.testing.assert_allclose(one_group([-1.0], with_std=True), [-1.0], rtol=2e-6)
    np.testing.assert_allclose(one_group([0.5], with_std=False), [0.5])


def test_nobody_valid_gives_zeros():
    advantages = group_advantages(
        np.full(3, np.nan, np.float32),
        np.zeros(3, np.int32),
        2,
        np.zeros(3, bool),
        normalizes_by_std=True,
    )
    np.testing.assert_array_equal(advantages, np.zeros(3, np.float32))
    assert advantages.dtype == np.float32


def test_scale_of_rewards_is_lost_with_std_and_kept_without():
    small, large = [0.1, 0.2, 0.4], [10.0, 20.0, 40.0]
    np.testing.assert_allclose(
        one_group(small, with_std=True), one_group(large, with_std=True), rtol=1e-4
    )
    np.testing.assert_allclose(
        100 * one_group(small, with_std=False), one_group(large, with_std=False), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("rewards", "group_ids", "message"),
    [([1.0, 2.0], [0, 3], "num_groups=2"), ([1.0, np.nan], [0, 1], "must be finite")],
)
def test_bad_input_is_refused(rewards: list[float], group_ids: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        group_advantages(
            np.array(rewards, np.float32),
            np.array(group_ids, np.int32),
            2,
            np.ones(2, bool),
            normalizes_by_std=False,
        )


def test_leave_one_out_by_hand():
    """Others' means: 0, ⅓, ⅓, ⅓; a single member keeps its reward."""
    rewards = np.array([1, 0, 0, 0, 2], np.float32)
    groups = np.array([0, 0, 0, 0, 1], np.int32)
    got = leave_one_out_advantages(rewards, groups, 2, np.ones(5, bool))
    np.testing.assert_allclose(got, [1, -1 / 3, -1 / 3, -1 / 3, 2], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_leave_one_out_equals_its_definition(seed: int):
    rewards, group_ids, is_valid = random_batch(seed)
    got = leave_one_out_advantages(rewards, group_ids, 4, is_valid)
    for i in range(rewards.size):
        others = [
            j
            for j in range(rewards.size)
            if j != i and group_ids[j] == group_ids[i] and is_valid[j]
        ]
        wanted = rewards[i] - np.mean(rewards[others]) if others else 0.0
        assert got[i] == pytest.approx(wanted if is_valid[i] else 0.0, abs=1e-6)


def test_batch_normalized_by_hand():
    """Groups (1, 0) and (3, 3): centred ½, -½, 0, 0; population std √⅛; all-equal groups stay 0."""
    rewards, groups = np.array([1, 0, 3, 3], np.float32), np.array([0, 0, 1, 1], np.int32)
    got = batch_normalized_advantages(rewards, groups, 2, np.ones(4, bool))
    np.testing.assert_allclose(got, [np.sqrt(2), -np.sqrt(2), 0, 0], rtol=1e-5)


ESTIMATORS = {
    "grpo": lambda *a: group_advantages(*a, normalizes_by_std=True),
    "no_std": lambda *a: group_advantages(*a, normalizes_by_std=False),
    "leave_one_out": leave_one_out_advantages,
    "batch": batch_normalized_advantages,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_shift_changes_nothing_and_a_scale_only_what_is_not_normalised(name: str):
    """With every group of two or more."""
    rewards, group_ids, _ = random_batch(0)
    is_valid = np.ones(rewards.size, bool)
    plain = ESTIMATORS[name](rewards, group_ids, 4, is_valid)
    shifted = ESTIMATORS[name](rewards + 5, group_ids, 4, is_valid)
    scaled = ESTIMATORS[name](4 * rewards, group_ids, 4, is_valid)
    np.testing.assert_allclose(shifted, plain, atol=1e-5)
    factor = 1 if name in ("grpo", "batch") else 4
    np.testing.assert_allclose(scaled, factor * plain, rtol=1e-4, atol=1e-6)
    order = np.random.default_rng(1).permutation(rewards.size)
    permuted = ESTIMATORS[name](rewards[order], group_ids[order], 4, is_valid)
    np.testing.assert_allclose(permuted, plain[order], atol=1e-6)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_lone_survivor_has_no_advantage_and_a_group_of_one_keeps_its_reward(name: str):
    """Group 0 lost two of three members; group 1 has one member; group 2 (1, 0) is whole."""
    rewards = np.array([1, 1, 1, 2, 1, 0], np.float32)
    group_ids = np.array([0, 0, 0, 1, 2, 2], np.int32)
    is_valid = np.array([False, True, False, True, True, True])
    got = ESTIMATORS[name](rewards, group_ids, 3, is_valid)
    np.testing.assert_array_equal(got[:3], 0.0)
    assert got[3] > 1
    assert got[4] == pytest.approx(-got[5])
    assert got[4] > 0


@pytest.mark.parametrize("name", ESTIMATORS)
def test_masked_members_get_nothing_and_are_not_looked_at(name: str):
    rewards, group_ids, is_valid = random_batch(1)
    got = ESTIMATORS[name](np.where(is_valid, rewards, np.nan), group_ids, 4, is_valid)
    assert not got[~is_valid].any()
    other = ESTIMATORS[name](np.where(is_valid, rewards, np.float32(7)), group_ids, 4, is_valid)
    np.testing.assert_array_equal(got, other)
    nobody = ESTIMATORS[name](rewards, group_ids, 4, np.zeros(rewards.size, bool))
    assert not nobody.any()


def test_shaped_advantages_by_hand():
    """k = ½: bounds 1, ½, 0; the sign of A stays; with a floor of ⅛ the all-correct group gets ⅛."""
    advantages = np.array([2, -1, 0, 0], np.float32)
    shaping = np.array([-3, 0.25, -0.5, 0], np.float32)
    plain = shaped_advantages(advantages, shaping, limit=0.5, floor=0.0)
    np.testing.assert_array_equal(plain, [1, -0.75, 0, 0])
    floored = shaped_advantages(advantages, shaping, limit=0.5, floor=0.125)
    np.testing.assert_array_equal(floored, [1, -0.75, -0.125, 0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), limit=st.floats(0, 0.99))
def test_shaping_below_the_advantage_never_turns_its_sign(seed: int, limit: float):
    rng = np.random.default_rng(seed)
    advantages, shaping = (rng.normal(size=20).astype(np.float32) for _ in "ab")
    got = shaped_advantages(advantages, 10 * shaping, limit=limit, floor=0.0)
    assert np.all(np.sign(got) == np.sign(advantages))
    neutral = shaped_advantages(advantages, 0 * shaping, limit=limit, floor=1.0)
    np.testing.assert_array_equal(neutral, advantages)
