"""What a name of weights says of the model behind it: source, tokenizer, context, and the run that made it.

The names are those of `weights`. Nothing of the weights is read. Not covered: what is asked of the model
(`plain_config`, `jaxtool.plan.new_run`).
"""

import dataclasses
from pathlib import Path

import jax

from jaxtool.config.record import RECORD_NAME
from jaxtool.model.config import Dtype
from jaxtool.model.context import context_tokens
from jaxtool.model.sources import GgufFile, HfDirectory, PolicySource
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.train.hub_model import HubModel
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.run_files import load_run
from jaxtool.train.sft_loop import SftRunConfig
from jaxtool.train.sources import (
    GgufTokenizer,
    HfTokenizerDirectory,
    HubTokenizer,
    TokenizerSource,
)
from jaxtool.train.weights import weights_named


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A model by its name."""

    name: str
    source: PolicySource
    tokenizer: TokenizerSource
    context: int | None  # tokens that its positions reach to; None: nobody says
    run: RlConfig | SftRunConfig | None = None  # that left it; None: it is of no run


def model_named(name: str | Path, dtype: Dtype | None = None) -> NamedModel:
    """The model of a name of weights.

    Args:
      dtype: that files are computed in; None: float32 on a CPU, bfloat16 elsewhere. A run's policy has its own.

    Raises:
      FileNotFoundError: there is nothing of that name, or a policy whose run left no record.
      OSError: the hub does not give its files.
      ValueError: a step that was not kept, or files that cannot be read.
    """
    source = weights_named(name)
    if isinstance(source, SavedPolicy):
        return _of_a_run(str(name), source)
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    remat = "none" if dtype == "float32" else "block"
    assert isinstance(source, GgufFile | HfDirectory | HubModel)
    source = dataclasses.replace(source, compute_dtype=dtype, remat=remat)
    return NamedModel(
        name=str(name), source=source, tokenizer=_tokenizer(source), context=_context(source)
    )


def run_record(policy: SavedPolicy) -> Path | None:
    """The gin file that the run of a policy left; None: there is none.

    `RUN/policy` and `RUN/policies/100` are where runs leave policies.
    """
    directory = Path(policy.path).absolute()
    found = (parent / RECORD_NAME for parent in list(directory.parents)[:2])
    return next((file for file in found if file.is_file()), None)


def _of_a_run(name: str, source: SavedPolicy) -> NamedModel:
    record = run_record(source)
    if record is None:
        raise FileNotFoundError(
            f"{name} is a policy whose run left no {RECORD_NAME}, so nobody says its tokenizer and its prompt: "
            "name the run's gin file by --gin_file"
        )
    run = load_run([record])
    return NamedModel(
        name=name, source=source, tokenizer=run.tokenizer, context=_context(run.policy), run=run
    )


def _tokenizer(source: GgufFile | HfDirectory | HubModel) -> TokenizerSource:
    if isinstance(source, GgufFile):
        return GgufTokenizer(path=source.path)
    if isinstance(source, HfDirectory):
        return HfTokenizerDirectory(path=source.path)
    return HubTokenizer(repository=source.repository, revision=source.revision)


def _context(source: PolicySource) -> int | None:
    if isinstance(source, HubModel):
        source = HfDirectory(path=str(source.download_text()))
    if isinstance(source, SavedPolicy):
        record = run_record(source)
        return None if record is None else _context(load_run([record]).policy)
    if isinstance(source, HfDirectory) and not Path(source.path).is_dir():
        return None  # a run on another machine
    return context_tokens(source)
