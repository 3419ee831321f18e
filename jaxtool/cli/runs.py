"""What runs have done: a table of a directory, one run whole, or where two runs differ.

  python -m experiments.runs list [runs] [--json PATH]
  python -m experiments.runs show runs/mine [--all] [--json PATH]
  python -m experiments.runs diff runs/mine runs/other [--json PATH]

A run is running while a process holds its lock; finished with the policy of its last step; failed where its last start
ended with an error; "failed checks" where no start has come to a first step; stopped otherwise: interrupted or killed.

--json of list: {"runs": [{"path", "recipe", "state", "step", "steps", "seed", "metrics": {name: last value}, "age_s",
"commit"}]}. Of show: the same keys of one run, and "settings": {path: {"name", "value", "origin"}}, "starts": [{"started",
"ended", "status", "error", "command", "directory", "files", "commit", "versions", "environment", "machine", "devices",
"steps", "from_step", "changed"}], "checkpoints": [step], "policies": [path inside the run], "last": the last row of
metrics.jsonl. Of diff: {"settings": [{"path", "name", "before": value or null, "now"}], "versions": the same}, where
"before" is the first run's value and "now" the second's.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.cli import entry

_NARROWEST = 160  # columns of a table that goes to a file


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="a line for each run")
    listed.add_argument("directory", type=entry.local_path, nargs="?", default=Path("runs"))
    shown = actions.add_parser("show", help="everything that is known of one run")
    shown.add_argument("run", type=entry.local_path, help="its work directory")
    shown.add_argument("--all", action="store_true", help="settings that are defaults, too")
    compared = actions.add_parser("diff", help="settings and versions in which two runs differ")
    compared.add_argument("run", type=entry.local_path)
    compared.add_argument("other", type=entry.local_path)
    for action in (listed, shown, compared):
        entry.add_json_flag(action, "write what is printed here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    actions = {"list": list_runs, "show": show, "diff": diff}
    record = actions[arguments.action](arguments)
    if arguments.json is not None:
        from jaxtool.core.files import write_text

        write_text(arguments.json, json.dumps(record, indent=1))


def list_runs(arguments: argparse.Namespace) -> dict[str, Any]:
    from jaxtool.rundir.run_listing import LAST_METRICS, find_runs

    runs = find_runs(arguments.directory)
    if not runs:
        print(f"no runs in {arguments.directory}")
    found = [_line(run) for run in runs]
    names = [name for name in LAST_METRICS if any(name in one["metrics"] for one in found)]
    rows = [
        [
            str(run.path.relative_to(arguments.directory)),
            one["recipe"],
            f"{one['step']}/{one['steps']}",
            one["state"],
            *(_number(one["metrics"].get(name)) for name in names),
            _age(one["age_s"]),
            one["commit"][:10] + "+" * ("uncommitted" in one["commit"]),
        ]
        for run, one in zip(runs, found, strict=True)
    ]
    if rows:
        _print_table(["run", "recipe", "steps", "state", *names, "age", "commit"], rows)
    return {"runs": found}


def show(arguments: argparse.Namespace) -> dict[str, Any]:
    import dataclasses

    from jaxtool.rundir.run_listing import checkpoints_of, policies_of, read_run

    run = read_run(arguments.run)
    line = _line(run)
    print(f"{run.path}  {line['recipe']}  {line['state']}  step {line['step']} of {line['steps']}")
    print("last: " + ", ".join(f"{name} {_number(x)}" for name, x in line["metrics"].items()))
    checkpoints, policies = checkpoints_of(run.path), policies_of(run.path)
    print(f"checkpoints: {', '.join(map(str, checkpoints)) or 'none'}")
    print(f"policies: {', '.join(policies) or 'none'}")
    for number, start in enumerate(run.record.starts, 1):
        _print_start(number, start)
    settings = run.record.settings
    shown = [s for s in settings.values() if arguments.all or s.origin or s.name.startswith("--")]
    if shown:
        print(f"settings ({len(shown)} of {len(settings)}; --all shows defaults too)")
        _print_table(["name", "value", "from"], [[s.name, s.value, s.origin] for s in shown])
    return line | {
        "settings": {path: dataclasses.asdict(one) for path, one in settings.items()},
        "starts": [dataclasses.asdict(start) for start in run.record.starts],
        "checkpoints": checkpoints,
        "policies": policies,
        "last": dict(run.last_row),
    }


def diff(arguments: argparse.Namespace) -> dict[str, Any]:
    from jaxtool.rundir.run_listing import differences, read_run

    found = differences(read_run(arguments.run), read_run(arguments.other))
    record: dict[str, Any] = {}
    for what, changed in found.items():
        record[what] = [
            {
                "path": one.path,
                "name": one.name,
                "before": None if one.before is None else one.before.value,
                "now": None if one.now is None else one.now.value,
            }
            for one in changed
        ]
        print(f"{what}: {len(changed)} differ")
        if changed:
            rows = [[one["name"], one["before"] or "-", one["now"] or "-"] for one in record[what]]
            _print_table([what, str(arguments.run), str(arguments.other)], rows)
    return record


def _line(run: Any) -> dict[str, Any]:
    seed = run.record.settings.get("seed")
    return {
        "path": str(run.path),
        "recipe": run.recipe,
        "state": run.state,
        "step": run.step,
        "steps": run.steps,
        "seed": None if seed is None else int(seed.value),
        "metrics": run.metrics,
        "age_s": round(run.age_s, 1),
        "commit": run.start.commit if run.start is not None else "",
    }


def _print_start(number: int, start: Any) -> None:
    where = f"from step {start.from_step}" if start.from_step is not None else "no step"
    print(f"start {number}: {start.started}, {where}, {start.status} {start.ended}".rstrip())
    print(f"  {start.command}")
    print(f"  commit {start.commit}")
    parts = {"devices": start.devices, "machine": start.machine, "versions": start.versions}
    for name, values in {**parts, "environment": start.environment}.items():
        if values:
            print(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in values.items()))
    for changed in start.changed:
        print(f"  changed: {changed}")
    if start.error:
        print(f"  error: {start.error}")


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=_NARROWEST)
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    entry.run(main)
