"""Orbax checkpoints of a run, and policies saved for the next stage or for serving.

A checkpoint holds everything that the next step depends on: parameters, optimizer state and update
count as arrays; loop step, data iterator, store of n and seed as JSON. Random keys derive from the
seed and the step, so there is no other random state.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxtool.core.trees import abstract_like, non_finite
from jaxtool.model.config import Dtype, ModelConfig, RopeScaling
from jaxtool.model.param_axes import check_divides, param_axes, param_shapes
from jaxtool.model.transformer import Params, init_params
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding

_POLICY_CONFIG = "model_config.json"


class Checkpoints:
    """The checkpoints of one run directory. Use as a context manager: leaving waits for writes."""

    def __init__(self, directory: Path, *, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        return hosts.agree(self._manager.latest_step)

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Writes the state after `step` loop steps; a kill during it leaves the one before whole.

        Raises:
          ValueError: a number of the state is not finite.
        """
        check_can_save(state, f"the state after {step} steps")
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args)

    def restore(self, state: Any) -> tuple[Any, dict[str, Any]]:
        """Newest checkpoint, laid out like `state`, and its JSON part.

        Raises:
          ValueError: a number of it is not finite.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_like(state)), meta=ocp.args.JsonRestore()
        )
        restored: Any = self._manager.restore(self.latest_step, args=args)
        step = self.latest_step
        _check_can_load(restored.state, f"checkpoint {self._manager.directory / str(step)}")
        return restored.state, restored.meta


def save_policy(directory: Path, params: Params, config: ModelConfig) -> None:
    """Parameters and shape of a policy. Complete once the config file is there.

    Several hosts call it together, with a directory that all of them see.

    Raises:
      ValueError: a parameter is not finite.
    """
    check_can_save(params, f"the policy for {directory}")
    directory = directory.absolute()
    record = directory / _POLICY_CONFIG

    def begin() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)

    hosts.agree(begin)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", params, force=True)
    hosts.agree(lambda: record.write_text(json.dumps(dataclasses.asdict(config), indent=1)))


def is_policy(directory: Path) -> bool:
    return (directory / _POLICY_CONFIG).is_file()


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
            fields["rope_scaling"] = RopeScaling(**fields["rope_scaling"])
        return ModelConfig(**fields)

    @property
    def _directory(self) -> Path:
        return Path(self.path).absolute()


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
