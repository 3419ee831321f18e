"""Answers of an evaluation, one record each, and their parquet files.

A record holds what any figure, comparison or page needs of an answer: the question with its references, the text
with who wrote which part, the verdict, the calls with their programs and outputs, tokens and times. Knows no model
and no tokenizer. Answers that the infrastructure lost are records too (`is_lost`), so that they can be counted.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxtool.core.calls import CODE
from jaxtool.core.types import Origin, Sample, ToolCall, Trajectory

Author = Literal["policy", "tool"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Tokens of a response in a row that one side wrote, as text."""

    author: Author
    text: str
    tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallRecord:
    """One call that got an observation. Texts are untrusted; status and times are not."""

    tool: str
    arguments: str  # JSON
    code: str  # the program of a code tool; "" of other tools
    status: str  # value of ToolStatus
    stdout: str
    stderr: str
    last_value: str
    error_type: str
    note: str
    is_truncated: bool
    cpu_ms: int
    wall_ms: int
    queue_ms: int
    # Tokens of the response: first of the segment that ended in the call, just past the call, and just past its
    # observation. 0 is the first token of the response.
    start: int
    stop: int
    observation_stop: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """What an answer did for a while, in milliseconds since the answer left the queue."""

    kind: Literal["generate", "tool", "judge"]
    start_ms: int
    stop_ms: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerRecord:
    """One answer under one condition (tools, call budget, way of sampling)."""

    policy: str  # what the policy is called in tables
    has_tools: bool  # False: it was asked without any
    max_tool_calls: int  # the call budget
    sampling: str  # "greedy" or "sampled"
    problem_id: str
    level: str  # difficulty or data set name
    question: str
    references: tuple[str, ...]  # acceptable answers, any one is right
    sample: int  # index among the answers of one question
    parts: tuple[Part, ...]  # the response, in order
    final_answer: str | None  # what was judged, as it stands in the response; None: there is none
    is_correct: bool  # False where it is lost
    score: float  # the judge's, 0 to 1
    is_lenient: bool | None  # right by the judge's more lenient rule; None: it reports none
    how: str  # how the verdict came about
    is_lost: bool  # the infrastructure failed, also when asked again: in no figure
    finish_reason: str  # value of FinishReason
    prompt_tokens: int
    policy_tokens: int
    tool_tokens: int
    unexecuted_calls: int
    invalid_calls: int
    calls: tuple[CallRecord, ...]
    spans: tuple[Span, ...] = ()  # () where nobody measured

    @property
    def response(self) -> str:
        """The whole response, observations included."""
        return "".join(part.text for part in self.parts)

    @property
    def num_calls(self) -> int:
        """Calls that got an observation, which is what TC counts."""
        return len(self.calls)


def record_of(
    sample: Sample,
    text_of: Callable[[Sequence[int]], str],
    *,
    policy: str,
    has_tools: bool,
    max_tool_calls: int,
    sampling: str,
) -> AnswerRecord:
    """The record of a judged sample.

    Args:
      text_of: text of token ids.
    """
    trajectory, verdict = sample.trajectory, sample.verdict
    problem = trajectory.problem
    prompt = int(np.sum(trajectory.origins == Origin.PROMPT))
    return AnswerRecord(
        policy=policy,
        has_tools=has_tools,
        max_tool_calls=max_tool_calls,
        sampling=sampling,
        problem_id=problem.problem_id,
        level=problem.level,
        question=problem.question,
        references=problem.references,
        sample=trajectory.sample,
        parts=_parts(trajectory, prompt, text_of),
        final_answer=None if verdict is None else verdict.answer,
        is_correct=bool(sample.is_correct) and not sample.is_masked,
        score=0.0 if verdict is None or sample.is_masked else verdict.score,
        is_lenient=None if verdict is None else verdict.is_lenient,
        how="" if verdict is None else verdict.how,
        is_lost=sample.is_masked,
        finish_reason=str(trajectory.finish_reason),
        prompt_tokens=prompt,
        policy_tokens=trajectory.num_policy_tokens,
        tool_tokens=int(np.sum(trajectory.origins == Origin.TOOL)),
        unexecuted_calls=trajectory.unexecuted_calls,
        invalid_calls=trajectory.invalid_calls,
        calls=tuple(_call(call, prompt) for call in trajectory.tool_calls),
    )


def _parts(
    trajectory: Trajectory, prompt: int, text_of: Callable[[Sequence[int]], str]
) -> tuple[Part, ...]:
    origins = trajectory.origins[prompt:]
    if not len(origins):
        return ()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(origins)) + 1])
    stops = np.concatenate([starts[1:], [len(origins)]])
    return tuple(
        Part(
            author="policy" if origins[start] == Origin.POLICY else "tool",
            text=text_of(trajectory.ids[prompt + start : prompt + stop].tolist()),
            tokens=int(stop - start),
        )
        for start, stop in zip(starts, stops, strict=True)
    )


def _call(call: ToolCall, prompt: int) -> CallRecord:
    result = call.result
    return CallRecord(
        tool=call.tool,
        arguments=json.dumps(dict(call.arguments), ensure_ascii=False, default=str),
        code=str(call.arguments.get(CODE, "")),
        status=str(result.status),
        stdout=result.stdout,
        stderr=result.stderr,
        last_value=result.last_value,
        error_type=result.error_type,
        note=result.note,
        is_truncated=result.is_truncated,
        cpu_ms=result.cpu_ms,
        wall_ms=result.wall_ms,
        queue_ms=result.queue_ms,
        start=call.start - prompt,
        stop=call.stop - prompt,
        observation_stop=call.observation_stop - prompt,
    )


def write_records(path: str | Path, records: Sequence[AnswerRecord]) -> Path:
    """Writes one parquet file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jaxtool.core.files import write_bytes

    table = pa.Table.from_pylist(
        [_plain(dataclasses.asdict(record)) for record in records], schema=_schema()
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return write_bytes(Path(path), sink.getvalue().to_pybytes())


def read_records(path: str | Path, *, has_texts: bool = True) -> list[AnswerRecord]:
    """Inverse of `write_records`.

    Args:
      has_texts: False: questions, references, responses, spans and what calls hold are left out and not read, but for
        each call's tool and status. That is what figures need, of long answers a thousandth.

    Raises:
      ValueError: the file is no parquet file, or holds other columns; names file and columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if missing := set(_schema().names) - set(file.schema_arrow.names):
            raise ValueError(
                f"{path} holds no answers: it has no column {', '.join(sorted(missing))}"
            )
        if not has_texts:
            rows = file.read(columns=_NUMBERS).to_pylist()
            return [_record(_NO_TEXTS | row | {"calls": _bare(row["calls"])}) for row in rows]
        table = file.read()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no parquet file of answers: {error}") from None
    return [_record(row) for row in table.select(_schema().names).to_pylist()]


_NO_TEXTS: dict[str, Any] = {"question": "", "references": (), "parts": (), "spans": ()}
_NUMBERS = [
    *(f.name for f in dataclasses.fields(AnswerRecord) if f.name not in (*_NO_TEXTS, "calls")),
    *(f"calls.list.element.{name}" for name in ("tool", "status")),
]
_NO_CALL: dict[str, Any] = {
    **dict.fromkeys(("arguments", "code", "stdout", "stderr", "last_value"), ""),
    **dict.fromkeys(("error_type", "note"), ""),
    **dict.fromkeys(("cpu_ms", "wall_ms", "queue_ms", "start", "stop", "observation_stop"), 0),
    "is_truncated": False,
}


def _bare(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls of which only tool and status were read."""
    return [_NO_CALL | call for call in calls]


def _record(row: dict[str, Any]) -> AnswerRecord:
    return AnswerRecord(
        **row
        | {
            "references": tuple(row["references"]),
            "parts": tuple(Part(**part) for part in row["parts"]),
            "calls": tuple(CallRecord(**call) for call in row["calls"]),
            "spans": tuple(Span(**span) for span in row["spans"]),
        }
    )


def _plain(value: Any) -> Any:
    """The same with text that UTF-8 can hold: a lone surrogate is shown as its escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _schema() -> Any:
    """The columns; parts, calls and spans are lists of records."""
    import pyarrow as pa

    text, whole, flag = pa.string(), pa.int64(), pa.bool_()
    special = {
        "references": pa.list_(text),
        "parts": pa.list_(_struct(Part)),
        "calls": pa.list_(_struct(CallRecord)),
        "spans": pa.list_(_struct(Span)),
        "score": pa.float64(),
        "final_answer": text,
        "is_lenient": flag,
    }
    plain = {str: text, int: whole, bool: flag}
    return pa.schema(
        [
            (field.name, special[field.name] if field.name in special else plain[field.type])  # type: ignore[index]
            for field in dataclasses.fields(AnswerRecord)
        ]
    )


def _struct(kind: type) -> Any:
    import pyarrow as pa

    plain = {int: pa.int64(), bool: pa.bool_()}
    return pa.struct(
        [(field.name, plain.get(field.type, pa.string())) for field in dataclasses.fields(kind)]  # type: ignore[call-overload]
    )
