"""Rematerialisation: which values of a layer the backward pass keeps and which it computes again.

none   keeps everything: quickest, most memory
dots   keeps the results of matrix products with weights, computes norms, rotations and attention again
named  keeps what `keep` marks: the residual stream inside a layer and its attention output
block  keeps the input of each layer alone: least memory, about a third more time
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxtool.model.config import Remat

# A scan's body: (residual stream, parameters) -> (residual stream, nothing).
Layer = Callable[[jax.Array, Any], tuple[jax.Array, None]]

KEPT = "kept"
PRODUCT = "product"


def keep(x: jax.Array) -> jax.Array:
    """Marks a value that "named" does not compute again."""
    return checkpoint_name(x, KEPT)


def keep_product(x: jax.Array) -> jax.Array:
    """Marks the result of a product with a weight, which "dots" does not compute again.

    By name, because JAX's policies for products do not see into functions with their own gradient.
    """
    return checkpoint_name(x, PRODUCT)


def rematerialized(layer: Layer, remat: Remat) -> Layer:
    """`layer` with the same values and gradients under one of the policies above."""
    policies = jax.checkpoint_policies
    if remat == "none":
        return layer
    if remat == "block":
        return jax.checkpoint(layer)
    if remat == "dots":
        return jax.checkpoint(layer, policy=policies.save_only_these_names(PRODUCT))
    return jax.checkpoint(layer, policy=policies.save_only_these_names(KEPT))
