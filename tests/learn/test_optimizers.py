"""Optimizers with small states: codes by hand, curves of AdamW, and states that are cut like parameters."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtool.learn.adam8bit import block_size, dequantize_blocks, quantize_blocks, scale_by_adam8bit
from jaxtool.learn.optimizer import Adafactor, AdamW, AdamW8bit, OptimizerConfig, UpdateRule
from jaxtool.learn.state import (
    Gradients,
    add_gradients,
    apply_gradients,
    make_state,
    zero_gradients,
)
from jaxtool.model.param_axes import param_axes
from jaxtool.parallel.axis_rules import AxisRules, Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

# Matrices that Adafactor factors and adam8bit quantises, and a bias that both leave as it is.
SHAPES = {
    "embedding": (128, 256),
    "layers": {
        "attention": {"query": {"bias": (2, 4, 128)}},
        "mlp": {"gate": {"kernel": (2, 256, 512)}, "down": {"kernel": (2, 512, 256)}},
    },
}


def test_codes_by_hand():
    """Signed: c = 127 (|x|/s)^(1/3); positive: c = 255 (x/s)^(1/6), never 0 but for 0 itself."""
    x = jnp.array([[-8.0, 1.0, 0.0, 8 * (63.5 / 127) ** 3, -1e-9]])
    got = quantize_blocks(x, is_signed=True)
    np.testing.assert_array_equal(got.scales, [[8.0]])
    assert got.codes.dtype == jnp.int8
    # (1/8)^(1/3) = 1/2 gives 63.5, which rounds to even as the fourth does; 1e-9 is 0.06 of a step.
    np.testing.assert_array_equal(got.codes, [[-127, 64, 0, 64, 0]])
    back = dequantize_blocks(got)
    np.testing.assert_allclose(
        back, [[-8, 8 * (64 / 127) ** 3, 0, 8 * (64 / 127) ** 3, 0]], rtol=1e-6
    )
    v = jnp.array([[64.0, 1.0, 0.0, 1e-30]])
    got = quantize_blocks(v, is_signed=False)
    assert got.codes.dtype == jnp.uint8
    # (1/64)^(1/6) = 1/2 gives 127.5, rounded to 128.
    np.testing.assert_array_equal(got.codes, [[255, 128, 0, 1]])
    np.testing.assert_allclose(
        dequantize_blocks(got), [[64, 64 * (128 / 255) ** 6, 0, 64 / 255.0**6]], rtol=1e-5
    )


def test_each_block_has_its_own_scale():
    x = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    x[:, :64] *= 1e6
    got = quantize_blocks(jnp.asarray(x), is_signed=True)
    assert got.scales.shape == (3, 512 // block_size(512))
    back = np.asarray(dequantize_blocks(got))
    for start in range(0, 512, block_size(512)):
        part, exact = (y[:, start : start + block_size(512)] for y in (back, x))
        largest = np.abs(exact).max(axis=1, keepdims=True)
        # Half a step of the code is 1.5/127 of |x|^(2/3) s^(1/3).
        bound = (
            1.55 / 127 * np.abs(exact) ** (2 / 3) * largest ** (1 / 3) + largest * (1 / 127) ** 3
        )
        assert np.all(np.abs(part - exact) <= bound)


def test_blocks_are_cut_where_meshes_cut():
    """D and F of Qwen2.5 (0.5B, 7B, 32B), head widths, and an odd axis."""
    sizes = {n: block_size(n) for n in (896, 3584, 18944, 5120, 27648, 64, 128, 513)}
    assert sizes == {
        896: 56, 3584: 56, 18944: 148, 5120: 80, 27648: 216, 64: 64, 128: 128, 513: 513
    }  # fmt: skip
    for length in (3584, 18944, 5120, 27648):
        assert (length // sizes[length]) % 64 == 0


def quadratic(rule: UpdateRule, steps: int = 150) -> tuple[list[float], jax.Array]:
    """Losses of a noisy regression with inputs of unlike scale: what Adam is for."""
    numbers = np.random.default_rng(0)
    inputs = numbers.standard_normal((512, 128)) * np.logspace(-1.5, 0.5, 128)
    target = numbers.standard_normal((128, 64))
    x, y = jnp.asarray(inputs, jnp.float32), jnp.asarray(inputs @ target, jnp.float32)
    config = OptimizerConfig(rule=rule, learning_rate=2e-2, weight_decay=0.01)
    optimizer = config.optimizer()

    def loss(w, rows):
        return jnp.mean(jnp.square(x[rows] @ w["kernel"] - y[rows]))

    @jax.jit
    def step(carry, rows):
        w, state = carry
        value, grads = jax.value_and_grad(loss)(w, rows)
        updates, state = optimizer.update(grads, state, w)
        return (optax.apply_updates(w, updates), state), value

    w = {"kernel": jnp.zeros((128, 64), jnp.float32)}
    rows = jnp.asarray(numbers.integers(0, 512, (steps, 64)))
    (w, state), losses = jax.lax.scan(step, (w, optimizer.init(w)), rows)
    if rule == AdamW8bit():
        assert len([x for x in jax.tree.leaves(state) if x.dtype in (jnp.int8, jnp.uint8)]) == 2
    return [float(x) for x in losses], w["kernel"]


def test_adam8bit_follows_adamw():
    wanted, weights = quadratic(AdamW())
    got, other = quadratic(AdamW8bit())
    assert wanted[-1] < 0.05 * wanted[0]
    assert got[-1] < 1.1 * wanted[-1]
    np.testing.assert_allclose(got, wanted, rtol=0.1)
    away = jnp.linalg.norm(other - weights) / jnp.linalg.norm(weights)
    assert 0 < float(away) < 0.02


def test_adafactor_learns_without_moments_of_the_parameters_size():
    losses, _ = quadratic(Adafactor())
    assert losses[-1] < 0.1 * losses[0]
    state = OptimizerConfig(rule=Adafactor()).optimizer().init({"kernel": jnp.zeros((256, 128))})
    assert sum(x.size for x in jax.tree.leaves(state)) < 256 + 128 + 8


def test_small_parameters_are_adam_itself():
    """Clipped by the global norm as optax clips: the first two gradients are too long, the third is not."""
    params = {"bias": jnp.zeros(100), "norm": jnp.ones((4, 8))}
    first = jax.tree.map(lambda x: jnp.linspace(-1, 1, x.size).reshape(x.shape), params)
    ours = scale_by_adam8bit(0.9, 0.95, max_norm=0.5)
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam(0.9, 0.95))
    states = ours.init(params), theirs.init(params)
    our_update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
    for factor in (1.0, 3.0, 1e-3):
        grads = jax.tree.map(lambda x: factor * x, first)  # noqa: B023
        got, one = our_update(grads, states[0])
        wanted, other = their_update(grads, states[1])
        states = one, other
    for x, y in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_layers_one_by_one_are_updated_as_all_at_once():
    """A stack of matrices, and the same numbers as separate ones."""
    numbers = np.random.default_rng(0)
    stack = jnp.asarray(numbers.standard_normal((3, 64, 128)), jnp.float32)
    ours = scale_by_adam8bit(0.9, 0.95, max_norm=1.0)
    apart = {str(i): x for i, x in enumerate(stack)}
    state, states = ours.init(stack), ours.init(apart)
    assert len([x for x in jax.tree.leaves(states) if x.dtype == jnp.uint8]) == 3
    update = jax.jit(ours.update)
    for _ in range(2):
        got, state = update(stack, state)
        wanted, states = update(apart, states)
    for i, x in enumerate(got):
        np.testing.assert_allclose(x, wanted[str(i)], rtol=1e-5)


def updated(rule: UpdateRule, sharding: Sharding):
    """State after one update of a policy whose gradient is its parameters."""
    numbers = np.random.default_rng(0)
    params = jax.tree.map(
        lambda shape: jnp.asarray(numbers.standard_normal(shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    params = jax.device_put(params, sharding.tree(param_axes(params)))
    config = OptimizerConfig(rule=rule, learning_rate=1e-2)
    total = zero_gradients(params, sharding)
    total = dataclasses.replace(total, grads=jax.tree.map(lambda x: x + 0, params))
    state = make_state(params, config, sharding)
    return apply_gradients(state, total, config=config, sharding=sharding)[0]


@pytest.mark.parametrize("rule", [AdamW(), AdamW8bit()])
def test_replicas_share_optimizer_state_and_gradient_sums(rule):
    """ZeRO on data = 4: a quarter of the state a device, parameters as without, the same update."""
    mesh = make_mesh(MeshConfig(data=4, fsdp=1, tensor=2))
    plain = Sharding(mesh)
    shared = Sharding(mesh, AxisRules(optimizer_embed=("fsdp", "context", "data")))
    wanted, got = updated(rule, plain), updated(rule, shared)
    for x, y in zip(*map(jax.tree.leaves, (got.params, wanted.params)), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)

    def held(state) -> int:
        return sum(
            math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
            for x in jax.tree.leaves(state)
        )

    assert held(got.opt_state) < 0.27 * held(wanted.opt_state)  # biases and norms have no D to cut
    sums = [zero_gradients(wanted.params, sharding).grads for sharding in (shared, plain)]
    assert held(sums[0]) < 0.27 * held(sums[1])
    again = jax.tree.map(jnp.ones_like, wanted.params)
    add = jax.jit(add_gradients, static_argnums=3)
    total = add(Gradients(loss=jnp.float32(1), grads=sums[0]), jnp.float32(2), again, shared)
    assert total.loss == 3
    assert held(total.grads) == held(sums[0])
    assert all(np.all(np.asarray(x) == 1) for x in jax.tree.leaves(total.grads))


@pytest.mark.parametrize("rule", [AdamW8bit(), Adafactor()])
def test_states_are_cut_like_their_parameters(rule):
    """And the update on eight devices is that on one."""
    sharding = Sharding(make_mesh(MeshConfig(data=1, fsdp=4, tensor=2)))
    state = updated(rule, sharding)
    one = updated(rule, single_device())
    for x, y in zip(*map(jax.tree.leaves, (state, one)), strict=True):
        if x.dtype in (jnp.int8, jnp.uint8):  # a sum in another order may round to the next code
            assert np.abs(np.asarray(x, np.int32) - np.asarray(y, np.int32)).max() <= 1
        else:
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    held = {
        jax.tree_util.keystr(path): x.sharding.shard_shape(x.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(state.opt_state)
    }

    def shard_of(*parts: str) -> list[tuple[int, ...]]:
        return [shape for key, shape in held.items() if all(part in key for part in parts)]

    if rule == AdamW8bit():
        # gate [2, 256, 512] is cut 4 x 2; so are its codes, and its 16 blocks a row in two.
        assert shard_of("'gate'", ".codes") == [(2, 64, 256)] * 2
        assert shard_of("'gate'", ".scales") == [(2, 64, 8)] * 2
        # One block over an axis that is cut by four: its scale stays whole.
        assert shard_of("'down'", ".codes") == [(2, 256, 64)] * 2
        assert shard_of("'down'", ".scales") == [(2, 256, 1)] * 2
        assert shard_of("'query'", "'bias'") == [(2, 2, 128)] * 2
    else:
        # v_row lacks the largest axis, v_col the second largest.
        assert shard_of("v_row", "'gate'") == [(2, 64)]
        assert shard_of("v_col", "'gate'") == [(2, 256)]
        assert shard_of("v_row", "'embedding'") == [(64,)]
        assert shard_of("v_col", "'embedding'") == [(64,)]
        assert shard_of(".v[", "'query'", "'bias'") == [(2, 2, 128)]
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))
    assert whole < (2.3 if rule == AdamW8bit() else 0.3) * sum(
        x.size for x in jax.tree.leaves(state.params)
    )
