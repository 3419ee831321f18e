"""The order of things: n first, then scores; a group that lost a sample takes no part."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
from helpers.ledgers import group_of

from jaxtool.core.types import FinishReason, Group, Trajectory, samples_of
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.fewest_calls import CallStore, GlobalMinimum
from jaxtool.rewards.outcome import OtcGrpoReward, OutcomeReward
from jaxtool.rewards.scoring import score_groups

Make = Callable[..., Trajectory]


def rewards(groups: Sequence[Group]) -> list[float | None]:
    return [s.score and round(s.score.reward, 4) for s in samples_of(groups)]


def scored(*groups: Group, reward: RewardFn, store: CallStore) -> list[float | None]:
    return rewards(score_groups(groups, reward, store))


def test_n_is_lowered_before_the_group_is_scored(make_trajectory: Make):
    """The store says 2; the group finds 1. With the old n its best member would get .866."""
    store = CallStore()
    store.update("p", [2])
    group = group_of(make_trajectory(2), make_trajectory(1), is_correct=[True, True])
    assert scored(group, reward=OtcGrpoReward(c=3.0), store=store) == [0.866, 1.0]
    assert GlobalMinimum()(store.history("p")) == 1


def test_n_is_kept_from_earlier_groups(make_trajectory: Make):
    store = CallStore()
    scored(
        group_of(make_trajectory(1), is_correct=[True]), reward=OtcGrpoReward(c=3.0), store=store
    )
    late = group_of(make_trajectory(3), is_correct=[True])
    assert scored(late, reward=OtcGrpoReward(c=3.0), store=store) == [0.7071]


def test_problems_do_not_mix(make_trajectory: Make):
    groups = [
        group_of(*(make_trajectory(m, problem_id=p) for m in costs), is_correct=[True] * 2)
        for p, costs in [("a", (1, 2)), ("b", (0, 3))]
    ]
    found = scored(*groups, reward=OtcGrpoReward(c=3.0), store=CallStore())
    assert found == [1.0, 0.866, 1.0, 0.5]
    with pytest.raises(ValueError, match="a problem has two groups"):
        scored(*groups, groups[0], reward=OtcGrpoReward(c=3.0), store=CallStore())


def test_a_group_that_lost_a_sample_gets_no_scores_and_does_not_enter_n(make_trajectory: Make):
    broken = make_trajectory(0, finish_reason=FinishReason.INFRASTRUCTURE)
    store = CallStore()
    group = group_of(broken, make_trajectory(2), is_correct=[True, True])
    assert scored(group, reward=OtcGrpoReward(c=3.0), store=store) == [None, None]
    assert GlobalMinimum()(store.history("p")) is None
    alone = group_of(broken, is_correct=[True])
    assert scored(alone, reward=OtcGrpoReward(c=3.0), store=store) == [None]


def test_wrong_trajectories_do_not_enter_n(make_trajectory: Make):
    store = CallStore()
    group = group_of(make_trajectory(0), make_trajectory(2), is_correct=[False, True])
    assert scored(group, reward=OtcGrpoReward(c=3.0), store=store) == [0.0, 1.0]
    assert GlobalMinimum()(store.history("p")) == 2


def test_the_outcome_reward_collects_the_same_evidence(make_trajectory: Make):
    store = CallStore()
    scored(group_of(make_trajectory(2), is_correct=[True]), reward=OutcomeReward(), store=store)
    assert store.history("p").counts == {2: 1}


def test_what_is_not_judged_is_not_scored(make_trajectory: Make):
    with pytest.raises(ValueError, match="problem 'p' has a sample that is not judged"):
        scored(group_of(make_trajectory()), reward=OutcomeReward(), store=CallStore())


def test_rewards_do_not_import_jax():
    code = (
        "import sys, jaxtool.rewards.scoring, jaxtool.rewards.outcome, jaxtool.judges.mathematics\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
