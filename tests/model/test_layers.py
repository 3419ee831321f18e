"""RoPE, its scaling and grouped-query attention on cases worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.model.attention import attention, cached_attention
from jaxtool.model.config import RopeScaling
from jaxtool.model.kv_cache import LayerCache
from jaxtool.model.layers import in_both_halves, rms_norm, rotate
from jaxtool.model.rope import rotary_frequencies


def test_frequencies_fall_from_one_by_the_formula():
    assert rotary_frequencies(4, 100.0, None) == pytest.approx([1.0, 0.1])


def test_rotate_turns_the_pairs_of_the_two_halves():
    angles = 2.0 * jnp.array([[[1.0, 0.1]]])
    x = jnp.array([[[[1.0, 0.0, 0.0, 1.0]]]])
    expected = [math.cos(2.0), -math.sin(0.2), math.sin(2.0), math.cos(0.2)]
    rotated = rotate(x, (jnp.cos(angles), jnp.sin(angles)))
    np.testing.assert_allclose(rotated[0, 0, 0], expected, rtol=1e-6)


def test_llama3_scaling_gives_the_numbers_of_transformers():
    # ROPE_INIT_FUNCTIONS["llama3"] of transformers 5.23 at theta 5e5, head_dim 32.
    expected = [
        1.0,
        0.44036662578582764,
        0.193922758102417,
        0.08539710193872452,
        0.03760603070259094,
        0.016560440883040428,
        0.00729266507551074,
        0.0032114461064338684,
        0.0005248460220173001,
        7.784655463183299e-05,
        3.428102354519069e-05,
        1.5096217794052791e-05,
        6.647869668086059e-06,
        2.927499735960737e-06,
        1.289173155782919e-06,
        5.677088097399974e-07,
    ]
    scaling = RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
    )
    np.testing.assert_allclose(rotary_frequencies(32, 500_000.0, scaling), expected, rtol=2e-6)


def test_rms_norm_by_hand():
    x = jnp.array([[3.0, 4.0]])  # mean square 12.5
    expected = [3.0 / math.sqrt(12.5), 2 * 4.0 / math.sqrt(12.5)]
    np.testing.assert_allclose(rms_norm(x, jnp.array([1.0, 2.0]), 0.0)[0], expected, rtol=1e-6)


def attention_by_hand() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One query at position 1 of four heads over two key/value heads, H = 2; and its result.

    Key/value head 0 has keys (1,0), (0,1); head 1 has them swapped, and values ten times larger.
    Scores are sqrt(2)·ln(w)/sqrt(2), so a head that asks for weight w gets w/(1+w) on that key.
    """

    def asks(weight: float, axis: int) -> list[float]:
        q = [0.0, 0.0]
        q[axis] = math.sqrt(2) * math.log(weight)
        return q

    q = np.array([asks(3, 0), asks(4, 1), asks(3, 0), asks(9, 1)], np.float32)
    k = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], np.float32)  # [T, K, H]
    v = np.array([[[1, 0], [10, 0]], [[0, 1], [0, 10]]], np.float32)
    expected = np.array([[3 / 4, 1 / 4], [1 / 5, 4 / 5], [2.5, 7.5], [9, 1]], np.float32)
    return q, k, v, expected


def test_grouped_attention_by_hand():
    q, k, v, expected = attention_by_hand()
    queries = np.stack([np.zeros_like(q), q])[None]  # position 0 is not looked at
    mask = np.tril(np.ones((2, 2), bool))[None]
    out = attention(jnp.asarray(queries), jnp.asarray(k[None]), jnp.asarray(v[None]), mask)
    np.testing.assert_allclose(out[0, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(out[0, 0], v[0][[0, 0, 1, 1]], rtol=1e-6)


@pytest.mark.parametrize("keys_first", [False, True])
def test_grouped_attention_over_a_cache_by_hand(keys_first):
    q, k, v, expected = attention_by_hand()
    garbage = np.full((2, 3, 2), 1e3, np.float32)  # positions beyond the position
    k_cache = np.concatenate([k.transpose(1, 0, 2), garbage], axis=1)[None]
    v_cache = np.concatenate([v.transpose(1, 0, 2), garbage], axis=1)[None]
    cache = LayerCache(jnp.asarray(k_cache), jnp.asarray(v_cache))
    out = cached_attention(
        jnp.asarray(q)[None, None], cache, jnp.array([[1]]), keys_first=keys_first
    )
    np.testing.assert_allclose(out[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_rotation_for_tpus_and_its_gradient_are_those_of_halves(dtype):
    """Two rows of five tokens with three heads, by angles of their own. The docstring's example first."""
    quarter = jnp.zeros((1, 1, 2)), jnp.ones((1, 1, 2))
    plain = jnp.arange(1.0, 5.0, dtype=dtype).reshape(1, 1, 1, 4)
    turned = rotate(plain, in_both_halves(quarter))
    np.testing.assert_array_equal(np.asarray(turned, np.float32).ravel(), [-3, -4, 1, 2])
    numbers = np.random.default_rng(0)
    x, weights = (jnp.asarray(numbers.normal(size=(2, 5, 3, 8)), dtype) for _ in range(2))
    angles = jnp.asarray(numbers.uniform(0, 6, size=(2, 5, 4)), jnp.float32)
    rotary = jnp.cos(angles), jnp.sin(angles)

    def total(x, rotary):
        return jnp.sum((rotate(x, rotary) * weights).astype(jnp.float32))

    found = jax.value_and_grad(total)(x, in_both_halves(rotary))
    expected = jax.value_and_grad(total)(x, rotary)
    # A step of the dtype, where the two ways add with and without a fused multiplication.
    step = float(jnp.finfo(dtype).eps)
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = (np.asarray(value, np.float32) for value in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=4 * step, atol=4 * step)
