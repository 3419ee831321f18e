"""What the policies of rematerialisation keep of the TPU kernel, and what they run again."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.model.remat import keep, rematerialized
from jaxtool.model.splash_attention import splash_attention
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.plan.flops import kernel_calls

B, T, N, K, H = 2, 256, 4, 2, 64
SEGMENTS = jnp.repeat(jnp.asarray([[1, 2, 3, 0], [1, 1, 1, 1]]), T // 4, axis=1)
PREFIXES = jnp.repeat(jnp.asarray([[0, 1, 1, 0], [0, 0, 0, 0]]), T // 4, axis=1)


def layer_of(sharding, prefix_ids):
    """x W as queries, keys and values; their attention is added to x."""
    attend = functools.partial(
        splash_attention,
        segment_ids=SEGMENTS,
        prefix_ids=prefix_ids,
        sharding=sharding,
        interpret=True,
    )

    def layer(x, kernels):
        q = (x @ kernels["q"]).reshape(B, T, N, H)
        k, v = ((x @ kernels[name]).reshape(B, T, K, H) for name in "kv")
        return keep(x + attend(q, k, v).reshape(B, T, N * H) @ kernels["o"]), None

    return layer


def inputs():
    numbers = np.random.default_rng(0)
    shapes = {"q": (N * H, N * H), "k": (N * H, K * H), "v": (N * H, K * H), "o": (N * H, N * H)}
    kernels = {
        name: jnp.asarray(numbers.standard_normal((2, *shape)) / 16, jnp.float32)
        for name, shape in shapes.items()
    }
    return jnp.asarray(numbers.standard_normal((B, T, N * H)), jnp.float32), kernels


def gradient_of(remat, sharding=None, prefix_ids=None):
    layer = rematerialized(layer_of(sharding, prefix_ids), remat)
    seen = (SEGMENTS != 0)[..., None]

    def loss(x, kernels):
        return jnp.sum(jnp.square(jax.lax.scan(layer, x, kernels)[0]) * seen)

    return jax.grad(loss, argnums=(0, 1))


def forward_and_backward_calls(gradient):
    """Of the kernel, in two layers of two rows and two key heads; the heads are one axis of its grid."""
    calls = collections.Counter()
    for call in kernel_calls(jax.make_jaxpr(gradient)(*inputs()).jaxpr):
        calls["forward" if "fwd" in call.name else "backward"] += call.count
    return calls["forward"], calls["backward"]


@pytest.mark.parametrize("mesh", [None, MeshConfig(fsdp=2, tensor=2)], ids=["alone", "sharded"])
@pytest.mark.parametrize("prefixes", [None, PREFIXES], ids=["segments", "prefixes"])
def test_the_kernels_forward_pass_runs_once_where_its_residuals_are_kept(mesh, prefixes):
    sharding = None if mesh is None else Sharding(make_mesh(mesh, jax.devices()[:4]))
    none, named, attention, block = (
        forward_and_backward_calls(gradient_of(remat, sharding, prefixes))
        for remat in ("none", "named", "attention", "block")
    )
    assert none[0] > 0
    assert named == attention == none
    assert block == (2 * none[0], none[1])


@pytest.mark.parametrize("prefixes", [None, PREFIXES], ids=["segments", "prefixes"])
def test_kept_residuals_change_no_gradient(prefixes):
    wanted = jax.jit(gradient_of("block", None, prefixes))(*inputs())
    got = jax.jit(gradient_of("attention", None, prefixes))(*inputs())
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.any(y != 0)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
