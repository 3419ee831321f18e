"""One job of the study, in a process of the pool; `study.py` writes the files that describe them."""

import json
from pathlib import Path
from typing import Any

from jaxtool.run import gin_config, rl_loop, sft_loop, study_evaluation


def run(file: str) -> None:
    """Does what a file says: {"kind": "train" | "evaluate", ...}."""
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    if job["kind"] == "train":
        _train(job)
    else:
        study_evaluation.evaluate_arm(job)


def _train(job: dict[str, Any]) -> None:
    """A stage of training, or what is left of it."""
    config = gin_config.load(
        gin_config.target_of(job["files"][0]), files=job["files"], params=job["params"]
    )
    workdir = Path(job["workdir"])
    flags = {
        "workdir": workdir,
        "seed": job["seed"],
        "init_from": Path(job["init_from"]) if job["init_from"] else None,
    }
    gin_config.write_operative_config(workdir, config)
    if isinstance(config, sft_loop.SftRunConfig):
        sft_loop.train(config, **flags)
    else:
        rl_loop.train(config, sandbox_addresses=(job["sandbox"],), **flags)
