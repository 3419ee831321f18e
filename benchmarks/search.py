"""Recall and speed of the search server: `python -m benchmarks.search [--growth 100000 1000000]`.

Starts the server on HotpotQA's passages (4,947 of the contexts of 500 questions) and asks over HTTP. The client takes part
of the same cores. Without --growth it takes under a minute. It measures BM25 with feedback, no encoder.

--json PATH writes {"summary": {...}, "processor", "cores", "python", "load_before"} where summary has
  recall_at_5                   mean over questions of supporting titles among the first 5 / supporting titles
  recall_at_5_chosen_on         the same on questions 0, 2, 4, ...: the half that the settings were chosen on
  recall_at_5_held_out          the same on questions 1, 3, 5, ...
  recall_at_5_without_feedback  the same with --no-feedback
  queries_per_s                 8 clients, one query a request, median of the rounds
  batch_queries_per_s           8 clients, 32 queries a request, median of the rounds
  p50_ms, p99_ms                one client, one query a request, medians of the rounds
  cpu_ms                        CPU of the server for each of those queries: the figure to trust on a shared machine
  growth                        a list of {documents, corpus_mib, build_s, build_peak_mib, index_mib, start_s,
                                server_mib (resident, after the queries), p50_ms, p99_ms, cpu_ms, queries_per_s}; the first is
                                the corpus above
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from benchmarks import search_corpus
from benchmarks.search_corpus import Question, Row

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLIENTS = 8
BATCH = 32
TOPK = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """A running server."""

    address: str
    pid: int
    start_s: float

    def cpu_s(self) -> float:
        """CPU seconds that the server has used."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@contextlib.contextmanager
def serving(*flags: str) -> Iterator[Serving]:
    start = time.monotonic()
    command = [sys.executable, "-m", "search_server", "--address", ":0", "--exit-on-stdin-eof"]
    process = subprocess.Popen(
        [*command, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the search server did not start; it says why above")
        yield Serving(address=line.split()[-1], pid=process.pid, start_s=time.monotonic() - start)
    finally:
        process.terminate()
        process.communicate(timeout=30)


class Client:
    """One connection that stays open."""

    def __init__(self, address: str):
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, queries: Sequence[str]) -> list[list[dict]]:
        body = json.dumps({"queries": list(queries), "topk": TOPK, "return_scores": True})
        self._connection.request(
            "POST", "/retrieve", body.encode(), {"Content-Type": "application/json"}
        )
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {text[:300]!r}")
        return json.loads(text)["result"]


def found_ids(address: str, questions: Sequence[Question]) -> list[list[str]]:
    with Client(address) as client:
        answer = client.ask([question for question, _ in questions])
    return [[hit["document"]["id"] for hit in hits] for hits in answer]


def latencies_ms(address: str, queries: Sequence[str]) -> list[float]:
    """One client, one query a request."""
    times = []
    with Client(address) as client:
        client.ask(queries[:1])
        for query in queries:
            start = time.perf_counter()
            client.ask([query])
            times.append(1000 * (time.perf_counter() - start))
    return times


def per_second(address: str, queries: Sequence[str], batch: int, seconds: float) -> float:
    """Queries a second of CLIENTS clients that ask without pause."""
    stop = time.monotonic() + seconds

    def client(number: int) -> int:
        asked, place = 0, number * 61
        with Client(address) as mine:
            while time.monotonic() < stop:
                picked = [queries[(place + i) % len(queries)] for i in range(batch)]
                mine.ask(picked)
                asked, place = asked + batch, place + batch
        return asked

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        total = sum(threads.map(client, range(CLIENTS)))
    return total / (time.monotonic() - start)


def write_corpus(rows: Iterable[Row], file: pathlib.Path) -> None:
    with open(file, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")


def _mib(path: pathlib.Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / (1 << 20)


def build(corpus: pathlib.Path, index: pathlib.Path) -> dict[str, float]:
    """Builds in a process of its own."""
    start = time.monotonic()
    command = [sys.executable, "-m", "search_server.build", "--corpus", str(corpus)]
    process = subprocess.Popen(
        [*command, "--index", str(index)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError("the build failed; it says why above")
    return {
        "corpus_mib": _mib(corpus),
        "build_s": time.monotonic() - start,
        "build_peak_mib": usage.ru_maxrss / 1024,
        "index_mib": _mib(index),
    }


def speed(server: Serving, queries: Sequence[str], rounds: int, seconds: float) -> dict[str, float]:
    before = server.cpu_s()
    times = [latencies_ms(server.address, queries) for _ in range(rounds)]
    cpu_s = server.cpu_s() - before
    speeds = [per_second(server.address, queries, 1, seconds) for _ in range(rounds)]
    return {
        "start_s": server.start_s,
        "p50_ms": statistics.median(float(np.percentile(each, 50)) for each in times),
        "p99_ms": statistics.median(float(np.percentile(each, 99)) for each in times),
        "cpu_ms": 1000 * cpu_s / sum(map(len, times)),
        "queries_per_s": statistics.median(speeds),
        "server_mib": server.resident_mib(),
    }


def measure(
    rows: Sequence[Row], questions: Sequence[Question], *, growth: Sequence[int], rounds: int,
    seconds: float, folder: pathlib.Path,
) -> dict[str, object]:  # fmt: skip
    """The summary; `folder` holds corpora and indexes meanwhile."""
    queries = [question for question, _ in questions]
    summary: dict[str, object] = {}
    table = []
    for documents in (len(rows), *growth):
        corpus, index = folder / f"{documents}.jsonl", folder / f"{documents}.index"
        write_corpus(search_corpus.grown(rows, documents, seed=0), corpus)
        built = build(corpus, index)
        with serving("--index", str(index)) as server:
            if not table:
                found = found_ids(server.address, questions)
                summary["recall_at_5"] = search_corpus.recall_at(found, questions)
                for name, half in (
                    ("chosen_on", slice(0, None, 2)),
                    ("held_out", slice(1, None, 2)),
                ):
                    share = search_corpus.recall_at(found[half], questions[half])
                    summary[f"recall_at_5_{name}"] = share
                batches = [
                    per_second(server.address, queries, BATCH, seconds) for _ in range(rounds)
                ]
                summary["batch_queries_per_s"] = statistics.median(batches)
            table.append(
                {"documents": documents, **built, **speed(server, queries, rounds, seconds)}
            )
        print("  ".join(f"{name} {value:,.4g}" for name, value in table[-1].items()), flush=True)
        if len(table) == 1:
            with serving("--index", str(index), "--no-feedback") as server:
                found = found_ids(server.address, questions)
            summary["recall_at_5_without_feedback"] = search_corpus.recall_at(found, questions)
        corpus.unlink()
    for name in ("queries_per_s", "p50_ms", "p99_ms", "cpu_ms"):
        summary[name] = table[0][name]
    return summary | {"growth": table}


def _processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--growth", type=int, nargs="+", default=[], metavar="N", help="also with N documents"
    )
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is told")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round with 8 clients")
    parser.add_argument("--hotpotqa", type=pathlib.Path, default=search_corpus.HOTPOTQA,
                        help="rows of HotpotQA with their contexts, as JSON lines")  # fmt: skip
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here as well")
    flags = parser.parse_args()
    if not flags.hotpotqa.is_file():
        parser.exit(2, f"benchmarks.search: {flags.hotpotqa}: no such file; give --hotpotqa FILE\n")
    if flags.json and not flags.json.resolve().parent.is_dir():
        parser.exit(2, f"benchmarks.search: --json {flags.json}: its folder does not exist\n")
    load = os.getloadavg()[0]
    rows, questions = search_corpus.read(flags.hotpotqa)
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as name:
        summary = measure(
            rows, questions, growth=flags.growth, rounds=flags.rounds, seconds=flags.seconds,
            folder=pathlib.Path(name),
        )  # fmt: skip
    for key, value in summary.items():
        if key != "growth":
            print(f"{key} = {value:.4g}")
    print(f"{_processor()}, {os.cpu_count()} cores, load before {load:.1f}")
    if flags.json:
        record = {
            "summary": summary, "processor": _processor(), "cores": os.cpu_count(),
            "python": platform.python_version(), "load_before": load,
        }  # fmt: skip
        flags.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
