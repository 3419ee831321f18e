"""GAE, returns, PPO's surrogate, the on-policy gradient and the entropy against rlax's, on random numbers.

rlax has no packed rows and no tool tokens: its sequences are the policy tokens of one trajectory. Skipped where it
is not installed: `pip install rlax` in an environment of its own (checked with 0.1.9).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.algos import aggregation, gae, policy_loss
from jaxtool.model.token_logprobs import token_logprobs

rlax = pytest.importorskip("rlax", reason="the comparison needs rlax: pip install rlax")

T, V, D = 12, 11, 8
NUMBERS = np.random.default_rng(0)
REWARDS, VALUES = NUMBERS.normal(size=(2, 1, T)).astype(np.float32)
MASK = np.ones((1, T), bool)
MASK[0, [0, 3, 4, 7]] = False  # the prompt, and what tools wrote
ADVANTAGES, COUNTED = jnp.asarray(VALUES), jnp.asarray(MASK)
IDS = np.where(np.arange(T) < 9, 0, 1)[None].astype(np.int32)  # two trajectories in one row


def policy_tokens(trajectory):
    return np.flatnonzero(MASK[0] & (IDS[0] == trajectory))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (0.99, 0.0)])
def test_advantages_and_returns_of_each_trajectory(gamma, lam):
    advantages, returns = gae.generalized_advantages(
        REWARDS, VALUES, MASK, IDS, gamma=gamma, lam=lam
    )
    for trajectory in (0, 1):
        where = policy_tokens(trajectory)
        rewards, values = jnp.asarray(REWARDS[0, where]), jnp.append(VALUES[0, where], 0.0)
        discounts = jnp.full(len(where), gamma)
        theirs = rlax.truncated_generalized_advantage_estimation(rewards, discounts, lam, values)
        np.testing.assert_allclose(advantages[0, where], theirs, rtol=1e-5, atol=1e-6)
        theirs = rlax.lambda_returns(rewards, discounts, values[1:], lam)
        np.testing.assert_allclose(returns[0, where], theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_the_clipped_surrogate_and_its_gradient(epsilon):
    """rlax has one epsilon, and means over a sequence."""
    logprobs = jnp.asarray(NUMBERS.normal(-2, 0.5, (1, T)), jnp.float32)
    old = logprobs + jnp.asarray(NUMBERS.normal(0, 0.4, (1, T)), jnp.float32)

    def ours(logprobs):
        loss, _ = policy_loss.clipped_surrogate(
            logprobs, old, ADVANTAGES, clip_low=epsilon, clip_high=epsilon, dual_clip=None
        )
        total, count = aggregation.token_mean(loss, COUNTED)
        return total / count

    def theirs(logprobs):
        ratios = jnp.exp(logprobs - old)[0, MASK[0]]
        return rlax.clipped_surrogate_pg_loss(ratios, VALUES[0, MASK[0]], epsilon)

    one, other = (jax.value_and_grad(loss)(logprobs) for loss in (ours, theirs))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5, atol=1e-7)
    assert 0 < np.count_nonzero(one[1]) < MASK.sum()  # some are clipped, some are not


@pytest.mark.filterwarnings("ignore:Rlax softmax:PendingDeprecationWarning")
def test_the_on_policy_gradient_is_that_of_the_policy_gradient_theorem():
    hidden = jnp.asarray(NUMBERS.normal(size=(1, T, D)), jnp.float32)
    head = jnp.asarray(NUMBERS.normal(size=(D, V)), jnp.float32)
    tokens = jnp.asarray(NUMBERS.integers(0, V, (1, T)), jnp.int32)

    def ours(head):
        logprobs, entropy = token_logprobs(hidden, head, tokens, temperature=1.0, chunk=T)
        losses = policy_loss.clipped_surrogate(
            logprobs,
            jax.lax.stop_gradient(logprobs),
            ADVANTAGES,
            clip_low=0.2,
            clip_high=0.28,
            dual_clip=None,
        )[0]
        total, count = aggregation.token_mean(losses - 0.1 * entropy, COUNTED)
        return total / count

    def theirs(head):
        where, weights = MASK[0], jnp.ones(MASK.sum())
        logits = (hidden @ head)[0, :-1][where[1:]]  # a token is predicted by what precedes it
        gradient = rlax.policy_gradient_loss(logits, tokens[0, where], VALUES[0, where], weights)
        return gradient + 0.1 * rlax.entropy_loss(logits, weights)

    np.testing.assert_allclose(jax.grad(ours)(head), jax.grad(theirs)(head), rtol=2e-4, atol=1e-6)
