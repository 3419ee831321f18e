"""One function over all records: what it measures, what it leaves out, its JSON and its tables."""

import dataclasses
import json

import pytest
from helpers.behaviour_answers import answered, ran, searched

from jaxtool.rundir.answer_files import Condition, EvaluationSettings, write_chunk
from jaxtool.study import record_tables
from jaxtool.study.behaviour import behaviour, behaviour_of
from jaxtool.study.record_tables import print_behaviour, results_of, write_page

# base: one program too many on q1, wrong on q2; last: none on q1, right on q2 after a repair.
BASE = [
    answered(ran("print(6 * 7)"), problem="q1", policy="base"),
    answered(ran("print(x)", "error"), problem="q2", policy="base", is_correct=False),
]
LAST = [
    answered(problem="q1", policy="last"),
    answered(ran("print(x)", "error"), ran("x = 7\nprint(x)"), problem="q2", policy="last"),
]
PROBES = [
    answered(problem=problem, policy="last", has_tools=False, max_tool_calls=0, is_correct=right)
    for problem, right in (("q1", True), ("q2", False))
]
RECORDS = [*BASE, *LAST, *PROBES]


@pytest.fixture(scope="module")
def found():
    return behaviour(RECORDS)


def test_each_policy_is_measured_under_each_condition(found):
    names = [(one.policy, one.way) for one in found.measured]
    assert names == [
        ("base", "sampled_calls_4"),
        ("last", "sampled_calls_4"),
        ("last", "sampled_no_tools"),
    ]
    base, last, probe = found.measured
    assert base.code["code_ratio"] == 1.0
    assert base.code["last_pass_ratio_right"] == 1.0
    assert base.code["last_pass_ratio_wrong"] == 0.0
    assert last.code["self_corrected"] == 1.0
    assert last.purposes == {"printing": 1.0}
    assert probe.code is None
    assert probe.calls is None
    assert probe.searches is None


def test_against_the_first_under_the_same_condition_only(found):
    [pair] = found.against
    assert (pair.policy, pair.first, pair.way) == ("last", "base", "sampled_calls_4")
    assert pair.found.shares == {"ME": 0.5, "LE": 0.0, "MA": 0.5, "LA": 0.0, "AE": 0.0}


def test_offloading_only_where_there_are_probes(found):
    [probed] = found.offloading
    assert (probed.policy, probed.way) == ("last", "sampled_calls_4")
    assert probed.found.needless == 0.0
    assert probed.found.auc == 1.0


def test_json_has_every_part_by_policy_and_condition(found):
    text = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert list(text) == ["measured", "against_first", "offloading"]
    assert text["measured"]["base"]["sampled_calls_4"]["code"]["ok_programs"] == 1
    assert text["against_first"]["last"]["sampled_calls_4"]["first"] == "base"
    curve = text["offloading"]["last"]["sampled_calls_4"]["curve"]
    assert [part["questions"] for part in curve] == [1, 1]


def test_tables_with_rows_alone_and_rows_as_wide_as_their_columns(found):
    tables = {table.title: table for table in found.tables()}
    assert list(tables) == [
        "Length and timing",
        "Programs",
        "Programs that ran",
        "After a failed program",
        "Purposes of programs, %",
        "Behaviour shares, %",
        "Offloading",
        "Calls by the solve rate without tools",
    ]
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert len(tables["Length and timing"].rows) == 3
    assert len(tables["Programs"].rows) == 2
    shares = tables["Behaviour shares, %"].rows[0]
    assert shares[:4] == ("last", "base", "sampled_calls_4", 2)
    assert shares[4].startswith("50.0 [")


def test_the_curve_falls_where_calls_follow_need(found):
    [curve] = found.curves()
    [line] = curve.series
    assert (line.xs, line.ys) == ([0.0, 1.0], [1.0, 0.0])


def test_a_way_is_greedy_or_sampled_where_nothing_else_is_varied():
    greedy = answered(policy="base", sampling="greedy")
    ways = [one.way for one in behaviour([*BASE, greedy]).measured]
    assert ways == ["sampled", "greedy"]


def test_searches_and_needs_have_tables_of_their_own():
    tables = {
        table.title: table.rows
        for table in behaviour(
            [
                answered(searched("capital of kodami", "it is 42"), level="one_hop"),
                answered(searched("a"), searched("a"), level="known", problem="q2"),
            ]
        ).tables()
    }
    assert "Programs" not in tables
    assert tables["Searches"][0][2:6] == ("100.0", "1.50", "1.67", "33.3")
    assert tables["Calls an answer against those needed"][0][2:] == ("0.50", "1.00", "0.00")


def test_lost_answers_are_counted_and_no_answers_are_no_error():
    [measured] = behaviour([answered(ran("x"), is_lost=True)]).measured
    assert (measured.answers, measured.lost) == (0, 1)
    assert measured.response_tokens is None
    assert measured.code is None
    empty = behaviour([])
    assert empty.tables() == ()
    assert empty.curves() == ()


def test_with_too_many_lost_there_are_counts_alone():
    lost = answered(problem="q3", policy="last", is_lost=True)
    found = behaviour([*RECORDS, lost], max_lost_fraction=0.2)
    base, last, _ = found.measured
    assert (last.answers, last.lost, last.code, last.response_tokens) == (2, 1, None, None)
    assert base.code is not None
    assert found.against == ()
    assert found.offloading == ()
    assert behaviour([*RECORDS, lost], max_lost_fraction=0.4).measured[1].code is not None


def test_records_are_read_once_and_only_with_their_texts():
    assert behaviour(iter(RECORDS)).as_json() == behaviour(RECORDS).as_json()
    bare = answered(ran("x"))
    [call] = bare.calls
    bare = dataclasses.replace(bare, calls=(dataclasses.replace(call, arguments="", code=""),))
    with pytest.raises(ValueError, match="these records have no texts"):
        behaviour([bare])


def test_an_evaluations_directory_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record_tables, "operative_config", lambda config: "")
    conditions = (
        Condition(sampling="sampled", has_tools=True, max_tool_calls=4),
        Condition(sampling="sampled", has_tools=False, max_tool_calls=0),
    )
    settings = EvaluationSettings(
        data="d",
        questions=2,
        questions_hash="h",
        seed=0,
        samples=1,
        temperature=1.0,
        top_p=1.0,
        max_response_tokens=99,
        conditions=conditions,
        policies={"last": "runs/last"},
        judge="Mathematics",
        tools=("python",),
        renderer="r",
        chunk_questions=1,
        max_lost_fraction=0.01,
    )
    settings.write(tmp_path)
    for condition, part in zip(conditions, (LAST, PROBES), strict=True):
        for chunk, record in enumerate(part):
            write_chunk(tmp_path, "last", condition, chunk, [record])
    found = behaviour([*LAST, *PROBES])
    assert behaviour_of(tmp_path).as_json() == found.as_json()
    # The tables, the JSON and the page of `evaluate` have it.
    results = results_of(tmp_path)
    assert results.as_json()["behaviour"] == found.as_json()
    print_behaviour(results)
    shown = capsys.readouterr().out
    assert all(table.title in shown for table in found.tables())
    page = write_page(tmp_path / "page.html", results, None, "two questions").read_text()
    assert "Answers with a call over the solve rate without tools" in page
    assert "After a failed program" in page


def test_who_may_not_call_offloads_nothing():
    asked = answered(problem="q1", policy="last", max_tool_calls=0)
    assert behaviour([asked, *PROBES]).offloading == ()


def test_probes_are_the_sampled_ones_where_there_are_any():
    """A greedy probe says wrong, the sampled ones say right."""
    probe = {"has_tools": False, "max_tool_calls": 0, "policy": "last"}
    greedy = answered(problem="q1", sampling="greedy", is_correct=False, **probe)
    asked = answered(ran("x"), problem="q1", policy="last", sampling="greedy")
    [only_greedy] = behaviour([asked, greedy]).offloading
    assert only_greedy.found.offloaded == 0.0
    sampled = [answered(problem="q1", sample=i, **probe) for i in range(2)]
    [both] = behaviour([asked, greedy, *sampled]).offloading
    assert both.found.offloaded == 1.0
