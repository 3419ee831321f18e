"""One job of the study in a process of its own: `python -m jaxtool.run.study_worker JOB.json`.

A job is {"kind": "train" | "evaluate", ...}: see `study.py`, which writes them.
"""

import json
import sys
from pathlib import Path
from typing import Any

from jaxtool.run import gin_config, rl_loop, sft_loop, study_evaluation
from jaxtool.run.job_pool import end_with_parent


def train(job: dict[str, Any]) -> None:
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


def main() -> None:
    end_with_parent()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if job["kind"] == "train":
        train(job)
    else:
        study_evaluation.evaluate_arms(job)


if __name__ == "__main__":
    main()
