"""Where calls stand in a response, by hand."""

import json

from helpers.behaviour_answers import answered, ran, searched

from jaxtool.behaviour.timing import (
    before_answer_ratio,
    call_position,
    call_positions,
    first_call_position,
    first_start,
    places,
)
from jaxtool.rundir.answer_records import Part


def test_positions_in_tokens_are_where_calls_end():
    """10 + 5, 20 + 5, 10: the calls end at tokens 10 and 35 of 50."""
    answer = answered(ran("a"), ran("b", tokens=20))
    assert call_positions(answer) == [0.2, 0.7]
    other = answered(ran("c"))  # 10 of 25
    assert first_call_position([answer, other, answered()]) == (0.2 + 0.4) / 2
    assert call_position([answer, other, answered()]) == (0.2 + 0.7 + 0.4) / 3
    assert first_call_position([answered()]) is None


def test_starts_in_characters_are_where_programs_begin():
    """ "Let me" + "print(1)" + "and" + "print(22)" + "ok!!": 6 of 30 and 17 of 30."""
    answer = answered(ran("print(1)"), ran("print(22)"), words=("Let me", "and"), end="ok!!")
    assert [place.start for place in places(answer)] == [6 / 30, 17 / 30]
    assert first_start(map(places, [answer, answered()])) == 6 / 30


def test_a_query_and_a_program_in_json_are_found():
    code = 'print("é")\nx'
    said = json.dumps({"code": code})
    answer = answered(ran(code), searched("capital"))
    parts = (Part(author="policy", text=said, tokens=10), *answer.parts[1:])
    [program, query] = places(answer.__class__(**{**vars(answer), "parts": parts}))
    assert program.start == said.index("print") / (len(said) + len("capital"))
    assert query.start == len(said) / (len(said) + len("capital"))


def test_what_is_not_in_the_text_has_no_place():
    answer = answered(ran("print(1)"))
    without = answer.__class__(
        **{**vars(answer), "parts": (Part(author="policy", text="other", tokens=25),)}
    )
    assert places(without) == [None]
    assert first_start(map(places, [without])) is None
    assert before_answer_ratio([places(without)]) is None


def test_code_after_a_stated_answer_is_post_hoc():
    """Of three programs the last comes after the box. Boxes without content state nothing."""
    answer = answered(
        ran("a1"),
        ran("b2"),
        ran("c3"),
        words=("I will write \\boxed{} at the end.", "", "So \\boxed{42}. To check: "),
    )
    assert [place.is_before_answer for place in places(answer)] == [True, True, False]
    assert before_answer_ratio([places(answer)]) == 2 / 3


def test_a_box_that_the_program_prints_is_no_statement_before_it():
    assert before_answer_ratio([places(answered(ran("print('\\\\boxed{42}')")))]) == 1.0


def test_a_box_in_an_earlier_program_or_observation():
    """What the tool wrote is no statement of the policy; what its own program holds is."""
    shown = answered(searched("q1", "\\boxed{3}"), searched("q2"))
    assert before_answer_ratio([places(shown)]) == 1.0
    assert before_answer_ratio([places(answered(ran("'<answer>3'"), ran("x")))]) == 1 / 2
