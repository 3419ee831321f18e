"""A user's judge is one function; what it does wrong ends the run by its name."""

import threading

import pytest

from jaxtool.core.types import Problem, Verdict
from jaxtool.judges.base import Case
from jaxtool.judges.function_judge import PythonFunction


def cases(*answers: str | None) -> list[Case]:
    problem = Problem(problem_id="p1", question="?", answer="42")
    return [Case(problem=problem, answer=a, response=f"so {a}") for a in answers]


def judged(function, *answers, **settings):
    with PythonFunction(function=function, **settings).open() as judge:
        return judge.judge(cases(*answers))


def ends_alike(problem, answer, response):
    return answer is not None and answer[-1] == problem.answer[-1]


def share(problem, answer, response):
    return len(answer) / 4


def with_reason(problem, answer, response):
    return Verdict(score=0.5, is_correct=True, how=response)


def test_true_scores_and_verdicts():
    assert [v.is_correct for v in judged(ends_alike, "2", "3", None)] == [True, False, False]
    assert [(v.score, v.is_correct) for v in judged(share, "ab", "abcd")] == [
        (0.5, False),
        (1, True),
    ]
    assert judged(with_reason, "2")[0].how == "so 2"


def raises(problem, answer, response):
    raise KeyError(answer)


@pytest.mark.parametrize("reply", [None, "yes", 1.5, float("nan"), -1])
def test_no_score_is_an_error(reply):
    def odd(problem, answer, response):
        return reply

    with pytest.raises(RuntimeError, match=r"odd on problem 'p1' gave .*; return True, False"):
        judged(odd, "2")


def test_what_it_raises_ends_the_run_by_name():
    with pytest.raises(
        RuntimeError, match=r"raises on problem 'p1' raised KeyError: '7'; answer '7'"
    ):
        judged(raises, "7")


def test_one_that_hangs_is_left_behind():
    ends = threading.Event()

    def hangs(problem, answer, response):
        ends.wait()

    with pytest.raises(
        RuntimeError, match=r"hangs on problem 'p1' gave no verdict in limit_s=0.01"
    ):
        judged(hangs, "7", limit_s=0.01)
    ends.set()


def test_a_wrong_signature_is_found_when_the_configuration_is_built():
    def short(answer):
        return True

    with pytest.raises(ValueError, match=r"called as f\(problem, answer, response\)"):
        PythonFunction(function=short)
    with pytest.raises(ValueError, match="limit_s must be > 0"):
        PythonFunction(function=ends_alike, limit_s=0)
