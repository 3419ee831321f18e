"""Hostile sessions in every tier, as root and as a plain user: no process runs between blocks, and
none outlives its session, whichever of our own processes is killed meanwhile.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import time

import grpc
import pytest
from helpers.sandbox_serving import Serving, serving, setup_params, why_not

from sandbox_server.front import session_attacks
from sandbox_server.wire import sandbox_pb2 as pb

FILES = sorted(session_attacks.FOLDER.glob("*.py.txt"))
_LIMITS = pb.Limits(cpu_ms=session_attacks.LIMITS.cpu_ms, wall_ms=session_attacks.LIMITS.wall_ms)
_NICE = 10
_AT_ONCE = 10
_FILLED_S = 60.0
_GONE_S = 15.0  # not how long it takes: that it happens
_HIDDEN = (session_attacks.FOLDER / "fork_without_hello.py.txt").read_text()


def test_the_suite_is_complete():
    assert len(FILES) >= 10
    for path in FILES:
        text = path.read_text()
        assert session_attacks.expected(text), path
        assert session_attacks.steps_of(text), path


@pytest.fixture(
    scope="module",
    params=setup_params(),
)
def server(request):
    tier, as_user = request.param
    if reason := why_not(tier, as_user):
        pytest.skip(f"tier {tier}, plain user {as_user}: {reason}")
    with serving("--isolation", tier, "--concurrency", "2", as_user=as_user) as running:
        running.execute("1")
        # Hostile sessions take all the time that they get for seconds: less of what other tests need.
        for pid in {running.pid, *running.descendants()}:
            os.setpriority(os.PRIO_PROCESS, pid, _NICE)
        yield running


class _Session:
    def __init__(self, server: Serving, *, no_checkpoint: bool = False):
        self.stub = server.stub
        create = pb.CreateSessionRequest(limits=_LIMITS, no_checkpoint=no_checkpoint)
        self.session_id = self.stub.CreateSession(create, timeout=60).session_id
        self._names = [self.session_id]  # and those of its branches

    def call(self, step: session_attacks.Step):
        """The call of a step, not waited for."""
        if step.is_fork:
            request = pb.ForkSessionRequest(session_id=self.session_id)
            return self.stub.ForkSession.future(request, timeout=60)
        block = pb.SessionExecuteRequest(session_id=self.session_id, code=step.code)
        return self.stub.ExecuteInSession.future(block, timeout=60)

    def end_of(self, step: session_attacks.Step) -> str:
        """How a step ended; output with ESCAPED is an end of its own."""
        try:
            answer = self.call(step).result()
        except grpc.RpcError as error:
            is_lost = error.code() is grpc.StatusCode.NOT_FOUND  # pyright: ignore
            return "LOST" if is_lost else str(error)
        if step.is_fork:
            self._names.append(answer.session_id)
            return "OK"
        escaped = "ESCAPED " if "ESCAPED" in answer.stdout else ""
        if answer.status == pb.STATUS_ERROR:
            print(step.code, answer)
        return escaped + pb.Status.Name(answer.status).removeprefix("STATUS_")

    def close(self) -> None:
        for name in self._names:
            self.stub.CloseSession(pb.CloseSessionRequest(session_id=name), timeout=60)


def _last_end(session: _Session, path: pathlib.Path) -> str:
    ends = [session.end_of(step) for step in session_attacks.steps_of(path.read_text())]
    return ends[-1]


def test_hostile_sessions_are_contained(server):
    """Many at once, for most of them end by a time-out of seconds."""
    before = server.resting_footprint()
    tops = set(server.descendants()) | {server.pid}
    cases = [(path, bare) for path in FILES for bare in (False, True)]
    sessions = [_Session(server, no_checkpoint=bare) for _, bare in cases]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        ends = list(pool.map(_last_end, sessions, [path for path, _ in cases]))
    wrong = [
        (path.name, bare, end)
        for (path, bare), end in zip(cases, ends, strict=True)
        if end not in session_attacks.expected(path.read_text())
    ]
    assert wrong == []
    assert _awake(server, tops) == set(), "a process of a session runs while no block does"
    for session in sessions:
        session.close()
    assert server.settled_footprint(before) == before


def _awake(server: Serving, tops: set[int]) -> set[int]:
    """Processes of sessions that run where at no look all are stopped.

    What hangs below `tops` directly are supervisors and children forked ahead.
    """
    stop = time.monotonic() + _GONE_S
    while True:
        states = session_attacks.below(server.pid)
        now = {
            pid
            for pid, state in states.items()
            if pid not in tops and _parent(pid) not in tops and state not in "TtZX"
        }
        if not now or time.monotonic() > stop:
            return now
        time.sleep(0.02)


def _stat(pid: int) -> list[str]:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _hostile_sessions(server: Serving) -> list[list[int]]:
    """Chains of one session with a child that nobody knows of, and of one whose process was a checkpoint."""
    stop = time.monotonic() + _FILLED_S
    while time.monotonic() < stop:
        rolled_back, hidden = _Session(server), _Session(server)
        rolled_back.end_of(session_attacks.Step(is_fork=False, code="import os; os._exit(1)"))
        first, second = session_attacks.steps_of(_HIDDEN)
        assert hidden.end_of(first) == "OK"
        spin = session_attacks.Step(is_fork=False, code="while True: pass")
        calls = [rolled_back.call(spin), hidden.call(second)]
        while not any(call.done() for call in calls):  # a slow machine is too late: then once more
            chains = _chains(server)
            if len({chain[3] for chain in chains}) == 2 and max(map(len, chains)) == 6:
                return chains
    raise AssertionError("the attacks did not come to run")


def _chains(server: Serving) -> list[list[int]]:
    """For each running process of a session: the server, guard, fork server, supervisor, ..., it."""
    chains = []
    for pid, state in session_attacks.below(server.pid).items():
        chain = [pid]
        while chain[0] not in (0, 1, server.pid):
            chain.insert(0, _parent(chain[0]))
        if state == "R" and len(chain) > 4 and chain[0] == server.pid:
            chains.append(chain)
    return chains


def _wait_until_it_serves(server: Serving) -> None:
    while server.stub.Execute.future(pb.ExecuteRequest(code="1"), timeout=60).exception():
        time.sleep(0.05)


@pytest.mark.parametrize(
    "killed",
    ["supervisors", "fork server", "fork server, supervisors", "guard",
     "server, fork server, supervisors"],
)  # fmt: skip
def test_nothing_outlives_who_is_killed(server, killed):
    """SIGKILL to parts of the server: what is left of it ends every process of the sessions."""
    _wait_until_it_serves(server)
    chains = _hostile_sessions(server)
    parts = {
        "server": {server.pid},
        "guard": {chain[1] for chain in chains},
        "fork server": {chain[2] for chain in chains},
        "supervisors": {chain[3] for chain in chains},
    }
    family = {pid for one in parts["supervisors"] for pid in session_attacks.below(one)}
    doomed = server.descendants() if killed.startswith("server") else family
    for name in killed.split(", "):
        for pid in parts[name]:
            with contextlib.suppress(ProcessLookupError):  # it has ended with the part before
                os.kill(pid, signal.SIGKILL)
    stop = time.monotonic() + _GONE_S
    while (alive := {p for p in doomed if _stat(p)[0] not in "ZX"}) and time.monotonic() < stop:
        time.sleep(0.02)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert alive == set()
