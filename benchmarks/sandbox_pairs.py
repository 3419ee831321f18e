"""Two checkouts' sandbox servers side by side: what a call costs now, over what it cost before.

  python -m benchmarks.sandbox_pairs --old TREE [--new TREE] [--tier namespace] [--rounds 20] [--json PATH]

One server of each tree runs, and they answer in turns of some dozen calls, in the other order each round. So what
else the machine does meets both. A turn gives calls a second and CPU time a call (all processes of the server).
Figures are medians over the rounds; `worse` is the median over the rounds of by how much a call got dearer within
one round, with a bootstrap interval of 95 % over rounds. The first round warms up and counts nowhere. Exit code 1
if the whole interval of a figure lies above 10 %.

`--json PATH` writes `old` and `new` (their commits), `machine`, `python`, `rounds`, and `figures`: a list with
`name`, `unit` ("calls/s" or "CPU ms"), `old`, `new`, `worse` (a share, negative where better), `low`, `high`.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import grpc
import numpy as np

from benchmarks.sandbox import PROGRAMS, ROOT, tree_cpu_s
from jaxtool.cli import entry
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

ALLOWED = 0.10
_CALLS = {"print": 48, "numpy": 48, "sympy": 24, "session": 48}  # of a turn
_RESAMPLES = 2000
_START_S = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """One server's calls in one round."""

    seconds: float  # a call, as a client sees it: the time of the turn over its calls
    cpu_s: float  # a call


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of both trees."""

    name: str
    unit: str
    old: float
    new: float
    worse: float  # share by which a call got dearer: 0.1 for 110 ms after 100, or 10/s after 11
    low: float  # of the interval of `worse`
    high: float


def dearer(old: Sequence[float], new: Sequence[float]) -> tuple[float, float, float]:
    """Median over rounds of new / old - 1, and its bootstrap interval of 95 %. Costs a call, round by round."""
    ratios = np.asarray(new) / np.asarray(old) - 1
    drawn = np.random.default_rng(0).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def figures(name: str, old: Sequence[Turn], new: Sequence[Turn]) -> list[Figure]:
    """Calls a second and CPU time of one way of calling; `old` and `new` are the turns of the same rounds."""
    made = []
    for unit in ("calls/s", "CPU ms"):
        costs = [
            [t.seconds if unit == "calls/s" else t.cpu_s for t in turns] for turns in (old, new)
        ]
        before, after = (statistics.median(cost) for cost in costs)
        worse, low, high = dearer(*costs)
        if unit == "calls/s":
            before, after = 1 / before, 1 / after
        else:
            before, after = 1000 * before, 1000 * after
        made.append(
            Figure(name=name, unit=unit, old=before, new=after, worse=worse, low=low, high=high)
        )
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A running server of one tree."""

    pid: int
    stub: sandbox_pb2_grpc.SandboxStub

    def turn(self, call: Callable[[], object], *, calls: int, clients: int) -> Turn:
        cpu, start = tree_cpu_s(self.pid), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(clients) as threads:
            for future in [threads.submit(call) for _ in range(calls)]:
                future.result()
        elapsed = time.monotonic() - start
        time.sleep(0.03)  # the last children are reaped
        return Turn(seconds=elapsed / calls, cpu_s=(tree_cpu_s(self.pid) - cpu) / calls)


@contextlib.contextmanager
def _server(tree: pathlib.Path, tier: str) -> Iterator[Server]:
    """A server that runs the code of `tree`, whatever package is installed."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/s"
        flags = ["--address", address, "--isolation", tier]
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox_server", *flags],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with grpc.insecure_channel(address) as channel:
                grpc.channel_ready_future(channel).result(timeout=_START_S)
                yield Server(pid=process.pid, stub=sandbox_pb2_grpc.SandboxStub(channel))
        finally:
            process.terminate()
            process.wait(_START_S)


def _ways(server: Server) -> Iterator[tuple[str, int, int, Callable[[], object]]]:
    """(name, calls, clients, call) of each way of calling."""
    for program, code in PROGRAMS.items():
        request = pb.ExecuteRequest(code=code)
        for clients in (1, 8):
            name = f"{program}, {clients} client{'s' if clients > 1 else ''}"
            yield name, _CALLS[program], clients, lambda r=request: server.stub.Execute(r)
    session = server.stub.CreateSession(pb.CreateSessionRequest()).session_id
    block = pb.SessionExecuteRequest(session_id=session, code=PROGRAMS["print"])
    yield "print, session", _CALLS["session"], 1, lambda: server.stub.ExecuteInSession(block)


def measure(trees: Sequence[pathlib.Path], tier: str, rounds: int) -> list[Figure]:
    """Figures of two trees in one tier."""
    made: list[Figure] = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_server(tree, tier)) for tree in trees]
        for ways in zip(*map(_ways, servers), strict=True):
            turns: list[list[Turn]] = [[], []]
            for number in range(rounds + 1):
                for which in (0, 1) if number % 2 else (1, 0):
                    _, calls, clients, call = ways[which]
                    turn = servers[which].turn(call, calls=calls, clients=clients)
                    if number:
                        turns[which].append(turn)
            made += figures(f"{tier}, {ways[0][0]}", *turns)
            for figure in made[-2:]:
                print(
                    f"{figure.name:32s} {figure.unit:8s} {figure.old:9.2f} {figure.new:9.2f}  "
                    f"{figure.worse:+7.1%} ({figure.low:+.1%}..{figure.high:+.1%})",
                    flush=True,
                )
    return made


def _commit(tree: pathlib.Path) -> str:
    git = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=entry.local_path, required=True, help="a checkout")
    parser.add_argument("--new", type=entry.local_path, default=ROOT, help="a checkout (this one)")
    parser.add_argument(
        "--tier", action="append", choices=("namespace", "landlock"), help="may be repeated (both)"
    )
    parser.add_argument("--rounds", type=int, default=20, help="turns of each server (20)")
    parser.add_argument("--json", type=entry.local_path, help="write the figures here as well")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds} must be at least 2")
    trees = [tree.resolve() for tree in (arguments.old, arguments.new)]
    for tree in trees:
        if not (tree / "sandbox_server" / "__main__.py").is_file():
            parser.error(f"{tree} is no checkout: it has no sandbox_server")
    print(f"{'':32s} {'':8s} {'old':>9s} {'new':>9s}  dearer by (95 % over rounds)")
    made: list[Figure] = []
    for tier in arguments.tier or ("namespace", "landlock"):
        made += measure(trees, tier, arguments.rounds)
    if arguments.json:
        record = {
            "old": _commit(trees[0]),
            "new": _commit(trees[1]),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
            "python": platform.python_version(),
            "rounds": arguments.rounds,
            "figures": [dataclasses.asdict(figure) for figure in made],
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(any(figure.low > ALLOWED for figure in made))


if __name__ == "__main__":
    sys.exit(main())
