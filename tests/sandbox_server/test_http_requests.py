"""What the HTTP door makes of requests, before a program runs and without one. No server process."""

import grpc
import pytest
from helpers import sandbox_fusion_clients as clients
from helpers.http_doors import opened

from sandbox_server.config import ServerConfig
from sandbox_server.front import run_code
from sandbox_server.front.engine import InvalidRequest
from sandbox_server.front.execution import BrokenChild
from sandbox_server.front.fork_server import ForkServerGone
from sandbox_server.front.queue import QueueFull
from sandbox_server.front.service import Refusal
from sandbox_server.wire import sandbox_pb2 as pb

_PROGRAM = {"code": "print(1)", "language": "python"}


@pytest.fixture(scope="module")
def door():
    with opened(http_body_bytes=100_000) as one:
        yield one


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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"http_address": "0.0.0.0:8080"}, "--http-address 0.0.0.0:8080 is not loopback"),
        ({"http_address": "[::]:8080"}, "--token-file"),
        ({"http_address": "8080"}, "is not HOST:PORT"),
        ({"http_address": ":8080"}, "is not loopback"),
        ({"http_address": "unix:/x"}, "is not HOST:PORT"),
        ({"http_address": "127.0.0.1:99999"}, "port '99999' is none"),
        ({"http_address": "127.0.0.1:-1"}, "port '-1' is none"),
        ({"http_body_bytes": 0}, "http_body_bytes=0 must be from 1"),
    ],
)
def test_bad_settings_of_the_door_are_refused(settings, words):
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        ServerConfig(**settings)


def test_an_answer_needs_no_run_result_of_ours_to_be_read():
    """A refusal has the answer's fields too, for clients that read them before the status."""
    ran = run_code.answer(pb.ExecuteResponse(status=pb.STATUS_OK))
    assert set(run_code.refusal("x")) == set(ran) | {"detail"}
