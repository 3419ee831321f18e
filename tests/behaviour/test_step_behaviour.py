"""The measures of every training step, by hand, and as those of the records."""

import dataclasses

import pytest
from helpers.ledgers import calling, group_of, ledger

from jaxtool.behaviour import code_use, timing
from jaxtool.behaviour.corrections import corrections
from jaxtool.behaviour.metrics import behaviour_metrics
from jaxtool.core.types import FinishReason, ToolStatus
from jaxtool.rundir.answer_records import record_of
from jaxtool.rundir.metrics import check_metric_name

OK, ERROR = ToolStatus.OK, ToolStatus.ERROR
# Right after a failed program: calls end at tokens 1 and 3 of 5. Wrong with one at 2 of 4. Right without; one lost.
GROUP = group_of(
    ledger("Qptptp", calls=[ERROR, OK], level="hard"),
    ledger("Qpptp", calls=[OK], level="hard", unexecuted=1, sample=1),
    ledger("Qp", level="hard", sample=2),
    ledger("Qp", level="hard", sample=3, reason=FinishReason.INFRASTRUCTURE),
    is_correct=[True, False, True, False],
)


def test_step_behaviour_by_hand():
    found = behaviour_metrics(GROUP.samples)
    assert found == pytest.approx(
        {
            "behaviour/answers_with_code_fraction": 2 / 3,
            "behaviour/accuracy_with_code_fraction": 1 / 2,
            "behaviour/accuracy_without_code_fraction": 1.0,
            "behaviour/code_lines_per_answer": (2 + 1) / 2,
            "behaviour/code_lines_per_program": 1.0,
            "behaviour/ok_programs_count": 2.0,
            "behaviour/ok_programs_fraction": 2 / 3,
            "behaviour/ok_programs_fraction/right": 1 / 2,
            "behaviour/ok_programs_fraction/wrong": 1.0,
            "behaviour/ok_last_program_fraction/right": 1.0,
            "behaviour/ok_last_program_fraction/wrong": 1.0,
            "behaviour/recovered_programs_fraction": 1.0,
            "behaviour/self_corrected_programs_fraction": 0.0,  # the same program again
            "behaviour/first_call_position_fraction": (1 / 5 + 2 / 4) / 2,
            "behaviour/call_position_fraction": (1 / 5 + 3 / 5 + 2 / 4) / 3,
            "behaviour/executed_calls_fraction": 3 / 4,
            "behaviour/over_use_per_answer": 1 / 3,
            "behaviour/under_use_per_answer": 1 / 3,
        }
    )
    for name in found:
        check_metric_name(name)


def test_they_are_the_measures_of_the_records():
    records = [
        record_of(
            sample,
            lambda ids: "x" * len(ids),
            policy="p",
            has_tools=True,
            max_tool_calls=2,
            sampling="sampled",
        )
        for sample in GROUP.samples
    ]
    found = behaviour_metrics(GROUP.samples)
    assert found["behaviour/ok_programs_fraction"] == code_use.pass_ratio(records)
    assert found["behaviour/executed_calls_fraction"] == code_use.executed_ratio(records)
    assert found["behaviour/call_position_fraction"] == timing.call_position(records)
    assert found["behaviour/recovered_programs_fraction"] == corrections(records).recovered_rate


def test_without_calls_only_the_need_is_measured_and_only_where_it_is_known():
    plain = group_of(ledger("Qp", level="hard"), is_correct=[True])
    assert behaviour_metrics(plain.samples) == {
        "behaviour/over_use_per_answer": 0.0,
        "behaviour/under_use_per_answer": 1.0,
    }
    other = group_of(ledger("Qp", level="aime"), is_correct=[True])
    assert behaviour_metrics(other.samples) == {}
    assert behaviour_metrics([]) == {}


def test_repeated_queries_of_a_search_tool():
    made = calling("search", "search", level="aime")
    queries = [
        dataclasses.replace(call, arguments={"query": "capital of kodami"})
        for call in made.tool_calls
    ]
    group = group_of(dataclasses.replace(made, tool_calls=tuple(queries)), is_correct=[True])
    found = behaviour_metrics(group.samples)
    assert found["behaviour/repeated_queries_fraction"] == 0.5
    assert "behaviour/answers_with_code_fraction" not in found
