"""The critic's clipped squared error, by hand."""

import jax
import numpy as np
import pytest
from helpers.rows import row

from jaxtool.algos.value_loss import clipped_value_loss


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient", "is_clipped"),
    [
        (0.3, 1.0, 0.245, -0.7, False),  # inside ±.5 of the old value 0
        (0.8, 1.0, 0.125, 0.0, True),  # moved to the target beyond the clip: held at .5
        (0.8, 0.0, 0.32, 0.8, False),  # moved away: the larger error is the free one
        (-0.8, -1.0, 0.125, 0.0, True),
    ],
)
def test_clipped_value_loss_by_hand(value, target, loss, gradient, is_clipped):
    def f(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, clipped = clipped_value_loss(x, row(0.0), row(target), clip=0.5)
        return loss.sum(), clipped

    (got, clipped), slope = jax.value_and_grad(f, has_aux=True)(row(value))
    np.testing.assert_allclose(got, loss, rtol=1e-6)
    np.testing.assert_allclose(slope, [[gradient]], rtol=1e-6)
    assert bool(clipped[0, 0]) is is_clipped


def test_without_a_clip_it_is_half_the_squared_error():
    loss, clipped = clipped_value_loss(row(0.8, 2.0), row(0.0, 0.0), row(1.0, -1.0), clip=None)
    np.testing.assert_allclose(loss, row(0.02, 4.5), rtol=1e-5)
    assert not clipped.any()
    wide, _ = clipped_value_loss(row(0.8, 2.0), row(0.0, 0.0), row(1.0, -1.0), clip=1e9)
    np.testing.assert_array_equal(wide, loss)


def test_old_values_and_returns_carry_no_gradient():
    def f(old: jax.Array, returns: jax.Array) -> jax.Array:
        return clipped_value_loss(row(0.9), old, returns, clip=0.5)[0].sum()

    for gradient in jax.grad(f, argnums=(0, 1))(row(0.0), row(1.0)):
        assert float(gradient[0, 0]) == 0.0
