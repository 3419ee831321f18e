"""Rewards of whole groups, by hand."""

from collections.abc import Callable
from random import Random

import pytest
from helpers.scoring import score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtool.core.types import Score, Trajectory, Verdict
from jaxtool.rewards import decay
from jaxtool.rewards.adaptive import AdaTirReward, CallShapingReward, adatir_penalty, call_shaping
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.fewest_calls import CallHistory, KSuccesses
from jaxtool.rewards.outcome import OtcGrpoReward, OtcPpoReward, OutcomeReward

Make = Callable[..., Trajectory]
ALL_REWARDS: list[RewardFn] = [
    OutcomeReward(),
    OtcGrpoReward(),
    OtcPpoReward(),
    OtcGrpoReward(decay=decay.exponential, min_solve_rate=0.5),
    OtcPpoReward(decay=decay.exponential),
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


OUTCOMES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=9)
SOME = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scores_of(
    reward: RewardFn, make: Make, members: list[tuple[int, bool]], history: CallHistory
) -> list[Score]:
    """Scores of a group given as (calls, is correct)."""
    return score(reward, [make(m) for m, _ in members], [right for _, right in members], history)


@SOME
@given(outcomes=OUTCOMES, random=st.randoms(use_true_random=False))
@pytest.mark.parametrize("reward", ALL_REWARDS)
def test_correct_beats_wrong_and_order_does_not_matter(
    reward: RewardFn,
    make_trajectory: Make,
    outcomes: list[tuple[int, bool]],
    random: Random,
):
    """Whole scores, so shaping, coefficient and n too, follow the members through any permutation."""
    history = history_of([m for m, right in outcomes if right])
    scored = scores_of(reward, make_trajectory, outcomes, history)
    order = random.sample(range(len(outcomes)), len(outcomes))
    moved = scores_of(reward, make_trajectory, [outcomes[i] for i in order], history)
    assert moved == [scored[i] for i in order]
    right = [s.reward for s in scored if s.is_correct]
    wrong = [s.reward for s in scored if not s.is_correct]
    if right and wrong:
        assert min(right) > max(wrong)


@SOME
@given(outcomes=OUTCOMES)
def test_shaping_punishes_calls_of_correct_answers_alone(
    make_trajectory: Make, outcomes: list[tuple[int, bool]]
):
    calls = [m for m, right in outcomes if right]
    scores = scores_of(CallShapingReward(), make_trajectory, outcomes, history_of(calls))
    by_calls = sorted(
        (m, s.shaping) for (m, _), s in zip(outcomes, scores, strict=True) if s.is_correct
    )
    assert all(s.shaping == 0 for s in scores if not s.is_correct)
    assert all(shaping == 0 for m, shaping in by_calls if m == min(calls))
    assert all(shaping < 0 for m, shaping in by_calls if m > min(calls))
    shapings = [shaping for _, shaping in by_calls]
    assert shapings == sorted(shapings, reverse=True)


@SOME
@given(outcomes=OUTCOMES)
@pytest.mark.parametrize(
    ("neutral", "base"),
    [
        (AdaTirReward(weight=0.0), OutcomeReward(wrong=0.0)),
        (CallShapingReward(delta=0.0), OutcomeReward()),
        (CallShapingReward(min_solve_rate=1.1), OutcomeReward()),
        (AdaTirReward(max_difficulty=0.0), OutcomeReward(wrong=0.0)),
    ],
)
def test_at_neutral_settings_the_outcome_alone_counts(
    neutral: RewardFn, base: RewardFn, make_trajectory: Make, outcomes: list[tuple[int, bool]]
):
    history = history_of([m for m, right in outcomes if right])
    got = scores_of(neutral, make_trajectory, outcomes, history)
    wanted = scores_of(base, make_trajectory, outcomes, history)
    assert [s.reward for s in got] == [s.reward for s in wanted]
    assert {s.shaping for s in got} == {0.0}


CALLS = st.floats(0, 20)
POSITIVE = st.floats(0.1, 10)


@given(m=CALLS, more=CALLS, limit=POSITIVE, weight=st.floats(0, 5), k=POSITIVE)
def test_laws_of_adatirs_penalty(m: float, more: float, limit: float, weight: float, k: float):
    """λ is a scale, N_max the unit of calls; 0 without calls, -λ from N_max on, falling between."""
    penalty = adatir_penalty(m, limit, weight=weight)
    assert adatir_penalty(m, limit, weight=0.0) == 0
    assert adatir_penalty(m, limit, weight=k * weight) == pytest.approx(k * penalty)
    assert adatir_penalty(k * m, k * limit, weight=weight) == pytest.approx(penalty, abs=1e-12)
    assert adatir_penalty(0, limit, weight=weight) == 0
    assert adatir_penalty(limit + more, limit, weight=weight) == -weight
    assert -weight <= adatir_penalty(m + more, limit, weight=weight) <= penalty <= 0


@given(n=CALLS, m=CALLS, more=CALLS, c=POSITIVE, delta=st.floats(-5, 0), k=POSITIVE)
def test_laws_of_call_shaping(n: float, m: float, more: float, c: float, delta: float, k: float):
    """δ is a scale, c the unit of calls; 0 at m = n, δ at n + c, falling with m."""
    shaping = call_shaping(m, n, c, delta=delta)
    assert call_shaping(m, n, c, delta=0.0) == 0
    assert call_shaping(m, n, c, delta=k * delta) == pytest.approx(k * shaping)
    scaled = call_shaping(k * m, k * n, k * c, delta=delta)
    assert scaled == pytest.approx(shaping, rel=1e-6, abs=1e-9)
    assert call_shaping(n, n, c, delta=delta) == 0
    assert call_shaping(n + c, n, c, delta=delta) == pytest.approx(delta)
    assert call_shaping(m + more, n, c, delta=delta) <= shaping


@pytest.mark.parametrize("kind", [OutcomeReward, OtcGrpoReward, OtcPpoReward])
def test_a_wrong_answer_may_not_pay(kind: type):
    with pytest.raises(ValueError, match="need correct > 0 >= wrong"):
        kind(wrong=0.5)
    with pytest.raises(ValueError, match=r"correct must be finite"):
        kind(correct=float("nan"))


@pytest.mark.parametrize("kind", [OtcGrpoReward, OtcPpoReward])
def test_scales_must_be_positive(kind: type):
    with pytest.raises(ValueError, match=r"\.(alpha|c) must be > 0"):
        kind(c=0.0)
    with pytest.raises(ValueError, match=r"\.(alpha|c) must be > 0"):
        kind(alpha=-1.0)


def test_decays_by_hand(make_trajectory: Make):
    """n = 1, so 0, 1 and 3 calls too many at c = 3; without n the calls themselves count."""
    group, history = [make_trajectory(m) for m in (1, 2, 4)], history_of([1, 2, 4])
    wanted_of = {decay.linear: [1, 5 / 6, 0.5], decay.exponential: [1, 2 ** (-1 / 3), 0.5]}
    for shape, wanted in wanted_of.items():
        scores = score(OtcGrpoReward(decay=shape), group, [True] * 3, history)
        assert [s.reward for s in scores] == pytest.approx(wanted)
    scores = score(OtcPpoReward(decay=decay.linear), group, [True] * 3, history)
    assert [s.reward for s in scores] == pytest.approx([5 / 6, 4 / 6, 2 / 6])


def test_a_hard_group_need_not_save_calls(make_trajectory: Make):
    """One of three is right: below a half nothing is scaled."""
    group, is_correct = [make_trajectory(m) for m in (2, 1, 1)], [True, False, False]
    history = history_of([0])
    for reward in (OtcGrpoReward(min_solve_rate=0.5), AdaTirReward(max_difficulty=0.5)):
        assert [s.reward for s in score(reward, group, is_correct, history)] == [1.0, 0.0, 0.0]
    scores = score(OtcGrpoReward(min_solve_rate=0.3), group, is_correct, history)
    assert scores[0].reward == pytest.approx(0.6234898)


def test_a_group_right_to_just_the_share_saves_calls(make_trajectory: Make):
    """Four of eight right are a half: scaled and shaped at 0.5, and no longer a bit above it."""
    group = [make_trajectory(1) for _ in range(8)]
    is_correct = [True] * 4 + [False] * 4
    history = history_of([0])
    scaled = score(OtcGrpoReward(min_solve_rate=0.5), group, is_correct, history)
    # n = 0, m = 1, c = 3: cos(π/5).
    assert [s.reward for s in scaled] == pytest.approx([0.8090170] * 4 + [0.0] * 4)
    shaped = score(CallShapingReward(min_solve_rate=0.5), group, is_correct, history)
    assert [s.shaping for s in shaped] == pytest.approx([-2 / 3] * 4 + [0.0] * 4)
    above = score(OtcGrpoReward(min_solve_rate=0.51), group, is_correct, history)
    assert [s.reward for s in above] == [1.0] * 4 + [0.0] * 4
    above = score(CallShapingReward(min_solve_rate=0.51), group, is_correct, history)
    assert {s.shaping for s in above} == {0.0}


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
        (lambda: OtcPpoReward(decay="sine"), "OtcPpoReward.decay='sine' is a string"),
        (lambda: CallShapingReward(delta=1.0), "delta must be <= 0, got 1.0"),
        (lambda: AdaTirReward(max_calls=0.0), "max_calls must be > 0, got 0.0"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_graded_reward_follows_the_score(make_trajectory: Make):
    """-1 + s * 2 for s = 0, 1/2, 2/3, 1."""
    scores = (0.0, 0.5, 2 / 3, 1.0)
    verdicts = [Verdict(score=s, is_correct=s == 1, how="F1") for s in scores]
    group = [make_trajectory(0)] * 4
    graded = OutcomeReward(is_graded=True)(group, verdicts, [0.0] * 4, CallHistory())
    assert [s.reward for s in graded] == pytest.approx([-1, 0, 1 / 3, 1])
    assert [s.is_correct for s in graded] == [False, False, False, True]
    assert OutcomeReward()(group, verdicts, [0.0] * 4, CallHistory())[2].reward == -1
