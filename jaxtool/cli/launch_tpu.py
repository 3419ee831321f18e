"""Runs a gin file on a TPU slice of Google Cloud, from an empty project to the finished policy (docs/pods.md).

  python -m experiments.launch_tpu gin_configs/runs/otc_grpo_7b_v6e_16.gin --type v6e-16 --zone us-east5-b \
      --project my-project --bucket gs://my-bucket/jaxtool --spot --dry_run

Checks first what costs nothing. Then the checkout and the composed run go into the bucket, a queued resource is asked
for, its hosts install and look at themselves, and experiments.train starts on all of them. The log is followed; a slice
that is taken away is asked for again and the run resumes; at its end the slice is given back. Ctrl-C ends the following
alone: the same command goes on with it. --dry_run prints every command of gcloud and runs none.

--json PATH writes {"name", "type", "zone", "project", "folder": in the bucket, "plan": one line, "is_dry_run",
"commands": [{"why", "command": words}] (of --dry_run, else empty), "exit_code": of the run or null, "restarts",
"is_deleted": the slice was given back}. The exit status is 1 if the run failed.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.cli import entry


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Args: words: None: those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "gin_file", nargs="+", metavar="RUN.gin", help="run file; further ones are overlays"
    )
    place = parser.add_argument_group("the slice")
    place.add_argument("--type", required=True, help="accelerator type: v6e-64, v5p-128, v5e-8")
    place.add_argument("--zone", required=True, help="such as us-east5-b")
    place.add_argument("--project", required=True, help="id of the project that pays")
    place.add_argument(
        "--bucket", required=True, help="gs://BUCKET[/FOLDER]; the run lies in a folder of its name"
    )
    place.add_argument(
        "--name", help="of the run, its folder and the slice; default: of the run file and the seed"
    )
    kind = place.add_mutually_exclusive_group()
    kind.add_argument("--spot", action="store_true", help="cheap, and taken away at any time")
    kind.add_argument("--reserved", action="store_true", help="of a reservation of the project")
    place.add_argument("--service_account", help="of the hosts; default: that of Compute Engine")
    run = parser.add_argument_group("the run", "as experiments.train has them")
    run.add_argument(
        "--gin_param", action="append", default=[], help="one binding, may be repeated"
    )
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--steps", type=int, help="of the run")
    run.add_argument(
        "--init_from",
        help="weights in place of the run's: gs://BUCKET/PATH, or org/name on the hub",
    )
    run.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )
    run.add_argument(
        "--search", action="append", default=[], help="address of a running search server"
    )
    entry.add_training_data_flags(parser)
    entry.add_tool_flag(parser)
    parser.add_argument(
        "--max_restarts", type=int, default=20, help="after preemptions; default: 20"
    )
    parser.add_argument(
        "--poll_s", type=float, default=30.0, help="seconds between two looks; default: 30"
    )
    parser.add_argument("--keep", action="store_true", help="do not give the slice back at the end")
    parser.add_argument(
        "--skip_plan", action="store_true", help="compile no plan, which takes minutes"
    )
    parser.add_argument(
        "--skip_doctor", action="store_true", help="start where experiments.doctor finds a failure"
    )
    parser.add_argument("--dry_run", action="store_true", help="print all commands and run none")
    entry.add_json_flag(parser, "write what is planned, or how it ended, here as well")
    arguments = parser.parse_args(words)
    if arguments.max_restarts < 0 or not arguments.poll_s > 0:
        parser.error("--max_restarts must be 0 or more, and --poll_s above 0")
    return arguments


def default_name(file: str, seed: int) -> str:
    """Of a run file and a seed, as gcloud takes it: "otc-grpo-7b-v6e-16-seed0"."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(file).stem.lower()).strip("-")
    return f"{stem}-seed{seed}"


def train_flags(arguments: argparse.Namespace) -> tuple[str, ...]:
    """What experiments.train gets besides the composed run and its directory."""
    flags = ["--seed", str(arguments.seed)]
    for name in ("init_from", "mix"):
        if (value := getattr(arguments, name)) is not None:
            flags += [f"--{name}", value]
    for name in ("data", "tool", "mcp", "sandbox", "search"):
        flags += [word for value in getattr(arguments, name) for word in (f"--{name}", value)]
    return tuple(flags)


def main() -> None:
    arguments = parse()
    from jaxtool.config.places import DOCS, IS_CHECKOUT, REPOSITORY_ROOT

    if not IS_CHECKOUT:
        raise ValueError(
            "launch_tpu sends a checkout to the slice, and this is an installed wheel: unpack the source distribution "
            "and start the command there"
        )
    from jaxtool.cluster import fit, gcloud, shipping, tpu_launch
    from jaxtool.cluster.same_run import check_same_run
    from jaxtool.cluster.tpu_job import TpuJob
    from jaxtool.cluster.tpu_types import tpu_type
    from jaxtool.core.files import write_text
    from jaxtool.rundir.run_start import Identity
    from jaxtool.train import run_data, run_files, run_tools
    from jaxtool.train.rl_config import RlConfig

    params = run_files.steps_params(arguments.gin_file, arguments.gin_param, arguments.steps)
    listed = run_files.list_run(arguments.gin_file, params)
    config: Any = listed.config
    if isinstance(config, RlConfig):
        config = run_data.with_data(config, arguments.data, arguments.mix)
        config = run_tools.with_functions(config, arguments.tool, arguments.mcp)
        steps = config.schedule.steps
    else:
        if arguments.data or arguments.mix or arguments.tool or arguments.mcp:
            raise ValueError(
                "--data, --tool, --mcp: a cold start has none; give them to the RL run"
            )
        steps = config.steps
    shipping.check_paths(listed.values, REPOSITORY_ROOT)
    for flag, text in [("init_from", arguments.init_from), *(("data", t) for t in arguments.data)]:
        if path := (text or "").rpartition("=")[2]:
            shipping.check_path(path, f"--{flag} {path}", set())
    name, packed = shipping.archive(REPOSITORY_ROOT)
    job = TpuJob(
        name=arguments.name or default_name(arguments.gin_file[0], arguments.seed),
        project=arguments.project,
        zone=arguments.zone,
        tpu=tpu_type(arguments.type),
        bucket=arguments.bucket,
        is_spot=arguments.spot,
        is_reserved=arguments.reserved,
        service_account=arguments.service_account,
        code=name,
        flags=train_flags(arguments),
    )
    plan = fit.check_fits(
        config,
        job.tpu.slice,
        records=DOCS / "plans",
        files=arguments.gin_file,
        without_params=run_files.load_run(arguments.gin_file),
        plans=not (arguments.skip_plan or arguments.dry_run),
        say=_say,
    )
    _say(plan)
    record: dict[str, Any] = {
        "name": job.name,
        "type": job.tpu.accelerator,
        "zone": job.zone,
        "project": job.project,
        "folder": job.folder,
        "plan": plan,
        "is_dry_run": arguments.dry_run,
        "commands": [],
        "exit_code": None,
        "restarts": 0,
        "is_deleted": False,
    }
    if arguments.dry_run:
        commands = tpu_launch.planned(job)
        for command in commands:
            print(f"# {command.why}\n{command}")
        record["commands"] = gcloud.as_rows(commands)
    else:
        init_from = None if arguments.init_from is None else Path(arguments.init_from)
        identity = Identity(config=config, seed=arguments.seed, init_from=init_from, steps=steps)
        place = f"{job.folder}/workdir"
        state = tpu_launch.check(job, lambda text: check_same_run(text, identity, place))
        outcome = tpu_launch.launch(
            job,
            tpu_launch.Shipment(archive=packed, run_file=listed.text),
            state=state,
            patience=tpu_launch.Patience(
                poll_s=arguments.poll_s, most_restarts=arguments.max_restarts
            ),
            keeps=arguments.keep,
            looks=not arguments.skip_doctor,
            say=_say,
        )
        record["exit_code"] = outcome.exit_code
        record["restarts"], record["is_deleted"] = outcome.restarts, outcome.is_deleted
    if arguments.json:
        write_text(arguments.json, json.dumps(record, indent=1))
    sys.exit(bool(record["exit_code"]))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    entry.run(main)
