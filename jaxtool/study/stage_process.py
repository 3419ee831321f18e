"""One job of the study, in a process of the pool; `runner` writes the files that describe them."""

import json
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxtool.config import loader
from jaxtool.model.param_axes import check_divides
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import make_mesh
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy
from jaxtool.study import records
from jaxtool.train import rl_config, rl_loop, run_files, sft_loop


def run(file: str, mesh: Mesh | None = None) -> None:
    """Does what a file says: {"kind": "train" | "take" | "evaluate", ...}.

    Args:
      mesh: in place of the one that the configuration makes of all devices.
    """
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    if job["kind"] == "evaluate":
        records.evaluate_variant(job, mesh=mesh)
        return
    config = run_files.load_run(job["files"], job["params"])
    loader.write_operative_config(Path(job["workdir"]), config)
    if job["kind"] == "take":
        _take(config, job, mesh)
    else:
        _train(config, job, mesh)


def _train(
    config: sft_loop.SftRunConfig | rl_config.RlConfig, job: dict[str, Any], mesh: Mesh | None
) -> None:
    """A stage of training, or what is left of it."""
    flags = {
        "workdir": Path(job["workdir"]),
        "seed": job["seed"],
        "mesh": mesh,
        "init_from": Path(job["init_from"]) if job["init_from"] else None,
    }
    if isinstance(config, sft_loop.SftRunConfig):
        sft_loop.train(config, **flags)
    else:
        rl_loop.train(config, sandbox_addresses=(job["sandbox"],), **flags)


def _take(
    config: sft_loop.SftRunConfig | rl_config.RlConfig, job: dict[str, Any], mesh: Mesh | None
) -> None:
    """The policy that training would start from, saved as it is."""
    source = SavedPolicy(path=job["init_from"]) if job["init_from"] else config.policy
    wanted = source.model_config()
    mesh = mesh or make_mesh(config.mesh, check=lambda mesh: check_divides(wanted, Sharding(mesh)))
    model, params = source.load(Sharding(mesh), job["seed"])
    save_policy(Path(job["workdir"]) / "policy", params, model)
