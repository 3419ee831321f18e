"""Orbax checkpoints of a run, and policies saved for the next stage or for serving.

A checkpoint holds everything that the next step depends on: parameters, optimizer state and update
count as arrays; loop step, data iterator, store of n and seed as JSON. Random keys derive from the
seed and the step, so there is no other random state. Sums over both parts are in it, so that a
checkpoint that a disk or a copy has changed is noticed: Orbax finds a missing file, not a wrong bit.
"""

import dataclasses
import functools
import gc
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxtool.core.bucket_files import local_copy
from jaxtool.core.files import begin_directory, finish_directory, one_line, unfinished, write_text
from jaxtool.core.trees import abstract_like, bit_sum, non_finite
from jaxtool.model.config import Dtype, ModelConfig, scaling_from_fields
from jaxtool.model.param_axes import check_divides, param_axes, param_shapes
from jaxtool.model.transformer import Params, init_params
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_arrays import fetch

_POLICY_CONFIG = "model_config.json"


class Checkpoints:
    """The checkpoints of one run directory. Use as a context manager: leaving waits for writes."""

    def __init__(self, directory: Path, *, keep: int = 2):
        self._directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        try:
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()
        except Exception as error:
            if raised is None:
                raise self._unwritten(error) from error

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Writes the state after `step` loop steps; a kill during it leaves the one before whole.

        Raises:
          OSError: this one, or the one before, could not be written; those that are whole stay.
          ValueError: a number of the state is not finite.
        """
        check_can_save(state, f"the state after {step} steps")
        record = {"meta": meta, "meta_digest": _digest(meta), "state_bits": _bits(state)}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record)
        )
        try:
            self._manager.save(step, args=args)
        except Exception as error:
            raise self._unwritten(error) from error

    def restore_newest(self, state: Any) -> tuple[int, Any, dict[str, Any]]:
        """The newest whole checkpoint: its step, its state laid out like `state`, and its JSON part.

        Newer ones that are damaged are moved to `checkpoints_damaged` and named; the run repeats their
        steps. Step 0 and `state` itself if there is no checkpoint.

        Raises:
          ValueError: there are checkpoints, and none of them is whole; one line.
        """
        damaged: dict[int, str] = {}
        for step in hosts.agree(lambda: sorted(self._manager.all_steps(), reverse=True)):
            restored, meta, problem = self._try(step, state)
            if problem is None:
                self._put_aside(damaged, step)
                return step, restored, meta
            damaged[step] = problem
        if not damaged:
            return 0, state, {}
        named = "; ".join(f"step {step}: {problem}" for step, problem in damaged.items())
        raise ValueError(
            f"no checkpoint in {self._directory} can be read ({named}): put one back, or delete the "
            "work directory to start over"
        )

    def _try(self, step: int, state: Any) -> tuple[Any, dict[str, Any], str | None]:
        """State and JSON part of a checkpoint, or what is wrong with it on some host."""
        problem, restored, meta = None, None, {}
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_like(state)), meta=ocp.args.JsonRestore()
        )
        try:
            found: Any = self._manager.restore(step, args=args)
            restored, record = found.state, found.meta
            meta = record["meta"]
            if record["meta_digest"] != _digest(meta):
                problem = "its JSON part has changed since it was written"
            elif record["state_bits"] != _bits(restored):
                problem = "its arrays have changed since they were written"
            elif names := non_finite(restored):
                problem = (
                    f"{len(names)} of its arrays hold numbers that are not finite, first {names[0]}"
                )
        except Exception as error:  # Orbax raises nearly anything for a damaged file
            problem = f"{type(error).__name__}: {one_line(error, 120)}"
        if problem is not None:
            _drop_unfinished_reads()
        return restored, meta, next(filter(None, hosts.exchange(problem)), None)

    def _put_aside(self, damaged: dict[int, str], used: int) -> None:
        if not damaged:
            return
        aside = self._directory.with_name(f"{self._directory.name}_damaged")
        if hosts.is_first():
            for step, problem in damaged.items():
                print(
                    f"warning: the checkpoint of step {step} is damaged ({problem}): moved to {aside}; "
                    f"the run resumes from that of step {used}",
                    file=sys.stderr,
                    flush=True,
                )

        def move() -> None:
            aside.mkdir(exist_ok=True)
            for step in damaged:
                shutil.rmtree(aside / str(step), ignore_errors=True)
                os.rename(self._directory / str(step), aside / str(step))

        hosts.agree(move)
        self._manager.reload()

    def _unwritten(self, error: Exception) -> OSError:
        return OSError(
            f"no checkpoint could be written to {self._directory}: {one_line(error)}; those that are "
            "whole stay: make room, then the same command resumes"
        )


def _drop_unfinished_reads() -> None:
    """Frees the reads that Orbax began beside the one that failed; each would complain on stderr."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _bits(state: Any) -> int:
    return int(fetch(bit_sum(state)))


def _digest(meta: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(meta))  # keys and tuples as they come back
    text = json.dumps(as_read, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def save_policy(directory: Path, params: Params, config: ModelConfig) -> None:
    """Parameters and shape of a policy, as a directory that is whole or not there.

    Several hosts call it together, with a directory that all of them see.

    Raises:
      OSError: it could not be written.
      ValueError: a parameter is not finite.
    """
    check_can_save(params, f"the policy for {directory}")
    directory = directory.absolute()
    try:
        hosts.agree(lambda: begin_directory(directory))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(unfinished(directory) / "params", params, force=True)

        def finish() -> None:
            text = json.dumps(dataclasses.asdict(config), indent=1)
            write_text(unfinished(directory) / _POLICY_CONFIG, text)
            finish_directory(directory)

        hosts.agree(finish)
    except Exception as error:
        if hosts.is_first():
            shutil.rmtree(unfinished(directory), ignore_errors=True)
        raise OSError(
            f"the policy could not be written to {directory}: {one_line(error)}; make room, then the "
            "same command resumes from the last checkpoint"
        ) from error


def policy_config(directory: Path) -> Path:
    """The file that makes a directory a policy."""
    return directory / _POLICY_CONFIG


def is_policy(directory: Path) -> bool:
    return policy_config(directory).is_file()


def saved_at(directory: Path) -> float:
    """When the policy was complete, in seconds since the epoch."""
    return (directory / _POLICY_CONFIG).stat().st_mtime


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedPolicy:
    """A policy that an earlier run left in its `policy` directory."""

    path: str

    def load(
        self, sharding: Sharding, seed: int, dtype: Dtype = "float32"
    ) -> tuple[ModelConfig, Params]:
        """The seed is not used: nothing is random.

        Raises:
          FileNotFoundError: no policy there.
          ValueError: a mesh that does not divide the model, or parameters that are not finite.
        """
        del seed
        config = self.model_config()
        check_divides(config, sharding)
        shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
        target = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype, sharding=s),
            shapes,
            sharding.tree(param_axes(shapes)),
        )
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(self._directory / "params", target)
        _check_can_load(params, f"policy {self._directory}")
        return config, params

    def check_header(self) -> str:
        """Checks the shapes that the checkpoint's metadata names; see `PolicySource`."""
        shapes = param_shapes(self.model_config())
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(self._directory / "params").item_metadata
        stored = {
            jax.tree_util.keystr(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(metadata.tree)
        }
        wanted = {
            jax.tree_util.keystr(path): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        }
        if other := sorted(
            name for name in stored | wanted if stored.get(name) != wanted.get(name)
        ):
            raise ValueError(
                f"{self._directory} is of another model than its {_POLICY_CONFIG}: {other[0]} has "
                f"shape {stored.get(other[0])} instead of {wanted.get(other[0])}"
            )
        return f"{len(stored)} arrays in {self._directory}"

    def model_config(self) -> ModelConfig:
        if not is_policy(self._directory):
            raise FileNotFoundError(
                f"{self._directory} holds no saved policy: "
                "give the `policy` directory of a finished run"
            )
        fields = json.loads((self._directory / _POLICY_CONFIG).read_text())
        if fields["rope_scaling"] is not None:
            fields["rope_scaling"] = scaling_from_fields(fields["rope_scaling"])
        return ModelConfig(**fields)

    @functools.cached_property
    def _directory(self) -> Path:
        return local_copy(self.path).absolute()


def check_can_save(tree: Any, what: str) -> None:
    """Raises ValueError if a number of the tree of device arrays is not finite."""
    if names := non_finite(tree):
        raise ValueError(
            f"{what} is not saved: {len(names)} of its arrays hold numbers that are not finite, first "
            f"{names[0]}. A learning rate that is too high does this: lower OptimizerConfig.learning_rate "
            "and start over in another --workdir"
        )


def _check_can_load(tree: Any, what: str) -> None:
    if names := non_finite(tree):
        raise ValueError(
            f"{what}: {len(names)} arrays hold numbers that are not finite, first {names[0]}. The run that "
            "saved it was broken by then: go back to an earlier checkpoint or policy"
        )
