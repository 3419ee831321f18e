"""Masked reductions against numpy.ma, and nothing under a False mask leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtool.core import masked

REDUCTIONS = {
    "mean": (masked.masked_mean, lambda a: a.mean()),
    "var": (masked.masked_var, lambda a: a.var()),
    "max": (masked.masked_max, lambda a: a.max()),
    "min": (masked.masked_min, lambda a: a.min()),
}


def test_hand_computed():
    values = jnp.array([[1.0, 100.0], [3.0, 8.0]])
    mask = jnp.array([[True, False], [True, True]])
    total, count = masked.masked_sum(values, mask)
    assert (float(total), float(count)) == (12.0, 3.0)
    assert float(masked.masked_mean(values, mask)) == 4.0
    # deviations -3, -1, 4: squares 9 + 1 + 16 = 26
    np.testing.assert_allclose(masked.masked_var(values, mask), 26 / 3, rtol=1e-6)
    np.testing.assert_allclose(masked.masked_var(values, mask, ddof=1), 13.0, rtol=1e-6)
    assert float(masked.masked_max(values, mask)) == 8.0
    assert float(masked.masked_min(values, mask)) == 1.0


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), rate=st.floats(0.1, 1.0))
def test_equals_numpy_ma(name: str, seed: int, rate: float):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 7)).astype(np.float32)
    mask = rng.random((3, 7)) < rate
    mask[0, 0] = True
    ours, theirs = REDUCTIONS[name]
    expected = theirs(np.ma.array(values, mask=~mask))
    np.testing.assert_allclose(ours(jnp.asarray(values), jnp.asarray(mask)), expected, atol=1e-5)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [*sorted(REDUCTIONS), "sum", "whiten"])
def test_garbage_under_the_mask_reaches_neither_value_nor_gradient(name: str, garbage: float):
    def reduce(values: jax.Array, mask: jax.Array) -> jax.Array:
        if name == "sum":
            return masked.masked_sum(values, mask)[0]
        if name == "whiten":
            return jnp.sum(masked.whiten(values, mask) ** 3)
        return REDUCTIONS[name][0](values, mask)

    mask = jnp.array([True, False, True, True])
    clean = jnp.array([1.0, 0.0, 5.0, -2.0])
    dirty = clean.at[1].set(garbage)
    value, gradient = jax.value_and_grad(reduce)(dirty, mask)
    np.testing.assert_array_equal(value, reduce(clean, mask))
    np.testing.assert_array_equal(gradient, jax.grad(reduce)(clean, mask))
    assert gradient[1] == 0.0


def test_an_empty_mask_gives_zeros_and_no_gradient():
    values = jnp.array([jnp.nan, 2.0])
    mask = jnp.zeros(2, bool)
    for reduce in (masked.masked_mean, masked.masked_var):
        value, gradient = jax.value_and_grad(reduce)(values, mask)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, np.zeros(2))
    assert float(masked.masked_max(values, mask)) == -np.inf
    assert float(masked.masked_min(values, mask)) == np.inf
    assert float(masked.masked_max(values, mask, empty=0.0)) == 0.0
    np.testing.assert_array_equal(masked.whiten(values, mask), np.zeros(2))


def test_var_of_one_entry_with_ddof_is_zero():
    mask = jnp.array([True, False])
    assert float(masked.masked_var(jnp.array([3.0, 4.0]), mask, ddof=1)) == 0.0


def test_whitened_entries_have_mean_zero_and_variance_one():
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(3.0, 5.0, (4, 9)), jnp.float32)
    mask = jnp.asarray(rng.random((4, 9)) < 0.6)
    whitened = masked.whiten(values, mask)
    np.testing.assert_allclose(masked.masked_mean(whitened, mask), 0.0, atol=1e-5)
    np.testing.assert_allclose(masked.masked_var(whitened, mask), 1.0, rtol=1e-4)
    np.testing.assert_array_equal(whitened[~mask], 0.0)
    kept = masked.whiten(values, mask, shifts_mean=False)
    np.testing.assert_array_equal(kept[~mask], 0.0)
    np.testing.assert_allclose(
        masked.masked_mean(kept, mask), masked.masked_mean(values, mask), rtol=1e-4
    )


def test_pairs_of_parts_add_up_to_the_whole():
    rng = np.random.default_rng(1)
    values = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    mask = jnp.asarray(rng.random((6, 5)) < 0.5)
    parts = [masked.masked_sum(values[i : i + 2], mask[i : i + 2]) for i in (0, 2, 4)]
    total = (sum(p[0] for p in parts), sum(p[1] for p in parts))
    np.testing.assert_allclose(
        masked.divide(total), masked.masked_mean(values, mask), rtol=1e-5, atol=1e-6
    )


def test_bfloat16_is_summed_in_float32():
    values = jnp.ones(1000, jnp.bfloat16)
    total, count = masked.masked_sum(values, jnp.ones(1000, bool))
    assert total.dtype == count.dtype == jnp.float32
    assert float(total) == 1000.0


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"values.shape=\(3,\), mask.shape=\(1,\)"):
        masked.masked_sum(jnp.ones(3), jnp.ones(1, bool))


def test_whitening_by_hand():
    """Valid 1, 3, 5: mean 3, population variance 8/3."""
    mask = jnp.array([True, False, True, True])
    whitened = masked.whiten(jnp.array([1.0, 50.0, 3.0, 5.0]), mask)
    np.testing.assert_allclose(whitened, [-1.2247449, 0.0, 0.0, 1.2247449], rtol=1e-5)
