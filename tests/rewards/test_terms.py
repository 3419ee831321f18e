"""Terms added to rewards: by hand, and off where they must be."""

import dataclasses
from random import Random

import pytest
from helpers.ledgers import ledger
from helpers.scoring import score
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.core.types import ToolStatus, Trajectory, Verdict
from jaxtool.rewards import terms
from jaxtool.rewards.fewest_calls import CallHistory
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


LENGTH, OVERLONG = terms.LengthPenalty(), terms.OverlongPunishment()
RIGHT, WRONG = Verdict.plain(True, "a test"), Verdict.plain(False, "a test")
WITH_CALL = ledger("QQppttp", calls=[ToolStatus.OK])  # 5 response tokens, 3 of the policy


def test_response_tokens_by_hand():
    assert terms.response_tokens(WITH_CALL, counts_tool_tokens=True) == 5
    assert terms.response_tokens(WITH_CALL, counts_tool_tokens=False) == 3


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
        (terms.LengthPenalty(at_budget=0.8, max_tokens=8), -0.3, -0.3),
        (terms.LengthPenalty(at_budget=0.8, max_tokens=8, only_correct=True), -0.3, 0.0),
    ],
)
def test_terms_by_hand(term, right, wrong):
    assert term(WITH_CALL, RIGHT, 1.0) == pytest.approx(right)
    assert term(WITH_CALL, WRONG, 1.0) == pytest.approx(wrong)


def test_the_sum_adds_terms_and_keeps_the_rest_of_the_score():
    reward = terms.SumReward(
        outcome=OtcPpoReward(),
        terms=(terms.TurnPenalty(per_call=0.5), terms.ToolBonus(per_call=0.2)),
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
    with pytest.raises(ValueError, match="cache_tokens=0"):
        terms.OverlongPunishment(max_tokens=8, cache_tokens=0)
    with pytest.raises(ValueError, match="max_tokens=0"):
        terms.LengthPenalty(max_tokens=0)


def test_terms_are_added_in_one_order_whatever_was_asked_for_first():
    own = terms.TurnPenalty(per_call=2.0)
    chosen = terms.RewardTerms(
        own=(own,), tool_bonus=terms.ToolBonus(), turns=terms.TurnPenalty(), length=LENGTH
    )
    assert chosen.in_order() == (LENGTH, terms.TurnPenalty(), terms.ToolBonus(), own)
    assert terms.RewardTerms(overlong=OVERLONG).in_order() == (OVERLONG,)
    assert terms.RewardTerms().in_order() == ()


COUNTS = st.integers(0, 60)
PRICES = st.floats(0, 2)
COSTS = st.floats(0, 20)


@given(tokens=COUNTS, more=COUNTS, soft=COUNTS, cache=st.integers(1, 30), k=st.integers(1, 5))
def test_laws_of_the_overlong_punishment(tokens: int, more: int, soft: int, cache: int, k: int):
    """Falls from 0 up to L - C to -1 from L on; only ratios of lengths count."""
    limit = soft + cache
    punishment = terms.overlong_punishment(tokens, limit, cache)
    assert -1 <= terms.overlong_punishment(tokens + more, limit, cache) <= punishment <= 0
    assert (punishment == 0) is (tokens <= soft)
    assert (punishment == -1) is (tokens >= limit)
    scaled = terms.overlong_punishment(k * tokens, k * limit, k * cache)
    assert scaled == pytest.approx(punishment)


def text(policy_tokens: int, tool_tokens: int = 0) -> Trajectory:
    """One call, if tools wrote anything, and a last token of the policy."""
    calls = [ToolStatus.OK] if tool_tokens else []
    return ledger("QQ" + "p" * policy_tokens + "t" * tool_tokens + "p", calls=calls)


@given(
    policy=st.integers(1, 20),
    tool=st.integers(0, 20),
    more=st.integers(1, 20),
    call_cost=st.floats(0.01, 2),
    right=st.booleans(),
)
def test_lengths_are_punished_by_the_token(policy, tool, more, call_cost, right):
    """A length penalty sees what the policy wrote, DAPO's punishment all that the budget counts."""
    length = terms.LengthPenalty(at_budget=10 * call_cost, max_tokens=10)
    own = length(text(policy), right, 0.0)
    assert own == pytest.approx(-call_cost * (policy + 1))
    assert length(text(policy, tool), right, 1.0) == own
    assert length(text(policy + more), right, 0.0) < own
    assert terms.LengthPenalty(at_budget=0.0, max_tokens=10)(text(policy), right, 0.0) == 0
    everything = terms.OverlongPunishment(max_tokens=24, cache_tokens=12)
    written = dataclasses.replace(everything, counts_tool_tokens=False)
    assert written(text(policy, tool), right, 1.0) == everything(text(policy), right, 0.0)
    assert everything(text(policy, tool), right, 1.0) == everything(text(policy + tool), right, 0.0)


@given(cost=COSTS, more=COSTS, call_cost=PRICES, limit=PRICES)
def test_laws_of_bonus_and_turn_penalty(cost, more, call_cost, limit):
    bonus, turns = (
        terms.ToolBonus(per_call=call_cost, limit=limit),
        terms.TurnPenalty(per_call=call_cost),
    )
    of_wrong = bonus(WITH_CALL, WRONG, cost)
    assert 0 <= of_wrong <= bonus(WITH_CALL, WRONG, cost + more) <= limit
    assert bonus(WITH_CALL, RIGHT, cost) == bonus(WITH_CALL, WRONG, 0.0) == 0
    for right in (RIGHT, WRONG):
        assert turns(WITH_CALL, right, 0.0) == 0
        both = turns(WITH_CALL, right, cost) + turns(WITH_CALL, right, more)
        assert turns(WITH_CALL, right, cost + more) == pytest.approx(both, abs=1e-12)
        assert both <= turns(WITH_CALL, right, cost) <= 0
        assert terms.TurnPenalty(per_call=0.0)(WITH_CALL, right, cost) == 0


NEUTRAL = (
    terms.ToolBonus(per_call=0.0),
    terms.ToolBonus(limit=0.0),
    terms.TurnPenalty(per_call=0.0),
    terms.LengthPenalty(at_budget=0.0),
    terms.OverlongPunishment(cache_tokens=100),
)
ACTIVE = (
    terms.ToolBonus(),
    terms.TurnPenalty(),
    terms.LengthPenalty(at_budget=20.0),
    terms.LengthPenalty(only_correct=True),
    terms.OverlongPunishment(cache_tokens=195),
)
MEMBERS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans()), min_size=1, max_size=6
)


@given(
    members=MEMBERS,
    chosen=st.lists(st.sampled_from(ACTIVE), max_size=4),
    random=st.randoms(use_true_random=False),
)
def test_a_sum_is_its_outcome_and_each_term_by_itself_in_any_order(
    members: list[tuple[int, int, bool]], chosen: list[terms.RewardTerm], random: Random
):
    group, verdicts = [text(p, t) for p, t, _ in members], [right for *_, right in members]

    def rewards(*added: terms.RewardTerm) -> list[float]:
        reward = terms.SumReward(outcome=OtcPpoReward(), terms=added)
        return [s.reward for s in score(reward, group, verdicts, CallHistory())]

    base = rewards()
    assert base == [s.reward for s in score(OtcPpoReward(), group, verdicts, CallHistory())]
    assert rewards(*NEUTRAL) == base
    alone = [[x - b for x, b in zip(rewards(term), base, strict=True)] for term in chosen]
    summed = rewards(*chosen)
    for i, reward in enumerate(summed):
        assert reward == pytest.approx(base[i] + sum(part[i] for part in alone))
    assert rewards(*random.sample(chosen, len(chosen))) == pytest.approx(summed)
    order = random.sample(range(len(group)), len(group))
    reward = terms.SumReward(outcome=OtcPpoReward(), terms=tuple(chosen))
    moved = score(reward, [group[i] for i in order], [verdicts[i] for i in order], CallHistory())
    assert [s.reward for s in moved] == [summed[i] for i in order]
