"""Runs one gin file: a cold start or an RL run. A second start with the same flags goes on.

  python -m experiments.train --gin_file gin_configs/runs/quickstart_grpo.gin --workdir runs/grpo \
      --init_from runs/cold_start/policy --gin_param 'Schedule.steps = 20'

--json PATH writes {"policy": directory of the saved policy, "workdir", "seed", "seconds": of this
process, "last": the last row of metrics.jsonl}.
"""

import argparse
import json
import time
from pathlib import Path

from experiments import launch


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gin_file",
        action="append",
        required=True,
        help="run file, see gin_configs/README.md; further ones are overlays: they win over it",
    )
    parser.add_argument(
        "--gin_param", action="append", default=[], help="one binding, may be repeated"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="directory of this run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init_from", type=Path, help="`policy` directory of an earlier run")
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    launch.add_host_flags(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    launch.join_hosts(arguments)
    from jaxtool.config import loader
    from jaxtool.parallel import hosts
    from jaxtool.report.page import report_of_workdir, write_report
    from jaxtool.rundir.metrics import read_metrics
    from jaxtool.train import rl_config, rl_loop, sft_loop

    started = time.monotonic()
    config = loader.load(
        loader.target_of(arguments.gin_file[0]),
        files=arguments.gin_file,
        params=arguments.gin_param,
    )
    flags = {
        "workdir": arguments.workdir,
        "seed": arguments.seed,
        "init_from": arguments.init_from,
    }
    if hosts.is_first() and not (arguments.workdir / "operative_config.gin").exists():
        loader.write_operative_config(arguments.workdir, config)
    if isinstance(config, sft_loop.SftRunConfig):
        policy = sft_loop.train(config, **flags)
    elif isinstance(config, rl_config.RlConfig):
        policy = rl_loop.train(config, sandbox_addresses=tuple(arguments.sandbox), **flags)
    else:
        raise ValueError(
            f"{arguments.gin_file[0]} builds a {type(config).__name__}, which is no run"
        )
    if not hosts.is_first():
        return
    report = write_report(arguments.workdir / "report.html", report_of_workdir(arguments.workdir))
    print(f"policy {policy}\nreport {report}")
    if arguments.json:
        rows = read_metrics(arguments.workdir / "metrics.jsonl")
        record = {
            "policy": str(policy),
            "workdir": str(arguments.workdir),
            "seed": arguments.seed,
            "seconds": time.monotonic() - started,
            "last": rows[-1] if rows else {},
        }
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    launch.run(main)
