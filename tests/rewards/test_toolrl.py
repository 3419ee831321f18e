"""ToolRL's reward by hand: the published examples, formats, scales, lengths."""

import dataclasses

import numpy as np
import pytest

from jaxtool.core.types import Problem
from jaxtool.judges.base import Case
from jaxtool.judges.tool_calls import ToolCalls
from jaxtool.rewards.fewest_calls import CallHistory
from jaxtool.rewards.toolrl import ToolRlReward, has_format, thought_words


def turn(*calls, thought="Two prices."):
    return "\n".join([f"<think>{thought}</think>", "<tool_call>", *calls, "</tool_call>"])


def price(inner):
    return f'{{"name": "Get_Price", "parameters": {{{inner}}}}}'


SFO, LAX = price('"loc_1": "ORD", "loc_2": "SFO"'), price('"loc_1": "ORD", "loc_2": "LAX"')
WANTED = turn(SFO, LAX)  # ToolRL, figure 2
ROLLOUT_1 = turn(SFO, price('"loc_2": "LAX"'))
ROLLOUT_2 = turn('{"name": "Get_Flight", "parameters": {"from": "ORD", "to": "SFO"}}', LAX)
ANSWER = "<think>Easy.</think>\n<response>To LAX.</response>"


@pytest.fixture
def reward_of(make_trajectory):
    def reward(text, *, answer=WANTED, step=0, reward_fn=None):
        problem = Problem(problem_id="p", question="q", answer=answer)
        member = dataclasses.replace(
            make_trajectory(),
            problem=problem,
            final_text=text,
            policy_versions=np.array([-1, step], np.int32),
        )
        with ToolCalls().open() as judge:
            (verdict,) = judge.judge([Case(problem=problem, answer=text, response=text)])
        (score,) = (reward_fn or ToolRlReward())([member], [verdict], [0.0], CallHistory())
        assert score.is_correct == verdict.is_correct
        return score.reward

    return reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (WANTED, 1 + 3),
        (ROLLOUT_1, 1 + 6 * 5.5 / 7 - 3),
        (ROLLOUT_2, 1 + 6 * (1 / 3 + 1 + 2) / 7 - 3),
        (WANTED.removeprefix("<think>Two prices.</think>\n"), 0 + 3),
        (ANSWER, 0 - 3),  # figure 2: the second format
        (WANTED.replace("}", "]"), 1 - 3),  # its tags are right, its JSON is not
        ("", 0 - 3),
    ],
)
def test_the_published_examples(reward_of, text, reward):
    """Section 3.3: format 0 or 1, correctness 6 ⋅ S / 7 - 3."""
    assert reward_of(text) == pytest.approx(reward)


def test_where_no_call_is_right_the_format_alone_counts(reward_of):
    assert reward_of(ANSWER, answer=ANSWER) == 1
    assert reward_of(WANTED, answer=ANSWER) == 0
    assert reward_of(ANSWER, answer="[]") == 1


def test_references_in_json_want_a_call_and_no_response(reward_of):
    answer = f"[{SFO}, {LAX}]"
    assert reward_of(WANTED, answer=answer) == 4
    assert reward_of(f"{WANTED}\n<response>x</response>", answer=answer) == 3


CALL = "<tool_call>\n{}\n</tool_call>"


@pytest.mark.parametrize(
    ("text", "calls", "response", "wanted"),
    [
        (f"<think>a\nb</think>\n{CALL}", True, False, True),
        (f" <think>a</think>\n{CALL}\n", True, False, True),
        (f"<think>a</think>{CALL}", True, False, False),
        (f"<think>a</think>\n{CALL} so", True, False, False),
        (f"<think>a</think>\n{CALL}\n{CALL}", True, False, False),
        (f"<think>a</think>\n{CALL}\n<response>r</response>", True, True, True),
        (f"<think>a</think>\n<response>r</response>\n{CALL}", True, True, False),
        ("<think>a</think>\n<response>r</response>", False, True, True),
        ("<think>a</think>\n<response>r</response></response>", False, True, False),
        ("<think>a</think>", False, False, True),
        ("<think>a", False, False, False),
    ],
)
def test_formats(text, calls, response, wanted):
    assert has_format(text, calls=calls, response=response) is wanted


def test_hermes_has_a_tag_for_each_call():
    text = f"<think>a</think>\n{CALL}\n{CALL}"
    assert has_format(text, calls=True, response=False, form="hermes")
    assert not has_format(text, calls=True, response=False)


@pytest.mark.parametrize(
    ("reward_fn", "step", "reward"),
    [
        (ToolRlReward(correct_range=(-1.0, 1.0)), 0, 1 + 2 * 5.5 / 7 - 1),  # equal max
        (ToolRlReward(scale="two_stage"), 29, 1 + 2 * 5.5 / 7 - 1),
        (ToolRlReward(scale="two_stage"), 30, 0.5 + 6 * 5.5 / 7 - 3),
        (ToolRlReward(scale="smooth"), 0, 2 + 4 * 5.5 / 7 - 2),
        (ToolRlReward(scale="smooth"), 75, 1.5 + 5 * 5.5 / 7 - 2.5),
        (ToolRlReward(scale="smooth"), 900, 1 + 6 * 5.5 / 7 - 3),
    ],
)
def test_scales_by_hand(reward_of, reward_fn, step, reward):
    """Section 5.2."""
    assert reward_of(ROLLOUT_1, step=step, reward_fn=reward_fn) == pytest.approx(reward)


def test_lengths_by_hand(reward_of):
    """Section 5.1: 128 words of 512 are a quarter, of 512 ⋅ (1 + 75/150) a sixth."""
    text = turn(SFO, LAX, thought="word " * 128)
    assert thought_words(text) == 128
    fixed, dynamic = ToolRlReward(length="fixed"), ToolRlReward(length="dynamic")
    assert reward_of(text, reward_fn=fixed) == pytest.approx(4 + 1 / 4)
    assert reward_of(text, reward_fn=dynamic, step=75) == pytest.approx(4 + 1 / 6)
    assert reward_of(turn(SFO, LAX, thought="w " * 999), reward_fn=fixed) == 5
    assert thought_words("<think>never closed") == 0


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"scale": "sharp"}, "ToolRlReward.scale='sharp' must be one of fixed, two_stage, smooth"),
        ({"form": "react"}, "ToolRlReward.form='react' must be one of toolrl, hermes"),
        (
            {"correct_range": (3.0, -3.0)},
            r"ToolRlReward.correct_range=\(3.0, -3.0\) must be two numbers that rise",
        ),
        ({"scale_steps": 0}, "scale_steps"),
    ],
)
def test_choices_that_cannot_be_are_refused(choices, said):
    with pytest.raises(ValueError, match=said):
        ToolRlReward(**choices)
