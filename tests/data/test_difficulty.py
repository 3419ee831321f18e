"""Problems chosen by measured solve rates: bounds by hand, every form of a record, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

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
