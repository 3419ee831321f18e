"""Where a budget ends a row: inside, at the end of and just after a tool's output."""

import pytest
from helpers.fakes import ArithmeticTool
from helpers.scripted_engine import ANSWER, CALL, run, stage

from jaxtool.core.types import FinishReason, Origin
from jaxtool.rollout.collector import RolloutConfig


def observation_tokens() -> int:
    made = stage([[[*CALL, *ANSWER]]], tool=ArithmeticTool())
    [t] = run(made)
    return int((t.origins == Origin.TOOL).sum())


@pytest.mark.parametrize("room", ["one less", "exact", "one more"])
@pytest.mark.parametrize("kv", ["kept", "reprefill"])
def test_a_budget_that_ends_at_a_tool_output(room, kv):
    output = observation_tokens()
    spare = {"one less": -1, "exact": 0, "one more": 1}[room]
    config = RolloutConfig(max_response_tokens=len(CALL) + output + spare, kv=kv)
    made = stage([[[*CALL, "a"]]], tool=ArithmeticTool(), config=config)
    [t] = run(made)
    assert t.finish_reason is FinishReason.LENGTH
    assert t.num_tool_calls == 1
    assert (t.origins == Origin.TOOL).sum() == min(output, output + spare)
    assert t.num_policy_tokens == len(CALL) + (room == "one more")
    prompt = int((t.origins == Origin.PROMPT).sum())
    assert len(t.ids) == prompt + config.max_response_tokens
