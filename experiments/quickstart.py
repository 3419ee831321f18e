"""From random weights to OTC-GRPO on a laptop: pretraining, cold start, GRPO and OTC-GRPO, then a table.

  python -m experiments.quickstart [--workdir runs/quickstart] [--seed 0] [--problems 400]
      [--steps 20] [--gin_param 'Schedule.samples = 4']

`--steps` shortens every stage: a look at the machinery, whose policies are worth nothing yet. Ctrl-C is safe: the same command resumes from the last checkpoint and ends in the same numbers.
It ends with what OTC-GRPO changes against GRPO, against the cold start, and against the calls that the questions need.
That is one draw: another seed, processor or version ends elsewhere (docs/experiments.md, docs/reproducibility.md).

WORKDIR/results.json (and --json PATH) hold {"variants": {"cold_start"|"grpo"|"otc_grpo": {"greedy"|
"sampled": {"accuracy", "accuracy_stderr", "tool_calls", "tool_calls_stderr", "tool_productivity" (null
without calls), "problems", "answers", "lost", "levels": {level: the same}}}}, "otc_against_grpo": {"greedy"|
"sampled": {"questions", "questions_left_out", "calls_cut", "calls_difference", "calls_difference_stderr",
"accuracy_difference_points", "accuracy_difference_points_stderr", "productivity_gain"}}, "otc_against_cold_start" and
"grpo_against_cold_start": the same, "calls_needed" an answer, "seed"}. WORKDIR/report.html shows curves and trajectories.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import launch

if TYPE_CHECKING:  # imported where they are used: the flags need no jax
    from jaxtool.rundir.run_start import Launch
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
    from jaxtool.study import closing, compare
    from jaxtool.tools.local_server import start_local_server
    from jaxtool.train.rl_config import RlConfig

    started = time.monotonic()
    runs = _configs(arguments)
    configs = {stage: config for stage, (config, _) in runs.items()}
    tested = configs["otc_grpo"]
    assert isinstance(tested, RlConfig)
    with start_local_server() as address:
        policies = _train(arguments, runs, address)
        print(f"test: {arguments.problems} questions that no stage has seen", flush=True)
        comparison = compare.compare(
            tested,
            {variant: policies[variant] for variant in VARIANTS},
            problems=arguments.problems,
            seed=arguments.seed,
            sandbox_addresses=(address,),
        )
    results = (
        comparison.as_json()
        | {
            closing.key(new, old): {
                way: compare.paired(comparison.variants[new][way], comparison.variants[old][way])
                for way in compare.SAMPLINGS
            }
            for new, old in closing.AGAINST
        }
        | {
            "calls_needed": closing.needed(comparison.variants["otc_grpo"]["greedy"].as_json()),
            "seed": arguments.seed,
        }
    )
    text = json.dumps(results, indent=1)
    for path in filter(None, (arguments.workdir / "results.json", arguments.json)):
        write_text(path, text)
    compare.print_tables(comparison)
    compare.check_rests_on_enough(comparison)
    print("\n".join(closing.statements(results)))
    report = _report(arguments, configs, comparison, results)
    print(f"report {report}\n{time.monotonic() - started:.0f} s in this process")


def _configs(arguments: argparse.Namespace) -> dict[str, tuple[SftRunConfig | RlConfig, Launch]]:
    """The run of each stage; everything that is wrong with the flags is found here."""
    from jaxtool.study.fewer_steps import steps_bindings
    from jaxtool.train.rl_config import RlConfig
    from jaxtool.train.run_files import launched_run, run_target

    configs = {}
    for stage in STAGES:
        file = CONFIGS / f"quickstart_{stage}.gin"
        params = list(arguments.gin_param) if run_target(file) is RlConfig else []
        if arguments.steps is not None:
            params += steps_bindings([file], params, arguments.steps)
        configs[stage] = launched_run([file], params)
    return configs


def _train(
    arguments: argparse.Namespace,
    runs: dict[str, tuple[SftRunConfig | RlConfig, Launch]],
    address: str,
) -> dict[str, Path]:
    """Runs the stages; returns the directory of each one's policy."""
    from jaxtool.train import rl_loop, sft_loop

    policies: dict[str, Path] = {}
    for number, stage in enumerate(STAGES, start=1):
        print(f"[{number}/{len(STAGES)}] {stage}", flush=True)
        (config, launched), parent = runs[stage], PARENTS.get(stage)
        flags = {
            "workdir": arguments.workdir / stage,
            "seed": arguments.seed,
            "init_from": policies[parent] if parent else None,
            "launch": launched,
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
    results: dict[str, Any],
) -> Path:
    """Writes the page."""
    from jaxtool.config import loader
    from jaxtool.report import page
    from jaxtool.rundir.metrics import read_metrics
    from jaxtool.rundir.trajectory_log import read_trajectories
    from jaxtool.study import closing, compare

    workdirs = {stage: arguments.workdir / stage for stage in STAGES}
    headlines = []
    for old in ("grpo", "cold_start"):
        for way in compare.SAMPLINGS:
            value, note = closing.change(results[closing.key("otc_grpo", old)][way])
            label = f"OTC-GRPO against {closing.NAMES[old]}, {way}"
            headlines.append(page.Headline(label=label, value=value, note=note))
    return page.write_report(
        arguments.workdir / "report.html",
        compare.comparison_report(
            comparison,
            title="jaxtool quickstart",
            subtitle=f"seed {arguments.seed}, {arguments.problems} test questions, which need "
            f"{results['calls_needed']:.2f} calls each. {closing.ONE_DRAW}",
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
