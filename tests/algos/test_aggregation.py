"""Averages over packed rows: hand-computed values, and what must not change the result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rows import random_rows, row

from jaxtool.algos import aggregation, kl, off_policy, policy_loss
from jaxtool.core.masked import divide

CLIP = {"clip_low": 0.2, "clip_high": 0.28}

# Two rows: trajectory 0 | 1 | padding, and 2 | 3, where 3 is fully masked.
VALUES = jnp.array([[1.0, 2.0, 3.0, 10.0, 99.0], [4.0, 5.0, 6.0, 99.0, 99.0]])
MASK = jnp.array([[True, False, True, True, False], [True, True, True, False, False]])
IDS = jnp.array([[0, 0, 0, 1, -1], [2, 2, 2, 3, 3]], jnp.int32)


def test_aggregations_by_hand():
    def pair(result: tuple[jax.Array, jax.Array]) -> tuple[float, float]:
        return float(result[0]), float(result[1])

    assert pair(aggregation.token_mean(VALUES, MASK)) == (29.0, 6.0)
    # trajectory means 2, 10, 5; number 3 has no token and does not count
    assert pair(aggregation.sequence_mean(VALUES, MASK, IDS, 4)) == (17.0, 3.0)
    assert pair(aggregation.sequence_sum(VALUES, MASK, IDS, 4)) == (29.0, 3.0)
    constant = aggregation.sequence_constant_mean(VALUES, MASK, IDS, 4, tokens=58.0)
    assert pair(constant) == (0.5, 3.0)


def test_trajectory_sums_by_hand():
    """1 + 3 of two tokens; 10; 4 + 5 + 6; nothing; an id that does not occur."""
    sums, counts = aggregation.trajectory_sums(VALUES, MASK, IDS, 5)
    np.testing.assert_array_equal(sums, [4, 10, 15, 0, 0])
    np.testing.assert_array_equal(counts, [2, 1, 3, 0, 0])


def aggregate(name: str, values: jax.Array, mask: jax.Array, ids: jax.Array, n: int):
    if name == "token_mean":
        return aggregation.token_mean(values, mask)
    if name == "sequence_constant_mean":
        return aggregation.sequence_constant_mean(values, mask, ids, n, tokens=7.0)
    return {
        "sequence_mean": aggregation.sequence_mean,
        "sequence_sum": aggregation.sequence_sum,
    }[name](values, mask, ids, n)


AGGREGATIONS = ["token_mean", "sequence_mean", "sequence_sum", "sequence_constant_mean"]


@pytest.mark.parametrize("name", AGGREGATIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_packed_equals_unpacked(name: str, seed: int):
    values, mask, ids, n = random_rows(seed)
    alone = [np.where(ids == i) for i in range(n)]
    t = ids.shape[1]
    single = [np.zeros((n, t), a.dtype) for a in (values, mask)]
    single_ids = np.full((n, t), -1, np.int32)
    for i, where in enumerate(alone):
        length = len(where[0])
        single[0][i, :length], single[1][i, :length] = values[where], mask[where]
        single_ids[i, :length] = i
    packed = aggregate(name, jnp.asarray(values), jnp.asarray(mask), jnp.asarray(ids), n)
    unpacked = aggregate(name, *map(jnp.asarray, single), jnp.asarray(single_ids), n)
    np.testing.assert_allclose(packed, unpacked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_accumulated_micro_batches_equal_one_batch(name: str):
    """Value and gradient; micro-batches hold different numbers of tokens and trajectories."""
    values, mask, ids, n = (
        jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in random_rows(3)
    )
    parts = [slice(0, 1), slice(1, 4)]
    count = sum(aggregate(name, values[p], mask[p], ids[p], n)[1] for p in parts)

    def whole(x: jax.Array) -> jax.Array:
        return divide(aggregate(name, x**2, mask, ids, n))

    def part(x: jax.Array, p: slice) -> jax.Array:
        return aggregate(name, x**2, mask[p], ids[p], n)[0] / count

    accumulated = [jax.value_and_grad(part)(values[p], p) for p in parts]
    value, gradient = jax.value_and_grad(whole)(values)
    np.testing.assert_allclose(sum(a[0] for a in accumulated), value, rtol=1e-5)
    np.testing.assert_allclose(
        np.concatenate([a[1] for a in accumulated]), gradient, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_tool_tokens_carry_no_loss(name: str):
    """Gradient exactly 0 on tokens outside the mask, whatever stands there, KL included."""
    _, mask, ids, n = random_rows(4)
    rng = np.random.default_rng(4)
    logprobs = -rng.exponential(size=mask.shape).astype(np.float32)
    old = np.where(mask, logprobs + 0.1, 0.0).astype(np.float32)
    logprobs = np.where(mask, logprobs, -1e4).astype(np.float32)  # an impossible tool token
    advantages = jnp.asarray(rng.normal(size=mask.shape), jnp.float32)

    def loss(x: jax.Array, old: jax.Array) -> jax.Array:
        surrogate, _ = policy_loss.clipped_surrogate(x, old, advantages, dual_clip=3.0, **CLIP)
        weights = off_policy.truncated_importance_weights(x, old, cap=2.0)
        per_token = surrogate * weights + 0.1 * kl.kl_k3(x, old, clamp=10.0)
        return divide(aggregate(name, per_token, jnp.asarray(mask), jnp.asarray(ids), n))

    for tool_token in (0.0, -1e4, 1e4):
        before = jnp.asarray(np.where(mask, old, tool_token), jnp.float32)
        value, gradient = jax.value_and_grad(loss)(jnp.asarray(logprobs), before)
        assert np.isfinite(value)
        np.testing.assert_array_equal(np.asarray(gradient)[~mask], 0.0)
        assert np.all(np.asarray(gradient)[mask] != 0.0)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_nan_outside_the_mask_does_not_leak(name: str):
    values = jnp.where(MASK, VALUES, jnp.nan)

    def f(x: jax.Array) -> jax.Array:
        return divide(aggregate(name, x, MASK, IDS, 4))

    value, gradient = jax.value_and_grad(f)(values)
    np.testing.assert_allclose(value, f(VALUES))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_nothing_in_the_mask_gives_zero_of_zero(name: str):
    total, count = aggregate(name, VALUES, jnp.zeros_like(MASK), IDS, 4)
    assert (float(total), float(count)) == (0.0, 0.0)
    assert float(divide((total, count))) == 0.0


def test_a_token_without_a_trajectory_is_not_counted_even_if_the_mask_says_so():
    total, count = aggregation.sequence_sum(VALUES, jnp.ones_like(MASK), IDS, 4)
    assert (float(total), float(count)) == (16.0 + 15.0 + 198.0, 4.0)


def test_everything_works_under_jit():
    mean = jax.jit(aggregation.sequence_mean, static_argnums=3)
    assert [float(x) for x in mean(VALUES, MASK, IDS, 4)] == [17.0, 3.0]


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_order_of_rows_and_numbers_of_trajectories_do_not_matter(name: str):
    values, mask, ids, n = random_rows(5)
    rng = np.random.default_rng(5)
    rows, numbers = rng.permutation(values.shape[0]), rng.permutation(n)
    renumbered = np.where(ids >= 0, numbers[np.maximum(ids, 0)], -1).astype(np.int32)
    moved = [jnp.asarray(a[rows]) for a in (values, mask, renumbered)]
    original = aggregate(name, jnp.asarray(values), jnp.asarray(mask), jnp.asarray(ids), n)
    np.testing.assert_allclose(aggregate(name, *moved, n), original, rtol=1e-5, atol=1e-5)


def test_trajectories_of_one_length_make_token_and_sequence_mean_equal():
    ids = jnp.asarray([[0, 0, 0, 1, 1, 1]], jnp.int32)
    values = row(1.0, 2.0, 3.0, 4.0, 5.0, 9.0)
    mask = jnp.ones((1, 6), bool)
    by_token = divide(aggregation.token_mean(values, mask))
    np.testing.assert_allclose(by_token, divide(aggregation.sequence_mean(values, mask, ids, 2)))


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_rows_over_8_devices_give_the_sums_of_one(name: str):
    values, mask, ids, n = random_rows(6, rows=8)
    arrays = [jnp.asarray(a) for a in (values, mask, ids)]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    reduce = jax.jit(lambda v, m, i: aggregate(name, v, m, i, n))
    sharded = reduce(*(jax.device_put(a, sharding) for a in arrays))
    np.testing.assert_allclose(sharded, reduce(*arrays), rtol=1e-5, atol=1e-6)
