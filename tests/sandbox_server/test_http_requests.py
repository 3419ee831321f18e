"""The HTTP door before a program runs: heads, tokens, bodies, time-outs, drain. No server process."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import ssl
import threading
import time

import grpc
import pytest
from helpers import sandbox_fusion_clients as clients
from helpers.certificates import make_certificates

from sandbox_server import __main__ as command_line
from sandbox_server.config import ServerConfig
from sandbox_server.front import http_door, pool, run_code
from sandbox_server.front.engine import InvalidRequest
from sandbox_server.front.execution import BrokenChild
from sandbox_server.front.fork_server import ForkServerGone
from sandbox_server.front.queue import QueueFull
from sandbox_server.front.service import Refusal
from sandbox_server.wire import sandbox_pb2 as pb

_TOKEN = "correct-horse-battery-staple"
_PROGRAM = {"code": "print(1)", "language": "python"}


@dataclasses.dataclass
class FakeService:
    """Answers each program at once, unless told what to raise first, or to wait."""

    errors: list[Exception] = dataclasses.field(default_factory=list)
    requests: list[tuple[pb.ExecuteRequest, str]] = dataclasses.field(default_factory=list)
    refusals: list[Refusal] = dataclasses.field(default_factory=list)
    waits: asyncio.Event | None = None
    cancelled: int = 0
    is_draining: bool = False
    is_ready: bool = True

    async def execute(self, request: pb.ExecuteRequest, client: str) -> pb.ExecuteResponse:
        self.requests.append((request, client))
        if self.errors:
            raise self.errors.pop(0)
        try:
            if self.waits is not None:
                await self.waits.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return pb.ExecuteResponse(status=pb.STATUS_OK, stdout="1\n", wall_ms=5, server_id="me")

    def count_refusal(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    url: str
    door: http_door.HttpDoor
    service: FakeService
    loop: asyncio.AbstractEventLoop

    def call(self, work):
        """Runs a coroutine or a function on the door's loop."""
        if asyncio.iscoroutine(work):
            return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

        async def one():
            return work()

        return asyncio.run_coroutine_threadsafe(one(), self.loop).result(30)

    def raw(self, *parts: bytes, timeout_s: float = 10.0) -> bytes:
        """Everything that comes back for these bytes until the door closes, or falls silent."""
        with self.plug(timeout_s) as plug:
            with contextlib.suppress(OSError):
                for part in parts:
                    plug.sendall(part)
            got = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while chunk := plug.recv(65536):
                    got += chunk
            return got

    def plug(self, timeout_s: float = 10.0) -> socket.socket:
        host, port = self.url.split("/")[2].split(":")
        return socket.create_connection((host, int(port)), timeout=timeout_s)


@contextlib.contextmanager
def opened(**settings):
    """A door on a loop of its own thread."""
    service = FakeService()
    config = ServerConfig(**({"http_address": "127.0.0.1:0", "drain_s": 5.0} | settings))
    door = http_door.HttpDoor(config, service)  # pyright: ignore[reportArgumentType]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(door.bind(), loop).result(10)
        asyncio.run_coroutine_threadsafe(door.open(), loop).result(10)
        yield Opened(url=door.url, door=door, service=service, loop=loop)
    finally:
        asyncio.run_coroutine_threadsafe(door.stop(), loop).result(30)
        left = door.num_connections, door._body_bytes
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        assert left == (0, 0)


@pytest.fixture(scope="module")
def door():
    with opened(http_body_bytes=100_000) as one:
        yield one


def _until(is_so) -> None:
    stop = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < stop
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b'{"run_timeout": ' + b"9" * 5000 + b"}", "not JSON"),
        ([1], "must be a JSON object, not [1]"),
        (b"null", "must be a JSON object, not None"),
        ({}, "code is missing"),
        ({"code": "1"}, "language is missing"),
        ({"language": "python"}, "code is missing"),
        ({"code": 5}, "code must be a string, not 5"),
        ({"code": None}, "code must be a string, not None"),
        ({"code": "'\ud800'"}, "code holds a lone surrogate at character 1"),
        ({"language": "cpp"}, "language 'cpp' does not run here, only 'python'"),
        ({"language": "Python"}, "only 'python'"),
        ({"language": ["python"]}, "language must be a string"),
        ({"stdin": 5}, "stdin must be a string, not 5"),
        ({"stdin": "\udfff"}, "stdin holds a lone surrogate"),
        ({"run_timeout": -1}, "run_timeout must be a positive number of seconds, not -1"),
        ({"run_timeout": 0}, "run_timeout must be a positive"),
        ({"run_timeout": "10"}, "run_timeout must be a positive number of seconds, not '10'"),
        ({"run_timeout": True}, "run_timeout must be a positive"),
        ({"run_timeout": None}, "run_timeout must be a positive"),
        ({"run_timeout": float("nan")}, "run_timeout must be a positive"),
        ({"run_timeout": float("inf")}, "run_timeout must be a positive"),
        ({"run_timeout": 10**400}, "run_timeout must be a positive"),
        ({"run_timeout": 1e9}, "run_timeout=1e+09 s is outside 0.01 to 120 s"),
        ({"run_timeout": 1e-9}, "run_timeout=1e-09 s is outside 0.01 to 120 s"),
        ({"compile_timeout": -1}, "compile_timeout must be a positive"),
        ({"compile_timeout": "x"}, "compile_timeout must be a positive"),
        ({"memory_limit_MB": "1"}, "memory_limit_MB must be a whole number"),
        ({"memory_limit_MB": 0.5}, "memory_limit_MB must be a whole number, not 0.5"),
        ({"memory_limit_MB": float("nan")}, "memory_limit_MB must be a whole number"),
        ({"memory_limit_MB": float("inf")}, "memory_limit_MB must be a whole number"),
        ({"memory_limit_MB": True}, "memory_limit_MB must be a whole number"),
        ({"memory_limit_MB": 10**400}, "is above this server's 4096"),
        ({"memory_limit_MB": 4097}, "memory_limit_MB=4097 is above this server's 4096"),
        ({"files": []}, "files must be an object"),
        ({"files": {"a": 5}}, "files['a'] must be a string, not 5"),
        ({"files": {"a": "###"}}, "files['a'] is not base64"),
        ({"files": {"a": "eA="}}, "files['a'] is not base64"),
        ({"files": {"\ud800": "eA=="}}, "a name in files holds a lone surrogate"),
        ({"fetch_files": "a"}, "fetch_files must be a list"),
        ({"fetch_files": [5]}, "a name in fetch_files must be a string, not 5"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(door, body, words):
    before = len(door.service.requests)
    if isinstance(body, dict) and body and body != {"code": "1"} and body != {"language": "python"}:
        body = _PROGRAM | body
    reply = clients.post(door.url, body)
    assert reply.status == 422
    assert words in reply.body["message"]
    assert "\n" not in reply.body["message"]
    assert reply.body["status"] == "SandboxError"
    assert reply.reason == reply.body["message"][:150].encode("ascii", "replace").decode()
    assert door.service.refusals[-1].code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(door.service.requests) == before


def test_a_request_is_passed_on_as_asked(door):
    body = _PROGRAM | {
        "stdin": "in", "run_timeout": 2.5, "compile_timeout": 99, "memory_limit_MB": 64.0,
        "files": {"a/b": "eA==", "c": None}, "fetch_files": ["d"], "args": [], "unknown": {},
    }  # fmt: skip
    clients.post(door.url, body, {"Client-Id": "trainer 7"})
    request, client = door.service.requests[-1]
    assert client == "trainer 7"
    assert request == pb.ExecuteRequest(
        code="print(1)",
        stdin="in",
        limits=pb.Limits(cpu_ms=2500, wall_ms=2500, memory_bytes=64 << 20, output_bytes=1 << 20),
        no_echo=True,
        files={"a/b": b"x"},
        fetch_files=["d"],
    )
    clients.post(door.url, _PROGRAM | {"stdin": None})
    request, client = door.service.requests[-1]
    assert client == "http:127.0.0.1"
    assert request.limits.cpu_ms == 10_000
    assert request.limits.memory_bytes == 0


@pytest.mark.parametrize(
    ("error", "retry_s"),
    [
        (QueueFull("full", 2300), "3"),
        (ForkServerGone("restarts"), "1"),
        (Refusal(code=grpc.StatusCode.UNAVAILABLE, message="draining"), "1"),
        (BrokenChild("x"), "1"),
    ],
)
def test_what_may_pass_is_a_504_which_a_grader_asks_again(door, error, retry_s):
    door.service.errors[:] = [error]
    reply = clients.post(door.url, _PROGRAM)
    assert reply.status == 504
    assert reply.headers["retry-after"] == retry_s
    door.service.errors[:] = [error, error]
    slept = []
    grader = clients.GraderOfVerl(url=door.url, sleep=slept.append)
    assert grader.grade("print(1)", None, "1") is True
    assert slept == [1, 2]
    door.service.errors[:] = [error] * 3
    assert grader.grade("print(1)", None, "1") == clients.API_ERROR


def test_what_the_engine_refuses_is_not_asked_again(door):
    door.service.errors[:] = [InvalidRequest("code has 9 bytes")]
    reply = clients.post(door.url, _PROGRAM)
    assert (reply.status, reply.reason) == (422, "code has 9 bytes")
    assert "retry-after" not in reply.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/run_jupyter", 404, None),
        ("GET", "/", 404, None),
        ("POST", "/run_code/", 404, None),
        ("POST", "//run_code", 404, None),
        ("GET", "/run_code", 405, "POST"),
        ("DELETE", "/run_code", 405, "POST"),
        ("POST", "/v1/ping", 405, "GET"),
    ],
)
def test_other_paths_and_methods_are_told_what_there_is(door, method, path, status, allow):
    reply = clients.ask(door.url, method, path)
    assert (reply.status, reply.headers.get("allow")) == (status, allow)
    assert "POST /run_code" in reply.body["message"]


def test_ping_says_whether_programs_would_run(door):
    def ping() -> tuple[int, object]:
        reply = clients.ask(door.url, "GET", "/v1/ping")
        return reply.status, reply.body

    assert ping() == (200, "pong")
    door.service.is_ready = False
    assert ping()[0] == 503
    door.service.is_ready = True


def test_a_web_page_cannot_reach_the_door(door):
    reply = clients.post(door.url, _PROGRAM, {"Origin": "https://example.org"})
    assert reply.status == 403


def test_one_connection_serves_many_requests_also_pipelined(door):
    connection = clients.connect(door.url)
    for _ in range(3):
        assert clients.exchange(connection, "POST", "/run_code", _PROGRAM).status == 200
    connection.close()
    body = json.dumps(_PROGRAM).encode()
    one = b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
    last = one + b"Connection: close\r\n\r\n" + body
    got = door.raw((one + b"\r\n" + body) * 3 + last)
    assert got.count(b"HTTP/1.1 200 OK") == 4


def test_a_client_may_wait_for_leave_to_send_its_body(door):
    body = json.dumps(_PROGRAM).encode()
    head = (
        b"POST /run_code HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with door.plug() as plug:
        plug.sendall(head)
        assert plug.recv(1000).startswith(b"HTTP/1.1 100")
        plug.sendall(body)
        assert plug.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 20 + b"\r\n\r\n", b"400"),  # TLS to a plain door
        (b"POST /run_code\r\n\r\n", b"400"),
        (b"POST /run_code HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST /run_code HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"POST /run_code HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST /run_code HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000, b"431"),
        (b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n", b"413"),
        (b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 20 + b"\r\n\r\n", b"413"),
        (
            b"POST /run_code HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n" + b" " * 0x8000 + b"\r\n" + b"11000\r\n" + b" " * 0x11000 + b"\r\n",
            b"413",
        ),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) and len(value) == 3 else "sent",
)  # fmt: skip
def test_odd_heads_and_large_bodies_are_refused_unread(door, sent, status):
    got = door.raw(sent)
    assert got.startswith(b"HTTP/1.1 " + status), got[:200]
    assert b"Connection: close" in got


def test_a_large_body_under_way_still_lets_its_client_read_why(door):
    reply = clients.post(door.url, b"x" * 3_000_000)
    assert reply.status == 413
    assert "larger than 100000 bytes (--http-body-bytes)" in reply.reason


def test_a_chunked_body_is_as_good(door):
    whole = json.dumps(_PROGRAM).encode()
    assert clients.post(door.url, iter([whole[:9], whole[9:]])).status == 200


def test_bodies_together_are_bounded(monkeypatch):
    monkeypatch.setattr(http_door, "_BODIES_AT_ONCE_BYTES", 1000)
    with opened(http_body_bytes=1000) as door, door.plug() as plug:
        plug.sendall(b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n")
        _until(lambda: door.door._body_bytes == 900)
        reply = clients.post(door.url, b" " * 200)
        assert reply.status == 504
        assert reply.headers["retry-after"] == "1"
        plug.close()
        _until(lambda: door.door._body_bytes == 0)
        assert clients.post(door.url, _PROGRAM).status == 200


def test_connections_are_bounded():
    with opened() as door:
        door.door._most_connections = 2
        with door.plug(), door.plug():
            _until(lambda: door.door.num_connections == 2)
            reply = clients.post(door.url, _PROGRAM)
            assert (reply.status, reply.headers["retry-after"]) == (504, "1")
        _until(lambda: door.door.num_connections == 0)
        assert clients.post(door.url, _PROGRAM).status == 200


def test_silence_is_ended(monkeypatch):
    monkeypatch.setattr(http_door, "_HEAD_TIMEOUT_S", 0.1)
    monkeypatch.setattr(http_door, "_BODY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(http_door, "_LINGER_S", 0.1)
    with opened() as door:
        assert door.raw() == b""
        assert door.raw(b"POST /run_code HTTP/1.1\r\nHos") == b""
        head = b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        assert door.raw(head).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        ("", 401),
        (_TOKEN, 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        (f"Bearer {_TOKEN}x", 401),
        (f"Token {_TOKEN}", 401),
        ("Basic ###", 401),
        ("Basic eDp5", 401),
        (f"Bearer {_TOKEN}", 200),
        (f"bearer {_TOKEN}", 200),
        ("Basic eDpjb3JyZWN0LWhvcnNlLWJhdHRlcnktc3RhcGxl", 200),  # http://x:TOKEN@host
    ],
)
def test_only_the_token_opens_the_door(token_door, given, status):
    headers = {} if given is None else {"Authorization": given}
    assert clients.post(token_door.url, _PROGRAM, headers).status == status
    assert (
        clients.ask(token_door.url, "GET", "/v1/ping").status == 200
    )  # probes of orchestrators cannot send a token


@pytest.fixture(scope="module")
def token_door(tmp_path_factory):
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(_TOKEN + "\n")
    with opened(token_file=str(path), http_address="127.0.0.1:0") as one:
        yield one


def test_a_stranger_is_refused_before_the_body(token_door):
    got = token_door.raw(b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 401")
    assert token_door.service.refusals[-1].code is grpc.StatusCode.UNAUTHENTICATED
    assert _TOKEN.encode() not in got


def _said_over_tls(door: Opened, context: ssl.SSLContext, head: bytes) -> bytes:
    with door.plug() as plug:
        try:
            with context.wrap_socket(plug) as wrapped:
                wrapped.sendall(head)  # TLS 1.3 tells a client late that it is refused
                return wrapped.recv(1000)
        except (ssl.SSLError, ConnectionError):
            return b""


def test_the_door_speaks_tls_with_the_same_certificates(tmp_path):
    make_certificates(tmp_path)
    settings = {
        "tls_certificate": f"{tmp_path}/server.pem",
        "tls_key": f"{tmp_path}/server.key",
        "tls_client_ca": f"{tmp_path}/ca.pem",
    }
    with opened(**settings) as door:
        assert door.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=f"{tmp_path}/ca.pem")
        trusting.check_hostname = False
        head = b"GET /v1/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert _said_over_tls(door, trusting, head) == b""
        trusting.load_cert_chain(f"{tmp_path}/client.pem", f"{tmp_path}/client.key")
        assert _said_over_tls(door, trusting, head).startswith(b"HTTP/1.1 200")


def test_who_hangs_up_is_not_run_any_further(door):
    door.service.waits = door.call(asyncio.Event)
    try:
        before = door.service.cancelled
        connection = clients.connect(door.url)
        connection.request("POST", "/run_code", json.dumps(_PROGRAM))
        _until(lambda: door.call(lambda: door.door._body_bytes) > 0)
        connection.close()
        _until(lambda: door.service.cancelled == before + 1)
        _until(lambda: door.door.num_connections == 0)
    finally:
        door.service.waits = None


def test_a_drain_ends_what_is_idle_and_waits_for_what_runs():
    with opened() as door:
        door.service.waits = door.call(asyncio.Event)
        with contextlib.closing(clients.connect(door.url)) as busy, door.plug() as idle:
            busy.request("POST", "/run_code", json.dumps(_PROGRAM))
            _until(lambda: len(door.service.requests) == 1 and door.door.num_connections == 2)
            door.service.is_draining = True
            stopping = asyncio.run_coroutine_threadsafe(door.door.stop(), door.loop)
            assert idle.recv(10) == b""
            with pytest.raises(ConnectionError):
                clients.post(door.url, _PROGRAM)
            door.call(door.service.waits.set)
            answer = busy.getresponse()
            assert answer.status == 200
            answer.read()
            stopping.result(20)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"http_address": "0.0.0.0:8080"}, "http_address='0.0.0.0:8080' is not loopback"),
        ({"http_address": "[::]:8080"}, "--token-file"),
        ({"http_address": "8080"}, "must be host:port"),
        ({"http_address": ":8080"}, "must be host:port"),
        ({"http_address": "unix:/x"}, "must be host:port"),
        ({"http_address": "127.0.0.1:99999"}, "up to 65535"),
        ({"http_address": "127.0.0.1:-1"}, "must be host:port"),
        ({"http_body_bytes": 0}, "http_body_bytes=0 must be positive"),
    ],
)
def test_bad_settings_of_the_door_are_refused(settings, words):
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        ServerConfig(**settings)


def test_an_answer_needs_no_run_result_of_ours_to_be_read():
    """A refusal has the answer's fields too, for clients that read them before the status."""
    ran = run_code.answer(pb.ExecuteResponse(status=pb.STATUS_OK))
    assert set(run_code.refusal("x")) == set(ran) | {"detail"}


def test_a_port_that_is_taken_is_said_in_one_line_before_the_server_warms_up(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--http-address", address, "--isolation", "none"]
        monkeypatch.setattr("sys.argv", ["sandbox_server", *flags])
        monkeypatch.setattr(pool.Pool, "start", None)  # would fail otherwise, and later
        assert command_line.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("sandbox_server: ")
    assert "address already in use" in said
    assert address.partition(":")[2] in said
    assert said.count("\n") == 1
