"""Layouts of question answering: one row of each by hand, faults by name, the real files where they are."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxtool.data import qa_layouts
from jaxtool.data.problems import JsonlFormat, JsonlTask, read_problems

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def read(tmp_path: Path, layout: JsonlFormat, *rows: dict):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_problems(path, layout)


@pytest.mark.parametrize(
    ("layout", "row", "question", "references", "level"),
    [
        (
            qa_layouts.flashrag_format(),
            {"id": "test_0", "question": "who got the first nobel prize", "golden_answers": ["Wilhelm", "W. C."]},
            "who got the first nobel prize?", ("Wilhelm", "W. C."), "set",
        ),
        (
            qa_layouts.flashrag_format(),
            {"question": "Who?", "golden_answers": ["a", "a"]}, "Who?", ("a",), "set",
        ),
        (
            qa_layouts.search_r1_format(),
            {"question": "who", "golden_answers": ["a"], "data_source": "nq"}, "who?", ("a",), "nq",
        ),
        (
            qa_layouts.nq_format(),
            {"question": "when is it", "answer": ["14 December 1972"]},
            "when is it?", ("14 December 1972",), "set",
        ),
        (
            qa_layouts.triviaqa_format(),
            {"question": "Which?", "answer": {"value": "Sunset Blvd", "aliases": ["Sunset Bvd", "Sunset Blvd"]}},
            "Which?", ("Sunset Blvd", "Sunset Bvd"), "set",
        ),
        (
            qa_layouts.popqa_format(),
            {"question": "What?", "prop": "occupation", "possible_answers": '["politician", "\\u0151r"]'},
            "What?", ("politician", "őr"), "occupation",
        ),
        (
            qa_layouts.hotpotqa_format(),
            {"question": "What?", "answer": "yes", "type": "comparison"},
            "What?", ("yes",), "comparison",
        ),
        (
            qa_layouts.two_wiki_format(), {"question": "What?", "answer": ["a", "b"]},
            "What?", ("a", "b"), "set",
        ),
        (
            qa_layouts.musique_format(),
            {"question": "What?", "answer": "a", "answer_aliases": []}, "What?", ("a",), "set",
        ),
        (
            qa_layouts.musique_format(),
            {"question": "What?", "answer": "a", "answer_aliases": ["b"]}, "What?", ("a", "b"), "set",
        ),
        (
            qa_layouts.bamboogle_format(), {"Question": "What?", "Answer": "a"},
            "What?", ("a",), "set",
        ),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, layout: JsonlFormat, row: dict, question, references, level):
    [problem] = read(tmp_path, layout, row)
    assert (problem.question, problem.references, problem.level) == (question, references, level)


@pytest.mark.parametrize(
    ("layout", "row", "message"),
    [
        (
            qa_layouts.popqa_format(), {"question": "q", "prop": "p", "possible_answers": "politician"},
            r"set.jsonl:1: key 'possible_answers' must hold a JSON list of answers, and holds 'politician'",
        ),
        (
            qa_layouts.popqa_format(), {"question": "q", "prop": "p", "possible_answers": "[]"},
            r"set.jsonl:1: key 'possible_answers' is an empty list",
        ),
        (
            qa_layouts.triviaqa_format(), {"question": "q", "answer": {"aliases": ["a"]}},
            r"set.jsonl:1: the row has no key 'answer.value'",
        ),
        (
            qa_layouts.musique_format(), {"question": "q", "answer": "a", "answer_aliases": [{"x": 1}]},
            r"set.jsonl:1: the row has .* for key 'answer_aliases\[0\]'",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_one_line(tmp_path: Path, layout: JsonlFormat, row: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, layout, row)
    assert "\n" not in str(caught.value)


def test_names_that_two_people_have_are_two_problems(tmp_path: Path):
    """Ids depend on the rows alone, not on their order; an equal row counts once, and a plain layout refuses."""
    rows = [
        {"question": "Who?", "golden_answers": ["a"], "data_source": "popqa"},
        {"question": "What?", "golden_answers": ["x"], "data_source": "popqa"},
        {"question": "Who", "golden_answers": ["b", "c"], "data_source": "popqa"},
        {"question": "Who?", "golden_answers": ["c", "b"], "data_source": "popqa"},
        {"question": "Who?", "golden_answers": ["a"], "data_source": "nq"},
    ]
    layout = qa_layouts.search_r1_format()
    found = read(tmp_path, layout, *rows)
    asked = [(problem.question, problem.references, problem.level) for problem in found]
    assert asked == [
        ("Who?", ("a",), "popqa"),
        ("What?", ("x",), "popqa"),
        ("Who?", ("b", "c"), "popqa"),
        ("Who?", ("a",), "nq"),
    ]
    assert len({problem.problem_id for problem in found}) == 4
    assert found[1].problem_id.count("-") == 0  # asked once: the id of its question
    again = {(p.references, p.level): p.problem_id for p in read(tmp_path, layout, *rows[::-1])}
    assert again[("a",), "nq"] == found[3].problem_id
    assert again[("a",), "popqa"] == found[0].problem_id
    plain = dataclasses.replace(layout, keeps_repeats=False)
    with pytest.raises(ValueError, match=r"set\.jsonl:3: .* line 1 .*keeps_repeats = True"):
        read(tmp_path, plain, *rows)


def test_rows_of_one_question_are_in_one_split(tmp_path: Path):
    rows = [{"question": f"q{i}?", "golden_answers": [a]} for i in range(40) for a in ("a", "b")]
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = JsonlTask(path=str(path), layout=qa_layouts.flashrag_format())
    splits = [
        {problem.question for problem in task.problems(split, None, 0)}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 40


@pytest.mark.parametrize(
    ("name", "layout", "size", "levels"),
    [
        ("hotpotqa_500", qa_layouts.hotpotqa_format(), 500, {"bridge", "comparison"}),
        ("2wiki_200", qa_layouts.two_wiki_format(), 200, {"2wiki_200"}),
        ("musique_200", qa_layouts.musique_format(), 200, {"musique_200"}),
    ],
)
def test_real_files(name: str, layout: JsonlFormat, size: int, levels: set[str]):
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in ../shared/data")
    found = read_problems(path, layout)
    assert len(found) == size
    assert {problem.level for problem in found} == levels
