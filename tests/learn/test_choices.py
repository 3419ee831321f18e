"""What gin chooses by reference: advantage estimators, and settings that cannot be."""

import numpy as np
import pytest

from jaxtool.learn.advantage_choices import (
    ClippedShaping,
    GroupNormalized,
    LeaveOneOut,
    NoStd,
    ReinforcePlusPlus,
)
from jaxtool.learn.group_advantages import trajectory_advantages
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.loss_choices import Gspo, PpoClip, Sapo
from jaxtool.learn.off_policy_choices import TokenMask, TokenTruncation


@pytest.mark.parametrize(
    ("advantage", "wanted"),
    [
        (GroupNormalized(), [1.5, -0.5, -0.5, -0.5]),
        (NoStd(), [0.75, -0.25, -0.25, -0.25]),
        (LeaveOneOut(), [1.0, -1 / 3, -1 / 3, -1 / 3]),
        (ReinforcePlusPlus(), [3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)]),
    ],
)
def test_advantages_by_hand(advantage, wanted):
    rewards, zero = np.array([1, 0, 0, 0], np.float32), np.zeros(4, np.float32)
    group = np.zeros(4, np.int32), 1, np.ones(4, bool)
    config = GrpoConfig(advantage=advantage, shaping=ClippedShaping(limit=0.5))
    got = trajectory_advantages(rewards, zero, *group, config)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    shaping = np.array([-9, 0, 0, 0], np.float32)
    shaped = trajectory_advantages(rewards, shaping, *group, config)
    np.testing.assert_allclose(shaped, [got[0] / 2, *got[1:]], rtol=1e-5)


def test_the_floor_of_the_shaping_keeps_a_signal_where_all_are_correct():
    """Advantages are 0, so k |A| bounds at 0 and the floor at 0.1; where k |A| is larger it stays."""
    shaping = np.array([0.0, -0.05, -2.0, 0.0], np.float32)
    group = np.zeros(4, np.int32), 1, np.ones(4, bool)
    config = GrpoConfig(shaping=ClippedShaping(floor=0.1))
    same = trajectory_advantages(np.ones(4, np.float32), shaping, *group, config)
    np.testing.assert_allclose(same, [0.0, -0.05, -0.1, 0.0], rtol=1e-6)
    mixed = trajectory_advantages(np.array([1, 1, 1, 0], np.float32), shaping, *group, config)
    # A = 0.5 for each of the right ones: bound 0.7 * 0.5.
    np.testing.assert_allclose(mixed, [0.5, 0.45, 0.15, -1.5], rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PpoClip(clip_low=1.0), "clip_low=1.0 must be"),
        (lambda: PpoClip(dual_clip=1.0), "PpoClip.dual_clip must be > 1, got 1"),
        (lambda: Gspo(clip_high=-1.0), "Gspo.clip_high must be >= 0, got -1"),
        (lambda: ClippedShaping(floor=-0.1), "ClippedShaping.floor must be >= 0, got -0.1"),
        (lambda: Sapo(tau_negative=0.0), "Sapo.tau_negative must be > 0, got 0"),
        (lambda: TokenTruncation(cap=0.0), "TokenTruncation.cap must be > 0, got 0"),
        (lambda: TokenMask(low=2.0, high=1.0), "low=2.0 high=1.0"),
    ],
)
def test_impossible_choices_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
