"""Values of other hosts come back as they were; what is no data is neither sent nor read."""

import dataclasses
import enum
import math
import re
from pathlib import Path

import numpy as np
import pytest

from jaxtool.core.types import (
    FinishReason,
    Group,
    Problem,
    Sample,
    SampleTimes,
    Score,
    Span,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
    Verdict,
)
from jaxtool.parallel.wire import pack, unpack

ROOT = Path(__file__).parents[2]
# Pools of one machine's own processes, where multiprocessing pickles by itself, are no exchange between hosts.
PICKLES = re.compile(r"^\s*(import|from) (c?pickle|dill|marshal|shelve)\b", re.MULTILINE)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(10**30),
        0.1 + 0.2,
        math.inf,
        "a\ud800\n\x00é",
        [],
        (),
        {},
        (1, [2, (3,)], {"dict": 1, ("a", 2): {3: None}}),
        {"tuple": [1]},
        FinishReason.ANSWER,
        Path("/a/b"),
    ],
    ids=repr,
)
def test_a_value_comes_back_with_its_type(value):
    found = unpack(pack(value))
    assert found == value
    assert type(found) is type(value)


def test_the_worked_example():
    data = pack((1, np.int32([5, 6])))
    text = b'{"tuple": [1, {"array": ["<i4", [2], 0]}]}'
    assert data == len(text).to_bytes(8, "little") + text + b"\x05\0\0\0\x06\0\0\0"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 0, 3), np.float32),
        np.float32([np.nan, -0.0, 1e-45]),
        np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
        np.bool_([True, False]),
        np.array(7, np.int8),
    ],
    ids=["empty", "bits", "strided", "bools", "no axes"],
)
def test_arrays_come_back_bit_for_bit_and_may_be_written(array):
    first, found = unpack(pack([np.arange(3), array]))
    assert first.tolist() == [0, 1, 2]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    found[...] = 0


def test_scalars_of_numpy_stay_scalars():
    found = unpack(pack({"x": np.float32(0.1)}))["x"]
    assert isinstance(found, np.float32)
    assert found == np.float32(0.1)


def group() -> Group:
    """Every type of a judged group."""
    problem = Problem(problem_id="p", question="1+1", answer="2", answers=("2", "two"))
    call = ToolCall(
        tool="python",
        arguments={"code": "x", "deep": [1, None, {"y": 0.5}]},
        result=ToolResult(status=ToolStatus.ERROR, stdout="\ud800"),
        start=1,
        stop=2,
        observation_stop=3,
    )
    trajectory = Trajectory(
        problem=problem,
        sample=3,
        ids=np.arange(4, dtype=np.int32),
        origins=np.int8([1, 2, 3, 2]),
        behaviour_logprobs=np.float32([0, -0.5, 0, -1e-45]),
        policy_versions=np.int32([-1, 0, -1, 1]),
        tool_calls=(call,),
    )
    times = SampleTimes(left_queue_s=0.5, spans=(Span(kind="tool", start_ms=1, stop_ms=2),))
    verdict = Verdict(score=0.5, is_correct=False, how="numbers", answer=None)
    score = Score(reward=1.0, is_correct=True)
    sample = Sample(trajectory=trajectory, verdict=verdict, score=score, times=times)
    return Group(problem=problem, samples=(sample,))


def test_a_judged_group_comes_back_whole():
    sent = group()
    [found] = unpack(pack([sent]))
    a, b = sent.samples[0], found.samples[0]
    assert found.problem == sent.problem
    assert (a.verdict, a.score, a.times) == (b.verdict, b.score, b.times)
    assert a.trajectory.tool_calls == b.trajectory.tool_calls
    assert b.trajectory.tool_calls[0].result.status is ToolStatus.ERROR
    for name in ("ids", "origins", "behaviour_logprobs", "policy_versions"):
        x, y = getattr(a.trajectory, name), getattr(b.trajectory, name)
        assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes())


def test_errors_that_a_user_can_mend_come_back_as_their_kind():
    found = unpack(pack((None, FileNotFoundError(2, "No such file", "x"))))[1]
    assert type(found) is OSError
    assert str(found) == "[Errno 2] No such file: 'x'"
    assert type(unpack(pack(ValueError("line")))) is ValueError


class Own(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        object(),
        print,
        {1},
        b"bytes",
        np.array([object()]),
        np.array(["text"]),
        Own("x"),
        KeyError(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_data_is_not_sent(value):
    with pytest.raises(TypeError, match="does not travel between hosts"):
        pack([value])


@dataclasses.dataclass
class Foreign:
    number: int


class ForeignKind(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    "value", [Foreign(1), ForeignKind.ONE], ids=lambda value: type(value).__name__
)
def test_classes_of_others_are_refused_where_they_are_sent(value):
    with pytest.raises(
        TypeError, match=f"{type(value).__name__} does not travel.*only data of jaxtool does"
    ):
        pack(value)


def written(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        written("{"),
        written('{"data": ["os:system", {}]}'),
        written('{"data": ["jaxtool.parallel.wire:os.system", {}]}'),
        written('{"data": ["jaxtool.parallel.wire:json", {}]}'),
        written('{"data": ["jaxtool.parallel.hosts:start", {}]}'),
        written('{"data": ["jaxtool.not_imported:X", {}]}'),
        written('{"data": ["jaxtool.core.types:Problem", {"no": 1}]}'),
        written('{"enum": ["jaxtool.core.types:Problem", "x"]}'),
        written('{"array": ["|O", [1], 0]}'),
        written('{"array": ["<i4", [1000], 0]}'),
        written('{"call": ["x"]}'),
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix",  # what pickle writes
    ],
)
def test_bytes_that_name_anything_but_data_are_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 (json's own is one too)
        unpack(data)


def test_nothing_here_pickles():
    files = [
        path for folder in ("jaxtool", "search_server") for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 200
    assert [str(path) for path in files if PICKLES.search(path.read_text(encoding="utf-8"))] == []
    assert PICKLES.search("import os\nimport pickle\n")
