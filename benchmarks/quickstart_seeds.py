"""The quickstart over seeds: one row for each seed, processor and set of versions, and what varies between them.

One quickstart is one draw. This runs `python -m experiments.quickstart --seed N` for many seeds, each in a process of
its own, and appends a row a seed to a JSONL file: {"seed", "python", "jax", "processor", "cores", "commit", "seconds",
"figures"}. A row with the same first five is not run again, and a quickstart that was stopped resumes in its
directory, so the same command goes on after Ctrl-C. `--python` names the interpreter that runs them, for other
versions. `--jobs 2 --one_core` runs two at a time, each bound to one core. The table has one part for each processor
and set of versions, with mean, t-interval, standard deviation over seeds, least and most.

Covered: accuracy and calls of each variant, calls against GRPO, against the cold start and against the calls that the
questions need. Not covered: why they vary.

Run: python -m benchmarks.quickstart_seeds --seeds 0-14   (four to seven minutes a seed on two cores)
     python -m benchmarks.quickstart_seeds --seeds none --json table.json   (the table of the rows that exist)
"""

import argparse
import concurrent.futures
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.cli import entry
from jaxtool.study.closing import key as key_of_pair
from jaxtool.study.closing import needed
from jaxtool.study.intervals import t_interval
from jaxtool.study.job_pool import usable_cores

ROOT = Path(__file__).resolve().parent.parent
KEY = ("seed", "python", "jax", "processor", "cores")
WHERE = KEY[1:]
VARIANTS = ("cold_start", "grpo", "otc_grpo")
SAMPLINGS = ("greedy", "sampled")
_ASK_VERSIONS = (
    "import importlib.metadata as m, json, platform;"
    "print(json.dumps({'python': platform.python_version(), 'jax': m.version('jax')}))"
)
Row = dict[str, Any]


def seeds_of(text: str) -> list[int]:
    """`0-4,7` is 0, 1, 2, 3, 4, 7; `none` is no seed.

    Raises:
      ValueError: it is neither.
    """
    if text == "none":
        return []
    found = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if (
            not first.isdigit()
            or (dash and not last.isdigit())
            or (dash and int(last) < int(first))
        ):
            raise ValueError(f"--seeds {text}: {part!r} is neither a seed nor a range such as 0-14")
        found += range(int(first), int(last or first) + 1)
    return sorted(set(found))


def figures_of(results: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a row, out of a quickstart's results.json.

    `calls_cut` are shares of the calls of the other side, None where it makes none.
    """
    variants = results["variants"]
    found: dict[str, float | None] = {}
    for way in SAMPLINGS:
        for name in VARIANTS:
            found[f"{way}/{name}/accuracy"] = variants[name][way]["accuracy"]
            found[f"{way}/{name}/tool_calls"] = variants[name][way]["tool_calls"]
        for old in ("grpo", "cold_start"):
            pair = results[key_of_pair("otc_grpo", old)][way]
            found[f"{way}/otc_grpo/calls_cut_against_{old}"] = pair["calls_cut"]
            found[f"{way}/otc_grpo/points_against_{old}"] = pair["accuracy_difference_points"]
        least = needed(variants["otc_grpo"][way])
        calls = variants["otc_grpo"][way]["tool_calls"]
        found[f"{way}/otc_grpo/calls_beyond_needed"] = calls - least
    return found


def read_rows(file: Path) -> list[Row]:
    """The rows of a file; none if there is no file.

    Raises:
      ValueError: naming file and line of what is no row.
    """
    rows: list[Row] = []
    text = file.read_text("utf-8") if file.exists() else ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not {*KEY, "figures"} <= set(row):
            raise ValueError(f"{file}:{number} is no row of this benchmark; delete the line")
        rows.append(row)
    return rows


def missing(seeds: Sequence[int], where: Mapping[str, Any], rows: Sequence[Row]) -> list[int]:
    """Seeds that have no row on this processor with these versions and cores."""
    known = {tuple(row[name] for name in KEY) for row in rows}
    return [seed for seed in seeds if (seed, *(where[name] for name in WHERE)) not in known]


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """`{"python", "jax", "processor", "cores", "commits", "seeds", "figures": {name: spread}}`, one for each place."""
    places: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        places.setdefault(tuple(row[name] for name in WHERE), []).append(row)
    return [
        dict(zip(WHERE, place, strict=True))
        | {
            "commits": sorted({row["commit"] for row in own}),
            "seeds": sorted(row["seed"] for row in own),
            "figures": {
                name: spread([row["figures"][name] for row in own]) for name in own[0]["figures"]
            },
        }
        for place, own in places.items()
    ]


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, t-interval, standard deviation, least and most; what one value does not have is None."""
    known = [value for value in values if value is not None]
    found: dict[str, Any] = {"count": len(known)}
    found |= dict.fromkeys(("mean", "low", "high", "deviation", "least", "most"))
    if not known:
        return found
    mean = sum(known) / len(known)
    found |= {"mean": mean, "least": min(known), "most": max(known)}
    if len(known) > 1:
        interval = t_interval(known)
        squares = sum((value - mean) ** 2 for value in known)
        deviation = (squares / (len(known) - 1)) ** 0.5
        found |= {"low": interval.low, "high": interval.high, "deviation": deviation}
    return found


def markdown(places: Sequence[Mapping[str, Any]]) -> str:
    """The table as it stands in docs/experiments.md."""
    lines: list[str] = []
    for place in places:
        seeds = ", ".join(map(str, place["seeds"]))
        lines += [
            f"**{place['processor']}, {place['cores']} cores, Python {place['python']}, jax {place['jax']}**, "
            f"seeds {seeds}, at {', '.join(commit[:7] for commit in place['commits'])}:",
            "",
            "| answers | variant | figure | mean (95 %) | standard deviation | least | most |",
            "|" + " --- |" * 7,
        ]
        for name, figure in place["figures"].items():
            scale, digits = _scale(name)

            def shown(value: float | None, scale: float = scale, digits: int = digits) -> str:
                return "–" if value is None else f"{scale * value:.{digits}f}"

            mean = shown(figure["mean"])
            if figure["low"] is not None:
                mean += f" ({shown(figure['low'])}..{shown(figure['high'])})"
            cells = [mean, *(shown(figure[part]) for part in ("deviation", "least", "most"))]
            way, variant, what = name.split("/")
            label = what.replace("_", " ") + (" %" if scale == 100 else "")
            lines.append(f"| {way} | {variant} | {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _scale(name: str) -> tuple[float, int]:
    """Factor and digits with which a figure is shown: shares in percent."""
    if "accuracy" in name or "calls_cut" in name:
        return 100, 1
    return (1, 1) if "points" in name else (1, 2)


def processor() -> str:
    """`AuthenticAMD family 25 model 17`, as /proc/cpuinfo says."""
    found = {}
    for line in Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        found[name.strip()] = value.strip()
    names = ("vendor_id", "cpu family", "model")
    if not all(name in found for name in names):
        return found.get("model name", "unknown")
    return "{} family {} model {}".format(*(found[name] for name in names))


def place_of(python: str, cores: int) -> dict[str, Any]:
    """What rows of this machine and interpreter have in common."""
    done = subprocess.run([python, "-c", _ASK_VERSIONS], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"--python {python}: {done.stderr.strip().splitlines()[-1]}")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return json.loads(done.stdout) | {
        "processor": processor(),
        "cores": cores,
        "commit": commit or "unknown",
    }


def run_seed(seed: int, where: Mapping[str, Any], python: str, folder: Path) -> Row:
    """Runs one quickstart; its row.

    Raises:
      RuntimeError: it failed; the message ends with its last lines.
    """
    workdir = folder / f"python{where['python']}_jax{where['jax']}_cores{where['cores']}_seed{seed}"
    workdir.mkdir(parents=True, exist_ok=True)
    results, started = workdir / "results.json", time.monotonic()
    flags = ("--seed", str(seed), "--workdir", str(workdir), "--json", str(results))
    done = subprocess.run(
        [python, "-m", "experiments.quickstart", *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (workdir / "output.txt").write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-5:])
        raise RuntimeError(f"seed {seed}: exit status {done.returncode}\n{last}")
    seconds = round(time.monotonic() - started, 1)
    figures = figures_of(json.loads(results.read_text("utf-8")))
    return {"seed": seed, **where, "seconds": seconds, "figures": figures}


def run_all(arguments: argparse.Namespace, where: Mapping[str, Any], seeds: Sequence[int]) -> int:
    """Appends a row for each seed; how many failed."""
    cores: queue.Queue[int] = queue.Queue()
    for core in usable_cores():
        cores.put(core)
    lock, failed = threading.Lock(), 0

    def bind() -> None:
        if arguments.one_core:  # of this thread; its child processes inherit it
            os.sched_setaffinity(0, {cores.get_nowait()})

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs, initializer=bind) as pool:
        jobs = {
            pool.submit(run_seed, seed, where, arguments.python, arguments.workdir): seed
            for seed in seeds
        }
        for job in concurrent.futures.as_completed(jobs):
            try:
                row = job.result()
            except RuntimeError as error:
                failed += 1
                print(error, flush=True)
                continue
            with lock, arguments.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"seed {row['seed']}: {row['seconds']:.0f} s", flush=True)
    return failed


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument(
        "--seeds", default="0-14", help="such as 0-14 or 0,3,5; none: the table alone"
    )
    flags.add_argument(
        "--rows",
        type=entry.local_path,
        default=Path("runs/quickstart_seeds/rows.jsonl"),
        help="file of rows",
    )
    flags.add_argument("--python", default=sys.executable, help="interpreter of the quickstarts")
    flags.add_argument("--jobs", type=int, default=1, help="quickstarts at a time")
    flags.add_argument(
        "--one_core", action="store_true", help="binds each job to a core of its own"
    )
    flags.add_argument("--workdir", type=entry.local_path, default=Path("runs/quickstart_seeds"))
    entry.add_json_flag(flags, "write the table here as well")
    return flags


def main() -> None:
    arguments = parser().parse_args()
    seeds, rows = seeds_of(arguments.seeds), read_rows(arguments.rows)
    available = len(usable_cores())
    if arguments.jobs < 1 or (arguments.one_core and arguments.jobs > available):
        raise ValueError(
            f"--jobs {arguments.jobs}: at least 1, and with --one_core at most {available}"
        )
    failed = 0
    if seeds:
        arguments.rows.parent.mkdir(parents=True, exist_ok=True)
        where = place_of(arguments.python, 1 if arguments.one_core else available)
        wanted = missing(seeds, where, rows)
        print(f"{len(seeds) - len(wanted)} of {len(seeds)} seeds have a row", flush=True)
        failed = run_all(arguments, where, wanted)
        rows = read_rows(arguments.rows)
    places = table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(places, indent=1), encoding="utf-8")
    print(markdown(places))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as problem:
        sys.exit(f"error: {problem}")
