"""The viewer's logic without a browser: filters, sorting, groups, links, search, colours. Run by node."""

import importlib.resources
import json
import shutil
import subprocess
from typing import Any

import pytest
from helpers.answer_examples import make_record, two_call_line

from jaxtool.report.chunks import chunked
from jaxtool.report.viewer_rows import row_of_record, row_of_view

NODE = shutil.which("node") or shutil.which("nodejs")
pytestmark = pytest.mark.skipif(
    NODE is None, reason="no node on this machine: the page's logic is run by browser tests alone"
)
TEMPLATES = importlib.resources.files("jaxtool.report") / "templates"


def run(program: str, data: Any) -> Any:
    """What the program puts into `result`, with the page's logic before it."""
    logic = "\n".join((TEMPLATES / name).read_text() for name in ("colors.js", "rows.js"))
    script = f"const data = {json.dumps(data)};\n{logic}\nlet result;\n{program}\nconsole.log(JSON.stringify(result));"
    assert NODE is not None
    done = subprocess.run(
        [NODE, "-"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


RECORDS = [
    make_record(sample=0),
    make_record(sample=1, is_correct=False, final_answer="41", finish_reason="length", spans=()),
    make_record(sample=2, is_correct=False, is_lost=True, final_answer=None),
    make_record(problem_id="q2", question="Who?", calls=make_record().calls * 5, invalid_calls=2),
    make_record(policy="trained", sample=1, calls=(), final_answer="forty-two"),
    make_record(policy="trained", problem_id="q2", question="Who?", level="", unexecuted_calls=1),
]
INDEX = chunked(map(row_of_record, RECORDS)).index


@pytest.mark.parametrize(
    ("flag", "kept"),
    [
        ("right", [0, 3, 4, 5]),
        ("wrong", [1]),  # the lost one is neither right nor wrong
        ("masked", [2]),
        ("empty", []),
        ("many", [3]),
        ("cut", [1, 5]),
        ("invalid", [3]),
        ("failed", []),
    ],
)
def test_each_filter_keeps_what_it_says(flag, kept):
    program = """
      const rows = rowsOf(data.index);
      const limits = { many: manyCalls(rows) };
      result = filteredRows(rows, { flags: [data.flag], limits }).map((row) => row.i);
    """
    assert run(program, {"index": INDEX, "flag": flag}) == kept


def test_filters_and_chosen_values_and_hits_hold_together():
    program = """
      const rows = rowsOf(data);
      const both = filteredRows(rows, { flags: ['right'], chosen: { variant: 'trained' } });
      const hit = filteredRows(rows, { hits: new Set([1, 4]), chosen: { variant: 'trained' } });
      const level = filteredRows(rows, { chosen: { level: NO_LEVEL } });
      result = [both, hit, level].map((some) => some.map((row) => row.i));
    """
    assert run(program, INDEX) == [[4, 5], [4], [5]]


def test_sorting_puts_what_is_not_known_last_either_way_and_keeps_the_order_of_equals():
    program = """
      const rows = rowsOf(data);
      const by = (key, down) => sortedRows(rows, key, down).map((row) => row.i);
      result = [by('calls', true), by('ms', false), by('ms', true), by('given', false), by('order', true)];
    """
    calls, up, down, given, order = run(program, INDEX)
    assert calls == [3, 0, 1, 2, 5, 4]
    assert up[-1] == down[-1] == 1  # no times were measured
    assert up[:5] == [0, 2, 3, 4, 5]
    assert given == [1, 0, 3, 5, 4, 2]
    assert order == [5, 4, 3, 2, 1, 0]


def test_groups_and_the_other_policys_answer_to_the_question():
    program = """
      const rows = rowsOf(data);
      result = [
        groupOf(rows, rows[1]).map((row) => row.i),
        otherSources(rows, rows[1]),
        counterpart(rows, rows[1], sourceOf(rows[4])).i,
        counterpart(rows, rows[0], sourceOf(rows[4])).i,
      ];
    """
    group, others, same, nearest = run(program, INDEX)
    assert group == [0, 1, 2]
    assert others == ["trained · sampled, 4 calls"]
    assert (same, nearest) == (4, 4)  # the same sample; where there is none, the first


def test_a_link_names_one_answer_whatever_its_name_holds():
    rows = [row_of_view(two_call_line(problem_id=f"a/b#{k} ü", step=k)) for k in range(3)]
    program = """
      const rows = rowsOf(data);
      const links = rows.map(linkOf);
      result = [links, links.map((link) => rowOfLink(rows, link).i), rowOfLink(rows, '#a=x/y')];
    """
    links, found, none = run(program, chunked(iter(rows)).index)
    assert links[1] == "#a=grpo//1/a%2Fb%231%20%C3%BC/2"
    assert found == [0, 1, 2]
    assert none is None


@pytest.mark.parametrize(
    ("query", "scope", "found"),
    [
        ("6 * 7", "all", True),
        ("PRINT(X)", "code", True),
        ("print", "tool", False),
        ("42\n</output>", "tool", True),
        ("let me", "policy", True),
        ("let me", "code", False),
        ("what is", "question", True),
        ("what is", "given", False),
        ("42", "given", True),
        ("nowhere", "all", False),
    ],
)
def test_search_looks_where_it_is_told_to(query, scope, found):
    row = row_of_record(make_record())
    data = {"index": chunked([row]).index, "body": row.body, "query": query, "scope": scope}
    program = "result = holds(rowsOf(data.index)[0], data.body, data.query, data.scope);"
    assert run(program, data) is found


def test_matches_are_marked_and_nothing_of_the_text_is_lost():
    program = "result = [pieces('an Anna', 'AN'), pieces('abc', ''), pieces('İx', 'x')];"
    marked, none, longer = run(program, None)
    assert marked == [["an", True], [" ", False], ["An", True], ["na", False]]
    assert none == [["abc", False]]
    assert longer == [["İx", False]]  # its lower case has another length


def test_parts_of_a_call_stand_together():
    body = row_of_view(two_call_line()).body
    found = run(
        "result = sections(data).map(({call, parts}) => [call, parts.map((p) => p.k).join('')]);",
        body["parts"],
    )
    assert found == [[-1, "p"], [-1, "a"], [0, "cat"], [-1, "a"], [1, "cat"], [-1, "a"]]


def test_spans_are_read_as_they_were_written():
    head = row_of_record(make_record()).head
    spans = run("result = spansOf(data);", head["spans"])
    assert spans[1] == {"kind": "t", "start": 300, "stop": 320}
    assert run("result = spansOf('');", None) == []


def test_a_colour_goes_by_the_name():
    arms = [
        "pretrain",
        "cold_start",
        "retool_grpo",
        "otc_grpo",
        "text_rl",
        "torl",
        "retool_ppo",
        "otc_ppo",
    ]
    program = """
      const whole = colorIndices(data);
      const alone = data.map((name) => colorIndices([name]).get(name));
      result = [data.map((name) => whole.get(name)), alone, [...colorIndices(data.concat(data)).values()]];
    """
    together, alone, _ = run(program, arms)
    assert together == alone  # on every page, in any order
    assert len(set(alone)) == len(arms)
    many = run("result = [...colorIndices(data).values()];", [f"run {k}" for k in range(12)])
    assert sorted(many) == list(range(12))  # while there are colours, no two names share one
