"""Data sets named on the command line: which file in which layout, and what is refused before anything is read."""

import json
from pathlib import Path

import pytest
from helpers.small_runs import rl_config

from jaxtool.cli import entry
from jaxtool.cli import train as train_entry_point
from jaxtool.data.layouts import PRESETS
from jaxtool.data.mixtures import Mixture
from jaxtool.data.named_sets import evaluation_data, mixed_data, training_data
from jaxtool.data.problems import EvaluationSet, EvaluationSets, ProblemFile
from jaxtool.train import run_files
from jaxtool.train.dry_run import dry_run
from jaxtool.train.run_data import with_data, with_test_data

RUN = "gin_configs/runs/quickstart_grpo.gin"


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("gsm8k=x.parquet", ProblemFile(path="x.parquet", layout="gsm8k")),
        (
            "gsm8k",
            ProblemFile(path="openai/gsm8k:main@train", layout="gsm8k", test_path="openai/gsm8k:main@test"),
        ),
        ("dapo_math_17k", ProblemFile(path="BytedTsinghua-SIA/DAPO-Math-17k@train", layout="dapo_math_17k")),
        ("mine.csv", ProblemFile(path="mine.csv", layout="plain")),
        ("my/set@train", ProblemFile(path="my/set@train", layout="plain")),
        ("torl=a=b.parquet", ProblemFile(path="a=b.parquet", layout="torl")),
    ],
)  # fmt: skip
def test_training_data_is_a_layout_and_a_file(text: str, task: ProblemFile):
    assert training_data(text) == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aime24", "--data aime24: .* name a file, as --data aime24=FILE"),
        ("torl", "--data torl: .* name a file, as --data torl=FILE"),
        ("gsm8k=", "name a file behind the equals sign"),
        ("gms8k", "there is no layout 'gms8k': there are plain"),
        ("gms8k=x.jsonl", "there is no layout 'gms8k'"),
    ],
)
def test_training_data_that_is_none_is_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        training_data(text)


def test_every_preset_that_is_published_can_be_named_alone():
    for name, preset in PRESETS.items():
        if preset.train:
            assert training_data(name).path == preset.train
        if preset.test:
            assert evaluation_data([name]).sets[0].path == preset.test


def test_test_sets_are_whole_files_and_named(tmp_path: Path):
    rows = [{"problem": f"q{i}", "answer": i} for i in range(5)]
    a, b = write(tmp_path / "a.jsonl", *rows), write(tmp_path / "b.jsonl", *rows[:2])
    one = evaluation_data([f"aime24={a}"])
    assert {p.problem_id.split("/")[0] for p in one.problems("test", None, 0)} == {"aime24"}
    assert {p.level for p in one.problems("test", None, 0)} == {"a"}
    both = evaluation_data([f"aime24={a}", f"aime24={b}"])
    assert both.sets == (
        EvaluationSet(name="aime24", path=a, layout="aime24"),
        EvaluationSet(name="aime24_b", path=b, layout="aime24"),
    )
    drawn = both.problems("test", 3, 0)
    assert [p.level for p in drawn] == ["aime24"] * 3 + ["aime24_b"] * 2
    assert drawn == both.problems("test", 3, 0) != both.problems("test", 3, 1)
    assert len({p.problem_id for p in both.problems("test", None, 0)}) == 7
    with pytest.raises(ValueError, match="split 'train' asked of test sets"):
        both.problems("train", 1, 0)
    with pytest.raises(ValueError, match="two test sets are named 'x'"):
        EvaluationSets(sets=(EvaluationSet(name="x", path=a, layout="plain"),) * 2)


def test_a_run_without_data_flags_is_the_same_object(tmp_path: Path):
    config = rl_config(tmp_path)
    assert with_data(config, []) is with_test_data(config, []) is config


def start(monkeypatch, *flags: str) -> None:
    monkeypatch.setattr(entry, "prepare", lambda: None)
    monkeypatch.setattr("sys.argv", ["train", "--gin_file", RUN, "--dry_run", *flags])
    entry.run(train_entry_point.main)


SMALL = ("--gin_param", "Schedule.pool = None", "--gin_param", "Schedule.problems_per_step = 4")


def test_a_dry_run_says_what_the_file_holds(tmp_path: Path):
    rows = [{"question": f"{i}+1", "answer": f"{i + 1}"} for i in range(300)]
    file = write(tmp_path / "sums.jsonl", *rows, *rows)
    small = ["Schedule.pool = None", "Schedule.eval_problems = 5"]
    config = run_files.load_rl_run([RUN], small)
    checks = dry_run(with_data(config, [file]))
    said = next(check.text for check in checks if check.name == "data")
    assert said == f"{file}: 600 rows, 300 different questions; 300 rows repeat one"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"problem": "1+1", "answer": "2"},
            r"sums.jsonl:1: no question: the row has 'problem', 'answer'",
        ),
        ({"question": "1+1"}, r"sums.jsonl:1: no answer: the row has 'question'"),
    ],
)
def test_a_layout_that_finds_no_answer_is_one_line(
    tmp_path: Path, monkeypatch, row: dict, message: str
):
    file = write(tmp_path / "sums.jsonl", row)
    with pytest.raises(SystemExit, match=message):
        start(monkeypatch, "--data", f"plain={file}", *SMALL)


def two_sets(tmp_path: Path) -> tuple[str, str]:
    """40 sums in the layout plain, 200 products in GSM8K's."""
    sums = [{"question": f"{i}+1", "answer": f"{i + 1}"} for i in range(40)]
    products = [{"question": f"2*{i}", "answer": f"so.\n#### {2 * i}"} for i in range(200)]
    return (
        write(tmp_path / "sums.jsonl", *sums),
        f"gsm8k={write(tmp_path / 'products.jsonl', *products)}",
    )


def test_several_sets_are_a_mixture_with_their_weights(tmp_path: Path):
    sums, products = two_sets(tmp_path)
    task = mixed_data([sums, products], "gsm8k=3, sums=1")
    assert isinstance(task, Mixture)
    assert [part.weight for part in task.parts] == [1.0, 3.0]
    assert [part.task for part in task.parts] == [training_data(sums), training_data(products)]
    drawn = task.problems("train", 40, 0)
    assert sum("*" in problem.question for problem in drawn) == 30
    equal = mixed_data([sums, products])
    assert isinstance(equal, Mixture)
    assert equal.shares == (0.5, 0.5)
    assert mixed_data([sums]) == training_data(sums)


def test_two_files_of_one_layout_are_called_by_their_files(tmp_path: Path):
    a, b = (write(tmp_path / name, {"question": name, "answer": 1}) for name in ("a.csv", "b.csv"))
    task = mixed_data([f"gsm8k={a}", f"gsm8k={b}"], "gsm8k_b=2,gsm8k=1")
    assert isinstance(task, Mixture)
    assert [part.weight for part in task.parts] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("texts", "mix", "message"),
    [
        (["a.csv", "a.csv"], None, "--data a.csv: .* name each set once"),
        (["x/a.csv", "y/a.csv", "z/a.csv"], None, "--data z/a.csv: that set is there already"),
        (["a.csv"], "a=1", "--mix a=1: weights are of several sets: give --data twice"),
        (["a.csv", "b.csv"], "a=1,c=2", r"there is no set 'c', the sets of --data are a, b: .*a=1,b=1"),
        (["a.csv", "b.csv"], "a=1", "no weight for b: give each set one"),
        (["a.csv", "b.csv"], "a=1,a=2,b=1", "'a' has two weights"),
        (["a.csv", "b.csv"], "a=1,b=0", "the weight of 'b' must be a number above 0"),
        (["a.csv", "b.csv"], "a=much,b=1", "the weight of 'a' must be a number above 0"),
        (["a.csv", "b.csv"], "3,1", "there is no set '3'"),
    ],
)  # fmt: skip
def test_mixtures_that_are_none_are_refused(texts: list[str], mix: str | None, message: str):
    with pytest.raises(ValueError, match=message) as said:
        mixed_data(texts, mix)
    assert "\n" not in str(said.value)


def test_weights_without_a_set_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="--mix a=1: weights are of several sets: name them"):
        with_data(rl_config(tmp_path), [], "a=1")


def test_a_dry_run_of_a_mixture(tmp_path: Path, monkeypatch, capsys):
    """Through the flags: both files are read, said and asked; one without answers is refused by name."""
    sums, products = two_sets(tmp_path)
    small = [*SMALL, "--gin_param", "Schedule.eval_problems = 4"]
    start(monkeypatch, "--data", sums, "--data", products, "--mix", "sums=1,gsm8k=3", *small)
    told = " ".join(capsys.readouterr().out.split())
    assert f"25.0% of {sums}: 40 " in told
    assert f"75.0% of {products.removeprefix('gsm8k=')}: 200 " in told
    bare = write(tmp_path / "bare.jsonl", {"question": "1+1"})
    with pytest.raises(SystemExit, match=r"bare.jsonl:1: no answer: the row has 'question'"):
        start(monkeypatch, "--data", sums, "--data", bare, *small)
