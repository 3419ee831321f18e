"""Terms added to rewards: by hand, and off where they must be."""

import dataclasses

import pytest
from helpers.ledgers import ledger
from helpers.scoring import score

from jaxtool.core.types import ToolStatus
from jaxtool.rewards import terms
from jaxtool.rewards.n_store import CallHistory
from jaxtool.rewards.outcome import OtcPpoReward, OutcomeReward


@pytest.mark.parametrize(
    ("tokens", "punishment"), [(0, 0), (16, 0), (17, -0.25), (19, -0.75), (20, -1), (21, -1)]
)
def test_overlong_punishment_by_hand(tokens, punishment):
    """L = 20, C = 4."""
    assert terms.overlong_punishment(tokens, 20, 4) == punishment


def test_tool_bonus_by_hand():
    """As rewards of a wrong answer: -1, -0.9, ..., -0.6 and no better."""
    bonus = [-1 + terms.tool_bonus(m, per_call=0.1, limit=0.4) for m in (0, 1, 4, 5)]
    assert bonus == pytest.approx([-1.0, -0.9, -0.6, -0.6])


WITH_CALL = ledger("QQppttp", calls=[ToolStatus.OK])  # 5 response tokens, 3 of the policy


@pytest.mark.parametrize(
    ("term", "right", "wrong"),
    [
        (terms.OverlongPunishment(max_tokens=6, cache_tokens=2), -0.5, -0.5),
        (
            terms.OverlongPunishment(max_tokens=4, cache_tokens=2, counts_tool_tokens=False),
            -0.5,
            -0.5,
        ),
        (terms.ToolBonus(), 0.0, 0.1),
        (terms.TurnPenalty(per_call=0.3), -0.3, -0.3),
        (terms.TurnPenalty(per_call=0.3, only_correct=True), -0.3, 0.0),
        (terms.LengthPenalty(per_token=0.1), -0.3, -0.3),
        (terms.LengthPenalty(per_token=0.1, only_correct=True), -0.3, 0.0),
    ],
)
def test_terms_by_hand(term, right, wrong):
    assert term(WITH_CALL, True, 1.0) == pytest.approx(right)
    assert term(WITH_CALL, False, 1.0) == pytest.approx(wrong)


def test_the_sum_adds_terms_and_keeps_the_rest_of_the_score():
    reward = terms.SumReward(
        base=OtcPpoReward(), terms=(terms.TurnPenalty(per_call=0.5), terms.ToolBonus(per_call=0.2))
    )
    plain = score(OtcPpoReward(), [WITH_CALL] * 2, [True, False], CallHistory())
    summed = score(reward, [WITH_CALL] * 2, [True, False], CallHistory())
    assert [s.reward for s in summed] == pytest.approx([plain[0].reward - 0.5, -0.3])
    for one, other in zip(summed, plain, strict=True):
        assert dataclasses.replace(one, reward=0.0) == dataclasses.replace(other, reward=0.0)


def test_no_terms_change_nothing():
    for right in (True, False):
        assert score(terms.SumReward(terms=()), [WITH_CALL], [right], CallHistory()) == score(
            OutcomeReward(), [WITH_CALL], [right], CallHistory()
        )


def test_impossible_lengths_are_refused():
    with pytest.raises(ValueError, match="cache_tokens=9"):
        terms.OverlongPunishment(max_tokens=8, cache_tokens=9)
