"""The HTTP door's connections: heads, tokens, bodies, time-outs, TLS, drain. No server process."""

import asyncio
import contextlib
import json
import socket
import ssl

import grpc
import pytest
from helpers import sandbox_fusion_clients as clients
from helpers.certificates import make_certificates
from helpers.http_doors import Opened, opened, until

from sandbox_server import __main__ as command_line
from sandbox_server.front import http_door, pool

_TOKEN = "correct-horse-battery-staple"
_PROGRAM = {"code": "print(1)", "language": "python"}


@pytest.fixture(scope="module")
def door():
    with opened(http_body_bytes=100_000) as one:
        yield one


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
        until(lambda: door.door._body_bytes == 900)
        reply = clients.post(door.url, b" " * 200)
        assert reply.status == 504
        assert reply.headers["retry-after"] == "1"
        plug.close()
        until(lambda: door.door._body_bytes == 0)
        assert clients.post(door.url, _PROGRAM).status == 200


def test_connections_are_bounded():
    with opened() as door:
        door.door._most_connections = 2
        with door.plug(), door.plug():
            until(lambda: door.door.num_connections == 2)
            reply = clients.post(door.url, _PROGRAM)
            assert (reply.status, reply.headers["retry-after"]) == (504, "1")
        until(lambda: door.door.num_connections == 0)
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
        until(lambda: door.call(lambda: door.door._body_bytes) > 0)
        connection.close()
        until(lambda: door.service.cancelled == before + 1)
        until(lambda: door.door.num_connections == 0)
    finally:
        door.service.waits = None


def test_a_drain_ends_what_is_idle_and_waits_for_what_runs():
    with opened() as door:
        door.service.waits = door.call(asyncio.Event)
        with contextlib.closing(clients.connect(door.url)) as busy, door.plug() as idle:
            busy.request("POST", "/run_code", json.dumps(_PROGRAM))
            until(lambda: len(door.service.requests) == 1 and door.door.num_connections == 2)
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


def test_a_port_that_is_taken_is_said_in_one_line_before_the_server_warms_up(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--http-address", address, "--isolation", "none"]
        monkeypatch.setattr("sys.argv", ["sandbox_server", *flags])
        monkeypatch.setattr(pool.Pool, "start", None)  # would fail otherwise, and later
        assert command_line.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("sandbox_server: ")
    assert "another program listens there" in said
    assert address.partition(":")[2] in said
    assert said.count("\n") == 1
