"""Lost answers: asked again, counted, and above a share there are no figures."""

import asyncio

import pytest
from helpers.fakes import ArithmeticTool, FailingTool
from helpers.judging import all_right
from helpers.ledgers import group_of, ledger
from helpers.scripted_engine import ANSWER, CALL, stage

from jaxtool.core.types import FinishReason, ToolStatus
from jaxtool.rundir.metrics import check_metric_name
from jaxtool.train.evaluation import GREEDY, evaluate, evaluation_of, lost_text
from jaxtool.train.rl_config import Schedule

OK = ToolStatus.OK
CALLING, PLAIN = [*CALL, *ANSWER], [*ANSWER]


def evaluated(scripts, failures, max_lost_fraction=0.01):
    """Answers of scripted rows, of which the first calls fail; each row may be sampled twice."""
    made = stage(
        [[script, script] for script in scripts],
        tool=FailingTool(ArithmeticTool(), failures=failures),
        decode_rows=1,
    )
    with asyncio.Runner() as runner:
        return evaluate(
            made.collector,
            runner,
            all_right(),
            made.problems,
            samples=1,
            sampling=GREEDY,
            seed=0,
            stream=("test",),
            version=0,
            max_lost_fraction=max_lost_fraction,
        )


def test_what_is_lost_is_asked_again_and_the_figures_are_those_without_an_outage():
    scripts = [CALLING, PLAIN, CALLING, PLAIN]
    whole, again = evaluated(scripts, 0), evaluated(scripts, 2)
    assert again.as_json() == whole.as_json()
    assert (again.overall["answers"], again.overall["lost"]) == (4, 0)
    assert again.overall["tool_calls"] == 0.5


def test_half_of_the_calls_lost_twice_is_refused_and_counted():
    """Those left call half as often: TC 0.33 in place of 0.5."""
    found = evaluated([CALLING, PLAIN, CALLING, PLAIN], 3)
    assert found.is_refused
    assert found.as_json() == {
        "problems": 3,
        "answers": 3,
        "lost": 1,
        "lost_to": {"python": 1},
        "levels": {"easy": {"problems": 3, "answers": 3, "lost": 1, "lost_to": {"python": 1}}},
    }
    assert found.metrics() == {"validation/answers_count": 3, "validation/lost_count": 1}
    assert lost_text(found.overall) == "1 of 4 answers lost (25.0%: 1 to python)"
    allowed = evaluated([CALLING, PLAIN, CALLING, PLAIN], 3, max_lost_fraction=0.25)
    assert allowed.overall["tool_calls"] == pytest.approx(1 / 3)
    assert (allowed.overall["answers"], allowed.overall["lost"]) == (3, 1)


def test_with_everything_lost_there_are_counts():
    found = evaluated([CALLING, CALLING], 99)
    assert found.as_json()["lost"] == 2
    assert found.is_refused


def answers(level, number, lost):
    return [
        group_of(
            ledger(
                "Qpptp",
                problem=f"{level}/{i}",
                level=level,
                calls=[OK],
                reason=FinishReason.INFRASTRUCTURE if i < lost else FinishReason.ANSWER,
            ),
            is_correct=[True],
        )
        for i in range(number)
    ]


def test_a_level_that_lost_too_many_has_counts_while_the_whole_has_figures():
    found = evaluation_of([*answers("easy", 190, 0), *answers("hard", 10, 2)], 0.01)
    assert not found.is_refused
    assert (found.overall["answers"], found.overall["lost"]) == (198, 2)
    assert found.levels["easy"]["accuracy"] == 1.0
    assert found.levels["hard"] == {"problems": 8, "answers": 8, "lost": 2, "lost_to": {}}
    metrics = found.metrics()
    assert metrics["validation/calls_per_answer/easy"] == 1.0
    assert "validation/calls_per_answer/hard" not in metrics
    assert (metrics["validation/answers_count"], metrics["validation/lost_count"]) == (198, 2)
    for name in metrics:
        check_metric_name(name)


def test_no_level_has_figures_where_the_whole_has_none():
    found = evaluation_of([*answers("easy", 100, 0), *answers("hard", 10, 2)], 0.01)
    assert found.is_refused
    assert "accuracy" not in found.levels["easy"]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused_by_name(share):
    with pytest.raises(ValueError, match="eval_max_lost_fraction"):
        Schedule(steps=1, eval_max_lost_fraction=share)


@pytest.mark.parametrize(("lost", "is_refused"), [(0, False), (1, False), (2, True)])
def test_the_share_is_inclusive(lost, is_refused):
    assert evaluation_of(answers("easy", 100, lost), 0.01).is_refused == is_refused
