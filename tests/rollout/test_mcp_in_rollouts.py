"""Tools of an MCP server in whole trajectories: token-exact, their texts are texts, their faults mask."""

import asyncio

import pytest
from helpers.mcp_calls import bad
from helpers.tool_menus import HERMES_TEMPLATE, chat_tokenizer, rollout

from jaxtool.core.calls import Call
from jaxtool.core.types import Origin, ToolStatus
from jaxtool.data.tokenizer import decode
from jaxtool.formats.base import FORMATS
from jaxtool.renderers.renderer import load_renderer
from jaxtool.renderers.tool_checks import check_tools
from jaxtool.rewards.call_cost import CallCost
from jaxtool.tools import mcp_calls


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return chat_tokenizer(tmp_path_factory.mktemp("tokenizer"), HERMES_TEMPLATE)


def trajectory(server, tokenizer, *calls):
    """Of a policy that makes these calls, (tool, how), and answers."""
    sources = server.sources()
    tools = [source.open() for source in sources]
    renderer = load_renderer("hermes").with_tools([source.spec for source in sources])
    check_tools(renderer, tokenizer)
    [end] = tokenizer.eos_ids
    script = []
    for name, how in calls:
        call = Call(tool=name, arguments={"how": how})
        script += [*tokenizer.encode(FORMATS["hermes"].write_call(call)), end]
    script += [*tokenizer.encode("It is \\boxed{4}"), end]
    try:
        t, engine = rollout(renderer, tokenizer, tools, script)
    finally:
        for tool in tools:
            asyncio.run(tool.close())
    return t, engine, script


@pytest.mark.parametrize("shares", ["run", "trajectory"])
def test_two_tools_of_a_server_in_one_trajectory(tmp_path, tokenizer, shares):
    server = bad("fine", tmp_path / "log", shares=shares, prefix="my_", deadline_s=20.0)
    calls = [("my_act", "fine"), ("my_act", "control"), ("my_act", "invalid")]
    t, engine, script = trajectory(server, tokenizer, *calls)
    assert t.final_text == "It is \\boxed{4}"
    assert [(call.tool, call.result.status) for call in t.tool_calls] == [
        ("my_act", ToolStatus.OK),
        ("my_act", ToolStatus.OK),
        ("my_act", ToolStatus.ERROR),
    ]
    assert t.ids[t.origins == Origin.POLICY].tolist() == script
    assert (len(engine.prefilled), engine.reruns) == (1, 0)
    assert CallCost(per_tool=(("my_act", 0.5),)).cost(t) == 1.5
    # What looks like the end of a turn is plain text; the template ends one turn for each observation.
    said = t.ids[t.origins == Origin.TOOL].tolist()
    assert decode(tokenizer, said).count("<|im_end|>") == 1
    assert [tokenizer.control_tokens.get(token) for token in said].count("<|im_end|>") == 3


def test_a_server_that_dies_masks_the_trajectory_and_no_other(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(mcp_calls, "BACKOFF_S", 0.02)
    server = bad("fine", tmp_path / "log")
    masked, _, _ = trajectory(server, tokenizer, ("act", "fine"), ("act", "die"))
    assert masked.is_masked
    fine, _, _ = trajectory(server, tokenizer, ("act", "fine"))
    assert not fine.is_masked


def test_a_description_with_a_control_token_is_refused_by_name(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"the description of tool 'act' holds '<\|im_end\|>'"):
        trajectory(bad("control", tmp_path / "log"), tokenizer)
