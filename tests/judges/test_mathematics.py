"""math-verify behind our own extraction, in processes that can be killed."""

import os
import signal
from collections.abc import Iterator

import pytest

from jaxtool.core.types import Problem
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.judges.base import Case
from jaxtool.judges.mathematics import Mathematics, MathematicsJudge

# Known to keep math-verify busy for its full limit (5 s of parsing and 5 s of comparing).
HANGS = r"x^{9^{9^{9^9}}}"


def boxed(answer: str) -> str:
    return rf"hence <answer>\boxed{{{answer}}}</answer>"


def judge_with(*, num_workers: int = 1, cpu_limit_s: float = 2.0) -> MathematicsJudge:
    return Mathematics(num_workers=num_workers, cpu_limit_s=cpu_limit_s).open()


def check(judge: MathematicsJudge, texts: list[str], references: list[str]) -> list[bool]:
    cases = [
        Case(
            problem=Problem(problem_id="p", question="", answer=reference),
            answer=AnswerFormat().extract(text),
            response=text,
        )
        for text, reference in zip(texts, references, strict=True)
    ]
    return [verdict.is_correct for verdict in judge.judge(cases) if verdict is not None]


@pytest.fixture(scope="module")
def checker() -> Iterator[MathematicsJudge]:
    with judge_with(num_workers=1, cpu_limit_s=10.0) as checker:
        yield checker


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("(x+1)^2", "x^2+2x+1", True),
        ("x^2+2x", "x^2+2x+1", False),
        (r"10\%", "0.1", True),
        (r"5\text{ cm}", "5", True),
        ("x=5", "5", True),
        (r"\{2,1\}", r"\{1,2\}", True),
        (r"\text{(B)}", "B", True),
        (r"\left(1, 2\right)", "(1,2)", True),
        ("(2,1)", "(1,2)", False),
        (r"\sqrt{12}", r"2\sqrt{3}", True),
        (r"\frac{\pi}{2}", r"0.5\pi", True),
        ("not a formula", "5", False),
        ("}{", "x", False),
        (r"\frac{", "x", False),
    ],
)
def test_verdicts(checker: MathematicsJudge, answer: str, reference: str, verdict: bool):
    assert check(checker, [f"<answer>{answer}</answer>"], [reference]) == [verdict]


def test_of_two_boxes_the_last_counts(checker: MathematicsJudge):
    """math-verify alone makes the set {y, z} of them, wrong for both references."""
    text = r"\boxed{y} no, \boxed{z}"
    assert check(checker, [text, text], ["z", "y"]) == [True, False]


def test_without_a_box_no_number_is_taken(checker: MathematicsJudge):
    """math-verify alone says yes to reference 3 here."""
    before = checker.counts.without_answer
    assert check(checker, ["answer is not 3, maybe 5 or 8"], ["3"]) == [False]
    assert checker.counts.without_answer == before + 1


def test_an_expression_is_no_answer_to_arithmetic(checker: MathematicsJudge):
    """math-verify alone works it out and says yes."""
    assert check(checker, [boxed("123*456"), boxed("56088")], ["56088"] * 2) == [False, True]


def test_numbers_start_no_process():
    with judge_with() as checker:
        assert check(checker, [boxed("1,234"), boxed("7"), "?"], ["1234", "8", "1"]) == [
            True,
            False,
            False,
        ]
        assert checker._workers == []
        assert (checker.counts.by_number, checker.counts.without_answer) == (2, 1)


def test_a_hanging_answer_is_killed_counted_and_does_not_spoil_the_others():
    with judge_with(num_workers=2, cpu_limit_s=1.0) as checker:
        hanging = boxed(HANGS)
        texts = [hanging, boxed("x+x"), hanging, boxed("y")]
        verdicts = check(checker, texts, ["2x", "2x", "2x", "z"])
        assert verdicts == [False, True, False, False]
        assert (checker.counts.timed_out, checker.counts.stalled) == (2, 0)
        processes = [worker._process for worker in checker._workers]
    assert all(process.poll() is not None for process in processes)


def test_a_worker_that_dies_is_replaced_and_counted():
    with judge_with(cpu_limit_s=10.0) as checker:
        assert check(checker, [boxed("2x")], ["x+x"]) == [True]
        os.kill(checker._workers[0]._process.pid, signal.SIGKILL)
        checker._workers[0]._process.wait()
        assert check(checker, [boxed("2x"), boxed("2x")], ["x+x", "x+x"]) == [False, True]
        assert checker.counts.failed == 1


def test_a_worker_that_uses_no_time_at_all_is_killed_too(monkeypatch: pytest.MonkeyPatch):
    with judge_with(cpu_limit_s=10.0) as checker:
        assert check(checker, [boxed("2x")], ["x+x"]) == [True]
        os.kill(checker._workers[0]._process.pid, signal.SIGSTOP)
        monkeypatch.setattr("jaxtool.judges.mathematics.WALL_LIMITS", 0.05)
        assert check(checker, [boxed("2x")], ["x+x"]) == [False]
        assert checker.counts.stalled == 1


def test_a_closed_checker_can_be_used_again():
    checker = judge_with(cpu_limit_s=10.0)
    for _ in range(2):
        assert check(checker, [boxed("2x")], ["x+x"]) == [True]
        checker.close()
        assert checker._workers == []


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path):
    broken = tmp_path / "worker.py"
    broken.write_text("import sys; sys.exit(3)")
    monkeypatch.setattr("jaxtool.judges.mathematics.math_worker.__file__", str(broken))
    checker = judge_with()
    with pytest.raises(RuntimeError, match="worker did not start"):
        check(checker, [boxed("2x")], ["x+x"])
    assert checker._workers == []


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_workers=0"):
        judge_with(num_workers=0)
