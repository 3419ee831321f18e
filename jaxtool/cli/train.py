"""Runs one gin file: a cold start or an RL run. A second start with the same flags resumes it.

  python -m experiments.train --gin_file gin_configs/runs/quickstart_grpo.gin --workdir runs/grpo \
      --init_from runs/cold_start/policy --gin_param 'Schedule.steps = 20'

--steps N with more steps than a finished run has made goes on with it; docs/runs.md says what else may change on a
resume, and what --log sends to a tracker.

--data NAME[=FILE] takes the problems of a file or of the hub; several of them are a mixture, whose weights --mix says
(docs/data.md). --init_from names weights, see
docs/weights.md.

--print_config prints the composed run as gin, each value with the file and line that set it, and ends. --dry_run does
everything up to the first step, reads no weights, writes no work directory, and ends with 0 or 1. Neither needs --workdir.

--json PATH writes {"policy": directory of the saved policy, "workdir", "seed", "seconds": of this process, "last": the
last row of metrics.jsonl}; with --print_config {"target": what is built, "values": {name: {"value": as gin, "from": place
or "default"}}}; with --dry_run {"is_ok", "error": null or the line that says what is wrong, "seconds", "checks": [{"name",
"text", "tokens": null or [[text, "prompt"|"policy"|"tool"]]}]}.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from jaxtool.cli import entry


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_gin_flags(parser, "run file, see gin_configs/README.md")
    parser.add_argument("--workdir", type=entry.local_path, help="directory of this run")
    parser.add_argument(
        "--steps", type=int, help="of the run; more than it has made: it goes on (docs/runs.md)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--init_from",
        type=entry.weights_name,
        help="weights in place of the run's: a run such as runs/mine, a step such as runs/mine@100, a Hugging Face "
        "directory, a .gguf file, or org/name on the hub",
    )
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )
    parser.add_argument(
        "--search", action="append", default=[], help="address of a running search server"
    )
    entry.add_training_data_flags(parser)
    entry.add_tool_flag(parser)
    entry.add_log_flag(parser)
    parser.add_argument(
        "--trace",
        action="store_true",
        help="write WORKDIR/trace.json.gz, a time line for ui.perfetto.dev; see docs/runs.md",
    )
    entry.add_json_flag(parser, "write the figures here as well")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--print_config", action="store_true", help="print the composed run and end")
    only.add_argument("--dry_run", action="store_true", help="check all but the steps and end")
    entry.add_host_flags(parser)
    arguments = parser.parse_args()
    if arguments.print_config and (arguments.tool or arguments.mcp):
        parser.error(
            "--print_config shows gin files: bind Function.call or Mcp.command there, in place of "
            "--tool and --mcp"
        )
    if arguments.print_config and (arguments.data or arguments.mix):
        parser.error(
            "--print_config shows gin files: bind ProblemFile or Mixture there, in place of --data and --mix"
        )
    if arguments.trace and (arguments.print_config or arguments.dry_run):
        parser.error("--trace: no step is made with --print_config and --dry_run")
    if arguments.workdir is None and not (arguments.print_config or arguments.dry_run):
        parser.error("--workdir is required but with --print_config and --dry_run")
    return arguments


def print_config(arguments: argparse.Namespace) -> None:
    from jaxtool.train import run_files

    params = run_files.steps_params(arguments.gin_file, arguments.gin_param, arguments.steps)
    found = run_files.list_run(arguments.gin_file, params)
    print(found.text, end="")
    target = type(found.config)
    values = {name: {"value": one.value, "from": one.origin} for name, one in found.values.items()}
    named = f"{target.__module__}.{target.__qualname__}"
    _write(arguments.json, {"target": named, "values": values})


def dry_run(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from jaxtool.train import dry_run

    started, checks, error = time.monotonic(), [], None
    try:
        for check in dry_run.dry_run(
            _load(arguments)[0],
            seed=arguments.seed,
            init_from=arguments.init_from,
            sandbox_addresses=tuple(arguments.sandbox),
            search_addresses=tuple(arguments.search),
        ):
            dry_run.print_check(check, Console())
            checks.append(check)
    except Exception as caught:
        error = str(caught)
        raise
    finally:
        seconds = time.monotonic() - started
        rows = [dry_run.as_row(check) for check in checks]
        record = {"is_ok": error is None, "error": error, "seconds": seconds, "checks": rows}
        _write(arguments.json, record)
    print(f"all right: {len(checks)} checks in {seconds:.1f} s; no weights read, nothing compiled")


def _load(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The run with --steps, --data, --tool and --mcp, and what is known of its origin."""
    from jaxtool.train import run_data, run_files, run_tools, sft_loop

    params = run_files.steps_params(arguments.gin_file, arguments.gin_param, arguments.steps)
    trackers = entry.trackers_of(arguments)
    config, launched = run_files.launched_run(arguments.gin_file, params, trackers)
    if isinstance(config, sft_loop.SftRunConfig):
        if arguments.tool or arguments.mcp:
            raise ValueError("--tool, --mcp: a cold start calls no tools; give them to the RL run")
        if arguments.data or arguments.mix:
            raise ValueError(
                "--data: a cold start learns from demonstrations: bind DemonstrationFile.path, by --gin_param "
                "for one"
            )
        return config, launched
    config = run_data.with_data(config, arguments.data, arguments.mix)
    return run_tools.with_functions(config, arguments.tool, arguments.mcp), launched


def _write(path: Path | None, record: dict[str, Any]) -> None:
    if path is not None:
        from jaxtool.core.files import write_text

        write_text(path, json.dumps(record, indent=1))


def main() -> None:
    arguments = parse()
    if arguments.print_config:
        print_config(arguments)
        return
    entry.join_hosts(arguments)
    if arguments.dry_run:
        dry_run(arguments)
        return
    train(arguments)


def train(arguments: argparse.Namespace) -> None:
    from jaxtool.parallel import hosts
    from jaxtool.report.replacing import write_beside_richer
    from jaxtool.report.run_page import report_of_workdir
    from jaxtool.rundir.metrics import read_metrics
    from jaxtool.rundir.trace import TRACE
    from jaxtool.rundir.trackers.opening import log_outcome
    from jaxtool.train import rl_loop, sft_loop

    started = time.monotonic()
    config, launched = _load(arguments)
    launched = dataclasses.replace(launched, traces=arguments.trace)
    flags = {
        "workdir": arguments.workdir,
        "seed": arguments.seed,
        "init_from": arguments.init_from,
        "launch": launched,
    }
    if isinstance(config, sft_loop.SftRunConfig):
        policy = sft_loop.train(config, **flags)
    else:
        policy = rl_loop.train(
            config,
            sandbox_addresses=tuple(arguments.sandbox),
            search_addresses=tuple(arguments.search),
            **flags,
        )
    if not hosts.is_first():
        return
    page = arguments.workdir / "report.html"
    report = write_beside_richer(page, report_of_workdir(arguments.workdir))
    print(f"policy {policy}\nreport {report}")
    if arguments.trace:
        print(f"trace {arguments.workdir / TRACE}: open it in https://ui.perfetto.dev")
    log_outcome(launched.trackers, arguments.workdir, report)
    rows = read_metrics(arguments.workdir / "metrics.jsonl")
    record = {
        "policy": str(policy),
        "workdir": str(arguments.workdir),
        "seed": arguments.seed,
        "seconds": time.monotonic() - started,
        "last": rows[-1] if rows else {},
    }
    _write(arguments.json, record)


if __name__ == "__main__":
    entry.run(main)
