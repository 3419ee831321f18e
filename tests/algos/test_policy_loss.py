"""Token losses and aggregations: hand-computed values, and what must not change the result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.algos import policy_loss
from jaxtool.core.masked import divide

CLIP = {"clip_low": 0.2, "clip_high": 0.28}


def row(*values: float) -> jax.Array:
    return jnp.asarray([values], jnp.float32)


def log_row(*ratios: float) -> jax.Array:
    return jnp.log(row(*ratios))


# --- clipped surrogate ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "is_clipped"),
    [
        (1.1, 1.0, -1.1, -1.1, False),  # inside: -ρA, derivative by log π the same
        (1.5, 1.0, -1.28, 0.0, True),  # good and already likelier: stopped at 1 + .28
        (0.5, 1.0, -0.5, -0.5, False),  # good and less likely: the pessimistic side is free
        (0.5, -1.0, 0.8, 0.0, True),  # bad and already less likely: stopped at 1 - .2
        (1.5, -1.0, 1.5, 1.5, False),  # bad and likelier: free, pushed back
        (12.0, -1.0, 10.0, 0.0, True),  # dual clip: no more than c|A|
        (12.0, 1.0, -1.28, 0.0, True),  # which does not touch A > 0
        (1.5, 0.0, 0.0, 0.0, False),
    ],
)
def test_clipped_surrogate_by_hand(
    ratio: float, advantage: float, loss: float, gradient: float, is_clipped: bool
):
    def f(logprobs: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, clipped = policy_loss.clipped_surrogate(
            logprobs, row(0.0), row(advantage), dual_clip=10.0, **CLIP
        )
        return loss.sum(), clipped

    (value, clipped), slope = jax.value_and_grad(f, has_aux=True)(log_row(ratio))
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    np.testing.assert_allclose(slope, [[gradient]], rtol=1e-5)
    assert bool(clipped[0, 0]) is is_clipped


def test_without_dual_clip_a_bad_token_is_not_bounded():
    loss, clipped = policy_loss.clipped_surrogate(
        log_row(12.0), row(0.0), row(-1.0), dual_clip=None, **CLIP
    )
    np.testing.assert_allclose(loss, [[12.0]], rtol=1e-5)
    assert not clipped.any()


def test_on_policy_ratio_is_one_so_the_gradient_is_the_policy_gradient():
    rng = np.random.default_rng(0)
    logprobs = jnp.asarray(-rng.exponential(size=(2, 9)), jnp.float32)
    advantages = jnp.asarray(rng.normal(size=(2, 9)), jnp.float32)

    def f(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, clipped = policy_loss.clipped_surrogate(
            x, logprobs, advantages, dual_clip=3.0, **CLIP
        )
        return loss.sum(), clipped

    (value, clipped), gradient = jax.value_and_grad(f, has_aux=True)(logprobs)
    np.testing.assert_allclose(value, -advantages.sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, -advantages, rtol=1e-6)
    assert not clipped.any()


def test_old_logprobs_and_advantages_carry_no_gradient():
    def f(old: jax.Array, advantages: jax.Array) -> jax.Array:
        return policy_loss.clipped_surrogate(row(-1.0), old, advantages, dual_clip=None, **CLIP)[
            0
        ].sum()

    for gradient in jax.grad(f, argnums=(0, 1))(row(-1.1), row(2.0)):
        assert float(gradient[0, 0]) == 0.0


# --- KL ------------------------------------------------------------------------------------------


def test_k3_by_hand():
    # reference half as likely: .5 - ln .5 - 1 = .19315; twice as likely: 2 - ln 2 - 1 = .30685
    k3 = policy_loss.kl_k3(row(0.0, 0.0, -1.0), log_row(0.5, 2.0, np.exp(-1.0)), clamp=None)
    np.testing.assert_allclose(k3, row(0.19314718, 0.30685282, 0.0), atol=1e-6)


def test_k3_is_never_negative_and_unbiased():
    rng = np.random.default_rng(0)
    policy, reference = (np.log(rng.dirichlet(np.ones(6))) for _ in range(2))
    tokens = jnp.asarray(policy[None], jnp.float32), jnp.asarray(reference[None], jnp.float32)
    k3 = policy_loss.kl_k3(*tokens, clamp=None)
    assert (k3 >= 0).all()
    expectation = np.sum(np.exp(policy) * np.asarray(k3[0]))
    np.testing.assert_allclose(
        expectation, np.sum(np.exp(policy) * (policy - reference)), rtol=1e-5
    )


def test_k3_clamp_bounds_value_and_stops_the_gradient():
    def f(logprobs: jax.Array) -> jax.Array:
        return policy_loss.kl_k3(logprobs, row(0.0), clamp=10.0).sum()

    value, gradient = jax.value_and_grad(f)(row(-5.0))
    assert float(value) == 10.0
    assert float(gradient[0, 0]) == 0.0


# --- importance weights and mismatch ---------------------------------------------------------------


def test_truncated_importance_weights_by_hand_and_without_gradient():
    def f(logprobs: jax.Array) -> tuple[jax.Array, jax.Array]:
        weights = policy_loss.truncated_importance_weights(logprobs, row(0.0, 0.0, 0.0), cap=2.0)
        return weights.sum(), weights

    (_, weights), gradient = jax.value_and_grad(f, has_aux=True)(log_row(0.5, 1.0, 7.0))
    np.testing.assert_allclose(weights, row(0.5, 1.0, 2.0), rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros((1, 3)))


def test_mismatch_metrics_by_hand():
    train, behaviour = row(-1.0, -2.0, -3.0, -50.0), row(-1.5, -2.0, -2.0, 0.0)
    mask = jnp.array([[True, True, True, False]])
    metrics = policy_loss.mismatch_metrics(train, behaviour, mask)
    assert float(metrics.max_abs_difference) == 1.0
    assert [float(x) for x in metrics.abs_difference] == [1.5, 3.0]
    # Δ = .5, 0, -1: e^.5 - .5 - 1 = .14872; 0; e^-1 + 1 - 1 = .36788
    np.testing.assert_allclose(metrics.k3_kl[0], 0.14872127 + 0.36787944, rtol=1e-5)
    nothing = policy_loss.mismatch_metrics(train, behaviour, jnp.zeros_like(mask))
    assert float(nothing.max_abs_difference) == 0.0
    assert float(divide(nothing.k3_kl)) == 0.0


# --- aggregations ----------------------------------------------------------------------------------

# Two rows: trajectory 0 | 1 | padding, and 2 | 3, where 3 is fully masked.
VALUES = jnp.array([[1.0, 2.0, 3.0, 10.0, 99.0], [4.0, 5.0, 6.0, 99.0, 99.0]])
MASK = jnp.array([[True, False, True, True, False], [True, True, True, False, False]])
IDS = jnp.array([[0, 0, 0, 1, -1], [2, 2, 2, 3, 3]], jnp.int32)


def test_aggregations_by_hand():
    def pair(result: tuple[jax.Array, jax.Array]) -> tuple[float, float]:
        return float(result[0]), float(result[1])

    assert pair(policy_loss.token_mean(VALUES, MASK)) == (29.0, 6.0)
    # trajectory means 2, 10, 5; number 3 has no token and does not count
    assert pair(policy_loss.sequence_mean(VALUES, MASK, IDS, 4)) == (17.0, 3.0)
    assert pair(policy_loss.sequence_sum(VALUES, MASK, IDS, 4)) == (29.0, 3.0)
    constant = policy_loss.sequence_constant_mean(VALUES, MASK, IDS, 4, tokens=58.0)
    assert pair(constant) == (0.5, 3.0)


def aggregate(name: str, values: jax.Array, mask: jax.Array, ids: jax.Array, n: int):
    if name == "token_mean":
        return policy_loss.token_mean(values, mask)
    if name == "sequence_constant_mean":
        return policy_loss.sequence_constant_mean(values, mask, ids, n, tokens=7.0)
    return {
        "sequence_mean": policy_loss.sequence_mean,
        "sequence_sum": policy_loss.sequence_sum,
    }[name](values, mask, ids, n)


AGGREGATIONS = ["token_mean", "sequence_mean", "sequence_sum", "sequence_constant_mean"]


def random_rows(seed: int, rows: int = 4, t: int = 12):
    """Packed rows of random trajectories; each row ends in padding."""
    rng = np.random.default_rng(seed)
    ids = np.full((rows, t), -1, np.int32)
    number = 0
    for r in range(rows):
        position = 0
        while position < t - 2:
            length = int(rng.integers(1, 5))
            ids[r, position : min(position + length, t - 1)] = number
            position += length
            number += 1
    mask = (rng.random((rows, t)) < 0.6) & (ids >= 0)
    return rng.normal(size=(rows, t)).astype(np.float32), mask, ids, number


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
        weights = policy_loss.truncated_importance_weights(x, old, cap=2.0)
        per_token = surrogate * weights + 0.1 * policy_loss.kl_k3(x, old, clamp=10.0)
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
    total, count = policy_loss.sequence_sum(VALUES, jnp.ones_like(MASK), IDS, 4)
    assert (float(total), float(count)) == (16.0 + 15.0 + 198.0, 4.0)


def test_everything_works_under_jit():
    mean = jax.jit(policy_loss.sequence_mean, static_argnums=3)
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
    by_token = divide(policy_loss.token_mean(values, mask))
    np.testing.assert_allclose(by_token, divide(policy_loss.sequence_mean(values, mask, ids, 2)))


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_rows_over_8_devices_give_the_sums_of_one(name: str):
    values, mask, ids, n = random_rows(6, rows=8)
    arrays = [jnp.asarray(a) for a in (values, mask, ids)]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    reduce = jax.jit(lambda v, m, i: aggregate(name, v, m, i, n))
    sharded = reduce(*(jax.device_put(a, sharding) for a in arrays))
    np.testing.assert_allclose(sharded, reduce(*arrays), rtol=1e-5, atol=1e-6)
