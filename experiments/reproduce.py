"""The study: text-only RL, cold start, ReTool, ToRL and OTC-PO on a task with a known optimum, over seeds.

  python -m experiments.reproduce [--workdir runs/study] [--seeds 0,1,2] [--set default|ablations|all]
      [--arms retool_grpo,otc_grpo] [--jobs 2] [--split test|validation] [--json PATH]

Ctrl-C is safe: the same command skips what is done and goes on. `--arms` names arms of any set, and
adds those that they start from. WORKDIR/results.json (and --json PATH), tables.md and report.html hold
the figures of the arms asked for: {"summary": see `study_results.summary`, "arms": {arm: {"greedy"|
"sampled": {figure: {"mean", "stderr", "seeds"}}, "levels", "mental_accuracy", "optimal_calls",
"training"}}, "paired", "curves", "matched_tokens", "how": {"command", "commit", "machine", "seconds"}}.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from pathlib import Path

from experiments import launch


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", default="0,1,2", help="numbers with commas between them")
    parser.add_argument("--set", choices=("default", "ablations", "all"), default="default")
    parser.add_argument("--arms", default="", help="arms in place of a set, with commas")
    parser.add_argument("--jobs", type=int, help="processes side by side; one for each core")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--problems", type=int, default=600, help="held-out questions of each seed")
    parser.add_argument("--json", type=Path, help="write results.json here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from jaxtool.run import report, study, study_arms, study_report, study_results
    from jaxtool.run.config_record import git_commit
    from jaxtool.run.job_pool import usable_cores

    started = time.monotonic()
    try:
        seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    except ValueError:
        raise ValueError(f"--seeds {arguments.seeds!r} must be numbers such as 0,1,2") from None
    names = [name for name in arguments.arms.split(",") if name]
    plan = study.Study(
        workdir=arguments.workdir,
        arms=tuple(study_arms.select(names, arguments.set)),
        seeds=seeds,
        split=arguments.split,
        problems=arguments.problems,
    )
    jobs = arguments.jobs or len(usable_cores())
    study.run(plan, jobs=jobs, report=lambda line: print(line, flush=True))
    found = study_results.results(plan)
    found["how"] = {
        "command": shlex.join(["python", "-m", "experiments.reproduce", *sys.argv[1:]]),
        "commit": git_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "jobs": jobs,
        "seconds": round(time.monotonic() - started),
    }
    text = json.dumps(found, indent=1)
    for path in filter(None, (arguments.workdir / "results.json", arguments.json)):
        path.write_text(text, encoding="utf-8")
    (arguments.workdir / "tables.md").write_text(study_report.markdown(found), encoding="utf-8")
    study_report.print_tables(found)
    page = report.write_report(
        arguments.workdir / "report.html", study_report.study_report(found, "jaxtool study")
    )
    print(f"{json.dumps(found['summary'], indent=1)}\nreport {page}\n{found['how']['seconds']} s")


if __name__ == "__main__":
    launch.run(main)
