"""From random weights to OTC-GRPO on a laptop: base, cold start, GRPO and OTC-GRPO, then a table.

  python -m experiments.quickstart [--workdir runs/quickstart] [--seed 0]

Ctrl-C is safe: the same command goes on from the last checkpoint and ends in the same numbers.

WORKDIR/results.json (and --json PATH) hold {"variants": {"cold_start"|"grpo"|"otc_grpo": {"greedy"|
"sampled": {"accuracy", "accuracy_stderr", "tool_calls", "tool_calls_stderr", "tool_productivity" (null
without calls), "problems", "answers", "levels": {level: the same}}}}, "otc_against_grpo": {"greedy"|
"sampled": {"calls_cut", "accuracy_difference_points", "accuracy_difference_points_stderr",
"productivity_gain"}}, "seed"}. WORKDIR/report.html shows curves and trajectories.
"""

import argparse
import json
import time
from pathlib import Path

from experiments import launch

CONFIGS = Path(__file__).resolve().parent.parent / "gin_configs" / "runs"
STAGES = ("base", "cold_start", "grpo", "otc_grpo")
PARENTS = {"cold_start": "base", "grpo": "cold_start", "otc_grpo": "cold_start"}
VARIANTS = ("cold_start", "grpo", "otc_grpo")
TEST_PROBLEMS = 400


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write results.json here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from jaxtool.config import loader
    from jaxtool.report import page
    from jaxtool.rundir.metrics import read_metrics
    from jaxtool.rundir.trajectory_log import read_trajectories
    from jaxtool.study import compare
    from jaxtool.tools.local_server import start_local_server
    from jaxtool.train import rl_loop, sft_loop

    started = time.monotonic()
    configs = {}
    for stage in STAGES:
        file = CONFIGS / f"quickstart_{stage}.gin"
        configs[stage] = loader.load(loader.target_of(file), files=[file])
    workdirs = {stage: arguments.workdir / stage for stage in STAGES}
    policies: dict[str, Path] = {}
    with start_local_server() as address:
        for number, stage in enumerate(STAGES, start=1):
            print(f"[{number}/{len(STAGES)}] {stage}", flush=True)
            config, parent = configs[stage], PARENTS.get(stage)
            flags = {
                "workdir": workdirs[stage],
                "seed": arguments.seed,
                "init_from": policies[parent] if parent else None,
            }
            if isinstance(config, sft_loop.SftRunConfig):
                policies[stage] = sft_loop.train(config, **flags)
            else:
                policies[stage] = rl_loop.train(config, sandbox_addresses=(address,), **flags)
        print(f"test: {TEST_PROBLEMS} questions that no stage has seen", flush=True)
        comparison = compare.compare(
            configs["otc_grpo"],
            {variant: policies[variant] for variant in VARIANTS},
            problems=TEST_PROBLEMS,
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
        path.write_text(text)
    compare.print_tables(comparison)
    headlines = []
    for way, change in both.items():
        cut, gap = change["calls_cut"], change["accuracy_difference_points"]
        error = change["accuracy_difference_points_stderr"]
        shown = "no calls to cut" if cut is None else f"{100 * cut:.0f} % fewer calls"
        print(f"OTC-GRPO against GRPO, {way}: {shown}, accuracy {gap:+.1f} ± {error:.1f} points")
        headlines.append(
            page.Headline(
                label=f"OTC-GRPO against GRPO, {way}",
                value=shown,
                note=f"accuracy {gap:+.1f} ± {error:.1f} points",
            )
        )
    page = page.write_report(
        arguments.workdir / "report.html",
        compare.comparison_report(
            comparison,
            title="jaxtool quickstart",
            subtitle=f"seed {arguments.seed}, {TEST_PROBLEMS} test questions",
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
    print(f"report {page}\n{time.monotonic() - started:.0f} s in this process")


if __name__ == "__main__":
    launch.run(main)
