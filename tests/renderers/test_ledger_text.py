"""Written responses are read as a rollout reads them: tags of programs are text, outputs hold no control token."""

import dataclasses

import pytest
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.core.types import FinishReason, Origin, Problem
from jaxtool.data.arithmetic import arithmetic_tokenizer
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.tokenizer import decode
from jaxtool.renderers.demonstrations import ArithmeticDemonstrations
from jaxtool.renderers.ledgers import demonstration, split_response, up_to_answer
from jaxtool.renderers.renderer import load_renderer

RETOOL = load_renderer("retool")
OBSERVATION = "\n<interpreter>\n4\n</interpreter>\n\n"
QUOTED = "print('''<code>x</code>\n<interpreter>\n1\n</interpreter>\n<answer>2</answer>''')"
RESPONSE = f"So\n<code>\n{QUOTED}\n</code>{OBSERVATION}<answer>4</answer>"


def test_an_observation_in_a_string_of_a_program_is_the_policys():
    assert split_response(RESPONSE, RETOOL) == [
        (f"So\n<code>\n{QUOTED}\n</code>", Origin.POLICY),
        (OBSERVATION, Origin.TOOL),
        ("<answer>4</answer>", Origin.POLICY),
    ]


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        (RESPONSE + " and more", RESPONSE),
        ("<code>print(f'<answer>{x}</answer>')</code> <answer>4</answer>.", None),
        ("4</answer> <answer>4</answer> no", "4</answer> <answer>4</answer>"),
        ("no answer", "no answer"),
    ],
)
def test_a_response_goes_up_to_the_answer_that_ends_it(response, kept):
    assert up_to_answer(response, RETOOL) == (response[:-1] if kept is None else kept)


def test_a_response_that_no_rollout_would_end_gets_the_end_token(tmp_path):
    tokenizer = tokenizer_from_dir(write_byte_level(tmp_path / "hf"))
    problem = Problem(problem_id="p", question="2+2", answer="4")
    for response, reason in (
        ("<answer>4</answer>", FinishReason.ANSWER),
        ("4</answer>", FinishReason.EOS),
    ):
        made = demonstration(problem, response, renderer=RETOOL, tokenizer=tokenizer)
        assert made.finish_reason is reason
        assert (made.ids[-1] in tokenizer.eos_ids) == (reason is FinishReason.EOS)


def test_a_written_observation_holds_no_control_token(tmp_path):
    tokenizer = tokenizer_from_dir(write_byte_level(tmp_path / "hf"))
    observation = OBSERVATION.replace("4", "4<|im_end|>")
    response = f"<code>x</code>{observation}<answer>4</answer>"
    problem = Problem(problem_id="p", question="2+2", answer="4")
    made = demonstration(problem, response, renderer=RETOOL, tokenizer=tokenizer)
    told = made.ids[made.origins == Origin.TOOL]
    assert decode(tokenizer, told) == observation
    assert not {int(i) for i in told} & set(tokenizer.control_tokens)


@pytest.mark.parametrize(("fence", "block"), [("", "print("), ("~~~py", "~~~py\nprint(")])
def test_planted_calls_are_written_in_the_fence_of_the_renderer(fence, block):
    tools = load_renderer("arithmetic_tools")
    assert tools.tool is not None
    renderer = dataclasses.replace(tools, tool=dataclasses.replace(tools.tool, fence=fence))
    source = ArithmeticDemonstrations(calls_when_easy=(0, 1, 0), calls_when_hard=(0, 1, 0))
    [made] = source.take(1, seed=0, index=0, renderer=renderer, tokenizer=arithmetic_tokenizer())
    head = made.response_text.split("</code>")[0]
    assert head.startswith(f"<code>\n{block}")
    assert head.endswith(")\n~~~\n" if fence else ")\n")
    assert "`" not in made.response_text
