"""Embeddings looked up in a table that is sharded over its words: no device ever holds the whole table.

For decoding, where a few words are looked up in each step. Not covered: the learner, which looks up whole rows of a
batch and needs a gradient (`transformer.hidden_states` gathers the table once).
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jaxtool.model.quantize import Int8Weight
from jaxtool.parallel.axis_rules import Sharding


def looked_up(
    table: Array | Int8Weight, tokens: Int[Array, "B C"], dtype: jnp.dtype
) -> Float[Array, "B C D"]:
    """Rows of a whole table [V, D] in `dtype`; an int8 row is scaled first."""
    if isinstance(table, Int8Weight):
        values, scale = (
            jnp.take(table.values, tokens, axis=0),
            jnp.take(table.scale, tokens, axis=0),
        )
        return (values * scale[..., None]).astype(dtype)
    return jnp.take(table.astype(dtype), tokens, axis=0)


def looked_up_in_parts(
    table: Array | Int8Weight, tokens: Int[Array, "B C"], dtype: jnp.dtype, sharding: Sharding
) -> Float[Array, "B C D"]:
    """`looked_up` in a table whose words are sharded: the same numbers, but for the sign of a zero.

    Each device looks up the words that it has and has zeros for the others. One term of each sum is the row
    itself, so the sum over devices is exact in any dtype. B·C·D numbers travel in place of V·D.

    An example, V = 6 over two devices, tokens [1 5 3]:

      device 0, words 0 1 2:  row 1, zeros, zeros
      device 1, words 3 4 5:  zeros, row 5, row 3
      sum:                    row 1, row 5, row 3
    """
    words = sharding.rules.mesh_axes("vocab")
    # Tool outputs come a few rows at a time, which need not divide: then every device looks up all of them.
    divides = tokens.shape[0] % sharding.parts("batch") == 0
    rows = sharding.rules.mesh_axes("batch") if divides else None

    def of_device(table: Array | Int8Weight, tokens: Array) -> Array:
        count = jax.tree.leaves(table)[0].shape[0]
        at = tokens - jax.lax.axis_index(words) * count
        is_here = (at >= 0) & (at < count)
        found = looked_up(table, jnp.where(is_here, at, 0), dtype)
        return jax.lax.psum(jnp.where(is_here[..., None], found, 0), words)

    of_words = PartitionSpec(words)
    return jax.shard_map(
        of_device,
        mesh=sharding.mesh,
        in_specs=(of_words, PartitionSpec(rows)),
        out_specs=PartitionSpec(rows),
        check_vma=False,
    )(table, tokens)
