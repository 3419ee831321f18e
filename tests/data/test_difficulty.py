"""Problems chosen by measured solve rates: bounds by hand, every form of a record, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
from helpers.answers import answer, write_evaluation

from jaxtool.core.types import Problem
from jaxtool.data.difficulty import Difficulty
from jaxtool.data.problems import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letters:
    """Questions a, b, c, d, e in an order that the seed decides."""

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        names = "abcde"[seed:] + "abcde"[:seed]
        return [Problem(problem_id=f"{split}/{n}", question=f"{n}?", answer="1") for n in names][
            :count
        ]


def rates(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def asked(task: Difficulty, split: Split = "train", count: int | None = None, seed: int = 0) -> str:
    return "".join(p.question[0] for p in task.problems(split, count, seed))


def test_problems_between_the_bounds_are_kept_in_the_order_of_the_seed(tmp_path: Path):
    file = rates(
        tmp_path / "rates.jsonl",
        {"question": "a?", "solve_rate": 0.0},
        {"question": "b?", "solve_rate": 0.5},
        {"question": "c?", "correct": 8, "samples": 8},
        {"problem_id": "train/d", "correct": 1, "samples": 8},
    )
    task = Difficulty(task=Letters(), rates=file)
    assert asked(task) == "bd"
    assert asked(task, seed=2) == "db"
    assert asked(task, count=1, seed=2) == "d"
    assert asked(dataclasses.replace(task, unmeasured="keep")) == "bde"
    assert asked(dataclasses.replace(task, above=0.2)) == "b"
    assert asked(dataclasses.replace(task, below=1.5)) == "bcd"  # solved always is kept
    assert asked(task, "validation") == asked(task, "test") == "abcde"
    assert task.summary(0) == (
        f"2 of 5 are left by 0 < solve rate < 1 of {file}, which measures 4 of them"
    )


def test_rows_of_single_answers_are_taken_together(tmp_path: Path):
    rows = [{"question": "a ?" if i else "a  ?", "is_correct": i == 0} for i in range(4)]
    file = rates(tmp_path / "answers.jsonl", *rows, {"question": "b?", "is_correct": True})
    task = Difficulty(task=Letters(), rates=file, above=0.24, below=0.26)
    with pytest.raises(ValueError, match="no training problem is left"):
        asked(task)  # "a ?" is another question than "a?"
    rows = [{"question": "a?", "is_correct": i == 0} for i in range(4)]
    file = rates(tmp_path / "answers.jsonl", *rows, {"question": "b?", "is_correct": True})
    assert asked(Difficulty(task=Letters(), rates=file, above=0.24, below=0.26)) == "a"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a?"}, r"rates.jsonl:1: the row has no solve rate: .* and it has {}"),
        ({"question": "a?", "solve_rate": 1.5}, r"it has {'solve_rate': 1.5}"),
        ({"question": "a?", "solve_rate": "0.5"}, "the row has no solve rate"),
        ({"question": "a?", "correct": 9, "samples": 8}, "the row has no solve rate"),
        ({"question": "a?", "correct": 0, "samples": 0}, "the row has no solve rate"),
        ({"solve_rate": 0.5}, "the row names no problem: 'question' or 'problem_id' is needed"),
    ],
)
def test_a_row_without_a_rate_is_one_line(tmp_path: Path, row: dict, message: str):
    task = Difficulty(task=Letters(), rates=rates(tmp_path / "rates.jsonl", row))
    with pytest.raises(ValueError, match=message) as caught:
        asked(task)
    assert "\n" not in str(caught.value)


def test_too_few_problems_and_bounds_that_hold_none_are_refused(tmp_path: Path):
    file = rates(tmp_path / "rates.jsonl", {"question": "a?", "solve_rate": 0.5})
    with pytest.raises(
        ValueError, match=r"3 training problems asked for, and 1 of 5 are left by 0 <"
    ):
        asked(Difficulty(task=Letters(), rates=file), count=3)
    with pytest.raises(ValueError, match="the file holds no solve rate"):
        asked(Difficulty(task=Letters(), rates=rates(tmp_path / "none.jsonl")))
    for fields in ({"above": 0.5, "below": 0.5}, {"above": -2.0}, {"unmeasured": "ask"}):
        with pytest.raises(ValueError, match="Difficulty"):
            Difficulty(task=Letters(), rates=file, **fields)


def evaluation_of_letters(workdir: Path, **changed) -> None:
    """Two answers to each of a, b and c, of which 0, 1 and 2 are right."""
    records = [
        dataclasses.replace(answer("base", q, s, right=s < q), question=f"{letter}?", **changed)
        for q, letter in enumerate("abc")
        for s in range(2)
    ]
    write_evaluation(workdir, records)


def test_an_evaluation_is_a_file_of_rates(tmp_path):
    evaluation_of_letters(tmp_path)
    for name in (tmp_path, f"{tmp_path}:base", f"{tmp_path}:base/sampled_calls_2"):
        assert asked(Difficulty(task=Letters(), rates=str(name))) == "b"
    assert "measures 3 of them" in Difficulty(task=Letters(), rates=str(tmp_path)).summary(0)


def test_lost_answers_of_an_evaluation_do_not_count(tmp_path):
    evaluation_of_letters(tmp_path, is_lost=True)
    with pytest.raises(ValueError, match="holds no solve rate"):
        asked(Difficulty(task=Letters(), rates=str(tmp_path)))


def test_an_evaluation_of_several_policies_or_without_a_part_is_refused(tmp_path):
    records = [answer(policy, q) for policy in ("base", "s100") for q in range(3)]
    write_evaluation(tmp_path, records)
    with pytest.raises(ValueError, match=r"several sets of answers: name one of .*:base/sampled"):
        asked(Difficulty(task=Letters(), rates=str(tmp_path)))
    with pytest.raises(ValueError, match=r":last holds no answers: name one of .*:s100/sampled"):
        asked(Difficulty(task=Letters(), rates=f"{tmp_path}:last"))
    (tmp_path / "answers" / "base" / "sampled_calls_2" / "00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"is not finished: 00001.parquet is missing"):
        asked(Difficulty(task=Letters(), rates=f"{tmp_path}:base"))
