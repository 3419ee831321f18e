"""Code and a user's function in one trajectory, calls that cannot be made, and the last answer."""

import asyncio
import dataclasses

import numpy as np
import pytest
from helpers.fakes import ArithmeticTool
from helpers.scripted_engine import ANSWER, CALL, EOS, ids_of, run, stage

from jaxtool.core.types import FinishReason, Origin, ToolStatus, trajectories_of
from jaxtool.data.tokenizer import decode
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rollout.judged_answers import calls_by_tool
from jaxtool.tools.code_tool import CodeTool
from jaxtool.tools.function import Function
from jaxtool.tools.menu import Menu

TEMPLATE = r"""
[[messages]]
role = "user"
content = "{question}="
[format]
uses_chat_template = false
response_prefix = ""
[tool]
code_open = "<code>"
code_close = "</code>"
fence = ""
observation = "\n<interpreter>\n{output}\n</interpreter>\n"
max_output_chars = 24
error_style = "last_line"
empty_output = "None"
[[calls]]
tool = "square"
argument = "x"
open = "<square>"
close = "</square>"
observation = "\n<squared>{output}</squared>\n"
[[calls]]
tool = "misbehave"
argument = "how"
open = "<do>"
close = "</do>"
[answer]
close = "</answer>"
style = "answer_tag"
"""
SQUARE = [*"<square>7</square>"]
SQUARED = "\n<squared>49</squared>\n"
PRINTED = "\n<interpreter>\n4\n</interpreter>\n"


def function(name, **options):
    return Function(call=f"helpers.user_tools:{name}", **options)


def staged(tmp_path, scripts, config=None, options=None, **engine):
    path = tmp_path / "two_tools.toml"
    path.write_text(TEMPLATE)
    made = stage(scripts, tool=ArithmeticTool(), renderer=str(path), config=config, **engine)
    tools = [function("square").open(), function("misbehave", **(options or {})).open()]
    menu = Menu([CodeTool(ArithmeticTool()), *tools])
    made.collector.tools = menu
    made.collector.renderer = made.collector.renderer.with_tools(menu.specs)
    return made


def texts(trajectory, made):
    """What each writer wrote, in turn."""
    out = []
    for token, origin in zip(trajectory.ids, trajectory.origins, strict=True):
        if not out or out[-1][0] != origin:
            out.append([Origin(origin), ""])
        out[-1][1] += decode(made.tokenizer, [token])
    return [tuple(part) for part in out]


@pytest.mark.parametrize("window_steps", [1, 4, 16])
def test_code_and_a_function_in_one_trajectory(tmp_path, window_steps):
    """Token-exact, nothing prefilled twice, masks by origin, each call with its tool's cost."""
    script = [*CALL, *SQUARE, *ANSWER]
    made = staged(tmp_path, [[script]], window_steps=window_steps)
    [t] = run(made)
    assert texts(t, made) == [
        (Origin.PROMPT, "0+1="),
        (Origin.POLICY, "<code>2+2</code>"),
        (Origin.TOOL, PRINTED),
        (Origin.POLICY, "<square>7</square>"),
        (Origin.TOOL, SQUARED),
        (Origin.POLICY, "<answer>4</answer>"),
    ]
    assert t.ids[t.origins == Origin.POLICY].tolist() == ids_of(script, made.tokenizer)
    assert (len(made.engine.prefilled), made.engine.reruns) == (1, 0)
    assert [(call.tool, call.arguments) for call in t.tool_calls] == [
        ("python", {"code": "2+2"}),
        ("square", {"x": 7}),
    ]
    batch = to_batch([t], PackConfig(row_tokens=256))
    assert int(np.sum(batch.loss_mask)) == len(script)
    cost = CallCost(per_tool=(("python", 1.0), ("square", 0.25)))
    assert cost.cost(t) == 1.25
    assert calls_by_tool(t) == {"python": 1, "square": 1}
    assert cost.cost_by_tool(t) == {"python": 1.0, "square": 0.25}
    figures = made.collector.tools.take_figures()
    assert [len(figures[name].latencies_s) for name in ("python", "square", "misbehave")] == [
        1,
        1,
        0,
    ]


def test_the_same_seed_gives_the_same_ledger_whatever_the_latency(tmp_path):
    scripts = [[[*SQUARE, *CALL, *ANSWER] for _ in range(2)] for _ in range(3)]
    one, other = (
        run(staged(tmp_path, scripts, RolloutConfig(kv=kv)), samples=2)
        for kv in ("kept", "reprefill")
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.origins, b.origins)


@pytest.mark.parametrize(
    ("how", "shown", "status"),
    [
        ("raise", "two\nlines", ToolStatus.ERROR),
        ("exit", "SystemExit", ToolStatus.ERROR),
        ("hang", "TimeoutError: the wall", ToolStatus.WALL_LIMIT),
        ("generator", "TypeError: the", ToolStatus.ERROR),
        ("long", "xxxx", ToolStatus.OK),
    ],
)
def test_whatever_a_function_does_the_row_goes_on(tmp_path, how, shown, status):
    script = [*f"<do>{how}</do>", *ANSWER]
    made = staged(tmp_path, [[script]], options={"deadline_s": 0.3})
    [t] = run(made)
    assert t.finish_reason is FinishReason.ANSWER
    assert t.tool_calls[0].result.status is status
    assert shown[:8] in decode(made.tokenizer, t.ids[t.origins == Origin.TOOL])


def test_unavailable_alone_masks(tmp_path):
    [t] = run(staged(tmp_path, [[[*"<do>unavailable</do>", *ANSWER]]]))
    assert t.is_masked
    assert (t.num_tool_calls, t.unexecuted_calls) == (0, 1)


BAD = [*"<square>no</square>"]


def test_an_invalid_call_is_observed_and_counted_and_is_no_call(tmp_path):
    made = staged(tmp_path, [[[*BAD, *SQUARE, *ANSWER]]])
    [t] = run(made)
    notice = "\n<interpreter>\nInvalid call: x must be JSON, such as 3 or [1, 2]\n</interpreter>\n"
    assert texts(t, made)[1:4] == [
        (Origin.POLICY, "<square>no</square>"),
        (Origin.TOOL, notice),
        (Origin.POLICY, "<square>7</square>"),
    ]
    assert (t.num_tool_calls, t.invalid_calls, t.unexecuted_calls) == (1, 1, 0)
    assert t.final_text == "<answer>4</answer>"
    assert CallCost().cost(t) == 1.0
    assert made.collector.tools.take_figures()["square"].invalid == 1
    assert made.engine.reruns == 0


@pytest.mark.parametrize(
    ("way", "reason", "policy_tokens"),
    [
        ("finish", FinishReason.INVALID_CALL, len(BAD)),
        ("ignore", FinishReason.ANSWER, len(BAD) + len(ANSWER)),
    ],
)
def test_an_invalid_call_ends_the_response_or_nothing(tmp_path, way, reason, policy_tokens):
    made = staged(tmp_path, [[[*BAD, *ANSWER]]], RolloutConfig(invalid_calls=way))
    [t] = run(made)
    assert (t.finish_reason, t.invalid_calls) == (reason, 1)
    assert t.num_policy_tokens == policy_tokens
    assert not np.any(t.origins == Origin.TOOL)


def test_invalid_calls_in_a_row_end_a_loop_and_a_call_that_is_made_begins_anew(tmp_path):
    config = RolloutConfig(max_consecutive_invalid_calls=1, max_response_tokens=400)
    scripts = [[[*BAD, *BAD]], [[*BAD, *SQUARE, *BAD, *ANSWER]]]
    looping, fine = run(staged(tmp_path, scripts, config))
    assert (looping.finish_reason, looping.invalid_calls) == (FinishReason.INVALID_CALL, 2)
    assert (fine.finish_reason, fine.invalid_calls) == (FinishReason.ANSWER, 2)


FORCE = RolloutConfig(max_tool_calls=1, at_tool_limit="force_answer", max_response_tokens=300)
NOTICE = "\n<interpreter>\nNo tool calls are left. Give your final answer now.\n</interpreter>\n"


def test_at_the_limit_the_policy_is_told_once_to_answer(tmp_path):
    made = staged(tmp_path, [[[*CALL, *SQUARE, *ANSWER]], [[*CALL, *CALL, *BAD]]], FORCE)
    answered, again = run(made)
    assert [text for origin, text in texts(answered, made) if origin is Origin.TOOL] == [
        PRINTED,
        NOTICE,
    ]
    assert (answered.finish_reason, answered.final_text) == (
        FinishReason.ANSWER,
        "<answer>4</answer>",
    )
    assert (answered.num_tool_calls, answered.unexecuted_calls) == (1, 1)
    assert again.finish_reason is FinishReason.TOOL_LIMIT
    assert (again.num_tool_calls, again.unexecuted_calls) == (1, 2)


def test_a_notice_that_uses_up_the_budget_ends_the_row(tmp_path):
    config = dataclasses.replace(FORCE, max_tool_calls=0, max_response_tokens=len(CALL) + 5)
    [t] = run(staged(tmp_path, [[CALL]], config))
    assert t.finish_reason is FinishReason.LENGTH
    assert int(np.sum(t.origins == Origin.TOOL)) == 5


@pytest.mark.parametrize("schedule", ["continuous", "lockstep"])
def test_notices_and_calls_of_many_rows(tmp_path, schedule):
    config = dataclasses.replace(FORCE, schedule=schedule)
    scripts = [[[*CALL, *SQUARE, *ANSWER], [*BAD, *ANSWER]], [["a", EOS], [*SQUARE, *ANSWER]]]
    made = staged(tmp_path, scripts, config, decode_rows=2)
    found = trajectories_of(asyncio.run(made.collect(2)))
    assert [t.finish_reason for t in found] == [
        *[FinishReason.ANSWER] * 2,
        FinishReason.EOS,
        FinishReason.ANSWER,
    ]


def test_an_observation_is_capped_in_tokens_and_keeps_its_head(tmp_path):
    script = [*"<do>abcdefgh ijklmnop qrstuvwxyz 0123456789</do>", *ANSWER]
    made = staged(tmp_path, [[script]], options={"max_observation_tokens": 30})
    [t] = run(made)
    inside = (
        texts(t, made)[2][1].removeprefix("\n<interpreter>\n").removesuffix("\n</interpreter>\n")
    )
    assert inside.startswith("abcdefgh ijklmnop qrstuvwxyz")
    assert len(inside) < 40
    assert len(made.tokenizer.encode_plain(inside)) == 30
