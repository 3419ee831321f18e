"""Problem files: each layout by hand, each fault by name, the real files where they are."""

import json
from collections import Counter
from pathlib import Path

import pytest

from jaxtool.core.types import Problem
from jaxtool.data.arithmetic import ArithmeticTask
from jaxtool.data.calculations import CalculationTask
from jaxtool.data.layouts import Layout
from jaxtool.data.problem_rows import read_problems
from jaxtool.data.problems import EvaluationSet, EvaluationSets, ProblemFile, split_of
from jaxtool.rundir.metrics import check_metric_name

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


@pytest.mark.parametrize("mark", list(".?!,;:"))
def test_a_body_that_ends_in_a_mark_gets_no_full_stop(tmp_path: Path, mark: str):
    row = {"Body": f"Of these 9 figs{mark}", "Question": "how many?", "Answer": 9.0}
    [problem] = read_problems(write(tmp_path / "set.jsonl", row), "svamp")
    assert problem.question == f"Of these 9 figs{mark} how many?"


def test_a_level_fits_the_name_of_a_metric(tmp_path: Path):
    row = {"question": "1+1?", "answer": "2", "level": "Level 5 (hard)"}
    layout = Layout(level="level")
    [problem] = read_problems(write(tmp_path / "my set.jsonl", row), layout)
    assert problem.level == "Level_5_hard"
    check_metric_name(f"validation/accuracy_fraction/{problem.level}")
    [problem] = read_problems(tmp_path / "my set.jsonl", Layout())
    assert problem.level == "my_set"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "b"}, r"set.jsonl:3: no answer: the row has 'question'"),
        ({"question": "b", "answer": None}, r"set.jsonl:3: the row has 'None' for key 'answer'"),
        ({"question": "b", "answer": []}, r"set.jsonl:3: key 'answer' is an empty list"),
        ({"question": "b", "answer": ["x", None]}, r"has 'None' for key 'answer\[1\]'"),
        ({"question": "b", "answer": ["x", ["y"]]}, r"for key 'answer\[1\]'"),
        ({"question": "b", "answer": {"x": 1}}, r"set.jsonl:3: .* for key 'answer'"),
        ({"question": "a", "answer": ["1", "2"]}, r"says '1' or '2', but line 1 .* with '1'"),
        ({"question": "b", "answer": True}, r"set.jsonl:3: the row has 'True' for key 'answer'"),
        ({"question": "b", "answer": "  "}, r"set.jsonl:3: key 'answer' is empty"),
        ({"answer": "1"}, r"set.jsonl:3: no question: the row has 'answer'"),
        ({"question": "a", "answer": "2"}, r"set.jsonl:3: key 'answer' says '2', but line 1"),
        ("{", r"set.jsonl:3: no JSON"),
        ("[1]", r"set.jsonl:3: a row must be an object"),
    ],
)
def test_a_bad_row_is_one_line_with_file_line_and_key(tmp_path: Path, row: object, message: str):
    path = write(tmp_path / "set.jsonl", {"question": "a", "answer": "1"}, "", row)
    with pytest.raises(ValueError, match=message) as caught:
        read_problems(path, Layout())
    assert "\n" not in str(caught.value)


def test_a_missing_marker_is_an_error_that_shows_the_answer(tmp_path: Path):
    path = write(tmp_path / "set.jsonl", {"question": "a", "answer": "so it is 72"})
    with pytest.raises(ValueError, match=r"set.jsonl:1: no answer: key 'answer' .* 'so it is 72'"):
        read_problems(path, "gsm8k")


def test_missing_and_empty_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no problem file .*none\.jsonl"):
        read_problems(tmp_path / "none.jsonl", Layout())
    with pytest.raises(ValueError, match=r"empty\.jsonl: the file holds no problem"):
        read_problems(write(tmp_path / "empty.jsonl"), Layout())


def test_duplicates_go_whatever_their_spacing(tmp_path: Path):
    rows = [{"question": q, "answer": "1"} for q in ("a b", "c", "a  b ", "c")]
    found = read_problems(write(tmp_path / "set.jsonl", *rows), Layout())
    assert [p.question for p in found] == ["a b", "c"]


def test_ids_survive_reordering_and_new_rows(tmp_path: Path):
    rows = [{"question": q, "answer": "1"} for q in "abc"]
    before = read_problems(write(tmp_path / "set.jsonl", *rows), Layout())
    more = [{"question": "new", "answer": "1"}, *rows[::-1]]
    after = read_problems(write(tmp_path / "set.jsonl", *more), Layout())
    assert {p.problem_id for p in before} < {p.problem_id for p in after}


def test_split_is_80_10_10_and_pinned():
    """Pinned: a change of the hash would move test questions into training."""
    assert [split_of(f"q{i}") for i in range(8)] == [
        "test",
        "train",
        "validation",
        "train",
        "train",
        "train",
        "train",
        "train",
    ]
    shares = Counter(split_of(str(i)) for i in range(20_000))
    assert shares["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert shares["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert shares["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_another_salt_is_another_split():
    texts = [str(i) for i in range(100)]
    assert [split_of(t, salt="a") for t in texts] != [split_of(t, salt="b") for t in texts]


def make_task(tmp_path: Path, **fields: str) -> ProblemFile:
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(200)]
    return ProblemFile(path=str(write(tmp_path / "set.jsonl", *rows)), **fields)


def test_splits_of_one_file_are_disjoint_and_complete(tmp_path: Path):
    task = make_task(tmp_path)
    sizes = {"train": 160, "validation": 20, "test": 20}
    found: list[str] = []
    for split in ("train", "validation", "test"):
        with pytest.raises(ValueError, match=f"999 problems asked of split '{split}'") as caught:
            task.problems(split, 999, seed=0)
        size = int(str(caught.value).rsplit(" ", 1)[1])
        assert abs(size - sizes[split]) < 20
        found += [p.problem_id for p in task.problems(split, size, seed=0)]
    assert len(found) == len(set(found)) == 200


def test_problems_are_drawn_by_the_seed(tmp_path: Path):
    task = make_task(tmp_path)
    assert task.problems("train", 20, seed=1) == task.problems("train", 20, seed=1)
    assert task.problems("train", 20, seed=1) != task.problems("train", 20, seed=2)


def test_none_is_the_whole_split(tmp_path: Path):
    task = make_task(tmp_path)
    whole = task.problems("train", None, seed=1)
    assert sorted(p.problem_id for p in whole) == sorted(
        p.problem_id for p in task.problems("train", len(whole), seed=2)
    )
    assert whole != sorted(whole, key=lambda p: p.problem_id)  # drawn, not in the file's order
    with pytest.raises(ValueError, match=f"{len(whole) + 1} problems asked"):
        task.problems("train", len(whole) + 1, seed=1)


@pytest.mark.parametrize("task", [ArithmeticTask(), CalculationTask()])
def test_a_task_without_an_end_says_so(task):
    with pytest.raises(ValueError, match=r"Task has no last problem: .*Schedule.pool = 4096"):
        task.problems("train", None, seed=0)


def test_a_test_file_is_the_test_split_and_leaves_the_training_file(tmp_path: Path):
    shared = [{"question": f"q{i}", "answer": str(i)} for i in range(10)]
    test_path = write(tmp_path / "test.jsonl", *shared, {"question": "only here", "answer": "1"})
    task = make_task(tmp_path, test_path=str(test_path))
    assert len(task.problems("test", 11, seed=0)) == 11
    held_out = {f"q{i}" for i in range(10)} | {"only here"}
    validation = task.problems("validation", 10, seed=0)
    train = task.problems("train", 160, seed=0)
    assert not held_out & {p.question for p in [*train, *validation]}
    assert not {p.question for p in train} & {p.question for p in validation}


def test_a_list_of_acceptable_answers_is_kept(tmp_path: Path):
    rows = [
        {"question": "a", "answer": ["GDR", " East Germany ", 7.0, "GDR"]},
        {"question": "b", "answer": ["one"]},
        {"question": "a", "answer": [7, "GDR", "East Germany"]},  # the same, in another order
    ]
    first, second = read_problems(write(tmp_path / "set.jsonl", *rows), Layout())
    assert (first.answer, first.answers) == ("GDR", ("GDR", "East Germany", "7"))
    assert first.references == ("GDR", "East Germany", "7")
    assert (second.answer, second.answers, second.references) == ("one", (), ("one",))


def test_the_first_acceptable_answer_is_the_answer():
    with pytest.raises(ValueError, match=r"p: answer '1' must be the first of \('2', '1'\)"):
        Problem(problem_id="p", question="q", answer="1", answers=("2", "1"))


@pytest.mark.parametrize("name", ["musique_200", "2wiki_200"])
def test_a_real_file_with_several_answers(name: str):
    path = DATA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in ../shared/data")
    found = read_problems(path, Layout())
    raw = [json.loads(line) for line in path.read_text().splitlines()]
    assert {tuple(dict.fromkeys(map(str.strip, row["answer"]))) for row in raw} == {
        p.references for p in found
    }
    assert any(p.answers for p in found)


def test_several_test_sets_may_lie_in_one_file(tmp_path: Path):
    """Each takes the rows of its level; a set that has none is refused with the levels that there are."""
    path = tmp_path / "merged.jsonl"
    rows = [
        {
            "question": f"q{n}",
            "golden_answers": ["a"],
            "data_source": ("nq", "2wikimultihopqa")[n % 2],
        }
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def one(name, level):
        return EvaluationSet(name=name, path=str(path), layout="search_r1", level=level)

    both = EvaluationSets(sets=(one("nq", "nq"), one("2wiki", "2wikimultihopqa")))
    asked = {(p.problem_id.partition("/")[0], p.question) for p in both.problems("test", None, 0)}
    assert asked == {("nq", "q0?"), ("nq", "q2?"), ("2wiki", "q1?"), ("2wiki", "q3?")}
    none = EvaluationSets(sets=(one("popqa", "popqa"),))
    with pytest.raises(
        ValueError,
        match=r"no row is of the set popqa, whose level is 'popqa': its levels are 2wiki",
    ):
        none.problems("test", None, 0)
