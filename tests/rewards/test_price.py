"""Costs of trajectories by call, tool and token."""

import dataclasses

import pytest
from helpers.ledgers import ledger

from jaxtool.core.types import ToolStatus
from jaxtool.rewards.n_store import CallStore
from jaxtool.rewards.outcome import OtcGrpoReward
from jaxtool.rewards.price import Price
from jaxtool.rewards.scoring import score_trajectories


def two_calls():
    """Calls of 2 and 3 policy tokens, with observations of 1 and 2 tokens; tools search and code."""
    trajectory = ledger("QQpptppptt" + "p", calls=[ToolStatus.OK, ToolStatus.ERROR])
    first, second = trajectory.tool_calls
    calls = dataclasses.replace(first, tool="search"), dataclasses.replace(second, tool="code")
    return dataclasses.replace(trajectory, tool_calls=calls)


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        (Price(), 2.0),
        (Price(per_call=0.5), 1.0),
        (Price(per_tool=(("search", 5.0),)), 6.0),  # code keeps the common price
        (Price(per_call=0.0, per_code_token=0.1), 0.5),
        (Price(per_call=0.0, per_observation_token=1.0), 3.0),
        (Price(per_code_token=0.1, per_observation_token=1.0), 5.5),
        (Price(per_call=1 / 3), 0.67),  # rounded to 0.01
    ],
)
def test_cost_by_hand(price, cost):
    assert price.cost(two_calls()) == pytest.approx(cost)


def test_without_calls_nothing_is_paid():
    assert Price(per_code_token=1.0).cost(ledger("QQppp")) == 0.0


def test_prices_enter_n_and_the_reward():
    """Costs 6 and 5 (a search is 5): n = 5, and sin(6π/11) for the dearer one."""
    cheap = dataclasses.replace(two_calls(), tool_calls=two_calls().tool_calls[:1], sample=1)
    price = Price(per_tool=(("search", 5.0),))
    store = CallStore()
    scores = score_trajectories([two_calls(), cheap], [True] * 2, OtcGrpoReward(), store, price)
    assert [s.reward for s in scores if s] == pytest.approx([0.9898214, 1.0])
    assert store.history("p0").counts == {5.0: 1, 6.0: 1}


def test_negative_prices_are_refused():
    with pytest.raises(ValueError, match="prices must be >= 0"):
        Price(per_tool=(("code", -1.0),))
