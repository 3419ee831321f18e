"""Medians of two commits' figures of the sandbox, side by side.

  python -m benchmarks.sandbox_pairs --old old1.json old2.json ... --new new1.json new2.json ... [--json PATH]

The files are those of `python -m benchmarks.sandbox --quick --json PATH`, run in turns at the two commits.
Exit code 1 if a figure got more than 10 % worse. p99 of so short a run is the worst of few calls: it is shown,
and does not decide. Does not run anything itself.

`--json PATH` writes `old` and `new` (each `commits`, `files`), `machine`, `python`, `figures`: a list with `name`,
`unit`, `old`, `new` (medians), `worse` (share by which it got worse, negative where better), `decides`, and
`worst`, the largest `worse` of those that decide.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
from collections.abc import Iterator

ALLOWED = 0.10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of both commits: medians over their files."""

    name: str
    unit: str
    old: float
    new: float
    worse: float
    decides: bool


def worse(old: float, new: float, *, more_is_better: bool) -> float:
    """The share by which `new` is worse than `old`, of what a call costs: 0.1 for 110 ms after 100, or 10/s after 11."""
    before, after = (1 / old, 1 / new) if more_is_better else (old, new)
    return after / before - 1


def _values(run: dict) -> Iterator[tuple[str, str, float, bool, bool]]:
    """(name, unit, value, more is better, decides) of one file. Rows of the alternatives are not ours to compare."""
    for row in run["rows"]:
        if row["way"].startswith("ours"):
            name = f"{row['way']}, {row['program']}, {row['clients']} clients"
            yield name, "calls/s", row["per_second"], True, True
            yield name, "p50 ms", row["p50_ms"], False, True
            yield name, "p99 ms", row["p99_ms"], False, False
            yield name, "CPU ms", row["cpu_ms"], False, True
    for tier, extra in run["extras"].items():
        for kind, mib in extra["private_mib"].items():
            yield f"ours, {tier}, {kind}", "private MiB", mib, False, True
    for name, ratio in run["cpu_ratios"].items():
        yield name, "CPU ratio", ratio, True, "reused" not in name


def compare(old: list[dict], new: list[dict]) -> list[Figure]:
    """Figures that both have, in the order of the first file."""
    gathered: list[dict[tuple[str, str], list[float]]] = [{}, {}]
    kinds: dict[tuple[str, str], tuple[bool, bool]] = {}
    for values, runs in zip(gathered, (old, new), strict=True):
        for run in runs:
            for name, unit, value, more_is_better, decides in _values(run):
                values.setdefault((name, unit), []).append(value)
                kinds[name, unit] = more_is_better, decides
    figures = []
    for key in gathered[0]:
        if key in gathered[1]:
            before, after = (statistics.median(values[key]) for values in gathered)
            more_is_better, decides = kinds[key]
            share = worse(before, after, more_is_better=more_is_better)
            figures.append(
                Figure(
                    name=key[0], unit=key[1], old=before, new=after, worse=share, decides=decides
                )
            )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--old", nargs="+", required=True, metavar="JSON", help="files of one commit"
    )
    parser.add_argument(
        "--new", nargs="+", required=True, metavar="JSON", help="files of the other"
    )
    parser.add_argument("--json", metavar="PATH", help="also write the figures here")
    flags = parser.parse_args()
    old, new = (
        [json.loads(pathlib.Path(path).read_text("utf-8")) for path in paths]
        for paths in (flags.old, flags.new)
    )
    figures = compare(old, new)
    print(f"{'figure':48} {'unit':12} {'old':>9} {'new':>9}   worse by")
    for one in figures:
        remark = "" if one.decides else "  (does not decide)"
        print(
            f"{one.name:48} {one.unit:12} {one.old:9.2f} {one.new:9.2f} {one.worse:+9.1%}{remark}"
        )
    worst = max((one.worse for one in figures if one.decides), default=0.0)
    print(f"worst: {worst:+.1%}")
    if flags.json:
        sides = {
            side: {"commits": sorted({run["commit"] for run in runs}), "files": len(runs)}
            for side, runs in (("old", old), ("new", new))
        }
        found = sides | {
            "machine": new[0]["machine"],
            "python": new[0]["python"],
            "figures": [dataclasses.asdict(one) for one in figures],
            "worst": worst,
        }
        pathlib.Path(flags.json).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
