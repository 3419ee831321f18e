"""int8 by hand, its error bound, and that every product of the decoder has a scale per output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, random_params
from jax.sharding import NamedSharding, PartitionSpec

from jaxtool.model.int8_params import quantize_layers, quantized_axes
from jaxtool.model.param_axes import param_axes, path_name
from jaxtool.model.quantize import Int8Weight, product, quantize
from jaxtool.model.transformer import unstack_layers
from jaxtool.parallel.axis_rules import is_axes
from jaxtool.parallel.mesh import MeshConfig, make_mesh


def test_quantize_by_hand():
    x = jnp.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    values, scale = quantize(x, (1,))
    assert values.dtype == jnp.int8
    np.testing.assert_array_equal(values, [[64, -127, 32], [0, 0, 0]])  # 63.5 rounds to even
    np.testing.assert_allclose(scale[0], 2 / 127, rtol=1e-6)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_no_number_moves_by_more_than_half_a_scale(axes):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 7)), jnp.float32)
    values, scale = quantize(x, axes)
    wide = jnp.expand_dims(scale, axes)
    assert scale.shape == tuple(n for i, n in enumerate(x.shape) if i not in axes)
    assert np.all(np.abs(values * wide - x) <= wide / 2 * (1 + 1e-5))
    assert int(jnp.max(jnp.abs(values.astype(jnp.int32)))) == 127


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_with_an_int8_weight_is_that_with_its_float_values(dtype):
    numbers = np.random.default_rng(1)
    x = jnp.asarray(numbers.standard_normal((2, 3, 4, 5)), dtype)
    weight = jnp.asarray(numbers.standard_normal((4, 5, 6)), jnp.float32)
    values, scale = quantize(weight, (0, 1))
    got = product(x, Int8Weight(values, scale), 2)
    wanted = jnp.einsum("abij,ijo->abo", x.astype(jnp.float32), values * scale[None, None])
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_becomes_int8_and_its_axes_fit(family):
    params = unstack_layers(random_params(FAMILIES[family]))
    axes = param_axes(random_params(FAMILIES[family]))
    axes["layers"] = tuple(
        jax.tree.map(lambda a: a[1:], axes["layers"], is_leaf=is_axes) for _ in params["layers"]
    )
    is_int8 = lambda x: isinstance(x, Int8Weight)  # noqa: E731
    numerics = quantize_layers(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(numerics, is_leaf=is_int8):
        assert is_int8(leaf) == path_name(path).endswith(("kernel", "embedding", "lm_head"))
    ranks = jax.tree.map(lambda x: x.ndim, numerics)
    assert jax.tree.map(len, quantized_axes(axes), is_leaf=is_axes) == ranks


def test_parts_of_a_sum_are_rounded_before_they_are_sent_by_hand():
    """Two devices, inputs [1, 2⁻⁹ | 2⁻⁹, 0], weights of 1. bfloat16 has 8 bits, so 1 + 2⁻⁹ is rounded to 1.

    In float32 the sum is 1 + 2⁻⁸. The first device sends 1, the second 2⁻⁹, and 1 + 2⁻⁹ is rounded to 1 again.
    """
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    x = jnp.array([[1, 2**-9, 2**-9, 0]], jnp.bfloat16)
    weight = jnp.ones((4, 1), jnp.bfloat16)
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec(None, "tensor")))
    weight = jax.device_put(weight, NamedSharding(mesh, PartitionSpec("tensor")))

    def summed(sums):
        made = jax.jit(lambda x, weight: product(x, weight, 1, sums))
        return made(x, weight).item()

    assert summed(None) == 1 + 2**-8
    assert summed(jnp.dtype("bfloat16")) == 1
    # The scale of an int8 weight comes after the sum, in float32.
    scaled = product(x, Int8Weight(jnp.ones((4, 1), jnp.int8), jnp.array([0.3])), 1, x.dtype)
    assert scaled.dtype == jnp.float32
    np.testing.assert_allclose(scaled, [[0.3]], rtol=2**-8)
