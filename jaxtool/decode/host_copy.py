"""The decoder's copy on one host's devices, from learner parameters that may be sharded over many hosts."""

from typing import Any, Literal

import jax

from jaxtool.decode.publish import publish
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_arrays import to_host


def publish_to_host(
    params: Params,
    model: ModelConfig,
    sharding: Sharding,
    weights: Literal["dtype", "int8"] = "dtype",
) -> Params:
    """`publish` to the mesh of this host; every host must call it, with the same parameters.

    Layer by layer, a program on the learner's mesh gathers what is sharded over its fsdp axis. Then the
    shards that are placed on this host become arrays of its own mesh. Each device holds its group's part of
    the copy, as with one host; the learner's moments do not move. See `host_arrays.to_host` for meshes
    whose groups span hosts.

    Args:
      params: on the learner's mesh.
      sharding: the decoder's, on `host_arrays.decode_mesh` of the learner's.
    """
    first = jax.tree.leaves(params)[0]
    if first.is_fully_addressable:
        return publish(params, model, sharding, weights)
    learner = first.sharding.mesh
    everywhere = Sharding(learner, sharding.rules)

    def moved(part: Any) -> Any:
        return to_host(part, learner, sharding.rules)

    return publish(params, model, everywhere, weights, moved=moved)
