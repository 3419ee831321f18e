"""Reads the gin files of a run: an RL run or a cold start, with old names refused by name."""

from collections.abc import Sequence
from pathlib import Path

from jaxtool.config import loader
from jaxtool.config.listing import Listing, listing
from jaxtool.rundir.run_start import Launch
from jaxtool.rundir.trackers.spec import TrackerSpec
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


def launched_run(
    files: Sequence[str | Path],
    params: Sequence[str] = (),
    trackers: tuple[TrackerSpec, ...] = (),
) -> tuple[RlConfig | SftRunConfig, Launch]:
    """The run of `load_run`, and what its record says of where its values were set."""
    config, builder = loader.compose(run_target(files[0]), files, params, OLD_NAMES)
    names = tuple(map(str, files))
    return config, Launch(files=names, origin=builder.origin, trackers=trackers)


def steps_params(
    files: Sequence[str | Path], params: Sequence[str], steps: int | None
) -> list[str]:
    """`params` and the bindings of --steps: of the macro STEPS where the files have it, so that what follows
    it (a cosine's end) does so. A warm-up of that length or more ends one step before the last.

    Raises:
      ValueError: `steps` is below 1.
      ConfigError: the run does not load.
    """
    if steps is None:
        return list(params)
    if steps < 1:
        raise ValueError(f"--steps {steps} must be >= 1")
    bindings = loader.read(files, params, OLD_NAMES)
    name = "Schedule.steps" if run_target(files[0]) is RlConfig else "SftRunConfig.steps"
    if any(binding.target is None and binding.name == "STEPS" for binding in bindings):
        name = "STEPS"
    warmup = load_run(files, params).optimizer.warmup_steps
    shorter = [f"OptimizerConfig.warmup_steps = {steps - 1}"] if warmup >= steps else []
    return [*params, f"{name} = {steps}", *shorter]


def load_rl_run(files: Sequence[str | Path], params: Sequence[str] = ()) -> RlConfig:
    """The same for files that must be an RL run."""
    return loader.load(RlConfig, files=files, params=params, old_names=OLD_NAMES)


def list_run(files: Sequence[str | Path], params: Sequence[str] = ()) -> Listing:
    """The run of `load_run` with the place of each of its values."""
    return listing(run_target(files[0]), files=files, params=params, old_names=OLD_NAMES)
