"""None in a reward is the run's budget, and another number than the run's is refused."""

import pytest
from helpers.ledgers import ledger
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.core.types import ToolStatus, Verdict
from jaxtool.rewards import terms
from jaxtool.rewards.adaptive import AdaTirReward, CallShapingReward
from jaxtool.rewards.budgets import Budget, summed, term_with_budget, with_budget
from jaxtool.rewards.fewest_calls import CallHistory
from jaxtool.rewards.outcome import OtcGrpoReward, OtcPpoReward, OutcomeReward

LONG = Budget(max_response_tokens=16384, max_tool_calls=8)


def response(tokens: int):
    return ledger("Q" + "p" * tokens)


@pytest.mark.parametrize(
    ("reward", "filled"),
    [
        (OtcGrpoReward(alpha=2.0), OtcGrpoReward(alpha=2.0, c=8.0)),
        (OtcPpoReward(), OtcPpoReward(c=8.0)),
        (CallShapingReward(), CallShapingReward(c=8.0)),
        (AdaTirReward(), AdaTirReward(max_calls=8.0)),
        (AdaTirReward(max_calls=8.0), AdaTirReward(max_calls=8.0)),
        (OtcGrpoReward(c=9.0), OtcGrpoReward(c=9.0)),  # a scale, not a limit
        (OutcomeReward(), OutcomeReward()),
        (
            terms.SumReward(outcome=OtcPpoReward(), terms=(terms.OverlongPunishment(),)),
            terms.SumReward(
                outcome=OtcPpoReward(c=8.0),
                terms=(terms.OverlongPunishment(max_tokens=16384, cache_tokens=3276),),
            ),
        ),
    ],
)
def test_none_is_the_runs_own_number(reward, filled):
    assert with_budget(reward, LONG) == filled
    assert with_budget(filled, LONG) == filled


def test_terms_by_length_are_told_the_budget():
    dapo = term_with_budget(terms.OverlongPunishment(cache_tokens=4096), LONG)
    assert dapo == terms.OverlongPunishment(max_tokens=16384, cache_tokens=4096)
    assert term_with_budget(terms.LengthPenalty(at_budget=1.0), LONG) == terms.LengthPenalty(
        at_budget=1.0, max_tokens=16384
    )
    assert term_with_budget(terms.ToolBonus(), LONG) == terms.ToolBonus()


@pytest.mark.parametrize(
    ("reward", "budget", "message"),
    [
        (
            terms.SumReward(terms=(terms.OverlongPunishment(max_tokens=96),)),
            LONG,
            r"OverlongPunishment\.max_tokens=96 is not the run's RolloutConfig\.max_response_tokens="
            r"16384: leave",
        ),
        (
            terms.SumReward(terms=(terms.LengthPenalty(max_tokens=96),)),
            LONG,
            r"LengthPenalty\.max_tokens=96 is not the run's .*=16384",
        ),
        (
            AdaTirReward(max_calls=3.0),
            LONG,
            r"AdaTirReward\.max_calls=3\.0 is not the run's RolloutConfig\.max_tool_calls=8: leave",
        ),
        (
            OtcGrpoReward(),
            Budget(max_response_tokens=96, max_tool_calls=0),
            r"OtcGrpoReward\.c would be RolloutConfig\.max_tool_calls=0: .* choose another",
        ),
        (
            terms.SumReward(terms=(terms.OverlongPunishment(cache_tokens=4096),)),
            Budget(max_response_tokens=96, max_tool_calls=3),
            r"cache_tokens=4096 <= self\.max_tokens=96",
        ),
    ],
)
def test_other_numbers_than_the_runs_are_refused(reward, budget, message):
    with pytest.raises(ValueError, match=message):
        with_budget(reward, budget)


@pytest.mark.parametrize(
    "reward",
    [
        OtcGrpoReward(),
        OtcPpoReward(),
        AdaTirReward(),
        CallShapingReward(),
        terms.SumReward(terms=(terms.OverlongPunishment(),)),
        terms.SumReward(terms=(terms.LengthPenalty(),)),
    ],
    ids=lambda reward: type(reward).__name__,
)
def test_a_budget_that_nobody_filled_in_is_no_number(reward):
    group = [ledger("Qppp", calls=[])]
    history = CallHistory().with_group([0.0])
    with pytest.raises(ValueError, match="is None, the run's budget"):
        reward(group, [Verdict.plain(True, "")], [1.0], history)


@given(tokens=st.integers(1, 400), budget=st.integers(1, 400))
def test_a_response_within_the_budget_keeps_its_sign(tokens: int, budget: int):
    """Right stays above 0 under the length penalty and at 0 or more under DAPO's punishment."""
    limits = Budget(max_response_tokens=max(tokens, budget), max_tool_calls=3)
    for chosen in (
        terms.RewardTerms(length=terms.LengthPenalty()),
        terms.RewardTerms(overlong=terms.OverlongPunishment()),
    ):
        reward = summed(OutcomeReward(), chosen, limits)
        [score] = reward([response(tokens)], [Verdict.plain(True, "")], [0.0], CallHistory())
        assert score.reward >= (0.5 if chosen.length else 0.0)


def test_no_terms_leave_the_outcome_itself():
    assert summed(OtcPpoReward(), terms.RewardTerms(), LONG) == OtcPpoReward(c=8.0)
    both = terms.RewardTerms(turns=terms.TurnPenalty(), tool_bonus=terms.ToolBonus())
    call = ledger("Qpptp", calls=[ToolStatus.OK])
    reward = summed(OutcomeReward(), both, LONG)
    scores = reward(
        [call, call], [Verdict.plain(c, "") for c in (True, False)], [1.0, 1.0], CallHistory()
    )
    assert [score.reward for score in scores] == pytest.approx([0.9, -1.0])
