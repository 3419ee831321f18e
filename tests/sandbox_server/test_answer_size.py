"""An answer with the server's own limits is read by a gRPC client with the default limit of 4 MiB."""

import json

import pytest

from sandbox_server.config import MAXIMUM_LIMITS, LimitSet
from sandbox_server.front.capture import Capture
from sandbox_server.front.execution import Outcome, Status
from sandbox_server.front.service import clean, response_of

_DEFAULT_CLIENT_BYTES = 4 << 20  # grpc.max_receive_message_length of every gRPC library


def outcome_of(data: bytes, value: str, limits: LimitSet) -> Outcome:
    stdout, stderr = Capture(limits.output_bytes), Capture(limits.output_bytes)
    stdout.feed(data)
    stderr.feed(data)
    report = {"value": value, "type": value, "line": 2**31 - 1}
    return Outcome(
        status=Status.OUTPUT_LIMIT,
        stdout=stdout,
        stderr=stderr,
        report=json.loads(json.dumps(report)),
        exit_code=-1,
        signal=9,
        cpu_ms=2**32 - 1,
        wall_ms=2**32 - 1,
        peak_bytes=2**62,
    )


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\xff", "数"),
        (b"\xf0\x9f\x98", "😀"),
        ("é".encode(), "\ud800"),
        (b"\x00", "\x00"),
        (b"\xed\xa0\x80", "\udcff\ud83d"),
    ],
)
def test_every_answer_is_read_by_a_default_client(data, value):
    limits = MAXIMUM_LIMITS
    outcome = outcome_of(data * (3 << 20), value * (1 << 20), limits)
    response = response_of(outcome, value_bytes=limits.output_bytes)
    assert response.ByteSize() < _DEFAULT_CLIENT_BYTES - 65536
    assert len(response.last_value.encode()) <= limits.output_bytes
    assert len(response.stdout.encode()) <= limits.output_bytes + 64
    assert response.stdout_bytes == len(data) * (3 << 20)


def test_a_value_is_cut_at_a_character_and_says_so():
    assert clean("数数数", 7) == "数数"
    assert clean("ab", 2) == "ab"
    assert clean("\ud800x", 9) == "?x"
    assert clean(None, 9) == ""
    limits = LimitSet(output_bytes=64)
    whole = response_of(outcome_of(b"", "数" * 21, limits), value_bytes=64)
    assert (whole.last_value, whole.stdout_truncated) == ("数" * 21, False)
    cut = response_of(outcome_of(b"", "数" * 22, limits), value_bytes=64)
    assert (cut.last_value, cut.stdout_truncated) == ("数" * 21, True)
