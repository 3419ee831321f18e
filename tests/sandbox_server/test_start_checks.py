"""What is wrong with flags, files, addresses and the machine is said in one true line before anything starts."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import pathlib
import resource
import socket
import subprocess
import sys
import time

import grpc
import pytest
from helpers.certificates import make_certificates

from sandbox_server import __main__ as command_line
from sandbox_server import address
from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front import descriptors, logs, probe, service, start_checks
from sandbox_server.front.engine import tasks_of_user
from sandbox_server.front.fork_server import ForkServer, ForkServerGone, UidIndexes
from sandbox_server.inside.lockdown import Tier


@pytest.fixture(autouse=True)
def _no_server_starts(monkeypatch):
    monkeypatch.setattr(
        probe, "works", lambda tier, scratch: "not reached: a check has failed to act"
    )


def refusal(*flags: str) -> str:
    """The one line that the command says, with exit code 2."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["sandbox_server", *flags])
        try:
            code = command_line.main()
        except SystemExit as end:
            code = end.code
    line = said.getvalue()
    assert code == 2, line
    assert line.startswith("sandbox_server: ")
    assert line.count("\n") == 1
    assert "Traceback" not in line
    assert "not reached" not in line, line
    return line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("127.0.0.1:99999", "port '99999' is none"),
        ("127.0.0.1:65536", "port '65536' is none"),
        ("127.0.0.1:-1", "port '-1' is none"),
        ("127.0.0.1:", "port '' is none"),
        ("127.0.0.1:8x", "port '8x' is none"),
        ("127.0.0.1:٣", "port '٣' is none"),
        ("127.0.0.1", "is not HOST:PORT"),
        ("50051", "is not HOST:PORT"),
        ("", "is not HOST:PORT"),
        ("::1:50051", "is not HOST:PORT"),
        ("[::g]:50051", "is not HOST:PORT"),
        ("[::1]50051", "is not HOST:PORT"),
        ("ipv4:127.0.0.1:1", "is not HOST:PORT"),
        ("dns:///localhost:1", "is not HOST:PORT"),
        ("unix-abstract:x:1", "is not HOST:PORT"),
        ("http://127.0.0.1:1", "is not HOST:PORT"),
        ("127.0.0.1 :1", "is not HOST:PORT"),
    ],
)
def test_an_address_that_is_none_is_refused(text, words):
    assert f"--address {text!r}" in (line := refusal("--address", text))
    assert words in line
    assert "--metrics-address" in refusal("--metrics-address", text or ":x")


def test_addresses_are_read():
    for text, host, port in (
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65535),
        (":80", "", 80),
        ("my-host.lan:1", "my-host.lan", 1),
    ):
        assert address.read("--x", text) == address.HostPort(host=host, port=port)
    assert address.read("--x", "unix:/run/s") == "unix:/run/s"
    assert "no path" in refusal("--address", "unix:")
    assert "at most 107" in refusal("--address", "unix:/tmp/" + "x" * 200)
    assert "is not HOST:PORT" in refusal("--metrics-address", "unix:/run/s")


@pytest.mark.parametrize("text", ["0.0.0.0:9464", "[::]:9464", ":9464", "10.0.0.1:9464", "host:1"])
def test_the_metrics_page_is_as_closed_as_the_server(text, tmp_path):
    assert "--token-file" in refusal("--metrics-address", text)
    assert "--token-file" in refusal("--address", text)
    ServerConfig(metrics_address=text, token_file="token")


def test_one_address_is_not_taken_twice():
    assert "both" in refusal("--address", "127.0.0.1:7", "--metrics-address", "127.0.0.1:7")


@pytest.mark.parametrize("flag", ["--address", "--metrics-address"])
def test_a_port_in_use_and_a_foreign_address_are_named(flag, tmp_path):
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple")
    open_flags = ("--token-file", str(token))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refusal(flag, f"127.0.0.1:{port}")
        assert f"{flag} 127.0.0.1:{port}: another program listens there" in line
        assert "another program listens there" in refusal(flag, f"0.0.0.0:{port}", *open_flags)
    assert "no such address" in refusal(flag, "192.0.2.1:1", *open_flags)
    assert "not known here" in refusal(flag, "no-such-host.invalid:1", *open_flags)
    assert "not known here" in refusal(flag, "300.1.2.3:1", *open_flags)
    start_checks.check_is_free(flag, address.HostPort(host="localhost", port=0))


def test_unreadable_secrets_are_named(tmp_path):
    make_certificates(tmp_path)
    pair = ("--tls-certificate", f"{tmp_path}/server.pem", "--tls-key", f"{tmp_path}/server.key")
    wrong = (*pair[:3], f"{tmp_path}/client.key")
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"\xff\x00")
    for flags, words in (
        (("--token-file", f"{tmp_path}/none"), "none cannot be read: No such file"),
        (("--token-file", str(tmp_path)), "cannot be read: Is a directory"),
        (("--token-file", str(nonsense)), "shorter than 16"),
        (
            ("--tls-certificate", "none", "--tls-key", "none"),
            "--tls-certificate none cannot be read",
        ),
        ((*pair[:3], "none"), "--tls-key none cannot be read"),
        ((*pair, "--tls-client-ca", "none"), "--tls-client-ca none cannot be read"),
        ((*pair, "--tls-client-ca", str(nonsense)), "holds no certificate in PEM"),
        (wrong, "are no certificate and its key"),
        ((*pair[:3], str(nonsense)), "are no certificate and its key"),
        (pair[:2], "together"),
    ):
        assert words in refusal(*flags), flags
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", f"{tmp_path}/server.key",
         "-out", f"{tmp_path}/locked.key"], check=True, capture_output=True,
    )  # fmt: skip
    assert "without a password" in refusal(*pair[:3], f"{tmp_path}/locked.key")


@pytest.mark.parametrize(
    "flags",
    [
        ("--concurrency", "0"),
        ("--concurrency", "100000"),
        ("--fork-servers", "-1"),
        ("--queue-capacity", "-1"),
        ("--queue-wait-s", "nan"),
        ("--drain-s", "inf"),
        ("--drain-s", "-1"),
        ("--session-idle-s", "0"),
        ("--session-capacity", "-1"),
        ("--code-bytes", "0"),
        ("--input-bytes", "-1"),
        ("--flood-bytes", "0"),
        ("--maximum-scratch-bytes", "5"),
        ("--concurrency", "many"),
        ("--no-such-flag",),
        ("--ready-file", "/nonexistent/x"),
        ("--address", "unix:/nonexistent/s"),
    ],
)
def test_settings_that_make_no_server_are_refused_in_one_line(flags):
    assert flags[0].removeprefix("--").partition("-")[0] in refusal(*flags)
    assert "cpu_ms=0 must be at least 1" in refusal("--default-cpu-ms", "0")


def test_maxima_are_flags():
    flags = ["--maximum-output-bytes", "4096", "--default-output-bytes", "4096"]
    config = command_line.config_of(command_line._parser().parse_args(flags))
    assert config.maximum_limits == dataclasses.replace(
        ServerConfig.maximum_limits, output_bytes=4096
    )
    assert config.default_limits == LimitSet(output_bytes=4096)


def test_answers_that_default_clients_cannot_read_are_warned_of(caplog):
    start_checks.remark_on_answers(ServerConfig())
    assert not caplog.records
    larger = dataclasses.replace(ServerConfig.maximum_limits, output_bytes=2 << 20)
    start_checks.remark_on_answers(ServerConfig(maximum_limits=larger))
    [record] = caplog.records
    assert "grpc.max_receive_message_length" in record.message


def test_too_few_open_files_are_told_as_that(monkeypatch):
    for limit in (32, 64, 100, 127):
        monkeypatch.setattr(descriptors, "raise_limit", lambda limit=limit: limit)
        line = refusal("--concurrency", "2")
        assert f"{limit} open files are allowed here, 128 are needed" in line
        assert "ulimit -n" in line
    monkeypatch.setattr(descriptors, "raise_limit", lambda: 1024)
    assert "--concurrency 200: raise `ulimit -n`" in refusal("--concurrency", "200")


def test_open_files_are_raised_to_the_hard_limit(monkeypatch):
    limits = {"soft": 256, "hard": 4096}

    def set_limits(_kind, pair):
        limits["soft"], limits["hard"] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (limits["soft"], limits["hard"]))
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert descriptors.raise_limit() == 4096
    assert limits == {"soft": 4096, "hard": 4096}
    limits["hard"] = resource.RLIM_INFINITY
    assert descriptors.raise_limit() == 1 << 20
    assert limits["hard"] == resource.RLIM_INFINITY


def test_connections_leave_the_reserve_alone():
    assert descriptors.max_connections(160, 2) == 24
    descriptors.check_limit(160, 2)
    for limit, concurrency in ((160, 2), (1024, 64), (1 << 20, 512)):
        rest = limit - descriptors.max_connections(limit, concurrency)
        assert rest >= descriptors.RESERVE + 24 + 12 * concurrency


def test_a_session_is_refused_where_it_would_take_of_the_reserve(monkeypatch):
    num_open = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (num_open + 80, num_open + 80))
    descriptors.check_room()
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (num_open + 40, num_open + 40))
    with pytest.raises(descriptors.TooFewDescriptors, match="open files are in use") as caught:
        descriptors.check_room()
    refused = service.refusal_of(caught.value)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.retry_after_ms == 500


def test_too_few_processes_are_told_as_that(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(start_checks, "tasks_of_user", lambda uid: 5)
    real = resource.getrlimit
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (8, 8) if kind == resource.RLIMIT_NPROC else real(kind)
    )
    line = refusal("--concurrency", "2")
    assert "8 processes and threads are allowed for this user and 5 run" in line
    assert "ulimit -u" in line


def test_a_program_with_all_its_threads_raises_no_other_programs_limit(tmp_path):
    """Under a fork server (10) a session's supervisor (11) and its block (12); beside them a trainer (20)."""
    for pid, parent, num_tasks in ((10, 1, 3), (11, 10, 1), (12, 11, 50), (20, 1, 70), (21, 20, 9)):
        for task in range(num_tasks):
            (tmp_path / str(pid) / "task" / str(pid + task)).mkdir(parents=True)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1 0")
    (tmp_path / "30").mkdir()  # has ended meanwhile
    (tmp_path / "self").mkdir()
    uid = os.getuid()
    assert tasks_of_user(uid, proc=tmp_path) == 3 + 1 + 50 + 70 + 9
    assert tasks_of_user(uid, fork_servers=[10], most=16, proc=tmp_path) == 3 + 1 + 16 + 70 + 9
    assert tasks_of_user(uid + 1, proc=tmp_path) == 0


def test_no_isolation_is_told_tier_by_tier(monkeypatch):
    reasons = {Tier.NAMESPACE: "no user\nnamespaces", Tier.LANDLOCK: "this kernel has no Landlock"}
    monkeypatch.setattr(probe, "works", lambda tier, scratch: reasons[tier])
    line = refusal("--address", "127.0.0.1:0")
    assert "tier namespace does not work here: no user namespaces; " in line
    assert "tier landlock does not work here: this kernel has no Landlock; " in line


def test_a_probe_that_ends_with_a_traceback_is_told_by_its_last_line(monkeypatch):
    monkeypatch.undo()
    code = "def f():\n    raise OSError('first')\ntry:\n    f()\nfinally:\n    raise ValueError('the reason')"
    monkeypatch.setattr(probe, "command", lambda setup: [sys.executable, "-c", code])
    assert probe.works(Tier.NAMESPACE, 1 << 20) == "ValueError: the reason"


def test_refused_user_namespaces_are_told_as_that(monkeypatch):
    monkeypatch.undo()
    code = (
        "import sys; sys.exit('OSError: [Errno 28] unshare(0x10000000): No space left on device')"
    )
    monkeypatch.setattr(probe, "command", lambda setup: [sys.executable, "-c", code])
    assert probe.works(Tier.NAMESPACE, 1 << 20).startswith("user namespaces are refused here")


def test_the_front_end_loads_no_numpy():
    """Its threads would start before the limit on processes is looked at."""
    code = "import sys, sandbox_server.__main__; print({'numpy', 'sympy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_helper_that_the_probe_leaves_is_not_waited_for_and_ends(monkeypatch, tmp_path):
    """As in a root's probe where user namespaces are off: its helper waited for ever, and so did we."""
    monkeypatch.undo()
    code = (
        "import os, sys, time\nif not (pid := os.fork()): time.sleep(300)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(pid))\nsys.exit('OSError: no user namespaces')"
    )
    monkeypatch.setattr(probe, "command", lambda setup: [sys.executable, "-c", code])
    assert probe.works(Tier.NAMESPACE, 1 << 20) == "OSError: no user namespaces"
    helper = pathlib.Path("/proc", (tmp_path / "pid").read_text(), "stat")
    for _ in range(1000):
        if not helper.exists() or helper.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("the helper lives")


async def _never_warm(monkeypatch) -> None:
    from sandbox_server.front import fork_server

    monkeypatch.setattr(fork_server, "START_TIMEOUT_S", 0.05)
    sleeper = [sys.executable, "-c", "import sys; sys.stdin.read(); import time; time.sleep(60)"]
    monkeypatch.setattr(fork_server, "command", lambda setup: sleeper)
    await ForkServer(Tier.NONE, 1 << 20, False, UidIndexes(2)).start()


def test_a_slow_start_says_so(monkeypatch):
    import asyncio

    with pytest.raises(ForkServerGone, match="not warm after 0 s"):
        asyncio.run(_never_warm(monkeypatch))


def test_log_lines_are_ascii():
    """C1 controls and bidirectional overrides would act on a terminal, as escapes do."""
    name = "a\x9b31m\u202e\u2066\x1b[0m\n\ud800é"
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (name,), None)
    line = logs.JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == name
