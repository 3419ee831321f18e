"""The order of things: n first, then scores; masked trajectories take no part."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from jaxtool.core.types import FinishReason, Trajectory
from jaxtool.rewards.fewest_calls import CallStore, GlobalMinimum
from jaxtool.rewards.outcome import OtcGrpoReward, OutcomeReward
from jaxtool.rewards.scoring import score_trajectories

Make = Callable[..., Trajectory]


def rewards(scores: list) -> list[float | None]:
    return [None if score is None else round(score.reward, 4) for score in scores]


def test_n_is_lowered_before_the_group_is_scored(make_trajectory: Make):
    """The store says 2; the group finds 1. With the old n its best member would get .866."""
    store = CallStore()
    store.update("p", [2])
    group = [make_trajectory(2), make_trajectory(1)]
    scores = score_trajectories(group, [True, True], OtcGrpoReward(c=3.0), store)
    assert rewards(scores) == [0.866, 1.0]
    assert GlobalMinimum()(store.history("p")) == 1


def test_n_is_kept_from_earlier_groups(make_trajectory: Make):
    store = CallStore()
    score_trajectories([make_trajectory(1)], [True], OtcGrpoReward(c=3.0), store)
    scores = score_trajectories([make_trajectory(3)], [True], OtcGrpoReward(c=3.0), store)
    assert rewards(scores) == [0.7071]


def test_problems_do_not_mix_even_interleaved(make_trajectory: Make):
    trajectories = [
        make_trajectory(m, problem_id=p) for p, m in [("a", 1), ("b", 0), ("a", 2), ("b", 3)]
    ]
    scores = score_trajectories(trajectories, [True] * 4, OtcGrpoReward(c=3.0), CallStore())
    assert rewards(scores) == [1.0, 1.0, 0.866, 0.5]


def test_masked_trajectories_get_no_score_and_do_not_enter_n(make_trajectory: Make):
    broken = make_trajectory(0, finish_reason=FinishReason.INFRASTRUCTURE)
    store = CallStore()
    scores = score_trajectories(
        [broken, make_trajectory(2)], [True, True], OtcGrpoReward(c=3.0), store
    )
    assert rewards(scores) == [None, 1.0]
    assert GlobalMinimum()(store.history("p")) == 2
    assert rewards(score_trajectories([broken], [True], OtcGrpoReward(c=3.0), store)) == [None]


def test_wrong_trajectories_do_not_enter_n(make_trajectory: Make):
    store = CallStore()
    group = [make_trajectory(0), make_trajectory(2)]
    assert rewards(score_trajectories(group, [False, True], OtcGrpoReward(c=3.0), store)) == [
        0.0,
        1.0,
    ]
    assert GlobalMinimum()(store.history("p")) == 2


def test_the_outcome_reward_collects_the_same_evidence(make_trajectory: Make):
    store = CallStore()
    score_trajectories([make_trajectory(2)], [True], OutcomeReward(), store)
    assert store.history("p").counts == {2: 1}


def test_verdicts_must_match_trajectories(make_trajectory: Make):
    with pytest.raises(ValueError, match="differs from"):
        score_trajectories([make_trajectory()], [], OutcomeReward(), CallStore())


def test_rewards_do_not_import_jax():
    code = (
        "import sys, jaxtool.rewards.scoring, jaxtool.rewards.outcome, jaxtool.rewards.answer_checker\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
