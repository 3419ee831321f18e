"""What measures ask of a record."""

import pytest
from helpers.behaviour_answers import answered, ran, searched

from jaxtool.behaviour.answers import judged, programs, queries, right, without_texts, wrong


def test_programs_and_queries_are_told_by_their_argument():
    answer = answered(ran("print(1)"), searched("capital"), ran(""))
    assert [call.code for call in programs(answer)] == ["print(1)", ""]
    assert [query for query, _ in queries(answer)] == ["capital"]


def test_lost_answers_are_neither_right_nor_wrong():
    records = [answered(), answered(is_correct=False), answered(is_correct=False, is_lost=True)]
    assert judged(records) == records[:2]
    assert (right(records), wrong(records)) == (records[:1], records[1:2])


def test_without_texts_programs_stay_and_responses_and_outputs_go():
    answer = answered(ran("print(1)"), searched("q", "passages " * 99), end="So it is 42.")
    bare = without_texts(answer)
    assert bare.parts == ()
    assert [call.stdout for call in bare.calls] == ["", ""]
    assert [call.code for call in programs(bare)] == ["print(1)"]
    assert queries(bare)[0][0] == "q"
    assert bare.policy_tokens == answer.policy_tokens


def test_records_read_without_texts_are_refused():
    [call] = answered(searched("q")).calls
    bare = answered().__class__(
        **{
            **vars(answered()),
            "calls": (call.__class__(**{**vars(call), "arguments": ""}),),
        }
    )
    with pytest.raises(ValueError, match="read them whole"):
        programs(bare)
