"""Many mixed session calls, and what they leave: `python -m benchmarks.sandbox_soak [--calls N]`.

Starts a server, and calls it from several threads: sessions made, forked, closed, left to be evicted;
blocks that end well, fail, crash, loop, flood, and that are cancelled; now and then SIGKILL to a
session's supervisor, to a process of a session, or to a fork server. Afterwards no process,
descriptor, user id, directory or memory may be more than before. Exit code 1 if something is.

`--json PATH` writes: `commit`, `tier`, `calls`, `seconds`, `ends` (how many calls ended how),
`kills` (by what was killed), `before` and `after` (each with `processes`, `descriptors`, `directories`,
`session_uids`, `sessions`, `running`, `memory_mib`), and `leaks`, a line for each figure that grew.
Sessions have an idle time of 10 s, after which those end whose opening was cancelled.
Memory is the resident memory of the server itself, after a warm-up of its own; 8 MiB or 10 % more is
a leak. The others may not grow at all.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

import grpc

from benchmarks.sandbox import _commit
from jaxtool.tools.local_server import run_local_server
from sandbox_server.front.session_attacks import below
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

_BLOCKS = (
    "x = 1",
    "x = [i * i for i in range(1000)]\nprint(sum(x))",
    "1 / 0",
    "import os; os._exit(3)",
    "import ctypes; ctypes.string_at(0)",
    "while True: pass",
    "print('y' * (3 << 20))",
    "y = bytearray(1 << 30)",
    "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f, daemon=True).start()",
    "import os; os.closerange(0, 200)",
    "import os; os.write(3, b'{\"exit\": 0}\\n'); os.kill(os.getpid(), 9)",
)
_LIMITS = pb.Limits(cpu_ms=60, wall_ms=4000, memory_bytes=64 << 20)
_CALL_TIMEOUT_S = 60.0
_CAPACITY = 12
_IDLE_TTL_MS = (
    10_000  # who cancels an opening may never learn the session's name: it ends by itself
)
_SETTLED_S = 60.0
_MEMORY_SLACK = 0.10, 8.0  # share, MiB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a server holds while it does nothing."""

    processes: int
    descriptors: int
    directories: int  # and files, in the temporary directory of the server
    session_uids: int  # user ids of processes below it
    sessions: int
    running: int
    memory_mib: float


class Soak:
    """Threads that call, one server that is called, counts of how it went."""

    def __init__(
        self,
        stub: sandbox_pb2_grpc.SandboxStub,
        pid: int,
        seed: int,
        *,
        kills: bool,
        idle_ttl_ms: int = _IDLE_TTL_MS,
    ):
        self._stub = stub
        self._pid = pid
        self._seed = seed
        self._kills = kills
        self._idle_ttl_ms = idle_ttl_ms
        self._lock = threading.Lock()
        self._left = 0
        self._names: list[str] = []
        self.ends: collections.Counter[str] = collections.Counter()
        self.kills: collections.Counter[str] = collections.Counter()

    def run(self, calls: int, threads: int) -> None:
        """Makes `calls` calls, then closes what is open."""
        self._left = calls
        workers = [threading.Thread(target=self._work, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for name in self._names:
            with contextlib.suppress(grpc.RpcError):
                self._stub.CloseSession(pb.CloseSessionRequest(session_id=name), timeout=60)
        self._names.clear()

    def _work(self, number: int) -> None:
        rng = random.Random(self._seed * 1000 + number)
        while True:
            with self._lock:
                if self._left <= 0:
                    return
                self._left -= 1
            try:
                end = self._call(rng)
            except grpc.RpcError as error:
                end = error.code().name  # pyright: ignore[reportAttributeAccessIssue]
            with self._lock:
                self.ends[end] += 1

    def _call(self, rng: random.Random) -> str:
        """One call of a kind drawn at random; how it ended."""
        with self._lock:
            name = rng.choice(self._names) if self._names else ""
        draw = rng.random()
        if not name or draw < 0.10:
            request = pb.CreateSessionRequest(
                limits=_LIMITS, no_checkpoint=rng.random() < 0.3, idle_ttl_ms=self._idle_ttl_ms
            )
            return self._open(
                self._stub.CreateSession.future(request, timeout=_CALL_TIMEOUT_S), rng
            )
        if draw < 0.18:
            request = pb.ForkSessionRequest(session_id=name)
            return self._open(self._stub.ForkSession.future(request, timeout=_CALL_TIMEOUT_S), rng)
        if draw < 0.26:
            self._forget(name)
            self._stub.CloseSession(pb.CloseSessionRequest(session_id=name), timeout=60)
            return "CLOSED"
        if draw < 0.27 and self._kills:
            return self._kill(rng)
        request = pb.SessionExecuteRequest(session_id=name, code=rng.choice(_BLOCKS))
        call = self._stub.ExecuteInSession.future(request, timeout=_CALL_TIMEOUT_S)
        return self._end_of_block(call, name, rng)

    def _end_of_block(self, call, name: str, rng: random.Random) -> str:
        if rng.random() < 0.1:
            return _cancel(call, rng)
        try:
            answer = call.result()
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:  # pyright: ignore
                self._forget(name)
            raise
        if answer.session_lost:
            self._forget(name)
        return pb.Status.Name(answer.status)

    def _open(self, call, rng: random.Random) -> str:
        if rng.random() < 0.15:
            return _cancel(call, rng)
        name = call.result().session_id
        with self._lock:
            self._names.append(name)
        return "OPENED"

    def _forget(self, name: str) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._names.remove(name)

    def _kill(self, rng: random.Random) -> str:
        """SIGKILL to something below the server: mostly of a session, seldom a fork server."""
        tree = {pid: _parent(pid) for pid in below(self._pid)}
        depth = {pid: _depth(pid, tree) for pid in tree}
        level = rng.choice((3, 3, 4, 4, 4, 4, 4, 2) if rng.random() < 0.3 else (4,))
        victims = [pid for pid, at in depth.items() if at == level]
        if not victims:
            return "NOTHING TO KILL"
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(victims), signal.SIGKILL)
        with self._lock:
            self.kills[{2: "fork server", 3: "supervisor or execution"}.get(level, "session")] += 1
        return "KILLED A PROCESS"


def _cancel(call, rng: random.Random) -> str:
    time.sleep(rng.random() * 0.05)
    call.cancel()
    return "CANCELLED"


def _parent(pid: int) -> int:
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _depth(pid: int, tree: dict[int, int]) -> int:
    """1 for what hangs below the server itself."""
    depth = 1
    while (pid := tree.get(pid, 0)) in tree:
        depth += 1
    return depth


def _uids(pids: dict[int, str]) -> set[int]:
    uids = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            uids.add(pathlib.Path(f"/proc/{pid}").stat().st_uid)
    return uids


def footprint(stub: sandbox_pb2_grpc.SandboxStub, pid: int, folder: pathlib.Path) -> Footprint:
    pids = below(pid)
    info = stub.Info(pb.InfoRequest(), timeout=60)
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    [rss] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    return Footprint(
        processes=len(pids),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        directories=sum(1 for _ in folder.rglob("*")),
        session_uids=len(_uids(pids)),
        sessions=info.sessions,
        running=info.running,
        memory_mib=rss / 1024,
    )


def settled(read, wanted: Footprint | None = None) -> Footprint:
    """The footprint when no session is left and it has stopped falling, or is no more than `wanted`."""
    stop, low, since = time.monotonic() + _SETTLED_S, read(), time.monotonic()
    while time.monotonic() < stop:
        time.sleep(0.1)
        now = read()
        if wanted is not None and not leaks(wanted, now):
            return now
        if _counts(now) != _counts(low) or now.sessions:
            low, since = now, time.monotonic()
        elif wanted is None and time.monotonic() - since > 1.5:
            return now
    return read()


def _counts(one: Footprint) -> dict[str, float]:
    return {name: value for name, value in dataclasses.asdict(one).items() if name != "memory_mib"}


def leaks(before: Footprint, after: Footprint) -> list[str]:
    """A line for each figure that is more than before."""
    found = [
        f"{name}: {value} before, {_counts(after)[name]} after"
        for name, value in _counts(before).items()
        if _counts(after)[name] > value
    ]
    share, slack = _MEMORY_SLACK
    if after.memory_mib > before.memory_mib * (1 + share) + slack:
        found.append(f"memory_mib: {before.memory_mib:.1f} before, {after.memory_mib:.1f} after")
    return found


def soak(
    calls: int,
    tier: str,
    threads: int = 6,
    seed: int = 0,
    *,
    kills: bool = True,
    idle_ttl_ms: int = _IDLE_TTL_MS,
) -> dict:
    """Figures of one soak, keys as in the module's docstring."""
    flags = ["--isolation", tier, "--session-capacity", str(_CAPACITY)]
    with (
        run_local_server(flags=flags) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = sandbox_pb2_grpc.SandboxStub(channel)
        folder = server.log_path.parent
        read = lambda: footprint(stub, server.pid, folder)  # noqa: E731
        warm_up = Soak(stub, server.pid, seed + 1, kills=False, idle_ttl_ms=idle_ttl_ms)
        warm_up.run(max(50, calls // 20), threads)
        before = settled(read)
        run = Soak(stub, server.pid, seed, kills=kills, idle_ttl_ms=idle_ttl_ms)
        start = time.monotonic()
        run.run(calls, threads)
        seconds = time.monotonic() - start
        after = settled(read, before)
    return {
        "commit": _commit(),
        "tier": tier,
        "calls": calls,
        "seconds": round(seconds, 1),
        "ends": dict(run.ends.most_common()),
        "kills": dict(run.kills),
        "before": dataclasses.asdict(before),
        "after": dataclasses.asdict(after),
        "leaks": leaks(before, after),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, metavar="N")
    parser.add_argument("--isolation", default="namespace", choices=["namespace", "landlock"])
    parser.add_argument("--json", metavar="PATH", help="also write the figures here")
    flags = parser.parse_args()
    figures = soak(flags.calls, flags.isolation)
    print(json.dumps(figures, indent=2))
    if flags.json:
        pathlib.Path(flags.json).write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 1 if figures["leaks"] else 0


if __name__ == "__main__":
    sys.exit(main())
