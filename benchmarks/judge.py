"""Speed and memory of the mathematical judge on hostile answers, and on ordinary ones.

Run: python -m benchmarks.judge [--answers 10000] [--json out.json]   (a minute)

Hostile answers are written to cost time: towers of powers, factorials, deep brackets, long lists, sums and
integrals, digits without end, with fresh numbers in each, against references of every kind. One reference
in ten is not in our grammar, so that its answers may go to math-verify. Ordinary answers are spellings of
numbers, formulas, tuples and intervals. Memory is the largest sum of resident sets of this process and its
workers, seen twice a second. Not covered: the time to start a worker (1 s of CPU, once).
"""

import argparse
import json
import os
import platform
import random
import threading
import time
from pathlib import Path

from jaxtool.cli import entry
from jaxtool.core.types import Problem
from jaxtool.judges.base import Case
from jaxtool.judges.mathematics import Mathematics

REFERENCES = (
    "7", r"\frac{3}{2}", "x", "x^2+2x+1", "12\\pi", "(1,2)", r"\{1,2,3\}", r"(-\infty,2)\cup(3,\infty)",
    "3x-y+13=0", r"\vec{x}+\overline{y}",
)  # fmt: skip
ORDINARY = (
    ("{n}", "{n}"), ("{n}.0", "{n}"), (r"x=\frac{{{n}}}{{7}}", r"\frac{{{n}}}{{7}}"), (r"{n}\text{{ cm}}", "{n}"),
    ("sqrt({n})/2", r"\frac{{\sqrt{{{n}}}}}{{2}}"), ("({n}, 2)", "({n},2)"), ("x + {n}", "{n}+x"),
    (r"x \ge {n}", r"[{n},\infty)"), ("2*pi*{n}", r"{n}\cdot 2\pi"), ("{n}", "{n}1"),
)  # fmt: skip


def hostile(draw: random.Random) -> str:
    """One answer that is meant to cost time."""
    n, m, k = draw.randint(2, 9), draw.randint(1000, 9999), draw.randint(20, 90)
    return draw.choice(
        (
            lambda: f"{n}^{n}^{n}^{n}",
            lambda: f"x^{{{n}^{{{n}^{{{n}}}}}}}",
            lambda: f"{m}!!+{m}!",
            lambda: "+".join(f"{m - i}!" for i in range(k // 2)),
            lambda: "(" * k * 3 + "x" + ")" * k * 3,
            lambda: r"\frac{1}{" * k + "x" + "}" * k,
            lambda: rf"\sum_{{k=1}}^{{{m}}} k^k",
            lambda: rf"\int_0^{{{m}}} e^{{-x^x}} dx",
            lambda: "x" * m * 2,
            lambda: "9" * m,
            lambda: f"(x+{n})^{{{m}00}}",
            lambda: "*".join(f"sin(x^{i}+10^{{-{m}}})" for i in range(1, k // 3)),
            lambda: f"2^{{{m}{m}{m}}}+1",
            lambda: ",".join(str(i * n) for i in range(k)),
            lambda: r"\sqrt{" * (k // 4) + "x" + "}" * (k // 4),
            lambda: rf"\binom{{{m}}}{{{m // 2}}}+\binom{{x}}{{{n}}}",
            lambda: f"e^{{e^{{e^{{{n}x}}}}}}",
            lambda: rf"\vec{{x}}^{{{n}}}+\overline{{y}}(x+{n})^{{{k}}}",
            lambda: r"\pm 1" * (k // 2),
            lambda: f"log({'log(' * (k // 5)}x{')' * (k // 5)})",
            lambda: "-" * k + f"{m}",
            lambda: f"n!*(n+{n})!*binomial(n,{n})",
            lambda: "{" * k + "}" * k,
            lambda: f"1e{m}{m}",
        )
    )()


def resident_bytes(root: int) -> int:
    """Of a process and all below it."""
    parents: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(stat[1]), []).append(int(folder.name))
            sizes[int(folder.name)] = int(stat[21]) * os.sysconf("SC_PAGE_SIZE")
    total, pending = 0, [root]
    while pending:
        process = pending.pop()
        total += sizes.get(process, 0)
        pending += parents.get(process, [])
    return total


def measure(cases: list[Case], num_workers: int) -> dict[str, float]:
    """Rates and costs of one judge over all cases, in batches of 256 as a step has."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            most[0] = max(most[0], resident_bytes(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    right, longest_s, start = 0, 0.0, time.perf_counter()
    with Mathematics(num_workers=num_workers).open() as judge:
        judge.pool.ask([("x", "x")] * num_workers)  # the start is not measured
        start, cpu = time.perf_counter(), time.process_time()
        for i in range(0, len(cases), 256):
            before = time.perf_counter()
            right += sum(v is not None and v.is_correct for v in judge.judge(cases[i : i + 256]))
            longest_s = max(longest_s, time.perf_counter() - before)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        counts = judge.counts
    done.set()
    watcher.join()
    return {
        "answers": len(cases),
        "per_second": len(cases) / wall,
        "parent_cpu_ms": 1000 * cpu / len(cases),
        "right": right,
        "by_math_verify": counts.by_math_verify,
        "timed_out": counts.timed_out,
        "failed": counts.failed,
        "longest_batch_s": longest_s,
        "peak_mib": most[0] / 2**20,
    }


def case(reference: str, answer: str) -> Case:
    problem = Problem(problem_id="benchmark", question="", answer=reference)
    return Case(problem=problem, answer=answer, response=answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    entry.add_json_flag(parser, "write the figures here as well")
    args = parser.parse_args()
    draw = random.Random(0)
    kinds = {
        "hostile": [case(draw.choice(REFERENCES), hostile(draw)) for _ in range(args.answers)],
        "ordinary": [
            case(reference.format(n=n), answer.format(n=n))
            for n in range(2, args.answers // 10 + 2)
            for answer, reference in ORDINARY
        ],
    }
    results = {kind: measure(cases, args.workers) for kind, cases in kinds.items()}
    for kind, row in results.items():
        print(kind, *(f"{name} {value:.5g}" for name, value in row.items()), sep="  ")
    if args.json:
        record = {"machine": platform.processor() or platform.machine(), "results": results}
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
