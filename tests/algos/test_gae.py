"""GAE that skips tool tokens: by hand, at neutral settings, and against a plain recursion."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rows import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtool.algos import gae
from jaxtool.core import masked

# Trajectory 0: prompt, two policy tokens, a tool token, a policy token; trajectory 1: one policy token.
MASK = np.array([[False, True, True, False, True, False, True, False]])
IDS = np.array([[0, 0, 0, 0, 0, 1, 1, -1]], np.int32)
VALUES = np.array([[9.0, 0.5, 0.25, 9.0, 0.75, 9.0, 0.5, 9.0]], np.float32)


def test_last_token_rewards_by_hand():
    rewards = np.where(MASK, np.array([[0.0, 2, 2, 0, 2, 0, 3, 0]]), 7.0)
    np.testing.assert_array_equal(
        gae.last_token_rewards(rewards, MASK, IDS), [[0, 0, 0, 0, 2, 0, 3, 0]]
    )
    nothing = gae.last_token_rewards(rewards, np.zeros_like(MASK), IDS)
    np.testing.assert_array_equal(nothing, np.zeros((1, 8)))


def test_gae_by_hand():
    """γ = ½, λ = ½, reward 2 at the end of trajectory 0 and 3 of trajectory 1.

    Token 4: δ = 2 - .75 = 1.25 = A. Token 2 (its next is token 4): δ = ½⋅.75 - .25 = .125,
    A = .125 + ¼⋅1.25 = .4375. Token 1: δ = ½⋅.25 - .5 = -.375, A = -.375 + ¼⋅.4375 = -.265625.
    Token 6: 3 - .5.
    """
    rewards = np.array([[0, 0, 0, 0, 2, 0, 3, 0]], np.float32)
    advantages, returns = gae.generalized_advantages(rewards, VALUES, MASK, IDS, gamma=0.5, lam=0.5)
    np.testing.assert_array_equal(advantages, [[0, -0.265625, 0.4375, 0, 1.25, 0, 2.5, 0]])
    np.testing.assert_array_equal(returns, [[0, 0.234375, 0.6875, 0, 2.0, 0, 3.0, 0]])


def test_without_discount_it_is_the_reward_to_come_minus_the_value():
    rewards = np.array([[0, 0, 0, 0, 2, 0, 3, 0]], np.float32)
    advantages, returns = gae.generalized_advantages(rewards, VALUES, MASK, IDS, gamma=1.0, lam=1.0)
    np.testing.assert_array_equal(advantages[MASK], [1.5, 1.75, 1.25, 2.5])
    np.testing.assert_array_equal(returns[MASK], [2, 2, 2, 3])


def test_lambda_zero_is_one_step():
    rewards = np.array([[0, 0, 0, 0, 2, 0, 3, 0]], np.float32)
    advantages, _ = gae.generalized_advantages(rewards, VALUES, MASK, IDS, gamma=1.0, lam=0.0)
    np.testing.assert_array_equal(advantages[MASK], [-0.25, 0.5, 1.25, 2.5])


def plain(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Equation 16 as a sum over what comes, for one trajectory without tool tokens."""
    after = [*values[1:], 0.0]
    deltas = [r + gamma * v2 - v for r, v, v2 in zip(rewards, values, after, strict=True)]
    return [
        sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))
    ]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), gamma=st.sampled_from([1.0, 0.9]), lam=st.floats(0.0, 1.0))
def test_packed_with_tool_tokens_equals_each_trajectory_alone_without_them(seed, gamma, lam):
    _, mask, ids, n = random_rows(seed)
    rng = np.random.default_rng(seed)
    values, rewards = rng.normal(size=mask.shape).astype(np.float32), rng.normal(size=mask.shape)
    values = np.where(mask, values, np.nan)  # never read
    advantages, returns = gae.generalized_advantages(
        rewards, values, mask, ids, gamma=gamma, lam=lam
    )
    for i in range(n):
        where = np.where((ids == i) & mask)
        if not where[0].size:
            continue
        wanted = plain(list(rewards[where]), list(map(float, values[where])), gamma, lam)
        np.testing.assert_allclose(advantages[where], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(returns[where], wanted + values[where], rtol=1e-5, atol=1e-5)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()


@pytest.mark.parametrize("name", ["gamma", "lam"])
def test_discounts_outside_0_to_1_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be in"):
        gae.generalized_advantages(
            VALUES, VALUES, MASK, IDS, **({"gamma": 1.0, "lam": 1.0} | {name: 2.0})
        )


def test_whitening_by_hand_and_as_on_the_device():
    values = np.array([[1.0, 99.0, 3.0]], np.float32)
    mask = np.array([[True, False, True]])
    np.testing.assert_allclose(gae.whitened(values, mask), [[-1, 0, 1]], rtol=1e-6)
    values, mask, _, _ = random_rows(3)
    on_device = masked.whiten(jnp.asarray(values), jnp.asarray(mask))
    np.testing.assert_allclose(gae.whitened(values, mask), on_device, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gae.whitened(values, np.zeros_like(mask)), np.zeros(mask.shape))


def test_explained_variance_by_hand():
    returns, mask = np.array([[1.0, 3.0, 50.0]]), np.array([[True, True, False]])
    assert gae.explained_variance(returns, returns, mask) == 1.0
    assert gae.explained_variance(np.array([[7.0, 7.0, 0.0]]), returns, mask) == 0.0
    # residuals .5 and 1: var 1/16 of var 1
    assert gae.explained_variance(np.array([[0.5, 2.0, 0.0]]), returns, mask) == 0.9375
    assert gae.explained_variance(returns, np.ones((1, 3)), mask) == 0.0
