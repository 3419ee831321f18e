"""Costs of trajectories by call, tool and token."""

import dataclasses

import pytest
from helpers.ledgers import group_of, ledger
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.core.types import ToolStatus, Trajectory
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.fewest_calls import CallStore
from jaxtool.rewards.outcome import OtcGrpoReward
from jaxtool.rewards.scoring import score_groups


def two_calls():
    """Calls of 2 and 3 policy tokens, with observations of 1 and 2 tokens; tools search and code."""
    trajectory = ledger("QQpptppptt" + "p", calls=[ToolStatus.OK, ToolStatus.ERROR])
    first, second = trajectory.tool_calls
    calls = dataclasses.replace(first, tool="search"), dataclasses.replace(second, tool="code")
    return dataclasses.replace(trajectory, tool_calls=calls)


@pytest.mark.parametrize(
    ("call_cost", "cost"),
    [
        (CallCost(), 2.0),
        (CallCost(per_call=0.5), 1.0),
        (CallCost(per_tool=(("search", 5.0),)), 6.0),  # code keeps the common price
        (CallCost(per_call=0.0, per_code_token=0.1), 0.5),
        (CallCost(per_call=0.0, per_observation_token=1.0), 3.0),
        (CallCost(per_code_token=0.1, per_observation_token=1.0), 5.5),
        (CallCost(per_call=1 / 3), 0.67),  # rounded to 0.01
        (CallCost(per_tool_token=(("search", 0.5),)), 3.5),  # 3 tokens of the search at ½
        (CallCost(per_code_token=0.1, per_tool_token=(("search", 0.0),)), 2.3),  # 3 of the code
    ],
)
def test_cost_by_hand(call_cost, cost):
    assert call_cost.cost(two_calls()) == pytest.approx(cost)


def test_without_calls_nothing_is_paid():
    assert CallCost(per_code_token=1.0).cost(ledger("QQppp")) == 0.0


def test_prices_enter_n_and_the_reward():
    """Costs 6 and 5 (a search is 5): n = 5, and sin(6π/11) for the dearer one."""
    cheap = dataclasses.replace(two_calls(), tool_calls=two_calls().tool_calls[:1], sample=1)
    call_cost = CallCost(per_tool=(("search", 5.0),))
    store = CallStore()
    group = group_of(two_calls(), cheap, is_correct=[True, True])
    [scored] = score_groups([group], OtcGrpoReward(c=3.0), store, call_cost)
    rewards = [s.score.reward for s in scored.samples if s.score]
    assert rewards == pytest.approx([0.9898214, 1.0])
    assert store.history("p0").counts == {5.0: 1, 6.0: 1}


TOOLS = ("code", "search")
CENTS = st.integers(0, 300)
# Calls as (tool, code tokens, observation tokens); prices in hundredths, which the rounding keeps.
CALLS = st.lists(
    st.tuples(st.sampled_from(TOOLS), st.integers(1, 4), st.integers(1, 4)), max_size=5
)


def with_calls(calls: list[tuple[str, int, int]]) -> Trajectory:
    letters = "".join("p" * code + "t" * observed for _, code, observed in calls)
    made = ledger(f"QQ{letters}p", calls=[ToolStatus.OK] * len(calls))
    named = [
        dataclasses.replace(call, tool=tool)
        for call, (tool, _, _) in zip(made.tool_calls, calls, strict=True)
    ]
    return dataclasses.replace(made, tool_calls=tuple(named))


def price_of(common: int, search: int, code: int, observed: int) -> CallCost:
    return CallCost(
        per_call=common / 100,
        per_tool=(("search", search / 100),),
        per_code_token=code / 100,
        per_observation_token=observed / 100,
    )


@given(calls=CALLS, cents=st.tuples(CENTS, CENTS, CENTS, CENTS), k=st.integers(0, 5))
def test_a_cost_is_the_sum_over_calls_and_scales_with_the_prices(calls, cents, k):
    common, search, code, observed = cents
    wanted = sum(
        (search if tool == "search" else common) + code * written + observed * seen
        for tool, written, seen in calls
    )
    assert price_of(*cents).cost(with_calls(calls)) == pytest.approx(wanted / 100)
    scaled = price_of(*(k * price for price in cents))
    assert scaled.cost(with_calls(calls)) == pytest.approx(k * wanted / 100)


@given(calls=CALLS, call=CALLS.filter(bool), cents=st.tuples(CENTS, CENTS, CENTS, CENTS))
def test_one_more_call_never_lowers_the_cost(calls, call, cents):
    call_cost = price_of(*cents)
    cost = call_cost.cost(with_calls(calls))
    assert call_cost.cost(with_calls([*calls, call[0]])) >= cost
    assert call_cost.cost(with_calls([*reversed(calls)])) == pytest.approx(cost)


@given(calls=CALLS, cents=st.tuples(CENTS, CENTS, CENTS, CENTS))
def test_what_the_tools_cost_is_the_cost(calls, cents):
    call_cost, trajectory = price_of(*cents), with_calls(calls)
    assert sum(call_cost.cost_by_tool(trajectory).values()) == pytest.approx(
        call_cost.cost(trajectory)
    )


def test_a_tool_with_two_prices_is_refused():
    with pytest.raises(ValueError, match=r"^CallCost.per_tool: 'search' has two prices: give it"):
        CallCost(per_tool=(("search", 1.0), ("search", 2.0)))
    with pytest.raises(ValueError, match=r"^CallCost.per_tool_token: 'search' must cost >= 0"):
        CallCost(per_tool_token=(("search", -1.0),))


@pytest.mark.parametrize(
    ("call_cost", "counts"),
    [
        (CallCost(), True),
        (CallCost(per_tool=(("search", 1.0),)), True),
        (CallCost(per_tool=(("search", 0.5),)), False),
        (CallCost(per_call=0.5), False),
        (CallCost(per_observation_token=0.01), False),
        (CallCost(per_tool_token=(("search", 0.01),)), False),
    ],
)
def test_whether_m_is_the_number_of_calls(call_cost, counts):
    assert call_cost.counts_calls == counts


@given(calls=CALLS, common=CENTS)
def test_naming_a_tool_at_the_common_price_changes_nothing(calls, common):
    named = CallCost(per_call=common / 100, per_tool=tuple((tool, common / 100) for tool in TOOLS))
    trajectory = with_calls(calls)
    assert named.cost(trajectory) == CallCost(per_call=common / 100).cost(trajectory)
    assert CallCost().cost(trajectory) == len(calls)


def test_negative_prices_are_refused():
    with pytest.raises(ValueError, match=r"CallCost.* >= 0"):
        CallCost(per_tool=(("code", -1.0),))
