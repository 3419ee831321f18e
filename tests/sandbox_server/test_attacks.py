"""Each hostile program in sandbox_server/attacks in every tier, as root and as a plain user, alone and in a session.

A file's header says which statuses are right: `# Expect: OK | ERROR`, and `# Expect-session:` where
a session differs. Contained means: such a status, no line with ESCAPED, a concurrent neighbour with
the right answer, a clean next execution, no process or descriptor left, the canary untouched.
"""

import concurrent.futures
import os
import pathlib
import socket
import threading
import time

import pytest
from helpers.sandbox_serving import PLAIN_UID, Serving, serving, setup_params, why_not

from sandbox_server.front import selftest
from sandbox_server.inside.session_limits import TASK_ALLOWANCE
from sandbox_server.wire import sandbox_pb2 as pb

ATTACKS = sorted(selftest.ATTACKS.glob("*.py.txt"))
_SECRET = "NEIGHBOUR" + "-SECRET"
_NEIGHBOUR = f"secret = '{_SECRET}'\nprint(sum(i * i for i in range(20000)))"
_NEIGHBOUR_ANSWER = f"{sum(i * i for i in range(20000))}\n"
_PROBE = """
import builtins, json, math, os, random, sys, threading
import numpy as np
print(len([1, 2]), math.pi, json.loads("[1]"), threading.active_count(), sys.getrecursionlimit())
print(random.random(), np.random.rand(), os.environ.get("POISON"), "/tmp" in sys.path)
try:
    print(os.listdir("/tmp"))
except OSError:
    print([])
"""
_CONCURRENCY = 2
_MOST_THREADS = 16
_STARTED_LATE_S = 5.0  # on a machine with more to do than it has cores
_BARE = "session without checkpoints"


def test_the_suite_is_complete():
    assert len(ATTACKS) >= 60
    areas = {path.name.split("_")[0] for path in ATTACKS}
    assert areas == {
        "process", "memory", "cpu", "output", "files", "network", "kernel", "forge", "bomb",
    }  # fmt: skip
    for path in ATTACKS:
        assert expected(path, "stateless"), path
        assert "\t" not in path.read_text(), path


def expected(path: pathlib.Path, mode: str) -> set[str]:
    text = path.read_text("utf-8")
    own = set() if mode == "stateless" else selftest.statuses(text, "Expect-session")
    names = own or selftest.statuses(text)
    return {name for name in names if f"STATUS_{name}" in pb.Status.keys()}  # noqa: SIM118 (not a dict)


class Surroundings:
    """What attacks aim at: a canary file, listening sockets, a neighbour at work."""

    def __init__(self, server: Serving, owner: int, *, shares_user_id: bool = False):
        self.server = server
        self.shares_user_id = shares_user_id
        self.canary = server.folder / "canary"
        self.canary.write_text("canary")
        os.chown(self.canary, owner, owner)
        self.canary.chmod(0o666)
        self.canary_facts = self._facts()
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.unix.bind(str(server.folder / "datagrams"))
        (server.folder / "datagrams").chmod(0o777)
        self.abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.abstract_name = f"sandbox-test-{server.pid}"
        self.abstract.bind("\0" + self.abstract_name)
        for one in (self.unix, self.abstract):
            one.setblocking(False)
        self.wrong: list[str] = []
        self.clean = ""  # what the probe prints in a server that nobody has attacked
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._be_a_neighbour)
        self._thread.start()

    def _facts(self) -> tuple:
        stat = self.canary.stat()
        return (
            self.canary.read_text(),
            stat.st_mode,
            stat.st_mtime_ns,
            stat.st_uid,
            stat.st_ctime_ns,
        )

    def _be_a_neighbour(self) -> None:
        while not self._stop.is_set():
            got = self.server.execute(_NEIGHBOUR)
            if got.status != pb.STATUS_OK or got.stdout != _NEIGHBOUR_ANSWER:
                self.wrong.append(str(got)[:500])
            self._stop.wait(0.05)

    def rest(self) -> None:
        """Ends the neighbour."""
        self._stop.set()
        self._thread.join()

    def close(self) -> None:
        """Ends the neighbour and the listeners; their findings stay in `damage`."""
        self.rest()
        self.final_damage = self.damage()
        for one in (self.tcp, self.unix, self.abstract):
            one.close()

    def source(self, path: pathlib.Path, mode: str) -> str:
        text = path.read_text("utf-8")
        for key, value in {
            "CANARY": self.canary,
            "SERVER_PID": self.server.pid,
            "PORT": self.tcp.getsockname()[1],
            "ABSTRACT": self.abstract_name,
            "UNIX": self.server.folder / "datagrams",
            "MODE": mode,
        }.items():
            text = text.replace(f"@{key}@", str(value))
        return text

    def damage(self) -> list[str]:
        """What has changed around the sandbox."""
        breaches = list(self.wrong)
        if self._facts() != self.canary_facts:
            breaches.append(f"canary: {self._facts()}")
        for name, one in (("unix", self.unix), ("abstract", self.abstract)):
            try:
                breaches.append(f"{name} socket got {one.recv(64)!r}")
            except BlockingIOError:
                continue
        return breaches


def _limits(path: pathlib.Path, mode: str) -> pb.Limits:
    limits = selftest.attack_limits(expected(path, mode))
    return pb.Limits(
        cpu_ms=limits.cpu_ms,
        wall_ms=limits.wall_ms,
        memory_bytes=limits.memory_bytes,
        scratch_bytes=limits.scratch_bytes,
    )


def _run(server: Serving, source: str, mode: str, limits: pb.Limits) -> pb.ExecuteResponse:
    if mode == "stateless":
        return server.execute(source, limits=limits)
    create = pb.CreateSessionRequest(limits=limits, no_checkpoint=mode == _BARE)
    session = server.stub.CreateSession(create, timeout=60)
    request = pb.SessionExecuteRequest(session_id=session.session_id, code=source)
    result = server.stub.ExecuteInSession(request, timeout=60)
    after = pb.SessionExecuteRequest(session_id=session.session_id, code="None")
    assert not (result.rolled_back and mode == _BARE)
    if result.rolled_back:
        assert server.stub.ExecuteInSession(after, timeout=60).status == pb.STATUS_OK
    server.stub.CloseSession(pb.CloseSessionRequest(session_id=session.session_id), timeout=60)
    return result


@pytest.fixture(
    scope="module",
    params=setup_params(),
)
def surroundings(request):
    tier, as_user = request.param
    reason = why_not(tier, as_user)
    if reason:
        pytest.skip(f"tier {tier}, plain user {as_user}: {reason}")
    secret = {"SANDBOX_TEST_SECRET": "escaped"}
    flags = ("--isolation", tier, "--concurrency", str(_CONCURRENCY))
    flags += ("--maximum-threads", str(_MOST_THREADS))
    with serving(*flags, as_user=as_user, env=secret) as server:
        owner = PLAIN_UID if as_user else os.geteuid()
        shares_user_id = tier == "landlock" and owner != 0
        around = Surroundings(server, owner, shares_user_id=shares_user_id)
        try:
            around.clean = server.execute(_PROBE).stdout
            yield around
        finally:
            around.close()
        assert around.final_damage == []


def _cases():
    """Every program alone and in a session; those aimed at the session itself also without checkpoints."""
    for path in ATTACKS:
        name = path.name.removesuffix(".py.txt")
        modes = ["stateless", "session"]
        modes += [_BARE] if name.split("_")[0] in ("process", "forge", "output") else []
        yield from (pytest.param(path, mode, id=f"{name}-{mode}") for mode in modes)


@pytest.mark.parametrize(("path", "mode"), list(_cases()))
def test_attack_is_contained(surroundings, path, mode):
    server = surroundings.server
    remarks = server.stub.Info(pb.InfoRequest()).remarks
    if path.name == selftest.OF_CLOSED_DIRECTORIES and any("CAP_DAC" in one for one in remarks):
        pytest.skip("Python lies below closed directories: programs keep a right to look into them")
    start = time.monotonic()
    limits = _limits(path, mode)
    result = _run(server, surroundings.source(path, mode), mode, limits)
    seconds = time.monotonic() - start
    status = pb.Status.Name(result.status).removeprefix("STATUS_")
    shown = f"{status}\n{result.stdout[-1500:]}\n{result.stderr[-1500:]}"
    assert "ESCAPED" not in result.stdout + result.last_value, shown
    assert "\nESCAPED" not in result.stderr, shown
    assert status in expected(path, mode), shown
    assert seconds < limits.wall_ms / 1000 + _STARTED_LATE_S, f"{seconds=}\n{shown}"
    after = server.execute(_PROBE)
    assert after.stdout == surroundings.clean
    assert after.status == pb.STATUS_OK
    assert surroundings.damage() == []


# Of the server's user, ended since they were counted: two programs that had started all they may.
_TASKS_OF_OTHERS = _CONCURRENCY * (_MOST_THREADS + TASK_ALLOWANCE)
_COUNT_THREADS = """
import threading
started, gate = 1, threading.Event()
try:
    while started < 150:
        threading.Thread(target=gate.wait, daemon=True).start()
        started += 1
except RuntimeError:
    pass
gate.set()
print(started)
"""


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_the_thread_limit_is_what_the_docs_say(surroundings, threads):
    """Exact, except where executions share the server's user id; sessions have some to spare."""
    limits = pb.Limits(threads=threads)
    started = int(surroundings.server.execute(_COUNT_THREADS, limits=limits).stdout)
    if surroundings.shares_user_id:
        assert 1 <= started <= threads + _TASKS_OF_OTHERS
    else:
        assert started == threads
    for no_checkpoint in (False, True):
        stub = surroundings.server.stub
        create = pb.CreateSessionRequest(limits=limits, no_checkpoint=no_checkpoint)
        session = stub.CreateSession(create, timeout=60)
        request = pb.SessionExecuteRequest(session_id=session.session_id, code=_COUNT_THREADS)
        started = int(stub.ExecuteInSession(request, timeout=60).stdout)
        stub.CloseSession(pb.CloseSessionRequest(session_id=session.session_id), timeout=60)
        if not surroundings.shares_user_id:
            assert threads <= started <= threads + TASK_ALLOWANCE + no_checkpoint
        else:
            assert 1 <= started <= threads + TASK_ALLOWANCE + _TASKS_OF_OTHERS


@pytest.mark.skipif(os.geteuid() != 0, reason="user ids of its own for each execution need root")
def test_servers_on_one_host_take_no_threads_from_each_other():
    """RLIMIT_NPROC counts tasks by user id: with ids in common a neighbour's threads were one's own."""
    flags = ("--isolation", "landlock", "--concurrency", "1")
    waits = _COUNT_THREADS.replace("gate.set()", "import time; time.sleep(0.2)\ngate.set()")
    limits = pb.Limits(threads=16)
    with (
        serving(*flags) as one,
        serving(*flags) as other,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        run = lambda server: server.execute(waits, limits=limits).stdout.strip()  # noqa: E731
        assert list(pool.map(run, [one, other] * 3)) == ["16"] * 6


def test_without_isolation_these_attacks_get_out():
    """The attacks do attack: harmless ones of each area print ESCAPED where there is no wall."""
    names = ("files_host_secrets", "network_tcp", "network_listen", "process_fork_bomb",
             "process_posix_spawn", "kernel_signal_others")  # fmt: skip
    with serving("--isolation", "none") as server:
        around = Surroundings(server, os.geteuid())
        try:
            limits = pb.Limits(cpu_ms=3000, wall_ms=9000)
            for name in names:
                path = next(path for path in ATTACKS if path.name == f"{name}.py.txt")
                result = server.execute(around.source(path, "stateless"), limits=limits)
                assert "ESCAPED" in result.stdout, f"{name}: {result}"
        finally:
            around.close()


def test_nothing_is_left_behind(surroundings):
    """After the whole suite: as many processes and descriptors as a fresh server has."""
    surroundings.rest()
    server = surroundings.server
    # Two fork servers with two spares each, and a process above each: outside its pid namespace, or its guard.
    expected_processes = 8
    stop = time.monotonic() + 5
    while len(server.descendants()) != expected_processes and time.monotonic() < stop:
        time.sleep(0.05)
    assert len(server.descendants()) == expected_processes
    assert server.open_descriptors() < 60
    assert server.stub.Info(pb.InfoRequest()).sessions == 0
