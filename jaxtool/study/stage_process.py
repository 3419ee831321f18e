"""One job of the study or of a sweep, in a process of the pool; `runner` and `sweep` write the files that describe them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxtool.model.param_axes import check_divides
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import make_mesh
from jaxtool.rundir.checkpoints import save_policy
from jaxtool.rundir.run_start import Identity, Launch, open_start
from jaxtool.rundir.trackers.spec import parse_tracker
from jaxtool.rundir.workdir import hold_workdir
from jaxtool.study import records
from jaxtool.train import rl_config, rl_loop, run_files, sft_loop
from jaxtool.train.weights import weights_named


def run(file: str, mesh: Mesh | None = None) -> None:
    """Does what a file says: {"kind": "train" | "take" | "evaluate", ...}.

    Args:
      mesh: in place of the one that the configuration makes of all devices.
    """
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    if job["kind"] == "evaluate":
        records.evaluate_variant(job, mesh=mesh)
        return
    trackers = tuple(map(parse_tracker, job.get("log", ())))
    config, launch = run_files.launched_run(job["files"], job["params"], trackers)
    launch = dataclasses.replace(launch, command=tuple(job["command"]))
    if job["kind"] == "take":
        _take(config, job, mesh, launch)
    else:
        _train(config, job, mesh, launch)


def _train(
    config: sft_loop.SftRunConfig | rl_config.RlConfig,
    job: dict[str, Any],
    mesh: Mesh | None,
    launch: Launch,
) -> None:
    """A stage of training, or what is left of it."""
    flags = {
        "workdir": Path(job["workdir"]),
        "seed": job["seed"],
        "mesh": mesh,
        "launch": launch,
        "init_from": Path(job["init_from"]) if job["init_from"] else None,
    }
    if isinstance(config, sft_loop.SftRunConfig):
        sft_loop.train(config, **flags)
    else:
        servers = {
            f"{kind}_addresses": tuple(job[f"{kind}_addresses"]) for kind in ("sandbox", "search")
        }
        rl_loop.train(config, **servers, **flags)


def _take(
    config: sft_loop.SftRunConfig | rl_config.RlConfig,
    job: dict[str, Any],
    mesh: Mesh | None,
    launch: Launch,
) -> None:
    """The policy that training would start from, saved as it is."""
    workdir = Path(job["workdir"])
    init_from = Path(job["init_from"]) if job["init_from"] else None
    source = config.policy if init_from is None else weights_named(init_from, config.policy)
    identity = Identity(config=config, seed=job["seed"], init_from=init_from, steps=0)
    with hold_workdir(workdir), open_start(workdir, identity, launch=launch) as start:
        if start.is_finished:
            return
        wanted = source.model_config()
        mesh = mesh or make_mesh(
            config.mesh, check=lambda mesh: check_divides(wanted, Sharding(mesh))
        )
        model, params = source.load(Sharding(mesh), job["seed"])
        start.begin(0)
        save_policy(workdir / "policy", params, model)
        start.finish()
