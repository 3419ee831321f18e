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


_SESSIONS = st.builds(
    pb.CreateSessionRequest, limits=_LIMITS, seed=_U64, idle_ttl_ms=_U32,
    minimum_tier=st.integers(-2, 9), no_checkpoint=st.booleans(),
)  # fmt: skip
_GARBAGE = (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x7f")
_UNARY = ("Execute", "CreateSession", "ExecuteInSession", "ForkSession", "CloseSession", "Info")


def _answer(call, request):
    """A result, or None for a typed error; anything else raises."""
    try:
        return call(request, timeout=60)
    except grpc.RpcError as error:
        if error.code() in _TYPED:
            _check_words(error.details())
            return None
        raise


def _check_words(details: str | None) -> None:
    """An error is one short line without a traceback."""
    assert details
    assert len(details) <= 500
    assert len(details.splitlines()) == 1
    assert "Traceback" not in details


@_SETTINGS
@given(request=_REQUESTS)
def test_execute_answers_anything(server, request):
    result = _answer(server.stub.Execute, request)
    if result is not None:
        assert result.status in range(1, 8)
        assert result.request_id == request.request_id


@settings(_SETTINGS, max_examples=20)
@given(requests=st.lists(_REQUESTS, max_size=6))
def test_batches_answer_anything(server, requests):
    answers = list(server.stub.ExecuteBatch(iter(requests), timeout=120))
    assert sorted(a.request_id for a in answers) == sorted(r.request_id for r in requests)
    typed = {code.value[0] for code in _TYPED}
    for answer in answers:
        if answer.WhichOneof("outcome") == "error":
            assert answer.error.code in typed
            _check_words(answer.error.message)
        else:
            assert answer.response.status in range(1, 8)
            assert answer.response.request_id == answer.request_id


@_SETTINGS
@given(code=_CODE)
def test_any_program_text_is_the_programs_own_affair(server, code):
    result = server.execute(code)
    assert result.status in (pb.STATUS_OK, pb.STATUS_ERROR), str(result)


@settings(_SETTINGS, max_examples=25)
@given(request=_SESSIONS, codes=st.lists(_CODE, max_size=3), cpu_ms=_U32, no_echo=st.booleans())
def test_sessions_and_their_forks_answer_anything(server, request, codes, cpu_ms, no_echo):
    session = _answer(server.stub.CreateSession, request)
    if session is None:
        return
    names = [session.session_id]
    for code in codes:
        block = pb.SessionExecuteRequest(
            session_id=names[-1], request_id="r", code=code, no_echo=no_echo, cpu_ms=cpu_ms
        )
        result = _answer(server.stub.ExecuteInSession, block)
        if result is not None:
            assert result.status in range(1, 8)
            assert result.request_id == "r"
        fork = _answer(server.stub.ForkSession, pb.ForkSessionRequest(session_id=names[-1]))
        if fork is not None:
            names.append(fork.session_id)
    for name in names:
        server.stub.CloseSession(pb.CloseSessionRequest(session_id=name))
        again = pb.SessionExecuteRequest(session_id=name, code="1")
        assert _answer(server.stub.ExecuteInSession, again) is None


@_SETTINGS
@given(data=st.binary(max_size=80), verb=st.sampled_from(["ExecuteInSession", "ForkSession"]))
def test_sessions_refuse_noise(server, data, verb):
    name = data.decode("latin-1")
    kind = pb.SessionExecuteRequest if verb == "ExecuteInSession" else pb.ForkSessionRequest
    assert _answer(getattr(server.stub, verb), kind(session_id=name)) is None
    assert not server.stub.CloseSession(pb.CloseSessionRequest(session_id=name)).existed


@settings(_SETTINGS, max_examples=60)
@given(data=st.binary(max_size=80), method=st.sampled_from([*_UNARY, "ExecuteBatch"]))
def test_random_bytes_are_answered_or_refused(server, data, method):
    """Some are messages, even good ones; the others are INTERNAL, as gRPC says of what cannot be parsed."""
    with grpc.insecure_channel(server.address) as channel:
        path = f"/jaxtool.sandbox.v1.Sandbox/{method}"
        refused: list[grpc.RpcError] = []
        try:
            if method == "ExecuteBatch":
                list(channel.stream_stream(path)(iter([data]), timeout=60))
            else:
                channel.unary_unary(path)(data, timeout=60)
        except grpc.RpcError as error:
            refused.append(error)
    for error in refused:
        assert error.code() in {*_TYPED, grpc.StatusCode.INTERNAL}
        _check_words(error.details())


@pytest.mark.parametrize("method", [*_UNARY, "ExecuteBatch"])
def test_garbage_on_the_wire_is_refused_in_one_line(server, method):
    before = len(server.log().splitlines())
    with grpc.insecure_channel(server.address) as channel:
        path = f"/jaxtool.sandbox.v1.Sandbox/{method}"
        for garbage in _GARBAGE:
            if method == "ExecuteBatch":
                call = channel.stream_stream(path)(iter([garbage]), timeout=20)
                with pytest.raises(grpc.RpcError) as caught:
                    next(call)
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(path)(garbage, timeout=20)
            assert caught.value.code() is grpc.StatusCode.INTERNAL
    lines = server.log().splitlines()[before:]
    assert len(lines) == 3
    assert all(len(line) < 300 for line in lines)
    assert server.execute("1 + 1").last_value == "2"


def test_names_of_requests_are_bounded(server):
    request = pb.ExecuteRequest(code="1", request_id="x" * (5 << 20))
    assert _answer(server.stub.Execute, request) is None
    [answer] = server.stub.ExecuteBatch(iter([request]), timeout=60)
    assert answer.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answer.ByteSize() < 1 << 20


def test_unknown_methods_are_unimplemented(server):
    with grpc.insecure_channel(server.address) as channel:
        for path in ("/jaxtool.sandbox.v1.Sandbox/None", "/x/y", "/jaxtool.sandbox.v1.Sandbox/"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(b"", timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_server_still_works(server):
    assert server.execute("1 + 1").last_value == "2"
