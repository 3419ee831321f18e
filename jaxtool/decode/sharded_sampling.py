"""Draws from logits whose vocabulary is sharded: no device ever has the logits of a whole row.

The draw is that of `sampling`, up to the rounding of sums: the same uniforms find the same block of the vocabulary
and the same token in it. Sums of blocks travel, and the one block that is found. Not covered: truncated rows, whose
floor is searched in whole rows (`sample` gathers them), and vocabularies of up to 1024 tokens, which are one block.

An example, B = 1, blocks of 4, V = 12 over two devices; p = .1 .1 .1 .1 | .1 .1 .05 .05 | .1 .1 .1 0, u = (.5, .6):

  device 0, words 0 to 5:   sums of blocks  .4 .2  0
  device 1, words 6 to 11:  sums of blocks   0 .1 .3
  added up:                 .4 .3 .3 and so running sums .4 .7 1: u0 finds block 1
  its words, added up:      .1 .1  0  0  from device 0 and  0  0 .05 .05  from device 1
  running sums 1/3 2/3 5/6 1: u1 finds word 1 of the block, token 5
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from jaxtool.decode.sampling import (
    SMALL_VOCABULARY,
    VOCAB_BLOCK,
    RowSampling,
    SamplingMode,
    invert,
    sample,
    uniforms_of,
)
from jaxtool.parallel.axis_rules import MeshAxes, Sharding


def sample_over_devices(
    logits: Float[Array, "B V"],
    row_keys: UInt32[Array, "B 2"],
    positions: Int[Array, " B"],
    sampling: RowSampling,
    sampling_mode: SamplingMode,
    sharding: Sharding,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """`sample`, part by part where the vocabulary is sharded. Arguments and results as there."""
    rows, words = sharding.rules.mesh_axes("batch"), sharding.rules.mesh_axes("vocab")
    is_whole = sharding.parts("vocab") == 1 or logits.shape[1] <= SMALL_VOCABULARY
    if is_whole or sampling_mode == "mixed" or logits.shape[0] % sharding.parts("batch"):
        return sample(logits, row_keys, positions, sampling, sampling_mode)

    def draw(logits: Array, row_keys: Array, positions: Array, temperature: Array) -> tuple:
        if sampling_mode == "greedy":
            return _greedy(logits, words)
        uniforms = jax.vmap(uniforms_of)(row_keys, positions)
        return _inverse_cdf(logits / temperature[:, None], uniforms, words)

    # The TPU's compiler joins the head's product with the search for its maximum, and makes it again for the rest.
    logits = jax.lax.optimization_barrier(logits)
    of_rows = PartitionSpec(rows)
    return jax.shard_map(
        draw,
        mesh=sharding.mesh,
        in_specs=(PartitionSpec(rows, words), of_rows, of_rows, of_rows),
        out_specs=(of_rows, of_rows),
        check_vma=False,
    )(logits, row_keys, positions, sampling.temperature)


def _greedy(logits: Array, words: MeshAxes) -> tuple[Array, Array]:
    """The first of the largest, and its log-prob."""
    first = jax.lax.axis_index(words) * logits.shape[1]
    largest = jnp.max(logits, axis=-1)
    top = jax.lax.pmax(largest, words)
    mine = first + jnp.argmax(logits, axis=-1).astype(jnp.int32)
    none = jnp.iinfo(jnp.int32).max
    tokens = jax.lax.pmin(jnp.where(largest == top, mine, none), words)
    total = jax.lax.psum(jnp.sum(jnp.exp(logits - top[:, None]), axis=-1), words)
    return tokens, -jnp.log(total)


def _inverse_cdf(scores: Array, uniforms: Array, words: MeshAxes) -> tuple[Array, Array]:
    """As `sampling.inverse_cdf` beyond one block, of the words that a device has: [B, V / parts]."""
    b, v = scores.shape
    devices = jax.lax.axis_size(words)
    index = jax.lax.axis_index(words)
    first, num_blocks = index * v, -(-v * devices // VOCAB_BLOCK)
    top = jax.lax.pmax(jnp.max(scores, axis=-1, keepdims=True), words)
    weights = jnp.exp(scores - top)
    # 1) My words as blocks of the whole vocabulary: they begin somewhere in the first block.
    mine = (v + VOCAB_BLOCK - 2) // VOCAB_BLOCK + 1
    padded = jnp.zeros((b, mine * VOCAB_BLOCK), weights.dtype)
    padded = jax.lax.dynamic_update_slice(padded, weights, (0, first % VOCAB_BLOCK))
    blocks, first_block = padded.reshape(b, mine, VOCAB_BLOCK), first // VOCAB_BLOCK
    # 2) Sums of all blocks; one that two devices share is the sum of both.
    sums = jnp.zeros((b, num_blocks + mine), weights.dtype)
    sums = jax.lax.dynamic_update_slice(sums, jnp.sum(blocks, axis=-1), (0, first_block))
    sums = jax.lax.psum(sums[:, :num_blocks], words)
    found = invert(sums, uniforms[:, 0])
    # 3) The block that was found, from the devices that have words of it.
    at = found - first_block
    inside = jnp.take_along_axis(blocks, jnp.clip(at, 0, mine - 1)[:, None, None], axis=1)[:, 0]
    is_here = (at >= 0) & (at < mine)
    inside = jax.lax.psum(jnp.where(is_here[:, None], inside, 0.0), words)
    tokens = found * VOCAB_BLOCK + invert(inside, uniforms[:, 1])
    # 4) Its score, from the device that has it.
    at = tokens - first
    chosen = jnp.take_along_axis(scores, jnp.clip(at, 0, v - 1)[:, None], axis=1)[:, 0]
    chosen = jax.lax.psum(jnp.where((at >= 0) & (at < v), chosen, 0.0), words)
    return tokens, chosen - top[:, 0] - jnp.log(jnp.sum(sums, axis=-1))
