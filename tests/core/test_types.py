"""The ledger's invariants: each one is refused when broken."""

import dataclasses

import numpy as np
import pytest
from helpers.ledgers import ledger

from jaxtool.core.types import FinishReason, ToolStatus, split_groups

GOOD = ledger("QQppttpp", calls=[ToolStatus.OK])


def changed(name: str, index: int, value: float):
    array = getattr(GOOD, name).copy()
    array[index] = value
    return dataclasses.replace(GOOD, **{name: array})


def test_a_good_ledger_passes():
    GOOD.check()
    assert (GOOD.num_tool_calls, GOOD.num_policy_tokens, GOOD.is_masked) == (1, 4, False)
    assert dataclasses.replace(GOOD, finish_reason=FinishReason.INFRASTRUCTURE).is_masked


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (changed("origins", 3, 0), "PAD"),
        (changed("behaviour_logprobs", 0, -1.0), "did not write carries"),
        (changed("behaviour_logprobs", 4, -1.0), "did not write carries"),
        (changed("behaviour_logprobs", 2, 0.5), "positive"),
        (changed("policy_versions", 4, 0), "policy_versions"),
        (changed("policy_versions", 2, -1), "policy_versions"),
        (changed("origins", 4, 1), "one non-empty prefix"),
        (dataclasses.replace(GOOD, ids=GOOD.ids[:-1]), "has shape="),
        (
            dataclasses.replace(
                GOOD, tool_calls=(dataclasses.replace(GOOD.tool_calls[0], start=1),)
            ),
            "did not write",
        ),
        (
            dataclasses.replace(
                GOOD, tool_calls=(dataclasses.replace(GOOD.tool_calls[0], observation_stop=7),)
            ),
            "tool did not write",
        ),
        (
            dataclasses.replace(
                GOOD, tool_calls=(dataclasses.replace(GOOD.tool_calls[0], stop=9),)
            ),
            "out of order",
        ),
    ],
)
def test_a_broken_ledger_is_refused(broken, message):
    with pytest.raises(ValueError, match=message):
        broken.check()


def test_groups_are_by_problem_in_order_of_appearance():
    made = [ledger("Qp", problem=name) for name in "baba"]
    assert split_groups(made) == [[0, 2], [1, 3]]


def test_ids_of_a_ledger_count_up():
    assert np.array_equal(GOOD.ids, np.arange(10, 18))
