"""The mathematical judge as a run uses it: several references, counts, workers that can be killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxtool.core.types import Problem
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.judges.base import Case
from jaxtool.judges.mathematics import Mathematics, MathematicsJudge, _may_ask
from jaxtool.judges.worker_pool import WorkerPool

# Known to keep math-verify busy for its full limit (5 s of parsing and 5 s of comparing).
HANGS = r"x^{9^{9^{9^9}}}"


def boxed(answer: str) -> str:
    return rf"hence <answer>\boxed{{{answer}}}</answer>"


def judge_with(*, num_workers: int = 1, cpu_limit_s: float = 10.0) -> MathematicsJudge:
    return Mathematics(num_workers=num_workers, cpu_limit_s=cpu_limit_s).open()


def case_of(text: str, reference: str) -> Case:
    problem = Problem(problem_id="p", question="", answer=reference)
    return Case(problem=problem, answer=AnswerFormat().extract(text), response=text)


def check(judge: MathematicsJudge, texts: list[str], references: list[str]) -> list[bool]:
    cases = list(map(case_of, texts, references))
    return [verdict.is_correct for verdict in judge.judge(cases) if verdict is not None]


def test_no_ordinary_answer_starts_a_process():
    with judge_with() as checker:
        texts = [boxed("1,234"), boxed("7"), "?", boxed("(x+1)^2"), boxed("even"), boxed("9^9^9^9")]
        references = ["1234", "8", "1", "x^2+2x+1", r"\text{even}", "3"]
        assert check(checker, texts, references) == [True, False, False, True, True, False]
        assert checker.pool.workers == []
        assert (checker.counts.by_comparison, checker.counts.without_answer) == (5, 1)


def test_of_two_boxes_the_last_counts():
    """math-verify alone makes the set {y, z} of them, wrong for both references."""
    text = r"\boxed{y} no, \boxed{z}"
    with judge_with() as checker:
        assert check(checker, [text, text], ["z", "y"]) == [True, False]


def test_without_a_box_no_number_is_taken():
    """math-verify alone says yes to reference 3 here."""
    with judge_with() as checker:
        assert check(checker, ["answer is not 3, maybe 5 or 8"], ["3"]) == [False]


def test_any_of_several_references_is_right():
    with judge_with() as checker:
        found = checker.findings([("5", ["4", "5"]), ("6", ["4", "5"]), (None, ["4"])])
    assert [bool(finding.is_equal) for finding in found] == [True, False, False]


def test_a_rounded_reference_is_a_setting_and_is_counted():
    with judge_with() as checker:
        assert check(checker, [boxed("10/3")], ["3.33333"]) == [True]
        assert checker.counts.by_rounding == 1
    with Mathematics(rounded_references=False).open() as strict:
        assert check(strict, [boxed("10/3"), boxed("3.33333")], ["3.33333"] * 2) == [False, True]


def test_a_verdict_says_how_it_came_about():
    with judge_with() as checker:
        cases = [case_of(boxed("6"), "5"), case_of("?", "5"), case_of(boxed("2+3"), "5")]
        hows = [verdict.how for verdict in checker.judge(cases) if verdict is not None]
    assert hows == ["numbers", "no answer", "a calculation, or no number, where a number is asked"]


def test_the_lenient_rule_stands_beside_the_strict_one():
    """ReTool: the last integer of the last line counts as well."""
    cases = [case_of(text, "70") for text in (boxed("70"), "I say 70", "70\nor 71", "no number")]
    with Mathematics(reports_lenient=True).open() as checker:
        verdicts = [verdict for verdict in checker.judge(cases) if verdict is not None]
    assert [verdict.is_correct for verdict in verdicts] == [True, False, False, False]
    assert [verdict.is_lenient for verdict in verdicts] == [True, True, False, False]
    with Mathematics().open() as checker:
        assert [verdict.is_lenient for verdict in checker.judge(cases) if verdict is not None] == [
            None
        ] * 4


@pytest.mark.parametrize(
    "answer",
    [r"\int_0^x e^{-t^t} dt", r"\sum_{k=1}^{n} k^k", "x^{9^{9^9}}", "x^9^9", "(x+1)^{5000}", "(n!)!", "3", "(" * 6 + "x", "1e10361036 x", r"\binom{2000}{1000}+x", "1e1036", r"\sqrt{" * 6 + "x" + "}" * 6],
)  # fmt: skip
def test_what_can_run_without_end_or_has_no_variable_never_reaches_math_verify(answer: str):
    assert not _may_ask(answer, "x")
    assert not _may_ask("x", answer)
    assert _may_ask(r"\begin{cases} x \\ y \end{cases}", r"\vec{x}")


# The workers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(num_workers=1, cpu_limit_s=1.0)
    yield pool
    pool.close()


def test_what_our_grammar_lacks_goes_to_math_verify():
    with judge_with() as checker:
        answers = [boxed(r"1+\vec{x}"), boxed(r"2+\vec{x}"), boxed(r"\vec{x}+1")]
        assert check(checker, answers, [r"\vec{x}+1"] * 3) == [True, False, True]
        assert checker.counts.by_math_verify == 2
        assert checker.counts.by_comparison == 1  # the same text


def test_a_hanging_question_costs_its_limit_and_no_restart(pool: WorkerPool):
    questions = [("x+x", "2x"), (HANGS, "2x"), ("x+x", "2x"), ("x", "2x")]
    replies = pool.ask(questions)
    assert [reply.get("is_equivalent") for reply in replies] == [True, None, True, False]
    assert replies[1] == {"error": "out of time", "is_late": True}
    processes = [worker.process for worker in pool.workers]
    assert pool.ask(questions[:1]) == replies[:1]
    assert [worker.process for worker in pool.workers] == processes
    assert all(process.poll() is None for process in processes)


def test_a_child_that_dies_is_replaced(pool: WorkerPool):
    assert pool.ask([("x+x", "2x")]) == [{"is_equivalent": True}]
    process = pool.workers[0].process
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert pool.ask([("x+x", "2x"), ("x", "2x")]) == [
        {"is_equivalent": True},
        {"is_equivalent": False},
    ]
    assert pool.workers[0].process is process


def test_a_worker_that_dies_is_replaced():
    pool = WorkerPool(num_workers=1, cpu_limit_s=10.0)
    assert pool.ask([("x+x", "2x")]) == [{"is_equivalent": True}]
    process = pool.workers[0].process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    replies = pool.ask([("x+x", "2x"), ("x+x", "2x")])
    assert replies[0]["error"] == "the worker died"
    assert replies[1] == {"is_equivalent": True}
    pool.close()
    assert pool.workers == []


def test_a_worker_that_uses_no_time_at_all_is_killed_too(monkeypatch: pytest.MonkeyPatch):
    pool = WorkerPool(num_workers=1, cpu_limit_s=10.0)
    assert pool.ask([("x+x", "2x")]) == [{"is_equivalent": True}]
    os.killpg(pool.workers[0].process.pid, signal.SIGSTOP)
    monkeypatch.setattr("jaxtool.judges.worker_pool.WALL_LIMITS", 0.05)
    assert pool.ask([("x+x", "2x")]) == [{"error": "stalled"}]
    assert pool.workers == []


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    broken = tmp_path / "worker.py"
    broken.write_text("import sys; sys.exit(3)")
    monkeypatch.setattr("jaxtool.judges.worker_pool.math_worker.__file__", str(broken))
    pool = WorkerPool(num_workers=1, cpu_limit_s=1.0)
    with pytest.raises(RuntimeError, match="worker did not start"):
        pool.ask([("x", "y")])
    assert pool.workers == []


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_workers must be >= 1"):
        judge_with(num_workers=0)


def test_a_stalled_worker_gives_no_verdict(monkeypatch: pytest.MonkeyPatch):
    """The machine's fault is never scored; another reference that is right still counts."""
    with Mathematics().open() as judge:
        monkeypatch.setattr(
            judge.pool, "ask", lambda questions: [{"error": "stalled"} for _ in questions]
        )
        references = ("\\vec{y}+1", "\\vec{x}+1")
        problem = Problem(problem_id="p", question="", answer=references[0], answers=references)
        cases = [Case(problem=problem, answer=a, response="") for a in ("1+\\vec{z}", "\\vec{x}+1")]
        verdicts = judge.judge(cases)
        assert verdicts[0] is None
        assert verdicts[1]
        assert judge.counts.stalled >= 1
