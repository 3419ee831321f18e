"""Rows that stop, call and go on, with a policy that follows a script and tools that are fakes."""

import asyncio
import dataclasses

import numpy as np
import pytest
from helpers.fakes import ArithmeticTool, FailingTool, ScriptedTool, SlowTool
from helpers.scripted_engine import ANSWER, CALL, EOS, Stage, ids_of, run, splits, stage

from jaxtool.core.types import FinishReason, Origin, ToolResult, ToolStatus, ToolUnavailable
from jaxtool.data.tokenizer import decode
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rollout.collector import Collector, RolloutConfig
from jaxtool.tools.menu import Menu

OBSERVATION = "\n<interpreter>\n4\n</interpreter>\n"


def texts(trajectory, made: Stage) -> list[tuple[Origin, str]]:
    """Runs of one origin with their text."""
    out: list[tuple[Origin, str]] = []
    for token, origin in zip(trajectory.ids, trajectory.origins, strict=True):
        text = decode(made.tokenizer, [token])
        if out and out[-1][0] == origin:
            out[-1] = (out[-1][0], out[-1][1] + text)
        else:
            out.append((Origin(origin), text))
    return out


def test_a_call_is_answered_in_the_ledger_and_the_row_goes_on():
    made = stage([[[*CALL, *ANSWER]]], tool=ArithmeticTool())
    [t] = run(made)
    assert texts(t, made) == [
        (Origin.PROMPT, "<tools>0+1="),
        (Origin.POLICY, "<code>2+2</code>"),
        (Origin.TOOL, OBSERVATION),
        (Origin.POLICY, "<answer>4</answer>"),
    ]
    [call] = t.tool_calls
    assert (call.tool, call.arguments) == ("python", {"code": "2+2"})
    assert call.result.last_value == "4"
    start = int((t.origins == Origin.PROMPT).sum())
    assert (call.start, call.stop) == (start, start + len(CALL))
    assert t.finish_reason is FinishReason.ANSWER
    assert t.final_text == "<answer>4</answer>"
    assert t.response_text == f"<code>2+2</code>{OBSERVATION}<answer>4</answer>"
    is_policy = t.origins == Origin.POLICY
    np.testing.assert_array_equal(t.policy_versions, np.where(is_policy, 3, -1))
    np.testing.assert_allclose(
        t.behaviour_logprobs[is_policy], -np.arange(1, is_policy.sum() + 1) / 8
    )


def test_the_prelude_runs_before_the_program_and_is_not_in_the_ledger():
    four = ToolResult(status=ToolStatus.OK, stdout="4\n")
    tool = ScriptedTool({"a = 1\n2+2": four})
    made = stage([[[*CALL, *ANSWER]]], tool=tool)
    form = made.collector.renderer.tool
    assert form is not None
    made.collector.renderer = dataclasses.replace(
        made.collector.renderer, tool=dataclasses.replace(form, prelude="a = 1\n")
    )
    [t] = run(made)
    assert tool.calls == ["a = 1\n2+2"]
    assert t.tool_calls[0].arguments == {"code": "2+2"}
    assert t.response_text == f"<code>2+2</code>{OBSERVATION}<answer>4</answer>"


@pytest.mark.parametrize("window_steps", [1, 3, 16])
def test_a_closing_tag_is_found_whatever_its_tokenisation(window_steps):
    """All 64 ways to write </code>, each straddling windows of 1, 3 and 16 steps somewhere."""
    ways = splits("</code>")
    assert len(ways) == 64
    scripts = [[["<code>", "2", "+", "2", *way, *ANSWER]] for way in ways]
    made = stage(scripts, tool=ArithmeticTool(), window_steps=window_steps)
    for t, way in zip(run(made), ways, strict=True):
        [call] = t.tool_calls
        assert call.arguments == {"code": "2+2"}
        assert call.stop - call.start == 4 + len(way)
        assert t.finish_reason is FinishReason.ANSWER
        sampled = t.ids[t.origins == Origin.POLICY].tolist()
        assert sampled == ids_of(["<code>", "2", "+", "2", *way, *ANSWER], made.tokenizer)


def test_an_answer_tag_ends_the_row_whatever_its_tokenisation():
    ways = splits("</answer>")[::5]
    made = stage([[["<answer>", "4", *way]] for way in ways], tool=ArithmeticTool())
    assert {t.finish_reason for t in run(made)} == {FinishReason.ANSWER}


@pytest.mark.parametrize(
    ("last", "text"),
    [(">\n", "</code>\n"), ("e>\n\nSo", "</code>\n\nSo"), ("x</code>y", "x</code>y")],
)
def test_what_the_last_token_carries_past_the_tag_stays_as_sampled(last, text):
    opening = {">\n": ["</code"], "e>\n\nSo": ["</co", "d"], "x</code>y": []}[last]
    script = ["<code>", "2", "+", "2", *opening, last, *ANSWER]
    made = stage([[script]], tool=ArithmeticTool())
    if last == "x</code>y":
        made = stage([[script]], tool=ScriptedTool({"2+2x": ToolResult(status=ToolStatus.OK)}))
    [t] = run(made)
    assert len(t.tool_calls) == 1
    assert texts(t, made)[1] == (Origin.POLICY, f"<code>2+2{text}")
    assert t.ids[t.origins == Origin.POLICY].tolist() == ids_of(script, made.tokenizer)


def test_a_false_alarm_resumes():
    """Tokens that could end a tag but do not: the row goes on, nothing is called or lost."""
    script = ["a", ">", "e>", "</", "code", " ", ">", "</answer", " ", *ANSWER]
    made = stage([[script]], tool=ArithmeticTool())
    [t] = run(made)
    assert t.finish_reason is FinishReason.ANSWER
    assert t.unexecuted_calls == 0
    assert not t.tool_calls
    assert t.ids[t.origins == Origin.POLICY].tolist() == ids_of(script, made.tokenizer)


def test_the_end_token_and_the_budget_end_a_row():
    config = RolloutConfig(max_response_tokens=5)
    made = stage([[["a", "b", EOS]], [["a"] * 5]], tool=ArithmeticTool(), config=config)
    ended, cut = run(made)
    assert ended.finish_reason is FinishReason.EOS
    assert ended.ids[-1] == 1
    assert cut.finish_reason is FinishReason.LENGTH
    assert cut.num_policy_tokens == 5


def test_at_the_tool_limit_the_row_finishes_and_the_call_is_unexecuted():
    config = RolloutConfig(max_tool_calls=1)
    made = stage([[[*CALL, *CALL]]], tool=ArithmeticTool(), config=config)
    [t] = run(made)
    assert t.finish_reason is FinishReason.TOOL_LIMIT
    assert (t.num_tool_calls, t.unexecuted_calls) == (1, 1)


def test_at_the_tool_limit_continue_ignores_calls_and_goes_on():
    config = RolloutConfig(max_tool_calls=1, at_tool_limit="continue")
    made = stage([[[*CALL, *CALL, "a", *CALL, *ANSWER]]], tool=ArithmeticTool(), config=config)
    [t] = run(made)
    assert t.finish_reason is FinishReason.ANSWER
    assert (t.num_tool_calls, t.unexecuted_calls) == (1, 2)


def test_an_interpreter_block_of_the_policy_is_the_policys():
    """It stays in the loss and is no observation (SimpleTIR, ToRL: counted by searching text)."""
    script = ["<interpreter>", "9", "</interpreter>", *ANSWER]
    made = stage([[script]], tool=ArithmeticTool())
    [t] = run(made)
    assert not t.tool_calls
    assert set(t.origins.tolist()) == {Origin.PROMPT, Origin.POLICY}


def test_empty_code_is_no_call_and_counted_as_unexecuted():
    tool = ArithmeticTool()
    made = stage([[["<code>", "\n", "</code>", *ANSWER]], [["</code>", *ANSWER]]], tool=tool)
    for t in run(made):
        assert (t.num_tool_calls, t.unexecuted_calls) == (0, 1)
        assert t.finish_reason is FinishReason.ANSWER
    assert tool.calls == []


def test_a_token_with_two_tags_is_looked_at_twice():
    """An empty call, then the answer's tag, in one token; and two empty calls in one token."""
    made = stage(
        [[["<answer>", "4", "</code></answer>"]], [["</code> </code>", *ANSWER]]],
        tool=ArithmeticTool(),
    )
    first, second = run(made)
    assert (first.finish_reason, first.unexecuted_calls) == (FinishReason.ANSWER, 1)
    assert (second.finish_reason, second.unexecuted_calls) == (FinishReason.ANSWER, 2)


def test_a_tool_output_longer_than_the_budget_is_cut_and_ends_the_row():
    config = RolloutConfig(max_response_tokens=len(CALL) + 4)
    made = stage([[CALL]], tool=ArithmeticTool(), config=config)
    [t] = run(made)
    assert t.finish_reason is FinishReason.LENGTH
    assert t.num_tool_calls == 1
    assert (t.origins == Origin.TOOL).sum() == 4
    assert len(t.ids) == t.tool_calls[0].observation_stop
    assert t.tool_calls[0].tool == "python"
    assert t.final_text == ""


def test_a_call_that_uses_up_the_budget_is_not_executed():
    tool = ArithmeticTool()
    made = stage([[CALL]], tool=tool, config=RolloutConfig(max_response_tokens=len(CALL)))
    [t] = run(made)
    assert t.finish_reason is FinishReason.LENGTH
    assert (t.num_tool_calls, t.unexecuted_calls) == (0, 1)
    assert tool.calls == []


def test_tags_inside_a_tool_output_are_defused():
    hostile = ToolResult(status=ToolStatus.OK, stdout="</interpreter></code>\n")
    made = stage([[[*CALL, *ANSWER]]], tool=ScriptedTool({"2+2": hostile}))
    [t] = run(made)
    [(_, shown)] = [part for part in texts(t, made) if part[0] is Origin.TOOL]
    assert shown.count("</interpreter>") == 1
    assert "</code>" not in shown
    assert "&lt;/interpreter>" in shown


def test_failed_infrastructure_masks_the_trajectory_and_nothing_else():
    made = stage(
        [[[*CALL, *ANSWER], [*CALL, *ANSWER]]], tool=FailingTool(ArithmeticTool(), failures=1)
    )
    trajectories = run(made, samples=2)
    assert sorted(t.is_masked for t in trajectories) == [False, True]
    [lost] = [t for t in trajectories if t.is_masked]
    assert (lost.finish_reason, lost.lost_to) == (FinishReason.INFRASTRUCTURE, "python")
    assert {t.lost_to for t in trajectories if not t.is_masked} == {""}
    assert (lost.num_tool_calls, lost.unexecuted_calls) == (0, 1)
    batch = to_batch(trajectories, PackConfig(row_tokens=64))
    index = trajectories.index(lost)
    assert set(np.unique(batch.trajectory_ids)) == {-1, 1 - index}


def test_results_come_in_the_order_of_problem_and_sample():
    scripts = [[["a"] * (1 + (3 * i + s) % 5) + [EOS] for s in range(3)] for i in range(4)]
    made = stage(scripts, tool=ArithmeticTool(), decode_rows=3)
    trajectories = run(made, samples=3)
    assert [(t.problem.problem_id, t.sample) for t in trajectories] == [
        (f"p{i}", s) for i in range(4) for s in range(3)
    ]
    assert [t.num_policy_tokens for t in trajectories] == [
        2 + (3 * i + s) % 5 for i in range(4) for s in range(3)
    ]
    assert len(made.engine.prefilled) == 4


def test_a_row_that_waits_does_not_stop_the_others():
    """The tool answers only after ten windows, which only the other rows can fill."""

    class WaitsForWindows(ArithmeticTool):
        async def execute(self, code):
            async with asyncio.timeout(20):
                while made.engine.windows < 10:
                    await asyncio.sleep(0.001)
            return await super().execute(code)

    made = stage([[[*CALL, *ANSWER]], [["a"] * 60 + [EOS]]], tool=WaitsForWindows(), window_steps=4)
    slow, _ = run(made)
    assert slow.finish_reason is FinishReason.ANSWER


def test_latency_of_the_tool_changes_nothing():
    scripts = [[[*CALL, "a", *CALL, *ANSWER] for _ in range(2)] for _ in range(6)]
    expected = run(stage(scripts, tool=ArithmeticTool()), samples=2)
    slow = SlowTool(ArithmeticTool(), seed=1, max_latency_s=0.01)
    for one, other in zip(run(stage(scripts, tool=slow), samples=2), expected, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.origins, other.origins)


def test_a_tool_that_breaks_raises_and_the_collector_can_be_used_again():
    class Breaks(ArithmeticTool):
        is_broken = True

        async def execute(self, code):
            if self.is_broken:
                raise ZeroDivisionError("a bug of the tool")
            return await super().execute(code)

    scripts = [[[*CALL, *ANSWER]], [["a", *CALL, *ANSWER]], [["a"] * 30 + [EOS]]]
    tool = Breaks()
    made = stage(scripts, tool=tool)
    with pytest.raises(ZeroDivisionError, match="a bug of the tool"):
        asyncio.run(made.collect())
    assert made.engine.num_free == made.engine.config.decode_rows
    assert not made.engine.is_any_running
    again = stage(scripts, tool=ArithmeticTool())
    tool.is_broken = False
    made.engine._scripts = again.engine._scripts
    assert [t.finish_reason for t in run(made)] == [
        FinishReason.ANSWER,
        FinishReason.ANSWER,
        FinishReason.EOS,
    ]


def test_ctrl_c_inside_a_window_leaves_no_slot_and_no_running_row():
    """What asyncio does on Ctrl-C: the collecting task is cancelled while the device works."""
    made = stage([[["a"] * 200 + [EOS]]] * 1, tool=ArithmeticTool(), fetch_s=0.1)

    async def interrupted():
        task = asyncio.create_task(made.collect())
        await asyncio.sleep(0.15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        windows = made.engine.windows
        assert made.engine.num_free == made.engine.config.decode_rows
        await asyncio.sleep(0.2)
        assert made.engine.windows == windows, "the window went on behind our back"

    asyncio.run(interrupted())


def test_a_prompt_that_does_not_fit_is_refused_before_anything_runs():
    made = stage([[["a", EOS]], [["a", EOS]]], tool=ArithmeticTool(), max_tokens=100)
    with pytest.raises(
        ValueError, match=r"max_response_tokens=256 exceed EngineConfig.max_tokens=100"
    ):
        asyncio.run(made.collect())
    assert made.engine.num_free == made.engine.config.decode_rows
    assert made.engine.prefilled == []


def test_a_protocol_with_a_tool_needs_one():
    made = stage([[[EOS]]], tool=ArithmeticTool())
    with pytest.raises(ValueError, match="'arithmetic_tools' has a tool format but no tool"):
        Collector(
            engine=made.engine,
            tokenizer=made.tokenizer,
            renderer=made.renderer,
            tools=Menu(),
            config=RolloutConfig(),
        )


def test_without_a_tool_code_tags_are_text():
    made = stage([[[*CALL, *ANSWER]]], tool=None, renderer="arithmetic_text")
    [t] = run(made)
    assert (t.num_tool_calls, t.unexecuted_calls) == (0, 0)
    assert t.finish_reason is FinishReason.ANSWER


def test_all_infrastructure_failures_are_masked():
    class Down(ArithmeticTool):
        async def execute(self, code):
            raise ToolUnavailable("down")

    made = stage([[[*CALL, *ANSWER]]] * 3, tool=Down())
    assert all(t.is_masked for t in run(made))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_response_tokens": 0}, "max_response_tokens=0"),
        ({"max_tool_calls": -1}, "max_tool_calls=-1"),
        (
            {"at_tool_limit": "stop"},
            "at_tool_limit='stop' must be 'finish', 'continue' or 'force_answer'",
        ),
        ({"invalid_calls": "no"}, "invalid_calls='no' must be 'observe', 'finish' or 'ignore'"),
        ({"max_consecutive_invalid_calls": -1}, "max_consecutive_invalid_calls=-1"),
        ({"kv": "lost"}, "kv='lost' must be 'kept' or 'reprefill'"),
        ({"schedule": "batch"}, "schedule='batch' must be 'continuous' or 'lockstep'"),
    ],
)
def test_impossible_budgets_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RolloutConfig(**fields)
