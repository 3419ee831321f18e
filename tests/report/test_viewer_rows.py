"""Answers as the viewer reads them: who wrote which text, which call a part belongs to, what is not claimed."""

import itertools
import json

from helpers.answer_examples import CODE, make_call, make_record, two_call_line

from benchmarks.report_page import many_lines
from jaxtool.report.viewer_rows import MAX_SPANS, row_of_record, row_of_view, utf16_length
from jaxtool.rundir.answer_records import Part, Span


def shapes(parts):
    return [(part["k"], part["x"], part.get("c", -1)) for part in parts]


def test_parts_are_runs_of_one_author_and_a_call_reaches_from_its_code_to_its_output():
    row = row_of_view(two_call_line())
    assert shapes(row.body["parts"]) == [
        ("p", "Q<end>", -1),
        ("a", "I ", -1),
        ("c", "x=1", 0),
        ("a", "</c>", 0),
        ("t", "1", 0),
        ("a", "so ", -1),
        ("c", "y", 1),
        ("a", "!", 1),
        ("t", "2", 1),
        ("a", " é😀", -1),
    ]
    assert row.body["parts"][0]["m"] == [[1, 5]]  # the control token inside the prompt's text
    assert sum(part["n"] for part in row.body["parts"]) == 11
    assert (row.head["calls"], row.head["failed"]) == (2, 1)
    assert row.figures is not None
    assert row.figures["n"] == [1, 5, 2, 3, 4, 1, 3, 1, 1, 1, 4]  # the last: space, é, two units
    assert row.figures["advantage"] == 0.25  # one figure for all of the policy's tokens
    different = two_call_line()
    different["tokens"]["advantage"][3] = -1.0
    figures = row_of_view(different).figures
    assert figures is not None
    assert figures["advantage"] == different["tokens"]["advantage"]


def test_a_log_of_an_earlier_version_has_its_calls_too():
    old = two_call_line()
    for call in old["tool_calls"]:
        for name in ("start", "stop", "observation_stop"):
            del call[name]
    assert shapes(row_of_view(old).body["parts"]) == shapes(
        row_of_view(two_call_line()).body["parts"]
    )


def test_what_is_not_known_is_not_claimed():
    head = row_of_view(two_call_line()).head
    assert (head["given"], head["ms"], head["spans"], head["lost"]) == (None, None, "", False)
    masked = row_of_view(
        two_call_line(is_masked=True, reward=None, is_correct=False, advantage=None)
    ).head
    assert (masked["lost"], masked["right"], masked["reward"]) == (True, False, None)
    record = row_of_record(make_record())
    for name in ("step", "reward", "advantage", "coefficient"):
        assert record.head[name] is None
    assert record.figures is None


def test_a_record_splits_a_segment_into_thought_code_and_tag():
    row = row_of_record(make_record())
    code = CODE.strip()
    assert shapes(row.body["parts"]) == [
        ("a", "Let me compute. <code>", -1),
        ("c", code, 0),
        ("a", "\n</code>", 0),
        ("t", "<output>42\n</output>", 0),
        ("a", "It is \\boxed{42}.", -1),
    ]
    assert row.head["spans"] == "g0-300 t300-320 g320-400 j500-510"
    assert (row.head["ms"], row.head["tool_ms"]) == (510, 12)
    assert row.head["condition"] == "sampled, 4 calls"
    assert row.question == ("q1", "What is 6 * 7?", ("42",))


def test_of_a_call_whose_arguments_are_not_found_the_segment_counts():
    search = make_call(tool="search", code="", arguments=json.dumps({"query": "not there"}))
    row = row_of_record(make_record(calls=(search,)))
    assert shapes(row.body["parts"])[0] == (
        "c",
        f"Let me compute. <code>{CODE}</code>",
        0,
    )
    found = make_call(tool="search", code="", arguments=json.dumps({"query": "compute"}))
    assert shapes(row_of_record(make_record(calls=(found,))).body["parts"])[1] == (
        "c",
        "compute",
        0,
    )


def test_a_notice_in_an_observations_place_is_of_no_call():
    parts = (
        Part(author="policy", text="wrong call", tokens=2),
        Part(author="tool", text="no such tool", tokens=3),
        Part(author="policy", text="then 42", tokens=2),
    )
    row = row_of_record(make_record(parts=parts, calls=(), invalid_calls=1))
    assert shapes(row.body["parts"])[1] == ("t", "no such tool", -1)
    assert row.head["invalid"] == 1


def test_of_many_spans_a_row_keeps_the_long_ones_and_the_answer_all():
    spans = [Span(kind="generate", start_ms=10 * k, stop_ms=10 * k + 1 + k % 7) for k in range(99)]
    row = row_of_record(make_record(spans=tuple(spans)))
    kept = row.head["spans"].split()
    assert len(kept) == MAX_SPANS
    starts = [int(span[1:].split("-")[0]) for span in kept]
    assert starts == sorted(starts)
    assert all(int(stop) - int(start) >= 5 for start, stop in (s[1:].split("-") for s in kept))
    assert len(row.body["spans"]) == 99


def test_a_long_answer_is_whole_in_its_body_and_short_in_the_page():
    given = "9" * 500
    row = row_of_record(make_record(final_answer=given))
    assert row.body["given"] == given
    assert len(row.head["given"]) == 120


def test_lengths_count_as_a_browser_counts():
    assert [utf16_length(text) for text in ("", "ab", "é", "😀", "\ud83d")] == [0, 2, 1, 2, 1]


def test_parts_of_long_lines_hold_every_token():
    for row in itertools.islice(many_lines(2, tokens=500), 2):
        found = row_of_view(row)
        assert "".join(part["x"] for part in found.body["parts"]) == "".join(row["tokens"]["text"])
        assert found.head["policy_tokens"] + found.head["tool_tokens"] + 40 == 500
