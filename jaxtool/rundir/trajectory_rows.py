"""A finished trajectory as bytes, and back: every token with its author, log-prob and version.

A row is a frame: magic, lengths, a digest, a JSON head (which answer it is) and a compressed body. A row that a kill cut
or a disk changed is noticed. Plain data: reading one runs nothing.

  b"JTR1" | u32 head bytes | u64 body bytes | 16 bytes blake2b of head and body | head | body

Not covered: files of rows (`rollout_journal`), the text of the problem, which the reader has.
"""

import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from jaxtool.core.types import (
    FinishReason,
    Problem,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
)

MAGIC = b"JTR1"
_FRAME = struct.Struct("<4sIQ16s")
_LENGTH = struct.Struct("<Q")
_LEVEL = 1  # of zlib: log-probs hardly get smaller, ids and authors do at once
_MAX_HEAD = 1 << 20
# Arrays of a trajectory in the order of the body, with the dtypes that they are written in.
_ARRAYS = (
    ("ids", "<i4"),
    ("origins", "<i1"),
    ("behaviour_logprobs", "<f4"),
    ("policy_versions", "<i4"),
)
_TEXTS = ("lost_to", "response_text", "final_text")
_COUNTS = ("unexecuted_calls", "invalid_calls")


class DamagedRow(ValueError):
    """The bytes are no row, or another one than was written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a row lies in its file."""

    start: int
    length: int


def to_bytes(head: Mapping[str, Any], trajectory: Trajectory, extra: Mapping[str, Any]) -> bytes:
    """The frame of a row.

    Args:
      head: JSON values that name the answer; `scan` reads them without the body.
      extra: JSON values that are not part of the trajectory; `from_bytes` gives them back.
    """
    facts = {
        "problem_id": trajectory.problem.problem_id,
        "sample": trajectory.sample,
        "tokens": int(trajectory.ids.shape[0]),
        "finish_reason": str(trajectory.finish_reason),
        "tool_calls": [_call_values(call) for call in trajectory.tool_calls],
        "extra": dict(extra),
    } | {name: getattr(trajectory, name) for name in (*_TEXTS, *_COUNTS)}
    text = json.dumps(facts, separators=(",", ":")).encode()
    arrays = (
        np.ascontiguousarray(getattr(trajectory, name), dtype).tobytes() for name, dtype in _ARRAYS
    )
    body = zlib.compress(b"".join([_LENGTH.pack(len(text)), text, *arrays]), _LEVEL)
    top = json.dumps(dict(head), separators=(",", ":")).encode()
    return _FRAME.pack(MAGIC, len(top), len(body), _digest(top, body)) + top + body


def from_bytes(frame: bytes, problem: Problem) -> tuple[Trajectory, dict[str, Any]]:
    """The trajectory of a whole frame and its `extra`.

    Args:
      problem: that it answers; the row has its id alone.

    Raises:
      DamagedRow: the digest does not fit, or it answers another problem.
    """
    try:
        magic, top, size, digest = _FRAME.unpack_from(frame)
        head, body = frame[_FRAME.size : _FRAME.size + top], frame[_FRAME.size + top :]
        if magic != MAGIC or len(body) != size or digest != _digest(head, body):
            raise DamagedRow("its digest does not fit")
        raw = zlib.decompress(body)
        (length,) = _LENGTH.unpack_from(raw)
        facts = json.loads(raw[_LENGTH.size : _LENGTH.size + length])
    except (struct.error, zlib.error, ValueError) as error:
        raise DamagedRow(str(error)) from error
    if facts["problem_id"] != problem.problem_id:
        raise DamagedRow(f"it answers {facts['problem_id']}, not {problem.problem_id}")
    arrays, at = {}, _LENGTH.size + length
    for name, dtype in _ARRAYS:
        stop = at + facts["tokens"] * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(raw[at:stop], dtype).copy()
        at = stop
    trajectory = Trajectory(
        problem=problem,
        sample=facts["sample"],
        tool_calls=tuple(_call_of(values) for values in facts["tool_calls"]),
        finish_reason=FinishReason(facts["finish_reason"]),
        **arrays,
        **{name: facts[name] for name in (*_TEXTS, *_COUNTS)},
    )
    trajectory.check()
    return trajectory, facts["extra"]


def scan(file: BinaryIO) -> Iterator[tuple[dict[str, Any], Place]]:
    """Heads and places of a file's rows, up to the first that is cut or damaged; bodies are not read."""
    size = file.seek(0, 2)
    start = 0
    while True:
        file.seek(start)
        fixed = file.read(_FRAME.size)
        if len(fixed) < _FRAME.size:
            return
        magic, top, body, _ = _FRAME.unpack(fixed)
        length = _FRAME.size + top + body
        if magic != MAGIC or top > _MAX_HEAD or start + length > size:
            return
        try:
            head = json.loads(file.read(top))
        except ValueError:
            return
        if not isinstance(head, dict):
            return
        yield head, Place(start=start, length=length)
        start += length


def _digest(head: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(head + body, digest_size=16).digest()


def _call_values(call: ToolCall) -> dict[str, Any]:
    values = {f.name: getattr(call, f.name) for f in dataclasses.fields(call)}
    return values | {
        "arguments": dict(call.arguments),
        "result": dataclasses.asdict(call.result) | {"status": str(call.result.status)},
    }


def _call_of(values: Mapping[str, Any]) -> ToolCall:
    result = values["result"]
    status = ToolStatus(result["status"])
    return ToolCall(**{**values, "result": ToolResult(**{**result, "status": status})})
