"""Attention in blocks of queries equals attention at once: values, gradients, whole model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, next_token_loss, random_params, random_tokens

from jaxtool.model import blockwise_attention as module
from jaxtool.model.attention import attention, segment_mask
from jaxtool.model.blockwise_attention import blockwise_attention, row_attention
from jaxtool.parallel.axis_rules import AxisRules, Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

# Two segments and padding, none of which ends where a block does.
SEGMENTS = jnp.array([[1] * 5 + [2] * 6 + [0] * 2, [1] * 13], jnp.int32)
POSITIONS = jnp.array([[*range(5), *range(6), 0, 0], [*range(13)]], jnp.int32)


def qkv(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((2, 13, 4, 8), (2, 13, 2, 8), (2, 13, 2, 8))
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("block", [1, 4, 13, 64])
def test_every_block_size_gives_the_attention_of_whole_rows(block):
    q, k, v = qkv()
    wanted = attention(q, k, v, segment_mask(SEGMENTS, POSITIONS))
    got = blockwise_attention(q, k, v, SEGMENTS, POSITIONS, attention_block=block)
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_gradients_are_those_of_whole_rows(dtype, tolerance):
    weights = jax.random.normal(jax.random.key(1), (2, 13, 4, 8))

    def total(attend):
        return lambda q, k, v: jnp.sum(attend(q, k, v).astype(jnp.float32) * weights)

    def whole(q, k, v):
        return attention(q, k, v, segment_mask(SEGMENTS, POSITIONS))

    def blocks(q, k, v):
        return blockwise_attention(q, k, v, SEGMENTS, POSITIONS, attention_block=4)

    wanted = jax.grad(total(whole), argnums=(0, 1, 2))(*qkv(dtype))
    got = jax.grad(total(blocks), argnums=(0, 1, 2))(*qkv(dtype))
    for x, y in zip(got, wanted, strict=True):
        assert x.dtype == dtype
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        assert np.abs(y).max() > 0.1
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("block", [pytest.param(None, marks=pytest.mark.nightly), 2, 64], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_spans_that_leave_out_later_keys_give_the_attention_of_whole_rows(
    monkeypatch, block, dtype
):
    """Values and gradients, with spans of 3 tokens that end inside segments."""
    monkeypatch.setattr(module, "_MIN_SPAN", 3)
    real = np.asarray(SEGMENTS != 0)[:, :, None, None]  # padding gets numbers that mean nothing
    weights = jax.random.normal(jax.random.key(1), (2, 13, 4, 8)) * real

    def whole(q, k, v):
        out = attention(q, k, v, segment_mask(SEGMENTS, POSITIONS))
        return jnp.sum(out.astype(jnp.float32) * weights), out

    def spans(q, k, v):
        out = row_attention(q, k, v, SEGMENTS, POSITIONS, attention_block=block)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    def both(total):
        gradients, out = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(*qkv(dtype))
        return [x * real for x in (out, *gradients)]

    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for got, wanted in zip(both(spans), both(whole), strict=True):
        got, wanted = np.asarray(got, np.float32), np.asarray(wanted, np.float32)
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def test_spans_multiply_no_more_than_five_eighths_of_the_scores():
    """8 spans of a row of 512: (1 + 2 + ... + 8) / 64 of a product over whole rows."""
    x, ids = jnp.zeros((1, 512, 1, 8)), jnp.zeros((1, 512), jnp.int32)

    def flops(attend):
        return jax.jit(attend).lower(x, x, x).compile().cost_analysis()["flops"]

    spans = flops(lambda q, k, v: row_attention(q, k, v, ids, ids, attention_block=None))
    whole = flops(lambda q, k, v: attention(q, k, v, segment_mask(ids, ids)))
    assert 0.5 < spans / whole < 0.625


def test_the_scores_of_a_row_never_exist():
    """Memory of value and gradient at 2048 tokens: far below one [T, T] matrix per head."""
    tokens, heads = 2048, 4
    x = jax.ShapeDtypeStruct((1, tokens, heads, 8), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, tokens), jnp.int32)

    def loss(x, ids, block):
        return jnp.sum(blockwise_attention(x, x, x, ids, ids, attention_block=block))

    def memory(block):
        step = jax.jit(jax.value_and_grad(loss), static_argnums=2)
        return step.lower(x, ids, block).compile().memory_analysis().temp_size_in_bytes

    assert memory(64) < 4 * tokens * tokens * heads / 4 < memory(tokens)


@pytest.mark.parametrize("rules", [AxisRules(), AxisRules(length=("tensor",))], ids=["rows", "cut"])
def test_the_model_learns_the_same_on_a_mesh_and_with_rows_cut_over_it(rules):
    config = FAMILIES["qwen2"]
    params, tokens = random_params(config), random_tokens(8, 16)
    step = jax.jit(jax.value_and_grad(next_token_loss), static_argnums=(1, 3))
    loss, gradients = step(params, config, tokens, single_device())
    blocks = dataclasses.replace(config, attention_block=8)
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)), rules)
    got_loss, got = step(params, blocks, tokens, sharding)
    np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
