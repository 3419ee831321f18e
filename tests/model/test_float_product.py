"""The product with its written-out gradient: by hand, against autodiff, and as a transposed table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.model.float_product import float_product, joint_product


def test_value_and_gradients_by_hand():
    """y = 1·2 + 3·4 = 14; of y² / 2 the gradients are 14·w and 14·x."""
    x, w = jnp.array([[1.0, 3.0]]), jnp.array([[2.0], [4.0]])
    assert float_product(x, w, 1).tolist() == [[14.0]]
    dx, dw = jax.grad(lambda x, w: jnp.sum(float_product(x, w, 1) ** 2) / 2, argnums=(0, 1))(x, w)
    assert dx.tolist() == [[28.0, 56.0]]
    assert dw.tolist() == [[14.0], [42.0]]


CASES = {
    "kernel": ((2, 5, 3), (3, 4), 1, False),
    "heads out": ((2, 5, 3), (3, 4, 6), 1, False),
    "heads in": ((2, 5, 4, 6), (4, 6, 3), 2, False),
    "table": ((2, 5, 3), (7, 3), 1, True),
    "one token": ((3,), (3, 4), 1, False),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("x", "w", "num_in", "is_transposed"), CASES.values(), ids=CASES)
def test_equals_autodiff(x, w, num_in, is_transposed, dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], x, dtype)
    w = jax.random.normal(keys[1], w)

    def plain(x, w):
        kernel = jnp.moveaxis(w, -1, 0) if is_transposed else w
        return jnp.tensordot(x, kernel.astype(x.dtype), num_in, preferred_element_type=jnp.float32)

    weights = jax.random.normal(keys[2], plain(x, w).shape).astype(dtype).astype(jnp.float32)

    def pulled(call):
        out, pull = jax.vjp(call, x, w)
        return out, *pull(weights)

    # Autodiff rounds the weight's gradient to bfloat16 on its way, this product does not.
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    wanted = pulled(plain)
    got = pulled(lambda x, w: float_product(x, w, num_in, is_transposed))
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_the_gradient_of_a_bfloat16_product_is_summed_in_float32():
    """257 products of 1: bfloat16 would say 256."""
    x, w = jnp.ones((257, 1), jnp.bfloat16), jnp.ones((1, 1))
    dw = jax.grad(lambda w: jnp.sum(float_product(x, w, 1)))(w)
    assert dw.dtype == jnp.float32
    assert float(dw[0, 0]) == 257.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_of_one_input_are_those_of_each_weight(dtype):
    """The same values and gradients of weights; that of the input is rounded once, not once a weight."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (2, 5, 8), dtype)
    weights = [jax.random.normal(k, (8, n)) for k, n in zip(keys[1:], (4, 6, 3), strict=True)]

    def total(call, x, weights):
        return sum(jnp.sum(jnp.sin(y)) for y in call(x, weights))

    def apart(x, weights):
        return [float_product(x, weight, 1) for weight in weights]

    def jointly(x, weights):
        return joint_product(x, tuple(weights), 1)

    for one, other in zip(jointly(x, weights), apart(x, weights), strict=True):
        np.testing.assert_array_equal(one, other)
    (dx, dws), (wanted_dx, wanted_dws) = (
        jax.grad(total, argnums=(1, 2))(call, x, weights) for call in (jointly, apart)
    )
    assert dx.dtype == dtype
    for one, other in zip(dws, wanted_dws, strict=True):
        np.testing.assert_array_equal(one, other)
    tolerance = 1e-5 if dtype == jnp.float32 else 4e-2
    np.testing.assert_allclose(
        np.asarray(dx, np.float32), np.asarray(wanted_dx, np.float32), atol=tolerance
    )


def test_the_gradient_of_a_joint_input_is_rounded_once():
    """1 + 2^-8 + 2^-8 in float32 is 1 + 2^-7, a bfloat16; added in bfloat16 it stays 1."""
    x = jnp.ones((1, 1), jnp.bfloat16)
    weights = tuple(jnp.full((1, 1), value) for value in (2.0**-8, 2.0**-8, 1.0))
    dx = jax.grad(lambda x: sum(jnp.sum(y) for y in joint_product(x, weights, 1)))(x)
    assert float(dx[0, 0]) == 1 + 2.0**-7
