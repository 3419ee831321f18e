"""TC, TP and their errors by hand."""

import dataclasses
import math

import pytest
from helpers.ledgers import calling, group_of, ledger

from jaxtool.core.types import FinishReason, Score, ToolStatus, Verdict, samples_of, with_samples
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rollout.statistics import counts, figures, figures_by_level, step_metrics
from jaxtool.rollout.tool_figures import clustered_mean
from jaxtool.rundir.metrics import check_metric_name

OK, ERROR = ToolStatus.OK, ToolStatus.ERROR
LOST = FinishReason.INFRASTRUCTURE


def four_answers():
    """Two problems, two samples: calls 1, 0 | 2, 1; correct yes, no | yes, yes; one answer lost."""
    return [
        group_of(
            ledger("Qpptp", problem="a", calls=[OK], level="easy"),
            ledger("Qpp", problem="a", sample=1, level="easy"),
            is_correct=[True, False],
        ),
        group_of(
            ledger("Qptptp", problem="b", calls=[ERROR, OK], level="hard", unexecuted=1),
            ledger("Qpttp", problem="b", sample=1, calls=[OK], level="hard"),
            is_correct=[True, True],
        ),
        group_of(ledger("Qp", problem="c", reason=LOST, unexecuted=1), is_correct=[True]),
    ]


def scored(groups):
    """Rewards of 1 and -1."""
    return with_samples(
        groups,
        [
            dataclasses.replace(
                s,
                score=None
                if s.is_masked
                else Score(reward=1.0 if s.is_correct else -1.0, is_correct=s.is_correct),
            )
            for s in samples_of(groups)
        ],
    )


def test_figures_by_hand():
    """TC = 4 / 4, TP = 3 correct / 4 calls; problem means 0.5, 1 and 0.5, 1.5: errors 0.25, 0.5."""
    whole = figures(four_answers())
    assert (whole.problems, whole.answers, whole.lost) == (2, 4, 1)
    assert whole.accuracy == 0.75
    assert whole.tool_calls == 1.0
    assert whole.tool_productivity == 0.75
    assert whole.accuracy_stderr == pytest.approx(math.sqrt(0.125 / 2))
    assert whole.tool_calls_stderr == pytest.approx(math.sqrt(0.5 / 2))


def test_the_lenient_rule_stands_beside_the_strict_one_if_the_judge_reports_it():
    def judged(*lenient):
        return with_samples(
            four_answers(),
            [
                dataclasses.replace(
                    s, verdict=Verdict(score=0, is_correct=False, how="", is_lenient=x)
                )
                for s, x in zip(samples_of(four_answers()), lenient, strict=True)
            ],
        )

    assert figures(judged(True, True, True, False, None)).accuracy_lenient == 0.75
    assert figures(judged(True, None, True, False, None)).accuracy_lenient is None
    assert figures(four_answers()).accuracy_lenient is None


def test_counts_know_what_was_asked_for_and_lost():
    found = counts(four_answers())
    assert (found.problems, found.answers, found.lost, found.lost_fraction) == (2, 4, 1, 0.2)
    assert counts(four_answers()[:2]).lost_fraction == 0.0


def test_a_group_that_lost_a_sample_is_in_no_mean_of_a_step():
    """Its other answer made no call and is right: it would lower the calls and raise the accuracy."""
    survivor = group_of(
        ledger("Qp", problem="d", reason=LOST, unexecuted=1),
        ledger("Qp", problem="d", sample=1),
        is_correct=[False, True],
    )
    metrics = step_metrics(scored([*four_answers(), survivor]))
    without = step_metrics(scored(four_answers()))
    assert metrics.pop("tools/infrastructure_failed_fraction") == pytest.approx(2 / 7)
    assert without.pop("tools/infrastructure_failed_fraction") == pytest.approx(1 / 5)
    assert metrics == without


def test_productivity_without_calls_is_none_and_one_problem_has_no_error():
    whole = figures([group_of(ledger("Qp"), is_correct=[True])])
    assert whole.tool_productivity is None
    assert (whole.accuracy, whole.accuracy_stderr) == (1.0, 0.0)


def test_without_a_finished_answer_there_is_nothing_to_report():
    with pytest.raises(ValueError, match="nothing to report"):
        figures([group_of(ledger("Qp", reason=LOST), is_correct=[True])])


def test_levels_are_separate_and_in_order_of_appearance():
    levels = figures_by_level(four_answers()[:2])
    assert list(levels) == ["easy", "hard"]
    assert (levels["easy"].accuracy, levels["easy"].tool_calls) == (0.5, 0.5)
    assert (levels["hard"].accuracy, levels["hard"].tool_calls) == (1.0, 1.5)


def test_step_metrics_by_hand():
    metrics = step_metrics(scored(four_answers()))
    assert metrics["tools/infrastructure_failed_fraction"] == pytest.approx(0.2)
    assert metrics["reward/mean"] == 0.5
    assert metrics["reward/accuracy_fraction"] == 0.75
    assert metrics["tools/calls_per_answer"] == 1.0
    assert metrics["tools/calls_per_correct_answer"] == pytest.approx(4 / 3)
    assert metrics["tools/calls_per_wrong_answer"] == 0.0
    assert metrics["tools/answers_with_call_fraction"] == 0.75
    assert metrics["tools/unexecuted_per_answer"] == 0.25
    assert metrics["tools/ok_fraction"] == 0.75
    assert metrics["tools/failed_fraction/error"] == 0.25
    assert metrics["tools/failed_fraction/killed"] == 0.0
    assert metrics["tools/productivity_ratio"] == 0.75
    assert metrics["tokens/response_mean"] == pytest.approx((4 + 2 + 5 + 4) / 4)
    assert metrics["tokens/policy_mean"] == pytest.approx((3 + 2 + 3 + 2) / 4)
    assert metrics["tokens/finish_fraction/answer"] == 1.0
    assert metrics["level/calls_per_answer/hard"] == 1.5
    assert metrics["behaviour/ok_programs_fraction"] == 3 / 4
    assert metrics["behaviour/recovered_programs_fraction"] == 1.0


def test_step_metrics_of_two_tools_by_hand():
    """Two searches and a program in a right answer, one search in a wrong one, a third tool that nobody called.

    TC 3/2 and 1/2, TP 1/3 and 1/1. With a search at 1.5 and a program at 0.25 the answers cost 3.25 and 1.5.
    """
    groups = scored(
        [
            group_of(calling("search", "search", "python", problem="a"), is_correct=[True]),
            group_of(calling("search", problem="b"), is_correct=[False]),
        ]
    )
    cost = CallCost(per_tool=(("search", 1.5), ("python", 0.25)))
    metrics = step_metrics(groups, ("python", "search", "length"), cost)
    by_tool = {name: value for name, value in metrics.items() if name.count("/") == 2}
    by_tool = {
        k: v for k, v in by_tool.items() if not k.startswith(("level/", "tokens/", "behaviour/"))
    }
    assert {k: v for k, v in by_tool.items() if "failed_fraction" not in k} == {
        "tools/calls_per_answer/length": 0.0,
        "tools/calls_per_answer/python": 0.5,
        "tools/calls_per_answer/search": 1.5,
        "tools/answers_with_call_fraction/length": 0.0,
        "tools/answers_with_call_fraction/python": 0.5,
        "tools/answers_with_call_fraction/search": 1.0,
        "tools/productivity_ratio/python": 1.0,
        "tools/productivity_ratio/search": pytest.approx(1 / 3),
        "tools/accuracy_with_call_fraction/python": 1.0,
        "tools/accuracy_with_call_fraction/search": 0.5,
        "reward/call_cost_mean/python": 0.125,
        "reward/call_cost_mean/search": 2.25,
    }
    assert metrics["reward/call_cost_mean"] == pytest.approx((3.25 + 1.5) / 2)
    for name in metrics:
        check_metric_name(name)


def test_one_tool_has_its_calls_alone_and_no_cost_where_calls_are_counted():
    metrics = step_metrics(scored(four_answers()), ("python",), CallCost())
    assert metrics["tools/calls_per_answer/python"] == metrics["tools/calls_per_answer"] == 1.0
    assert not [
        name
        for name in metrics
        if name.startswith(("tools/prod", "reward/call_cost")) and "python" in name
    ]
    assert "reward/call_cost_mean" not in metrics


def test_a_step_in_which_everything_failed_has_no_reward_metrics():
    metrics = step_metrics([group_of(ledger("Qp", reason=LOST), is_correct=[True])])
    assert metrics == {"tools/infrastructure_failed_fraction": 1.0}


def test_problems_without_a_level_make_no_level_metrics():
    metrics = step_metrics(scored([group_of(ledger("Qp", level=""), is_correct=[True])]))
    assert not [name for name in metrics if name.startswith("level/")]


def test_clustered_mean_by_hand():
    """Values 1, 1, 0 with the first two of one problem: mean 2/3, sums 2/3 and -2/3."""
    mean, error = clustered_mean([1.0, 1.0, 0.0], ["a", "a", "b"])
    assert mean == pytest.approx(2 / 3)
    assert error == pytest.approx((2 / 1 * (4 / 9 + 4 / 9)) ** 0.5 / 3)
    assert clustered_mean([1.0, 0.0], ["a", "a"]) == (0.5, 0.0)
