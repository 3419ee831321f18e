"""From random weights to OTC-GRPO on a laptop: pretraining, cold start, GRPO and OTC-GRPO, then a table.

  python -m experiments.quickstart [--workdir runs/quickstart] [--seed 0] [--problems 400]
      [--steps 20] [--gin_param 'Schedule.samples = 4']

`--steps` shortens every stage: a look at the machinery, whose policies are worth nothing yet. Ctrl-C is safe: the same command resumes from the last checkpoint and ends in the same numbers.

WORKDIR/results.json (and --json PATH) hold {"variants": {"cold_start"|"grpo"|"otc_grpo": {"greedy"|
"sampled": {"accuracy", "accuracy_stderr", "tool_calls", "tool_calls_stderr", "tool_productivity" (null
without calls), "problems", "answers", "lost", "levels": {level: the same}}}}, "otc_against_grpo": {"greedy"|
"sampled": {"questions", "questions_left_out", "calls_cut", "accuracy_difference_points",
"accuracy_difference_points_stderr", "productivity_gain"}}, "seed"}. WORKDIR/report.html shows curves and trajectories.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import launch

if TYPE_CHECKING:  # imported where they are used: the flags need no jax
    from jaxtool.study.compare import Comparison
    from jaxtool.train.rl_config import RlConfig
    from jaxtool.train.sft_loop import SftRunConfig

CONFIGS = Path(__file__).resolve().parent.parent / "gin_configs" / "runs"
STAGES = ("pretrain", "cold_start", "grpo", "otc_grpo")
PARENTS = {"cold_start": "pretrain", "grpo": "cold_start", "otc_grpo": "cold_start"}
VARIANTS = ("cold_start", "grpo", "otc_grpo")
TEST_PROBLEMS = 400


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--workdir", type=Path, default=Path("runs/quickstart"))
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--steps", type=int, help="of every stage, in place of its own")
    flags.add_argument(
        "--gin_param",
        action="append",
        default=[],
        help="a binding of the two stages with rollouts and of the test, may be repeated",
    )
    flags.add_argument("--problems", type=int, default=TEST_PROBLEMS, help="questions of the test")
    launch.add_json_flag(flags, "write results.json here as well")
    return flags


def main() -> None:
    arguments = parser().parse_args()
    from jaxtool.core.files import write_text
    from jaxtool.study import compare
    from jaxtool.tools.local_server import start_local_server
    from jaxtool.train.rl_config import RlConfig

    started = time.monotonic()
    configs = _configs(arguments)
    tested = configs["otc_grpo"]
    assert isinstance(tested, RlConfig)
    with start_local_server() as address:
        policies = _train(arguments, configs, address)
        print(f"test: {arguments.problems} questions that no stage has seen", flush=True)
        comparison = compare.compare(
            tested,
            {variant: policies[variant] for variant in VARIANTS},
            problems=arguments.problems,
            seed=arguments.seed,
            sandbox_addresses=(address,),
        )
    both = {
        way: compare.paired(comparison.variants["otc_grpo"][way], comparison.variants["grpo"][way])
        for way in compare.SAMPLINGS
    }
    results = comparison.as_json() | {"otc_against_grpo": both, "seed": arguments.seed}
    text = json.dumps(results, indent=1)
    for path in filter(None, (arguments.workdir / "results.json", arguments.json)):
        write_text(path, text)
    compare.print_tables(comparison)
    compare.check_rests_on_enough(comparison)
    report = _report(arguments, configs, comparison, both)
    print(f"report {report}\n{time.monotonic() - started:.0f} s in this process")


def _configs(arguments: argparse.Namespace) -> dict[str, SftRunConfig | RlConfig]:
    """The configuration of each stage; everything that is wrong with the flags is found here."""
    from jaxtool.study.fewer_steps import steps_bindings
    from jaxtool.train.rl_config import RlConfig
    from jaxtool.train.run_files import load_run, run_target

    configs = {}
    for stage in STAGES:
        file = CONFIGS / f"quickstart_{stage}.gin"
        params = list(arguments.gin_param) if run_target(file) is RlConfig else []
        if arguments.steps is not None:
            params += steps_bindings([file], params, arguments.steps)
        configs[stage] = load_run([file], params)
    return configs


def _train(
    arguments: argparse.Namespace, configs: dict[str, SftRunConfig | RlConfig], address: str
) -> dict[str, Path]:
    """Runs the stages; returns the directory of each one's policy."""
    from jaxtool.train import rl_loop, sft_loop

    policies: dict[str, Path] = {}
    for number, stage in enumerate(STAGES, start=1):
        print(f"[{number}/{len(STAGES)}] {stage}", flush=True)
        config, parent = configs[stage], PARENTS.get(stage)
        flags = {
            "workdir": arguments.workdir / stage,
            "seed": arguments.seed,
            "init_from": policies[parent] if parent else None,
        }
        if isinstance(config, sft_loop.SftRunConfig):
            policies[stage] = sft_loop.train(config, **flags)
        else:
            policies[stage] = rl_loop.train(config, sandbox_addresses=(address,), **flags)
    return policies


def _report(
    arguments: argparse.Namespace,
    configs: dict[str, SftRunConfig | RlConfig],
    comparison: Comparison,
    both: dict[str, dict[str, float | None]],
) -> Path:
    """Prints what OTC-GRPO changes, and writes the page."""
    from jaxtool.config import loader
    from jaxtool.report import page
    from jaxtool.rundir.metrics import read_metrics
    from jaxtool.rundir.trajectory_log import read_trajectories
    from jaxtool.study import compare

    workdirs = {stage: arguments.workdir / stage for stage in STAGES}
    headlines = []
    for way, change in both.items():
        cut, gap = change["calls_cut"], change["accuracy_difference_points"]
        error = change["accuracy_difference_points_stderr"]
        shown = "no calls to cut" if cut is None else f"{100 * cut:.0f} % fewer calls"
        accuracy = f"accuracy {gap:+.1f} ± {error:.1f} points"
        if change["questions_left_out"]:
            accuracy += f", on the {change['questions']} questions of which both have the answer"
        print(f"OTC-GRPO against GRPO, {way}: {shown}, {accuracy}")
        headlines.append(
            page.Headline(
                label=f"OTC-GRPO against GRPO, {way}",
                value=shown,
                note=accuracy,
            )
        )
    return page.write_report(
        arguments.workdir / "report.html",
        compare.comparison_report(
            comparison,
            title="jaxtool quickstart",
            subtitle=f"seed {arguments.seed}, {arguments.problems} test questions",
            headlines=headlines,
            metrics={stage: read_metrics(workdirs[stage] / "metrics.jsonl") for stage in STAGES},
            views=[
                view
                for stage in ("grpo", "otc_grpo")
                for view in read_trajectories(workdirs[stage] / "trajectories.jsonl")
            ],
            config="\n\n".join(
                f"# {stage}\n{loader.operative_config(config)}" for stage, config in configs.items()
            ),
        ),
    )


if __name__ == "__main__":
    launch.run(main)
