"""The measures of behaviour that every training step logs: those that need no text of the response and no parser.

They come from what a trajectory keeps beside its tokens, so nothing is decoded. A measure with nothing to measure (no
program, no failed one, no right answer) is left out of the row.
"""

from collections.abc import Sequence

from jaxtool.behaviour import code_use, searching, timing
from jaxtool.behaviour.answers import queries, right, wrong
from jaxtool.behaviour.call_need import use_against_need
from jaxtool.behaviour.corrections import corrections
from jaxtool.core.types import Sample
from jaxtool.rundir.answer_records import AnswerRecord, record_of


def behaviour_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics `behaviour/...` of judged samples, by name."""
    records = [_without_text(sample) for sample in samples if not sample.is_masked]
    found = _of_calls(records) | _of_programs(records) | _of_need(records)
    if any(queries(record) for record in records):
        found["behaviour/repeated_queries_fraction"] = searching.repeated_ratio(records)
    return {name: float(value) for name, value in found.items() if value is not None}


def _without_text(sample: Sample) -> AnswerRecord:
    return record_of(
        sample, lambda ids: "", policy="", has_tools=True, max_tool_calls=0, sampling="sampled"
    )


def _of_calls(records: Sequence[AnswerRecord]) -> dict[str, float | None]:
    return {
        "behaviour/first_call_position_fraction": timing.first_call_position(records),
        "behaviour/call_position_fraction": timing.call_position(records),
        "behaviour/executed_calls_fraction": code_use.executed_ratio(records),
    }


def _of_programs(records: Sequence[AnswerRecord]) -> dict[str, float | None]:
    coded = code_use.with_code(records)
    if not coded:
        return {}
    found: dict[str, float | None] = {
        "behaviour/answers_with_code_fraction": code_use.code_ratio(records),
        "behaviour/accuracy_with_code_fraction": code_use.accuracy(coded),
        "behaviour/accuracy_without_code_fraction": code_use.accuracy(
            code_use.without_code(records)
        ),
        "behaviour/code_lines_per_answer": code_use.lines_per_answer(coded),
        "behaviour/code_lines_per_program": code_use.lines_per_program(coded),
        "behaviour/ok_programs_count": code_use.ok_programs(coded),
        "behaviour/ok_programs_fraction": code_use.pass_ratio(coded),
    }
    for name, part in (("right", right(coded)), ("wrong", wrong(coded))):
        found[f"behaviour/ok_programs_fraction/{name}"] = code_use.pass_ratio(part)
        found[f"behaviour/ok_last_program_fraction/{name}"] = code_use.last_pass_ratio(part)
    mended = corrections(coded)
    found["behaviour/recovered_programs_fraction"] = mended.recovered_rate
    found["behaviour/self_corrected_programs_fraction"] = mended.self_correction_rate
    return found


def _of_need(records: Sequence[AnswerRecord]) -> dict[str, float | None]:
    use = use_against_need(records)
    if use is None:
        return {}
    return {
        "behaviour/over_use_per_answer": use["over_use"],
        "behaviour/under_use_per_answer": use["under_use"],
    }
