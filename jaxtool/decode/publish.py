"""From the learner's parameters to the decoder's: one jitted program that casts and reshards."""

import functools

import jax

from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_axes
from jaxtool.model.transformer import Params, unstack_layers
from jaxtool.parallel.axis_rules import Sharding, is_axes


@functools.partial(jax.jit, static_argnames=("model", "sharding"))
def publish(params: Params, model: ModelConfig, sharding: Sharding) -> Params:
    """The learner's tree as the decoder wants it: layers apart, compute dtype, decode sharding."""
    axes = param_axes(params)
    axes["layers"] = tuple(
        jax.tree.map(lambda a: a[1:], axes["layers"], is_leaf=is_axes)
        for _ in range(model.num_layers)
    )
    published = jax.tree.map(lambda x: x.astype(model.dtype), unstack_layers(params))
    return jax.lax.with_sharding_constraint(published, sharding.tree(axes))
