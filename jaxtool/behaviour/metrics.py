"""The measures of behaviour that every training step logs: those that need no text of the response and no parser.

They come from what a trajectory keeps beside its tokens, so nothing is decoded: about 0.1 ms an answer. A measure with nothing to measure (no
program, no failed one, no right answer) is left out of the row.
"""

from collections.abc import Sequence

import numpy as np

from jaxtool.behaviour import code_use, searching, timing
from jaxtool.behaviour.answers import queries, right, wrong
from jaxtool.behaviour.call_need import use_against_need
from jaxtool.behaviour.corrections import corrections
from jaxtool.core.types import Origin, Sample
from jaxtool.rundir.answer_records import AnswerRecord, call_record


def behaviour_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics `behaviour/...` of judged samples, by name."""
    records = [_without_text(sample) for sample in samples if not sample.is_masked]
    found = _of_calls(records) | _of_programs(records) | _of_need(records)
    if any(queries(record) for record in records):
        found["behaviour/repeated_queries_fraction"] = searching.repeated_ratio(records)
    return {name: float(value) for name, value in found.items() if value is not None}


def _without_text(sample: Sample) -> AnswerRecord:
    """The record of a judged sample as `record_of` makes it, without what only its text tells."""
    trajectory = sample.trajectory
    prompt = int(np.count_nonzero(trajectory.origins == Origin.PROMPT))
    policy = int(np.count_nonzero(trajectory.origins == Origin.POLICY))
    return AnswerRecord(
        policy="",
        has_tools=True,
        max_tool_calls=0,
        sampling="sampled",
        problem_id=trajectory.problem.problem_id,
        level=trajectory.problem.level,
        question="",
        references=(),
        sample=trajectory.sample,
        parts=(),
        final_answer=None,
        is_correct=bool(sample.is_correct),
        score=0.0,
        is_lenient=None,
        how="",
        is_lost=False,
        finish_reason=trajectory.finish_reason,
        prompt_tokens=prompt,
        policy_tokens=policy,
        tool_tokens=len(trajectory.origins) - prompt - policy,
        unexecuted_calls=trajectory.unexecuted_calls,
        invalid_calls=trajectory.invalid_calls,
        calls=tuple(call_record(call, prompt) for call in trajectory.tool_calls),
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
