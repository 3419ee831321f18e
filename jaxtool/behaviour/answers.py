"""What all measures ask of an answer: its programs, its queries, its length.

A program is a call with the argument `code`, a query a call with the argument `query`; both got an observation.
Measures are over judged answers: those that the infrastructure lost are in none.
"""

import json
from collections.abc import Sequence

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
    return [call for call in record.calls if call.code or CODE in json.loads(call.arguments)]


def queries(record: AnswerRecord) -> list[tuple[str, CallRecord]]:
    """Calls that asked for passages, in order, each with its query."""
    found = []
    for call in record.calls:
        query = None if call.code else json.loads(call.arguments).get(QUERY)
        if isinstance(query, str):
            found.append((query, call))
    return found


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
