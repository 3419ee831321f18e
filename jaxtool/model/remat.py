"""Rematerialisation: which values of a layer the backward pass keeps and which it computes again.

none       keeps everything: quickest, most memory
dots       keeps the results of matrix products with weights, computes norms, rotations and attention again
named      keeps what `keep` and `keep_attention` mark: the residual stream inside a layer and attention
attention  keeps what `keep_attention` marks: outputs, and of the TPU kernel the softmax sums as well, so
           that its forward pass runs once (docs/plans.md); on other backends it saves next to nothing
block      keeps the input of each layer alone: least memory, about a third more time
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxtool.model.config import Remat

# A scan's body: (residual stream, parameters) -> (residual stream, nothing).
Layer = Callable[[jax.Array, Any], tuple[jax.Array, None]]

KEPT = "kept"
ATTENTION = "attention"
PRODUCT = "product"


def keep(x: jax.Array) -> jax.Array:
    """Marks a value that "named" does not compute again."""
    return checkpoint_name(x, KEPT)


def keep_attention(x: jax.Array) -> jax.Array:
    """Marks what the backward pass of attention reads of the forward pass: "attention" and "named" keep it."""
    return checkpoint_name(x, ATTENTION)


def keep_product(x: jax.Array) -> jax.Array:
    """Marks the result of a product with a weight, which "dots" does not compute again.

    By name, because JAX's policies for products do not see into functions with their own gradient.
    """
    return checkpoint_name(x, PRODUCT)


def rematerialized(layer: Layer, remat: Remat) -> Layer:
    """`layer` with the same values and gradients under one of the policies above."""
    if remat == "none":
        return layer
    if remat == "block":
        return jax.checkpoint(layer)
    names = {"dots": (PRODUCT,), "named": (KEPT, ATTENTION), "attention": (ATTENTION,)}[remat]
    return jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(*names))
