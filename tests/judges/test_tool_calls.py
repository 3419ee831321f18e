"""Calls against reference calls: ToolRL's published examples, references in their forms, what is refused."""

import json

import pytest

from jaxtool.core.calls import Call
from jaxtool.core.types import Problem
from jaxtool.judges.base import Case
from jaxtool.judges.tool_calls import ToolCalls, expected_calls, match_score


def price(**places):
    return Call(tool="Get_Price", arguments=places)


FLIGHT = Call(tool="Get_Flight", arguments={"from": "ORD", "to": "SFO"})
# ToolRL, figure 2: is flying to LAX cheaper than to SFO?
WANTED = [price(loc_1="ORD", loc_2="SFO"), price(loc_1="ORD", loc_2="LAX")]
ROLLOUT_1 = [price(loc_1="ORD", loc_2="SFO"), price(loc_2="LAX")]
ROLLOUT_2 = [FLIGHT, price(loc_1="ORD", loc_2="LAX")]


@pytest.mark.parametrize(
    ("written", "names", "keys", "values"),
    [(ROLLOUT_1, 1, 1.5, 3), (ROLLOUT_2, 1 / 3, 1, 2), (WANTED, 1, 2, 4), ([], 0, 0, 0)],
)
def test_the_published_examples(written, names, keys, values):
    """Figure 2: names of 1, keys of 2, values of 4; S_max = 1 + 2 + 4."""
    assert match_score(WANTED, written) == pytest.approx((names + keys + values) / 7)


def test_order_does_not_matter_and_the_best_matching_counts():
    assert match_score(WANTED, WANTED[::-1]) == 1
    # A greedy matching gives the first reference the first call (2.5 of 3) and loses the second (0.5).
    wanted = [price(a=1, b=2), price(a=1)]
    written = [price(a=1), price(a=1, b=2)]
    assert match_score(wanted, written) == 1
    # Three calls for two: names 2/3, all else matched: (2/3 + 2 + 4) / 7.
    assert match_score(WANTED, [*WANTED, price(loc_1="x")]) == pytest.approx((2 / 3 + 6) / 7)


@pytest.mark.parametrize(
    ("granularity", "first", "second"),
    [
        # Rollout 1: one call equal, the other with one of two keys. Rollout 2: one equal, one of another tool.
        ("original", 5.5 / 7, (1 / 3 + 3) / 7),
        ("finegrained", (1 + 1 + 3) / 7, (0 + 1 + 2) / 7),
        ("intermediate", (1 + 1) / 3, (1 / 3 + 1) / 3),
        ("coarse", 0, 0),
    ],
)
def test_granularities_by_hand(granularity, first, second):
    """Section 5.3."""
    assert match_score(WANTED, ROLLOUT_1, granularity) == pytest.approx(first)
    assert match_score(WANTED, ROLLOUT_2, granularity) == pytest.approx(second)
    assert match_score(WANTED, WANTED[::-1], granularity) == 1


@pytest.mark.parametrize(
    ("value", "other", "is_equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, None, False),
        ("1", 1, False),
        ([1, 2], [2, 1], False),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, True),
    ],
)
def test_values_are_compared_as_json(value, other, is_equal):
    """All is equal but the value: 1 + 1 + 1 of 3, or one less."""
    assert match_score([price(x=value)], [price(x=other)]) == (1 if is_equal else 2 / 3)


LINES = '{"name": "Get_Price", "parameters": {"loc_1": "ORD", "loc_2": "SFO"}}'
TEXT = f"<think>x</think>\n<tool_call>\n{LINES}\n</tool_call>"


@pytest.mark.parametrize(
    "reference", [TEXT, LINES, f"[{LINES}]", LINES.replace("parameters", "arguments")]
)
def test_references_in_every_form(reference):
    assert expected_calls(reference) == (WANTED[0],)


@pytest.mark.parametrize("reference", ["[]", "<think>x</think>\n<response>Hello.</response>"])
def test_a_reference_may_say_that_no_call_is_right(reference):
    assert expected_calls(reference) == ()
    verdicts = judged(reference, "<think>y</think>\n<response>Hi.</response>", TEXT)
    assert [(v.score, v.is_correct) for v in verdicts] == [(1, True), (0, False)]


def judged(reference, *responses, **choices):
    problem = Problem(problem_id="p", question="q", answer=reference)
    cases = [Case(problem=problem, answer=text, response=text) for text in responses]
    with ToolCalls(**choices).open() as judge:
        return judge.judge(cases)


def test_verdicts_of_responses():
    half = TEXT.replace(', "loc_2": "SFO"', "")
    right, partly, broken, none = judged(TEXT, TEXT, half, TEXT.replace('"}}', '"}'), "SFO")
    assert (right.score, right.is_correct) == (1, True)
    assert (partly.score, partly.is_correct) == (pytest.approx((1 + 0.5 + 1) / 4), False)
    assert (broken.score, none.score) == (0, 0)
    assert broken.how.startswith("invalid call: the call is no JSON: Expecting")


def test_other_forms_of_a_response():
    hermes = "<tool_call>" + LINES.replace("parameters", "arguments") + "</tool_call>"
    assert judged(LINES, hermes, form="hermes")[0].is_correct
    assert judged(LINES, LINES, form="llama3_1")[0].is_correct


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("Paris", "'Paris' holds neither <tool_call> nor <response>, nor is it JSON"),
        ('[{"name": "f"}]', 'is no call: write {"name": ..., "parameters": {...}}'),
        ("[1", "'[1' is no JSON"),
        ("[] and", "behind the JSON stands 'and'"),
        ("<tool_call>\n{}\n</tool_call>", 'a call is an object with "name" and "parameters"'),
    ],
)
def test_a_reference_without_calls_is_unfit(reference, said):
    assert said in ToolCalls().unfit(Problem(problem_id="p", question="q", answer=reference))
    assert ToolCalls().unfit(Problem(problem_id="p", question="q", answer=TEXT)) is None


def test_choices_that_there_are_not_are_refused():
    with pytest.raises(
        ValueError, match=r"ToolCalls.form='xml' must be one of hermes, qwen3_coder"
    ):
        ToolCalls(form="xml")
    with pytest.raises(
        ValueError, match=r"ToolCalls.granularity='fine' must be one of original, f"
    ):
        ToolCalls(granularity="fine")  # pyright: ignore[reportArgumentType]


def test_hundreds_of_calls_are_judged_at_once():
    many = json.dumps([{"name": "Get_Price", "parameters": {"a": i}} for i in range(300)])
    calls = expected_calls(many)
    assert match_score(calls, calls[::-1]) == 1
