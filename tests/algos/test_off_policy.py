"""Weights against the sampler and mismatch metrics, by hand and where they must do nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rows import log_row, random_rows, row

from jaxtool.algos import off_policy
from jaxtool.core.masked import divide


def test_truncated_importance_weights_by_hand_and_without_gradient():
    def f(logprobs: jax.Array) -> tuple[jax.Array, jax.Array]:
        weights = off_policy.truncated_importance_weights(logprobs, row(0.0, 0.0, 0.0), cap=2.0)
        return weights.sum(), weights

    (_, weights), gradient = jax.value_and_grad(f, has_aux=True)(log_row(0.5, 1.0, 7.0))
    np.testing.assert_allclose(weights, row(0.5, 1.0, 2.0), rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros((1, 3)))


def test_mismatch_metrics_by_hand():
    train, behaviour = row(-1.0, -2.0, -3.0, -50.0), row(-1.5, -2.0, -2.0, 0.0)
    mask = jnp.array([[True, True, True, False]])
    metrics = off_policy.mismatch_metrics(train, behaviour, mask)
    assert float(metrics.max_abs_difference) == 1.0
    assert [float(x) for x in metrics.abs_difference] == [1.5, 3.0]
    # Δ = .5, 0, -1: e^.5 - .5 - 1 = .14872; 0; e^-1 + 1 - 1 = .36788
    np.testing.assert_allclose(metrics.k3_kl[0], 0.14872127 + 0.36787944, rtol=1e-5)
    nothing = off_policy.mismatch_metrics(train, behaviour, jnp.zeros_like(mask))
    assert float(nothing.max_abs_difference) == 0.0
    assert float(divide(nothing.k3_kl)) == 0.0


def test_mismatch_of_signs_by_hand():
    # Δ = ln 2 and -ln 2: k1 = 0, E[ρ² - 1] = (3 - 3/4) / 2
    mask = jnp.ones((1, 2), bool)
    metrics = off_policy.mismatch_metrics(log_row(2.0, 0.5), row(0.0, 0.0), mask)
    np.testing.assert_allclose(divide(metrics.k1_kl), 0.0, atol=1e-7)
    np.testing.assert_allclose(divide(metrics.chi2), 1.125, rtol=1e-6)


# Two trajectories in one row, a tool token in the first, padding at the end.
MASK = jnp.array([[True, False, True, True, True, False]])
IDS = jnp.array([[0, 0, 0, 1, 1, -1]], jnp.int32)
RATIOS = log_row(2.0, 9.0, 0.25, 3.0, 1.5, 9.0)


def weights_of(name: str, train, behaviour, mask=MASK, ids=IDS, n=2, **bounds) -> jax.Array:
    function = {
        "token": off_policy.truncated_importance_weights,
        "mask": off_policy.masked_importance_weights,
        "sequence": off_policy.truncated_sequence_weights,
        "geometric": off_policy.geometric_rejection,
    }[name]
    rows = () if name in ("token", "mask") else (mask, ids, n)
    return function(train, behaviour, *rows, **bounds)


def test_truncated_sequence_weights_by_hand():
    """Products over policy tokens: 2 ⋅ ¼ = ½ (the tool's 9 is not seen), 3 ⋅ 1.5 = 4.5, cut at 4."""
    weights = weights_of("sequence", RATIOS, jnp.zeros((1, 6)), cap=4.0)
    np.testing.assert_allclose(weights, row(0.5, 0.5, 0.5, 4.0, 4.0, 1.0), rtol=1e-6)


def test_masked_importance_weights_by_hand():
    weights = weights_of("mask", RATIOS, jnp.zeros((1, 6)), low=0.5, high=2.5)
    np.testing.assert_allclose(weights, row(2.0, 0.0, 0.0, 0.0, 1.5, 0.0), rtol=1e-6)


def test_geometric_rejection_by_hand():
    """√½ = .707 is inside [.7, 2], √4.5 = 2.121 is not; padding has ratio 1."""
    weights = weights_of("geometric", RATIOS, jnp.zeros((1, 6)), low=0.7, high=2.0)
    np.testing.assert_allclose(weights, row(1.0, 1.0, 1.0, 0.0, 0.0, 1.0))


BOUNDS = {
    "token": {"cap": 2.0},
    "sequence": {"cap": 2.0},
    "mask": {"low": 0.5, "high": 5.0},
    "geometric": {"low": 0.999, "high": 1.001},
}


@pytest.mark.parametrize("name", BOUNDS)
class TestEveryWeight:
    def test_on_policy_it_is_one(self, name: str):
        numbers = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6)), jnp.float32)
        np.testing.assert_array_equal(weights_of(name, numbers, numbers, **BOUNDS[name]), 1.0)

    def test_it_carries_no_gradient(self, name: str):
        gradient = jax.grad(lambda x: weights_of(name, x, jnp.zeros((1, 6)), **BOUNDS[name]).sum())
        np.testing.assert_array_equal(gradient(log_row(*[1.0] * 6)), np.zeros((1, 6)))

    def test_what_a_tool_wrote_does_not_matter(self, name: str):
        rng = np.random.default_rng(1)
        _, mask, ids, n = random_rows(8)
        train, behaviour = (rng.normal(0, 0.3, mask.shape).astype(np.float32) for _ in "ab")
        args = jnp.asarray(mask), jnp.asarray(ids), n
        wanted = weights_of(name, *map(jnp.asarray, (train, behaviour)), *args, **BOUNDS[name])
        noisy = [jnp.asarray(np.where(mask, x, y)) for x, y in ((train, -1e4), (behaviour, 1e4))]
        got = weights_of(name, *noisy, *args, **BOUNDS[name])
        np.testing.assert_array_equal(got[mask], wanted[mask])
        assert np.isfinite(got).all()
