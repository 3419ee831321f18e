"""Layouts: one row of each published one by hand, faults by name, the real files where they are."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from jaxtool.data.hub import HubName
from jaxtool.data.layouts import PRESETS, Layout, layout_of, preset_named
from jaxtool.data.problem_rows import read_problems, read_set
from jaxtool.data.problems import ProblemFile

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
VERL_MATH = "Solve the following math problem step by step. Say it last.\n\n{}\n\nRemember to put your answer there."
TRACE = "<code>x</code><interpreter>\\boxed{1}</interpreter><answer>\\boxed{\\frac{1}{2}}</answer>"


def verl(question: str, answer: str) -> dict:
    return {
        "data_source": "d",
        "prompt": [{"role": "user", "content": question}],
        "reward_model": {"ground_truth": answer, "style": "rule"},
    }


# Layout, row, question, acceptable answers, level.
ROWS = [
    ("plain", {"question": " 1+1? ", "answer": "2"}, "1+1?", ("2",), "set"),
    ("dapo_math_17k", verl(VERL_MATH.format("Find $x$.\n\nIt is odd."), "34"),
     "Find $x$.\n\nIt is odd.", ("34",), "set"),
    ("dapo_math_17k", verl("Find $x$.", "-3"), "Find $x$.", ("-3",), "set"),
    ("torl", verl("Find $x$.", r"\frac{1}{2}"), "Find $x$.", (r"\frac{1}{2}",), "set"),
    ("gsm8k", {"question": "How many?", "answer": "6*12=<<6*12=72>>72\n#### 1,072 "},
     "How many?", ("1,072",), "set"),
    ("math500", {"problem": "x?", "answer": r"\frac{1}{2}", "level": 3}, "x?", (r"\frac{1}{2}",), "3"),
    ("aime24", {"id": 60, "problem": "b?", "answer": "204"}, "b?", ("204",), "set"),
    ("aime25", {"problem": "b?", "answer": 70, "id": "0"}, "b?", ("70",), "set"),
    ("aime26", {"problem_idx": 1, "problem": "b?", "answer": 277}, "b?", ("277",), "set"),
    ("amc23", {"id": 0, "question": "c?", "answer": 27.0}, "c?", ("27",), "set"),
    ("olympiadbench", {"question": "d?", "final_answer": ["$2 \\sqrt{3}$"], "subfield": "Number Theory"},
     "d?", (r"2 \sqrt{3}",), "Number_Theory"),
    ("olympiadbench", {"question": "d?", "final_answer": ["5"]}, "d?", ("5",), "set"),
    ("minerva", {"question": "e?", "answer": "1e10"}, "e?", ("1e10",), "set"),
    ("svamp", {"Body": "There are 9 figs", "Question": "How many?", "Answer": 145.0},
     "There are 9 figs. How many?", ("145",), "set"),
    ("asdiv", {"body": "Seven apples.", "question": "How many?", "answer": "9 (apples)"},
     "Seven apples. How many?", ("9",), "set"),
    ("asdiv", {"body": "A", "question": "Who?", "answer": "Mrs. Hilt"}, "A. Who?", ("Mrs. Hilt",), "set"),
    ("mawps", {"input": "How long?", "target": 2.5}, "How long?", ("2.5",), "set"),
    ("retool_sft", {"messages": [
        {"role": "user", "content": "Rules with \\boxed{}.\n*user question:*\nFind it.\n\nRemember to place the final answer last."},
        {"role": "assistant", "content": TRACE}]}, "Find it.", (r"\frac{1}{2}",), "set"),
    ("rlla", {"data_source": "rlla", "reward_model": {"ground_truth": "<think>x</think>"},
              "extra_info": {"instruction": "Use tools.", "input": "Hello"}},
     "Use tools. Hello", ("<think>x</think>",), "rlla"),
    ("flashrag", {"id": "test_0", "question": "who got it", "golden_answers": ["Wilhelm", "W. C."]},
     "who got it?", ("Wilhelm", "W. C."), "set"),
    ("flashrag", {"question": "Who?", "golden_answers": ["a", "a"]}, "Who?", ("a",), "set"),
    ("search_r1", {"question": "who", "golden_answers": ["a"], "data_source": "nq"}, "who?", ("a",), "nq"),
    ("nq", {"question": "when is it", "answer": ["14 December 1972"]}, "when is it?", ("14 December 1972",), "set"),
    ("triviaqa", {"question": "Which?", "answer": {"value": "Sunset Blvd", "aliases": ["Sunset Bvd", "Sunset Blvd"]}},
     "Which?", ("Sunset Blvd", "Sunset Bvd"), "set"),
    ("popqa", {"question": "What?", "prop": "occupation", "possible_answers": '["politician", "\\u0151r"]'},
     "What?", ("politician", "őr"), "occupation"),
    ("hotpotqa", {"question": "What?", "answer": "yes", "type": "comparison"}, "What?", ("yes",), "comparison"),
    ("2wiki", {"question": "What?", "answer": ["a", "b"]}, "What?", ("a", "b"), "set"),
    ("musique", {"question": "What?", "answer": "a", "answer_aliases": []}, "What?", ("a",), "set"),
    ("musique", {"question": "What?", "answer": "a", "answer_aliases": ["b"]}, "What?", ("a", "b"), "set"),
    ("bamboogle", {"Question": "What?", "Answer": "a"}, "What?", ("a",), "set"),
]  # fmt: skip


def read(tmp_path: Path, layout: str | Layout, *rows: dict):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_problems(path, layout)


@pytest.mark.parametrize(("layout", "row", "question", "references", "level"), ROWS)
def test_a_published_row(tmp_path: Path, layout: str, row: dict, question, references, level):
    [problem] = read(tmp_path, layout, row)
    assert (problem.question, problem.references, problem.level) == (question, references, level)
    assert problem.problem_id.startswith("set/")


def test_every_preset_has_a_row_here_and_names_sets_that_the_hub_could_have():
    assert {layout for layout, *_ in ROWS} == set(PRESETS)
    for preset in PRESETS.values():
        for name in filter(None, (preset.train, preset.test)):
            assert HubName.parse(name).split  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("layout", "row", "message"),
    [
        ("popqa", {"question": "q", "prop": "p", "possible_answers": "politician"},
         "key 'possible_answers' must hold a JSON list of answers, and holds 'politician'"),
        ("popqa", {"question": "q", "prop": "p", "possible_answers": "[]"}, "is an empty list"),
        ("triviaqa", {"question": "q", "answer": {"aliases": ["a"]}},
         "no answer.value: answer has 'aliases'"),
        ("musique", {"question": "q", "answer": "a", "answer_aliases": [{"x": 1}]},
         "for key 'answer_aliases?[0]'"),
        ("olympiadbench", {"question": "q", "final_answer": ["1", "2"]},
         "key 'final_answer' is a list of 2, and this layout takes one"),
        ("dapo_math_17k", {"prompt": "q", "reward_model": {"ground_truth": "1"}},
         "no prompt[-1].content: prompt is 'q'"),
        ("retool_sft", {"messages": [{"role": "user", "content": "q"}, {"content": TRACE}]},
         "no question: key 'messages[0].content' does not match"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_file_row_and_path(tmp_path, layout, row, message):
    with pytest.raises(ValueError, match=rf"set\.jsonl:1: .*{re.escape(message)}") as caught:
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
    found = read(tmp_path, "search_r1", *rows)
    asked = [(problem.question, problem.references, problem.level) for problem in found]
    assert asked == [
        ("Who?", ("a",), "popqa"),
        ("What?", ("x",), "popqa"),
        ("Who?", ("b", "c"), "popqa"),
        ("Who?", ("a",), "nq"),
    ]
    assert len({problem.problem_id for problem in found}) == 4
    assert found[1].problem_id.count("-") == 0  # asked once: the id of its question
    counted = read_set(tmp_path / "set.jsonl", "search_r1")
    assert (counted.rows, counted.repeats, counted.twins, counted.conflicts) == (5, 1, 2, 0)
    assert "2 different questions; 1 rows repeat one; 2 ask one again" in str(counted)
    again = {
        (p.references, p.level): p.problem_id for p in read(tmp_path, "search_r1", *rows[::-1])
    }
    assert again[("a",), "nq"] == found[3].problem_id
    assert again[("a",), "popqa"] == found[0].problem_id
    plain = dataclasses.replace(layout_of("search_r1"), conflicts="refuse")
    with pytest.raises(ValueError, match=r"set\.jsonl:3: .* line 1 .*conflicts = 'drop' .* 'keep'"):
        read(tmp_path, plain, *rows)
    dropped = read(tmp_path, dataclasses.replace(plain, conflicts="drop"), *rows)
    assert [problem.question for problem in dropped] == ["What?"]


def test_rows_of_one_question_are_in_one_split(tmp_path: Path):
    rows = [{"question": f"q{i}?", "golden_answers": [a]} for i in range(40) for a in ("a", "b")]
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = ProblemFile(path=str(path), layout="flashrag")
    splits = [
        {problem.question for problem in task.problems(split, None, 0)}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 40


def test_a_layout_is_written_in_one_line(tmp_path: Path):
    text = (
        r"question=prompt[-1].content, answer=gold.value, level=kind?, answer_pattern=([0-9]{1,3})$"
    )
    assert layout_of(text) == Layout(
        question=("prompt[-1].content",),
        answer="gold.value",
        level="kind?",
        answer_pattern="([0-9]{1,3})$",
    )
    row = {"body": "There are 9", "ask": "How many?", "answer": "9"}
    [problem] = read(tmp_path, "question=body+ask", row)
    assert problem.question == "There are 9. How many?"
    with pytest.raises(ValueError, match="there is no 'questoin'; there are question, answer"):
        layout_of("questoin=a")


def test_an_unknown_layout_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="there is no layout 'gms8k': there are plain, dapo_math"):
        layout_of("gms8k")
    assert preset_named("gsm8k").layout is layout_of("gsm8k")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": ()}, "must not be empty"),
        ({"question": "a..b"}, "'a..b' is no path"),
        ({"level": "[0]"}, "is no path"),
        ({"answer_pattern": "no group"}, "exactly one group, the answer, and has 0"),
        ({"question_pattern": "(a)(b)"}, "exactly one group, the question, and has 2"),
        ({"answer_pattern": "(a"}, "is no regular expression"),
        ({"conflicts": "ask"}, "conflicts='ask' must be one of 'refuse', 'drop', 'keep'"),
        ({"answer_list": "all"}, "answer_list='all' must be one of 'any', 'one'"),
    ],
)
def test_a_layout_that_means_nothing_is_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        Layout(**fields)


@pytest.mark.parametrize(
    ("name", "layout", "size", "first_answer"),
    [
        ("gsm8k_train", "gsm8k", 7473, "72"),
        ("gsm8k_test", "gsm8k", 1319, "18"),
        ("math500", "math500", 500, "4"),
        ("aime24", "aime24", 30, "204"),
        ("aime25", "aime25", 30, "70"),
        ("svamp_test", "svamp", 1000, "145"),
        ("asdiv_test", "asdiv", 2214, "9"),
        ("mawps_addsub", "mawps", 395, "43"),
        ("mawps_multiarith", "mawps", 580, "39"),
        ("mawps_singleop", "mawps", 531, "14"),
        ("hotpotqa_500", "hotpotqa", 500, "Chief of Protocol"),
        ("2wiki_200", "2wiki", 200, "the five boroughs"),
        ("musique_200", "musique", 200, "passes over the Rio di Palazzo"),
    ],
)
def test_real_files(name: str, layout: str, size: int, first_answer: str):
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in ../shared/data")
    found = read_problems(path, layout)
    assert len(found) == size
    assert first_answer in [p.answer for p in found]
    levels = {p.level for p in found}
    if layout == "hotpotqa":
        assert levels == {"bridge", "comparison"}
    elif layout != "math500":
        assert levels == {name}
