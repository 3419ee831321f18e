"""Rewards of whole groups, by hand."""

from collections.abc import Callable

import pytest
from helpers.scoring import score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtool.core.types import Trajectory
from jaxtool.rewards.adaptive import AdaTirReward, CallShapingReward
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.n_store import CallHistory, KSuccesses
from jaxtool.rewards.outcome import OtcGrpoReward, OtcPpoReward, OutcomeReward

Make = Callable[..., Trajectory]
ALL_REWARDS: list[RewardFn] = [
    OutcomeReward(),
    OtcGrpoReward(),
    OtcPpoReward(),
    OtcGrpoReward(decay="exponential", min_solve_rate=0.5),
    OtcPpoReward(decay="exponential"),
    AdaTirReward(),
    CallShapingReward(),
]


def history_of(calls: list[int]) -> CallHistory:
    return CallHistory().with_group(calls)


def test_outcome_is_plus_or_minus_one_and_ignores_calls(make_trajectory: Make):
    group = [make_trajectory(0), make_trajectory(3), make_trajectory(1)]
    scores = score(OutcomeReward(), group, [True, True, False], history_of([0, 3]))
    assert [s.reward for s in scores] == [1.0, 1.0, -1.0]
    assert [s.is_correct for s in scores] == [True, True, False]
    assert {s.tool_coefficient for s in scores} == {1.0}
    zero_one = score(OutcomeReward(wrong=0.0), group, [True, True, False], history_of([0, 3]))
    assert [s.reward for s in zero_one] == [1.0, 1.0, 0.0]


def test_otc_grpo_by_hand(make_trajectory: Make):
    group = [make_trajectory(m) for m in (1, 2, 3, 5)]
    scores = score(
        OtcGrpoReward(alpha=2.0, c=3.0), group, [True, True, False, True], history_of([1, 2, 5])
    )
    assert [s.reward for s in scores] == pytest.approx([2.0, 1.7320508, 0.0, 1.0])
    assert [s.tool_coefficient for s in scores] == pytest.approx([1.0, 0.8660254, 1.0, 0.5])
    assert {s.fewest_calls for s in scores} == {1}


def test_otc_grpo_uses_the_cosine_where_no_call_is_needed(make_trajectory: Make):
    group = [make_trajectory(m) for m in (0, 1, 3)]
    scores = score(OtcGrpoReward(c=3.0), group, [True] * 3, history_of([0, 1, 3]))
    assert [s.reward for s in scores] == pytest.approx([1.0, 0.8090170, 0.5])


def test_otc_ppo_by_hand(make_trajectory: Make):
    group = [make_trajectory(m) for m in (0, 1, 4, 4)]
    scores = score(OtcPpoReward(c=4.0), group, [True, True, True, False], CallHistory())
    assert [s.reward for s in scores] == pytest.approx([1.0, 0.8660254, 0.5, 0.0])
    assert {s.fewest_calls for s in scores} == {None}


@pytest.mark.parametrize("reward", [OtcGrpoReward(wrong=-1.0, alpha=3.0), OtcPpoReward(wrong=-1.0)])
def test_wrong_answers_are_never_scaled(reward: RewardFn, make_trajectory: Make):
    group = [make_trajectory(m) for m in range(6)]
    assert [s.reward for s in score(reward, group, [False] * 6, history_of([1]))] == [-1.0] * 6


def test_below_n_counts_as_n(make_trajectory: Make):
    """Only an estimator other than the minimum gets there; equation 6 alone would say 0."""
    reward = OtcGrpoReward(estimator=KSuccesses(k=2))
    scores = score(
        reward, [make_trajectory(m) for m in (0, 2, 2)], [True] * 3, history_of([0, 2, 2])
    )
    assert [s.reward for s in scores] == [1.0, 1.0, 1.0]
    assert {s.fewest_calls for s in scores} == {2}


def test_unknown_n_scales_nothing(make_trajectory: Make):
    reward = OtcGrpoReward(estimator=KSuccesses(k=5))
    [scored] = score(reward, [make_trajectory(3)], [True], history_of([3]))
    assert scored.reward == 1.0
    assert scored.fewest_calls is None


def test_calls_that_got_no_observation_cost_nothing(make_trajectory: Make):
    [scored] = score(
        OtcPpoReward(), [make_trajectory(0, unexecuted_calls=5)], [True], CallHistory()
    )
    assert scored.reward == 1.0


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(outcomes=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=9))
@pytest.mark.parametrize("reward", ALL_REWARDS)
def test_correct_beats_wrong_and_order_does_not_matter(
    reward: RewardFn, make_trajectory: Make, outcomes: list[tuple[int, bool]]
):
    history = history_of([m for m, right in outcomes if right])

    def rewards(members: list[tuple[int, bool]]) -> list[float]:
        group = [make_trajectory(m) for m, _ in members]
        return [s.reward for s in score(reward, group, [right for _, right in members], history)]

    scored = rewards(outcomes)
    assert rewards(outcomes[::-1]) == scored[::-1]
    right = [r for r, (_, is_right) in zip(scored, outcomes, strict=True) if is_right]
    wrong = [r for r, (_, is_right) in zip(scored, outcomes, strict=True) if not is_right]
    if right and wrong:
        assert min(right) > max(wrong)


@pytest.mark.parametrize("kind", [OutcomeReward, OtcGrpoReward, OtcPpoReward])
def test_a_wrong_answer_may_not_pay(kind: type):
    with pytest.raises(ValueError, match="need correct > 0 >= wrong"):
        kind(wrong=0.5)
    with pytest.raises(ValueError, match="need correct > 0 >= wrong"):
        kind(correct=float("nan"))


@pytest.mark.parametrize("kind", [OtcGrpoReward, OtcPpoReward])
def test_scales_must_be_positive(kind: type):
    with pytest.raises(ValueError, match="need alpha > 0 and c > 0"):
        kind(c=0.0)
    with pytest.raises(ValueError, match="need alpha > 0 and c > 0"):
        kind(alpha=-1.0)


def test_decays_by_hand(make_trajectory: Make):
    """n = 1, so 0, 1 and 3 calls too many at c = 3; without n the calls themselves count."""
    group, history = [make_trajectory(m) for m in (1, 2, 4)], history_of([1, 2, 4])
    for decay, wanted in (("linear", [1, 5 / 6, 0.5]), ("exponential", [1, 2 ** (-1 / 3), 0.5])):
        scores = score(OtcGrpoReward(decay=decay), group, [True] * 3, history)
        assert [s.reward for s in scores] == pytest.approx(wanted)
    scores = score(OtcPpoReward(decay="linear"), group, [True] * 3, history)
    assert [s.reward for s in scores] == pytest.approx([5 / 6, 4 / 6, 2 / 6])


def test_a_hard_group_need_not_save_calls(make_trajectory: Make):
    """One of three is right: below a half nothing is scaled."""
    group, is_correct = [make_trajectory(m) for m in (2, 1, 1)], [True, False, False]
    history = history_of([0])
    for reward in (OtcGrpoReward(min_solve_rate=0.5), AdaTirReward(max_difficulty=0.5)):
        assert [s.reward for s in score(reward, group, is_correct, history)] == [1.0, 0.0, 0.0]
    scores = score(OtcGrpoReward(min_solve_rate=0.3), group, is_correct, history)
    assert scores[0].reward == pytest.approx(0.6234898)


def test_adatir_by_hand(make_trajectory: Make):
    """λ = ½, N_max = 3: ½ sin(π/6) = ¼ at one call, ½ at three and beyond."""
    group = [make_trajectory(m) for m in (0, 1, 3, 5, 1)]
    scores = score(AdaTirReward(), group, [True] * 4 + [False], CallHistory())
    assert [s.reward for s in scores] == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.0])


def test_call_shaping_by_hand(make_trajectory: Make):
    """The reward is the outcome; δ = -2, c = 3, n = 1: 0, -2/3 and -4/3; wrong ones are not shaped."""
    group = [make_trajectory(m) for m in (1, 2, 3, 3)]
    scores = score(CallShapingReward(), group, [True, True, True, False], history_of([1, 2, 3]))
    assert [s.reward for s in scores] == [1.0, 1.0, 1.0, -1.0]
    assert [s.shaping for s in scores] == pytest.approx([0.0, -2 / 3, -4 / 3, 0.0])
    none = score(
        CallShapingReward(min_solve_rate=0.9), group, [True] * 3 + [False], history_of([1])
    )
    assert {s.shaping for s in none} == {0.0}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OtcPpoReward(decay="sine"), "decay='sine' must be"),
        (lambda: CallShapingReward(delta=1.0), "delta=1.0 <= 0"),
        (lambda: AdaTirReward(max_calls=0.0), "max_calls=0.0 > 0"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
