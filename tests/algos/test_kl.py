"""Estimates of the KL: by hand, in expectation, and what their gradients are as losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rows import log_row, row

from jaxtool.algos import kl


def test_k3_by_hand():
    # reference half as likely: .5 - ln .5 - 1 = .19315; twice as likely: 2 - ln 2 - 1 = .30685
    k3 = kl.kl_k3(row(0.0, 0.0, -1.0), log_row(0.5, 2.0, np.exp(-1.0)), clamp=None)
    np.testing.assert_allclose(k3, row(0.19314718, 0.30685282, 0.0), atol=1e-6)


def test_k3_is_never_negative_and_unbiased():
    rng = np.random.default_rng(0)
    policy, reference = (np.log(rng.dirichlet(np.ones(6))) for _ in range(2))
    tokens = jnp.asarray(policy[None], jnp.float32), jnp.asarray(reference[None], jnp.float32)
    k3 = kl.kl_k3(*tokens, clamp=None)
    assert (k3 >= 0).all()
    expectation = np.sum(np.exp(policy) * np.asarray(k3[0]))
    np.testing.assert_allclose(
        expectation, np.sum(np.exp(policy) * (policy - reference)), rtol=1e-5
    )


def test_k3_clamp_bounds_value_and_stops_the_gradient():
    def f(logprobs: jax.Array) -> jax.Array:
        return kl.kl_k3(logprobs, row(0.0), clamp=10.0).sum()

    value, gradient = jax.value_and_grad(f)(row(-5.0))
    assert float(value) == 10.0
    assert float(gradient[0, 0]) == 0.0


def test_k1_and_k2_by_hand():
    # reference half as likely: ln 2 = .69315, its square over 2 = .24023; twice as likely: -ln 2
    policy, reference = row(0.0, 0.0), log_row(0.5, 2.0)
    np.testing.assert_allclose(kl.kl_k1(policy, reference), row(0.69314718, -0.69314718), rtol=1e-6)
    np.testing.assert_allclose(kl.kl_k2(policy, reference), row(0.24022651, 0.24022651), rtol=1e-6)


def test_expected_gradients_as_losses():
    """E over tokens of ∇k: 0 for k1, the KL's own gradient for k2, and the reverse one for k3."""
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=5), jnp.float32)
    reference = jax.nn.log_softmax(jnp.asarray(rng.normal(size=5), jnp.float32))
    probs = jax.nn.softmax(logits)

    def expected(estimate):
        def f(x: jax.Array) -> jax.Array:
            k = estimate(jax.nn.log_softmax(x)[None], reference[None])
            return jnp.sum(probs * k[0])  # the sampling distribution carries no gradient

        return jax.grad(f)(logits)

    def exact(x: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.softmax(x) * (jax.nn.log_softmax(x) - reference))

    def reverse(x: jax.Array) -> jax.Array:
        return -jnp.sum(jnp.exp(reference) * jax.nn.log_softmax(x))

    np.testing.assert_allclose(expected(kl.kl_k1), np.zeros(5), atol=1e-6)
    np.testing.assert_allclose(expected(kl.kl_k2), jax.grad(exact)(logits), atol=1e-6)
    np.testing.assert_allclose(expected(kl.kl_k3), jax.grad(reverse)(logits), atol=1e-6)
    assert np.abs(jax.grad(reverse)(logits) - jax.grad(exact)(logits)).max() > 0.01


@pytest.mark.parametrize("estimate", [kl.kl_k1, kl.kl_k2, kl.kl_k3])
def test_equal_policies_have_none_and_the_reference_gets_no_gradient(estimate):
    policy = log_row(0.3, 0.7)
    np.testing.assert_array_equal(estimate(policy, policy), np.zeros((1, 2)))
    gradient = jax.grad(lambda reference: estimate(policy, reference).sum())(log_row(0.5, 0.5))
    np.testing.assert_array_equal(gradient, np.zeros((1, 2)))
