"""What all measures ask of an answer: its programs, its queries, its length.

A program is a call with the argument `code`, a query a call with the argument `query`; both got an observation.
Measures are over judged answers: those that the infrastructure lost are in none.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from jaxtool.core.calls import CODE
from jaxtool.core.types import ToolStatus
from jaxtool.rundir.answer_records import AnswerRecord, CallRecord
from jaxtool.tools.search_wire import QUERY


def judged(records: Sequence[AnswerRecord]) -> list[AnswerRecord]:
    """Those that came back."""
    return [record for record in records if not record.is_lost]


def right(records: Sequence[AnswerRecord]) -> list[AnswerRecord]:
    return [record for record in judged(records) if record.is_correct]


def wrong(records: Sequence[AnswerRecord]) -> list[AnswerRecord]:
    return [record for record in judged(records) if not record.is_correct]


def programs(record: AnswerRecord) -> list[CallRecord]:
    """Calls that ran a program, in order; an empty program is one."""
    return [call for call in record.calls if call.code or CODE in arguments(call)]


def queries(record: AnswerRecord) -> list[tuple[str, CallRecord]]:
    """Calls that asked for passages, in order, each with its query."""
    asked = [(arguments(call).get(QUERY), call) for call in record.calls if not call.code]
    return [(query, call) for query, call in asked if isinstance(query, str)]


def arguments(call: CallRecord) -> dict[str, Any]:
    """What a call was given.

    Raises:
      ValueError: the record was read without texts.
    """
    if not call.arguments:
        raise ValueError("these records have no texts: read them whole to measure programs")
    return json.loads(call.arguments)


def without_texts(record: AnswerRecord) -> AnswerRecord:
    """The record without responses and outputs: all that most measures need, and a small part of its size."""
    calls = [
        dataclasses.replace(call, stdout="", stderr="", last_value="") for call in record.calls
    ]
    return dataclasses.replace(record, parts=(), spans=(), question="", calls=tuple(calls))


def is_ok(call: CallRecord) -> bool:
    """Whether it ended without an error and within its limits."""
    return call.status == ToolStatus.OK


def response_tokens(record: AnswerRecord) -> int:
    """Tokens of the response, observations included."""
    return record.policy_tokens + record.tool_tokens


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return sum(values) / len(values) if values else None


def share(part: float, whole: float) -> float | None:
    """part / whole; None where the whole is 0."""
    return part / whole if whole else None
