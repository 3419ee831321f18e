"""Running a server: tokens, TLS, refusal of open binds, health, metrics, queue, drain, self-test."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from helpers.certificates import make_certificates
from helpers.sandbox_serving import serving

from sandbox_server import __main__ as command_line
from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front import canaries, selftest, session_attacks
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

_TOKEN = "correct-horse-battery-staple"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"address": "0.0.0.0:50051"}, "--token-file"),
        ({"address": "[::]:50051"}, "--token-file"),
        ({"address": "10.0.0.1:1"}, "--token-file"),
        ({"isolation": "off"}, "isolation"),
        ({"concurrency": 0}, "concurrency"),
        ({"result_cache_bytes": -1}, "result_cache_bytes"),
        ({"tls_key": "k"}, "together"),
        ({"tls_client_ca": "c"}, "certificate"),
        ({"default_limits": LimitSet(cpu_ms=10**9)}, "maximum"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, word):
    with pytest.raises(ValueError, match=word):
        ServerConfig(**settings)


def test_refusals_reach_the_command_line():
    command = [sys.executable, "-m", "sandbox_server", "--address", "0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--token-file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "new"),
    [
        (["--slots", "4"], "--concurrency"),
        (["--slots=4"], "--concurrency"),
        (["--memo-bytes", "0"], "--result-cache-bytes"),
    ],
)
def test_an_old_flag_is_refused_by_its_new_name(flags, new, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sandbox_server", *flags])
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    old = flags[0].partition("=")[0]
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"sandbox_server: {old} is now called {new}\n"


def test_only_the_token_opens_the_door(tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(_TOKEN + "\n")
    with serving("--token-file", str(token_file)) as server:
        request = pb.ExecuteRequest(code="1 + 1")
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", _TOKEN),)):
            with pytest.raises(grpc.RpcError) as caught:
                server.stub.Execute(request, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as caught:
                list(server.stub.ExecuteBatch(iter([request]), metadata=metadata))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        good = (("authorization", f"Bearer {_TOKEN}"),)
        assert server.stub.Execute(request, metadata=good).last_value == "2"
        with grpc.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert _TOKEN not in server.log()
        _check_that_refused_bodies_are_not_read(server)


def _check_that_refused_bodies_are_not_read(server) -> None:
    """Six bodies of 60 MiB at once, refused each, leave the server's memory as it was."""
    before = _peak_kib(server.pid)
    body = bytes(60 << 20)
    with grpc.insecure_channel(server.address) as channel:
        raw = channel.unary_unary("/jaxtool.sandbox.v1.Sandbox/Execute")
        calls = [raw.future(body, timeout=60) for _ in range(6)]
        codes = {call.exception().code() for call in calls}
    assert codes == {grpc.StatusCode.UNAUTHENTICATED}
    assert _peak_kib(server.pid) - before < 30 << 10


def _peak_kib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])


@pytest.mark.slow
def test_silent_connections_leave_room_for_programs_and_end():
    """More of them than open files: who is connected is served all the while, others a little later."""
    with serving("--concurrency", "2", open_files=160) as server, contextlib.ExitStack() as stack:
        assert server.execute("1 + 1").last_value == "2"
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(150)]
        for one in silent:
            one.settimeout(30)
            # A listener that is full makes connecting wait: nothing more is asked of this one.
            with contextlib.suppress(OSError):
                one.setblocking(False)
                one.connect(server.address.removeprefix("unix:"))
        for number in range(20):
            assert server.execute(f"{number} + 1").last_value == str(number + 1)
        session = server.stub.CreateSession(pb.CreateSessionRequest())
        block = pb.SessionExecuteRequest(session_id=session.session_id, code="6 * 7")
        assert server.stub.ExecuteInSession(block).last_value == "42"
        assert server.open_descriptors() <= 160 - 64 + 8
        with grpc.insecure_channel(server.address) as channel:
            stub = sandbox_pb2_grpc.SandboxStub(channel)
            late = stub.Execute(pb.ExecuteRequest(code="2"), wait_for_ready=True, timeout=60)
            assert late.last_value == "2"


def test_mutual_tls_wants_a_certificate(tmp_path):
    make_certificates(tmp_path)
    port = _free_port()
    flags = ("--tls-certificate", f"{tmp_path}/server.pem", "--tls-key", f"{tmp_path}/server.key")
    flags += ("--tls-client-ca", f"{tmp_path}/ca.pem", "--address", f"127.0.0.1:{port}")
    authority = (tmp_path / "ca.pem").read_bytes()
    pair = ((tmp_path / "client.key").read_bytes(), (tmp_path / "client.pem").read_bytes())
    with serving(*flags):
        for key, chain, works in ((*pair, True), (None, None, False)):
            credentials = grpc.ssl_channel_credentials(authority, key, chain)
            with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
                stub = sandbox_pb2_grpc.SandboxStub(channel)
                if works:
                    assert stub.Execute(pb.ExecuteRequest(code="2")).last_value == "2"
                else:
                    with pytest.raises(grpc.RpcError) as caught:
                        stub.Execute(pb.ExecuteRequest(code="2"), timeout=10)
                    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_metrics_count_what_happened_and_code_stays_out_of_the_log():
    port = _free_port()
    flags = ("--metrics-address", f"127.0.0.1:{port}", "--log-level", "debug")
    with serving(*flags) as server:
        server.execute("marker_of_user_code = 1")
        server.execute("1 / 0")
        with pytest.raises(grpc.RpcError):
            server.execute("1", limits=pb.Limits(cpu_ms=1))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
        log = server.log()
    assert 'sandbox_executions_total{status="ok"} 1.0\n' in text
    assert 'sandbox_executions_total{status="error"} 1.0\n' in text
    assert 'sandbox_refusals_total{code="invalid_argument"} 1.0\n' in text
    assert "sandbox_cpu_seconds_count 2.0\n" in text
    assert "sandbox_running 0.0\n" in text
    assert "marker_of_user_code" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["message"] for line in lines} >= {"serving", "execution", "draining"} - {
        "draining"
    }


def test_a_full_queue_says_when_to_come_back():
    with serving("--concurrency", "1", "--queue-capacity", "2") as server:
        request = pb.ExecuteRequest(code="import time; time.sleep(0.5)")
        calls = [server.stub.Execute.future(request) for _ in range(8)]
        refused = [call.exception() for call in calls if call.exception() is not None]
        served = [call for call in calls if call.exception() is None]
        assert all(call.result().status == pb.STATUS_OK for call in served)
        codes = {error.code() for error in refused}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        hints = [dict(error.trailing_metadata())["retry-after-ms"] for error in refused]
        assert len(served) == 3
        assert len(refused) == 5
        assert all(int(ms) > 0 for ms in hints)


def test_a_greedy_client_does_not_starve_another():
    with serving("--concurrency", "1") as server:
        slow = pb.ExecuteRequest(code="import time; time.sleep(0.1)")
        greedy = (("client-id", "greedy"),)
        calls = [server.stub.Execute.future(slow, metadata=greedy) for _ in range(30)]
        time.sleep(0.2)
        start = time.monotonic()
        server.stub.Execute(pb.ExecuteRequest(code="1"), metadata=(("client-id", "modest"),))
        assert time.monotonic() - start < 1.5
        for call in calls:
            call.cancel()


def test_sigterm_lets_running_programs_end():
    with serving("--drain-s", "20") as server:
        request = pb.ExecuteRequest(code="import time; time.sleep(1)\n'done'")
        call = server.stub.Execute.future(request)
        while server.stub.Info(pb.InfoRequest()).running == 0:
            time.sleep(0.01)
        server.process.terminate()
        assert call.result(timeout=20).last_value == "'done'"
        server.process.wait(20)
        with pytest.raises(grpc.RpcError) as caught:
            server.execute("1")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_many_callers_at_once_get_their_own_answers(server):
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda i: server.execute(f"{i} ** 3").last_value, range(100)))
    assert answers == [str(i**3) for i in range(100)]


@pytest.mark.nightly
@pytest.mark.slow
def test_selftest_reports_and_passes(tmp_path):
    """Its own attacks without a flag, more of them with one."""
    (tmp_path / "more_than_ours.py.txt").write_text("# Expect: OK\nprint('contained')\n")
    command = [sys.executable, "-m", "sandbox_server", "--selftest", "--attacks", str(tmp_path)]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "found.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shipped = {path.name.removesuffix(".py.txt") for path in selftest.ATTACKS.glob("*.py.txt")}
    assert len(shipped) >= 60
    in_sessions = 2 * len(list(session_attacks.FOLDER.glob("*.py.txt"))) + 1
    total = len(shipped) + 1 + len(canaries._ATTACKS) + in_sessions
    assert f"attacks contained: {total} of {total}" in done.stdout
    assert len(re.findall(r"^contained: \w", done.stdout, re.MULTILINE)) == total
    for word in ("tier:", "landlock ABI", "executions/s", "default limits"):
        assert word in done.stdout
    findings = json.loads((tmp_path / "found.json").read_text())
    assert set(findings) == {field.name for field in dataclasses.fields(selftest.Findings)}
    assert {attack["name"] for attack in findings["attacks"]} >= shipped | {"more_than_ours"}
    assert all(attack["is_contained"] for attack in findings["attacks"])
    assert findings["executions_per_s"]["print"] > 1


def test_selftest_fails_when_an_attack_gets_out(tmp_path, monkeypatch):
    """Also a program that ends with another status than its header says."""
    (tmp_path / "a.py.txt").write_text("# Expect: OK\nprint('ESCAPED')\n")
    (tmp_path / "b.py.txt").write_text("# Expect: ERROR\nprint('contained')\n")
    monkeypatch.setattr(selftest, "ATTACKS", tmp_path)
    monkeypatch.setattr(selftest, "_SPEED_SECONDS", 0.1)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(session_attacks, "FOLDER", tmp_path / "empty")  # another test tries those
    findings = asyncio.run(selftest.find(ServerConfig(concurrency=1)))
    assert [verdict.name for verdict in findings.escaped] == ["a", "b"]
    assert asyncio.run(selftest.run(ServerConfig(concurrency=1), str(tmp_path / "empty"), "")) == 1


def test_the_end_of_a_standard_input_that_cannot_be_watched_is_refused(monkeypatch, capsys):
    flags = ["--address", "127.0.0.1:0", "--exit-on-stdin-eof"]
    monkeypatch.setattr("sys.argv", ["sandbox_server", *flags])
    with open("/dev/null") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert command_line.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("sandbox_server: --exit-on-stdin-eof watches standard input")
    assert said.count("\n") == 1
