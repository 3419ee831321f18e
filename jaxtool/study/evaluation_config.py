"""The run that an evaluation takes task, renderer, judge, tools and shapes from.

That of the gin files; without any, of the first policy that is a run; without one, defaults for the first policy that is
a model's files. Not covered: what is asked (`evaluation_plan`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtool.config.record import RECORD_NAME
from jaxtool.data.named_sets import evaluation_data
from jaxtool.model.sources import GgufFile, HfDirectory
from jaxtool.train import run_files
from jaxtool.train.hub_model import HubModel
from jaxtool.train.plain_config import plain_config
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.weights import weights_named


def evaluated_config(
    files: Sequence[str],
    params: Sequence[str],
    policies: Mapping[str, str],
    data: Sequence[str],
    *,
    problems: int | None,
    seed: int,
    response_tokens: int | None,
) -> tuple[RlConfig, tuple[str, ...]]:
    """The configuration, and the gin files that it comes from.

    Args:
      policies: names of weights, by what they are called.
      data: sets of `--data`, which the defaults need.
      problems: how many of each set.
      response_tokens: of an answer, in place of what the run says.

    Raises:
      ValueError: none of the policies says how it is asked; one line with what to do.
    """
    if not files:
        found = [file for file in map(run_file, policies.values()) if file is not None]
        rl_runs = [file for file in found if run_files.run_target(file) is RlConfig]
        files = [str(file) for file in rl_runs[:1]]
    if files:
        config = run_files.load_rl_run(files, params)
        return _with_response(config, response_tokens), tuple(files)
    if params:
        raise ValueError("--gin_param needs a run to change: give --gin_file as well")
    for name, weights in policies.items():
        if not isinstance(weights_named(weights), GgufFile | HfDirectory | HubModel):
            continue
        if not data:
            raise ValueError(
                "which questions are meant? Weights without a run bring none: name a set, as --data aime24 or "
                "--data gsm8k=FILE, or a run's task by --gin_file"
            )
        print(f"no --gin_file, and no policy is an RL run: {name} is asked by defaults", flush=True)
        task = evaluation_data(data)
        asked = task.problems("test", problems, seed)
        made = plain_config([weights], task, asked, max_response_tokens=response_tokens)
        return made, ()
    raise ValueError(
        "how are these policies asked? None of them is an RL run or a model with its tokenizer, so name a run file: "
        "--gin_file gin_configs/runs/quickstart_grpo.gin, or the one that they belong to"
    )


def run_file(weights: str) -> Path | None:
    """The operative configuration of a run that is named as weights; None: they are of no run.

    `runs/mine`, `runs/mine@100` and `runs/mine/policy` name one run.
    """
    path = Path(weights)
    if not path.is_dir():
        path = Path(weights.rpartition("@")[0] or weights)
    for folder in (path, path.parent if path.name == "policy" else path):
        if (folder / RECORD_NAME).is_file():
            return folder / RECORD_NAME
    return None


def _with_response(config: RlConfig, response_tokens: int | None) -> RlConfig:
    """With another limit of the response; rows and packs grow or shrink by the difference."""
    if response_tokens is None:
        return config
    more = response_tokens - config.rollout.max_response_tokens
    max_tokens = config.engine.max_tokens + more
    return dataclasses.replace(
        config,
        rollout=dataclasses.replace(config.rollout, max_response_tokens=response_tokens),
        engine=dataclasses.replace(config.engine, max_tokens=max_tokens),
        pack=dataclasses.replace(config.pack, row_tokens=max(max_tokens, config.pack.row_tokens)),
    )
