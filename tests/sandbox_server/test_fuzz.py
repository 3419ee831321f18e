"""Whatever a client sends, the server answers with a result or a typed error, and lives."""

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox_server.wire import sandbox_pb2 as pb

_TYPED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_U32 = st.one_of(st.just(0), st.integers(0, 2**32 - 1), st.integers(100, 2000))
_U64 = st.one_of(st.just(0), st.integers(0, 2**64 - 1))
_SETTINGS = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_CODE = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["1", "print(1)", "raise SystemExit", "x = '\0'", "def f(:", "\ufeff1", "#"]),
    st.lists(st.sampled_from(["1", "+", "(", ")", "\n", " ", ":", "x", "=", "'", "\\", "\0", "lambda"]),
             max_size=30).map("".join),
)  # fmt: skip
_LIMITS = st.builds(
    pb.Limits, cpu_ms=_U32, wall_ms=st.integers(0, 900), memory_bytes=_U64, output_bytes=_U32,
    scratch_bytes=_U64, threads=_U32,
)  # fmt: skip
_REQUESTS = st.builds(
    pb.ExecuteRequest, code=_CODE, request_id=st.text(max_size=9), stdin=st.text(max_size=20),
    seed=_U64, no_echo=st.booleans(), limits=_LIMITS, minimum_tier=st.integers(-2, 9),
    files=st.dictionaries(st.text(max_size=12), st.binary(max_size=40), max_size=2),
)  # fmt: skip


def _answer(call, request):
    """A result, or None for a typed error; anything else raises."""
    try:
        return call(request, timeout=60)
    except grpc.RpcError as error:
        if error.code() in _TYPED:
            return None
        raise


@_SETTINGS
@given(request=_REQUESTS)
def test_execute_answers_anything(server, request):
    result = _answer(server.stub.Execute, request)
    if result is not None:
        assert result.status in range(1, 8)
        assert result.request_id == request.request_id


@_SETTINGS
@given(code=_CODE)
def test_any_program_text_is_the_programs_own_affair(server, code):
    result = server.execute(code)
    assert result.status in (pb.STATUS_OK, pb.STATUS_ERROR), str(result)


@_SETTINGS
@given(data=st.binary(max_size=80), verb=st.sampled_from(["ExecuteInSession", "ForkSession"]))
def test_sessions_refuse_noise(server, data, verb):
    name = data.decode("latin-1")
    kind = pb.SessionExecuteRequest if verb == "ExecuteInSession" else pb.ForkSessionRequest
    assert _answer(getattr(server.stub, verb), kind(session_id=name)) is None
    assert not server.stub.CloseSession(pb.CloseSessionRequest(session_id=name)).existed


@pytest.mark.parametrize("method", ["Execute", "CreateSession", "ExecuteInSession", "ForkSession"])
def test_garbage_on_the_wire_is_refused(server, method):
    with grpc.insecure_channel(server.address) as channel:
        for garbage in (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x7f"):
            raw = channel.unary_unary(f"/jaxtool.sandbox.v1.Sandbox/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                raw(garbage, timeout=20)
            assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert server.execute("1 + 1").last_value == "2"


def test_the_server_still_works(server):
    assert server.execute("1 + 1").last_value == "2"
