"""A killed fork server, a killed front end, and a machine without isolation."""

import os
import pathlib
import signal
import threading
import time

import grpc
import pytest
from helpers.sandbox_serving import serving, why_not

from sandbox_server.config import ServerConfig
from sandbox_server.front import probe
from sandbox_server.inside.lockdown import Tier
from sandbox_server.wire import sandbox_pb2 as pb

# Not how long it takes, which the load of a machine decides: that it happens at all.
_ANSWERED_S = 10.0  # the programs sleep for 30
_BACK_S = 60.0


def _children(pid: int) -> list[int]:
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _fork_servers(server) -> list[int]:
    """The processes that fork executions: below a waiting one in the namespace tier."""
    tops = _children(server.pid)
    return [top if len(_children(top)) != 1 else _children(top)[0] for top in tops]


def _refusals_until_answer(server) -> list:
    refusals = []
    while True:
        call = server.stub.Execute.future(pb.ExecuteRequest(code="6 * 7"))
        if call.exception() is None:
            assert call.result().last_value == "42"
            return refusals
        refusals.append(call.exception())
        time.sleep(0.02)


@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_killed_fork_server_fails_in_flight_calls_at_once_and_comes_back(tier):
    if why_not(tier, False):
        pytest.skip(f"tier {tier}: {why_not(tier, False)}")
    with serving("--isolation", tier, "--concurrency", "2") as server:
        session = server.stub.CreateSession(pb.CreateSessionRequest())
        request = pb.ExecuteRequest(code="import time; time.sleep(30)", limits=pb.Limits())
        calls = [server.stub.Execute.future(request) for _ in range(2)]
        while server.stub.Info(pb.InfoRequest()).running < 2:
            time.sleep(0.01)
        below = server.descendants()
        killed_at = time.monotonic()
        for pid in _fork_servers(server):
            os.kill(pid, signal.SIGKILL)
        codes = [call.exception().code() for call in calls]
        answered_s = time.monotonic() - killed_at
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 2
        assert answered_s < _ANSWERED_S
        refusals = _refusals_until_answer(server)
        assert {error.code() for error in refusals} <= {grpc.StatusCode.UNAVAILABLE}
        assert all("retry-after-ms" in dict(error.trailing_metadata()) for error in refusals)
        assert time.monotonic() - killed_at < _BACK_S
        assert not below & server.descendants(), "something survived its fork server"
        lost = pb.SessionExecuteRequest(session_id=session.session_id, code="1")
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.ExecuteInSession(lost)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_one_killed_fork_server_is_replaced_by_the_other_at_once(server):
    for pid in _fork_servers(server):
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        start = time.monotonic()
        assert server.execute("import scipy\nprint(1)").stdout == "1\n"
        assert server.execute("6 * 7").last_value == "42"
        assert time.monotonic() - start < _BACK_S
        stop = time.monotonic() + 60
        while len(_fork_servers(server)) < 2 or len(server.descendants()) < 6:
            assert time.monotonic() < stop
            time.sleep(0.1)
        time.sleep(1.0)


@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_killed_front_end_leaves_no_process(tier):
    if why_not(tier, False):
        pytest.skip(f"tier {tier}: {why_not(tier, False)}")
    with serving("--isolation", tier) as server:
        session = server.stub.CreateSession(pb.CreateSessionRequest())
        spin = pb.SessionExecuteRequest(session_id=session.session_id, code="while True: pass")
        calls = [
            server.stub.ExecuteInSession.future(spin),
            server.stub.Execute.future(pb.ExecuteRequest(code="while True: pass")),
        ]
        while server.stub.Info(pb.InfoRequest()).running < len(calls):
            time.sleep(0.01)
        time.sleep(0.1)
        below = server.descendants()
        assert len(below) >= 7
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(10)
        stop = time.monotonic() + 10
        while time.monotonic() < stop and any(_is_running(pid) for pid in below):
            time.sleep(0.02)
        assert [pid for pid in below if _is_running(pid)] == []


def _is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_isolation_the_server_refuses_to_start(monkeypatch):
    monkeypatch.setattr(probe, "works", lambda tier, scratch: f"{tier} is broken")
    with pytest.raises(probe.NoIsolation, match="--isolation=none"):
        probe.choose(ServerConfig())
    tier, remarks = probe.choose(ServerConfig(isolation="none"))
    assert tier is Tier.NONE
    assert "isolation is off" in remarks[0]


def test_the_strongest_tier_that_works_is_taken(monkeypatch):
    broken = {Tier.NAMESPACE: "no user namespaces", Tier.LANDLOCK: ""}
    monkeypatch.setattr(probe, "works", lambda tier, scratch: broken[tier])
    tier, remarks = probe.choose(ServerConfig())
    assert tier is Tier.LANDLOCK
    assert remarks == ["tier namespace does not work here: no user namespaces"]


def _soak(server, count: int) -> None:
    programs = (
        "print(1 + 1)",
        "import sympy as sp\nx = sp.Symbol('x')\nprint(sp.solve(x**2 - 1, x))",
        "import numpy as np\nprint(np.ones(1000).sum())",
        "1 / 0",
        "import ctypes; ctypes.string_at(0)",
        "print('x' * (3 << 20))",
        "x = bytearray(1 << 30)",
        "import time; time.sleep(5)",
        "import os; os._exit(9)",
    )
    limits = pb.Limits(cpu_ms=300, wall_ms=100, memory_bytes=64 << 20)
    generous = pb.Limits(cpu_ms=2000, wall_ms=20_000, memory_bytes=64 << 20)
    rest = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index = next(rest, None)
            if index is None:
                return
            code = programs[index % len(programs)]
            server.execute(code, limits=limits if "sleep" in code else generous)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _pss_kib(pids: set[int]) -> int:
    total = 0
    for pid in pids:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
    return total


@pytest.mark.nightly
@pytest.mark.slow
def test_soak_grows_nothing(server):
    """Short here; SANDBOX_SOAK=10000 runs the long one."""
    count = int(os.environ.get("SANDBOX_SOAK", "300"))
    _soak(server, 60)
    before = server.resting_footprint()
    pss = _pss_kib(server.descendants() | {server.pid})
    _soak(server, count)
    assert server.settled_footprint(before) == before
    grown = _pss_kib(server.descendants() | {server.pid}) / pss - 1
    assert grown < 0.02 if count >= 5000 else grown < 0.05, f"{grown=:.3%}"
    info = server.stub.Info(pb.InfoRequest())
    assert (info.running, info.queued) == (0, 0)
