"""Reads the gin files of a run: an RL run or a cold start, with old names refused by name."""

from collections.abc import Sequence
from pathlib import Path

from jaxtool.config import loader
from jaxtool.config.listing import Listing, listing
from jaxtool.train.old_names import OLD_NAMES
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sft_loop import SftRunConfig


def run_target(file: str | Path) -> type[RlConfig] | type[SftRunConfig]:
    """What a run file builds.

    Raises:
      ValueError: it builds something else than a run.
    """
    target = loader.target_of(file, OLD_NAMES)
    if target not in (RlConfig, SftRunConfig):
        raise ValueError(
            f"{file} builds {target.__name__}, which is no run: runs are RlConfig and SftRunConfig"
        )
    return target


def load_run(files: Sequence[str | Path], params: Sequence[str] = ()) -> RlConfig | SftRunConfig:
    """The run of the first file, with the overlays and the parameters."""
    return loader.load(run_target(files[0]), files=files, params=params, old_names=OLD_NAMES)


def load_rl_run(files: Sequence[str | Path], params: Sequence[str] = ()) -> RlConfig:
    """The same for files that must be an RL run."""
    return loader.load(RlConfig, files=files, params=params, old_names=OLD_NAMES)


def list_run(files: Sequence[str | Path], params: Sequence[str] = ()) -> Listing:
    """The run of `load_run` with the place of each of its values."""
    return listing(run_target(files[0]), files=files, params=params, old_names=OLD_NAMES)
