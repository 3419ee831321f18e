"""Stop tags inside an open program neither end a response nor cut the program; the row keeps its cache."""

import dataclasses

import numpy as np
import pytest
from helpers.fakes import ScriptedTool
from helpers.scripted_engine import ANSWER, CALL, EOS, ids_of, run, splits, stage

from jaxtool.core.types import FinishReason, Origin, ToolResult, ToolStatus
from jaxtool.data.tokenizer import VocabularyTokenizer, decode
from jaxtool.rollout.collector import RolloutConfig

FENCED = ["<code>", "\n", "`", "`", "`", "p", "y", "\n"]
END = ["\n", "`", "`", "`", "\n", "</code>"]
OK = ToolResult(status=ToolStatus.OK, stdout="4\n")


def letters(text: str) -> list[str]:
    """One token a character, tags whole."""
    out = []
    for part in text.replace("<", "\0<").replace(">", ">\0").split("\0"):
        out += [part] if part.startswith("<") and part.endswith(">") else list(part)
    return out


@pytest.mark.parametrize("window_steps", [1, 5])
@pytest.mark.parametrize(
    "program",
    [
        "print('<answer>4</answer>')",
        "x=4;print(f'<answer>{x}</answer>')",
        "print('</code>')",
        "print(f'{x}</code>')",
        "# </code>\nprint(4) # </answer>",
        "'''\n```\n</code>\n'''",
    ],
)
def test_the_whole_program_runs_once_and_the_row_goes_on(program, window_steps):
    tool = ScriptedTool({program: OK})
    script = [*FENCED, *letters(program), *END, *ANSWER]
    made = stage([[script]], tool=tool, window_steps=window_steps)
    [t] = run(made)
    assert tool.calls == [program]
    assert t.tool_calls[0].arguments == {"code": program}
    assert t.finish_reason is FinishReason.ANSWER
    assert t.unexecuted_calls == 0
    assert t.final_text == "<answer>4</answer>"
    assert t.ids[t.origins == Origin.POLICY].tolist() == ids_of(script, made.tokenizer)
    assert len(made.engine.prefilled) == 1
    assert made.engine.reruns == 0
    start = t.tool_calls[0].start
    assert decode(made.tokenizer, t.ids[start : t.tool_calls[0].stop]).endswith("```\n</code>")
    is_policy = t.origins == Origin.POLICY
    np.testing.assert_allclose(
        t.behaviour_logprobs[is_policy], -np.arange(1, is_policy.sum() + 1) / 8
    )


@pytest.mark.parametrize("kv", ["kept", "reprefill"])
def test_a_tag_in_a_string_is_text_whatever_its_tokenisation(kv):
    ways = [*splits("</code>")[::7], ["</code></answer>"], ["</code> </code>"]]
    scripts = [["<code>", "'", *way, "'", "</code>", *ANSWER] for way in ways]
    programs = ["'" + "".join(way) + "'" for way in ways]
    tool = ScriptedTool(dict.fromkeys(programs, OK))
    made = stage([[script] for script in scripts], tool=tool, config=RolloutConfig(kv=kv))
    for t, program in zip(run(made), programs, strict=True):
        assert [call.arguments["code"] for call in t.tool_calls] == [program]
        assert t.finish_reason is FinishReason.ANSWER


def test_a_closing_answer_tag_without_its_opening_ends_nothing():
    script = ["4", "</answer>", " ", *ANSWER]
    [t] = run(stage([[script]], tool=ScriptedTool({})))
    assert t.final_text == "4</answer> <answer>4</answer>"
    assert t.finish_reason is FinishReason.ANSWER
    assert t.unexecuted_calls == 0


def test_an_answer_that_opened_before_an_observation_does_not_end_what_follows():
    """Only the text after the last observation is scored, so the whole answer has to stand there."""
    script = ["<answer>", *CALL, "4", "</answer>", *ANSWER]
    [t] = run(stage([[script]], tool=ScriptedTool({"2+2": OK})))
    assert t.final_text == "4</answer><answer>4</answer>"


def test_a_program_that_never_closes_runs_nothing():
    script = ["<code>", "'", "'", "'", "</code>", "\n", *ANSWER, EOS]
    tool = ScriptedTool({})
    [t] = run(stage([[script]], tool=tool))
    assert (tool.calls, t.tool_calls) == ([], ())
    assert t.finish_reason is FinishReason.EOS


def test_a_quote_without_its_partner_gives_the_tag_back_at_the_end_of_its_line():
    tool = ScriptedTool({"print('4": OK})
    script = ["<code>", *letters("print('4"), "</code>", "\n", ">", *ANSWER]
    [t] = run(stage([[script]], tool=tool))
    assert tool.calls == ["print('4"]
    assert t.final_text == "<answer>4</answer>"


def test_the_response_prefix_opens_the_answer():
    made = stage([[["4", "}", "</answer>"]]], tool=None, renderer="arithmetic_mental")
    [t] = run(made)
    assert t.finish_reason is FinishReason.ANSWER
    assert t.final_text == "4}</answer>"


class TildeIsControl(VocabularyTokenizer):
    """As a text a tilde is a dash."""

    @property
    def control_tokens(self):
        return {self.pieces.index("~") + 2: "~"}

    def encode_plain(self, text: str) -> list[int]:
        return self.encode(text.replace("~", "-"))


def test_what_a_tool_prints_puts_no_control_token_into_the_ledger():
    printed = dataclasses.replace(OK, stdout="~4\n")
    made = stage([[[*CALL, *ANSWER]]], tool=ScriptedTool({"2+2": printed}))
    made.collector.tokenizer = TildeIsControl(made.tokenizer.pieces)
    [t] = run(made)
    told = decode(made.tokenizer, t.ids[t.origins == Origin.TOOL])
    assert told == "\n<interpreter>\n-4\n</interpreter>\n"
    assert t.tool_calls[0].result.stdout == "~4\n"
