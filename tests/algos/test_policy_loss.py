"""Policy losses: hand-computed values, neutral settings, and what must not change the result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rows import log_row, random_rows, row

from jaxtool.algos import policy_loss

CLIP = {"clip_low": 0.2, "clip_high": 0.28}


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


# --- GSPO, CISPO, SAPO -----------------------------------------------------------------------------

# Two trajectories in one row, a tool token in the first, padding at the end.
MASK = jnp.array([[True, False, True, True, True, False]])
IDS = jnp.array([[0, 0, 0, 1, 1, -1]], jnp.int32)


def losses(name: str, logprobs, old, advantages, mask=MASK, ids=IDS, n=2):
    if name == "clip":
        return policy_loss.clipped_surrogate(logprobs, old, advantages, dual_clip=None, **CLIP)
    if name == "gspo":
        return policy_loss.gspo(logprobs, old, advantages, mask, ids, n, **CLIP)
    if name == "cispo":
        return policy_loss.cispo(logprobs, old, advantages, clip_low=None, clip_high=0.28)
    return policy_loss.sapo(logprobs, old, advantages, tau_positive=1.0, tau_negative=1.05)


def slope_of(name: str, logprobs, old, advantages, mask=MASK, ids=IDS, n=2) -> np.ndarray:
    """Gradient of the loss summed over the mask."""

    def f(x: jax.Array) -> jax.Array:
        loss = losses(name, x, old, advantages, mask, ids, n)[0]
        return jnp.where(mask, loss, 0.0).sum()

    return np.asarray(jax.grad(f)(logprobs))


def test_gspo_by_hand():
    """Ratios 1.21 and 1 of trajectory 0: s = √1.21 = 1.1, on both of its tokens; the tool's 9 is not seen.

    Trajectory 1: ratios 2 and 2, s = 2, A > 0: clipped at 1.28, both tokens at once.
    """
    logprobs = log_row(1.21, 9.0, 1.0, 2.0, 2.0, 1.0)
    loss, clipped = losses("gspo", logprobs, jnp.zeros((1, 6)), jnp.ones((1, 6)))
    np.testing.assert_allclose(loss[MASK], [-1.1, -1.1, -1.28, -1.28], rtol=1e-6)
    np.testing.assert_array_equal(clipped[MASK], [False, False, True, True])
    slope = slope_of("gspo", logprobs, jnp.zeros((1, 6)), jnp.ones((1, 6)))
    # d(-s A): -s on each token of the trajectory that is not clipped
    np.testing.assert_allclose(slope, [[-1.1, 0, -1.1, 0, 0, 0]], rtol=1e-6)


def test_gspo_is_ppo_where_each_trajectory_has_one_token():
    rng = np.random.default_rng(0)
    logprobs, old, advantages = (jnp.asarray(rng.normal(size=(2, 3)), jnp.float32) for _ in "abc")
    one = jnp.ones((2, 3), bool), jnp.arange(6, dtype=jnp.int32).reshape(2, 3), 6
    for got, wanted in zip(
        losses("gspo", logprobs, old, advantages, *one),
        losses("clip", logprobs, old, advantages),
        strict=True,
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
    got, wanted = (slope_of(name, logprobs, old, advantages, *one) for name in ("gspo", "clip"))
    assert np.any(wanted == 0)  # something is clipped
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("low", "ratio", "advantage", "gradient", "is_clipped"),
    [
        (None, 1.1, 1.0, -1.1, False),
        (None, 3.0, 1.0, -1.28, True),  # PPO would give 0 here
        (None, 0.1, -1.0, 0.1, False),  # and here
        (0.2, 0.1, -1.0, 0.8, True),
        (None, 3.0, -2.0, 2.56, True),
    ],
)
def test_cispo_by_hand(low, ratio, advantage, gradient, is_clipped):
    def f(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, clipped = policy_loss.cispo(x, row(0.0), row(advantage), clip_low=low, clip_high=0.28)
        return loss.sum(), clipped

    (value, clipped), slope = jax.value_and_grad(f, has_aux=True)(log_row(ratio))
    np.testing.assert_allclose(slope, [[gradient]], rtol=1e-6)
    np.testing.assert_allclose(value, gradient * np.log(ratio), rtol=1e-5)
    assert bool(clipped[0, 0]) is is_clipped


def test_sapo_by_hand():
    """σ(0) = ½, so f(1) = 2/τ. At ρ = 2, A = 1: 4σ(1) = 2.924234; slope f'(2)⋅2 = 4σ(1)(1-σ(1))⋅2 = 1.572895."""
    at_one = losses("sapo", row(0.0, 0.0), row(0.0, 0.0), row(3.0, -3.0))[0]
    np.testing.assert_allclose(at_one, [[-6.0, 6.0 / 1.05]], rtol=1e-6)
    mask = jnp.ones((1, 1), bool)
    loss, clipped = losses("sapo", log_row(2.0), row(0.0), row(1.0))
    np.testing.assert_allclose(loss, [[-2.924234]], rtol=1e-6)
    slope = slope_of("sapo", log_row(2.0), row(0.0), row(1.0), mask)
    np.testing.assert_allclose(slope, [[-1.572895]], rtol=1e-5)
    assert not clipped.any()


@pytest.mark.parametrize("name", ["clip", "gspo", "cispo", "sapo"])
class TestEveryLoss:
    def test_on_policy_it_is_the_policy_gradient(self, name: str):
        rng = np.random.default_rng(0)
        logprobs, advantages = (jnp.asarray(rng.normal(size=(1, 6)), jnp.float32) for _ in "ab")
        slope = slope_of(name, logprobs, logprobs, advantages)
        np.testing.assert_allclose(slope, np.where(MASK, -advantages, 0.0), rtol=1e-5)

    def test_it_scales_with_the_advantages(self, name: str):
        rng = np.random.default_rng(1)
        logprobs, old, advantages = (
            jnp.asarray(rng.normal(size=(1, 6)), jnp.float32) for _ in "abc"
        )
        one, five = (slope_of(name, logprobs, old, k * advantages) for k in (1.0, 5.0))
        np.testing.assert_allclose(five, 5.0 * one, rtol=1e-5)

    def test_what_stands_off_the_mask_changes_nothing(self, name: str):
        """A tool token's log-prob may be anything, and gets gradient 0."""
        rng = np.random.default_rng(2)
        _, mask, ids, n = random_rows(7)
        logprobs, old, advantages = (rng.normal(size=mask.shape).astype(np.float32) for _ in "abc")
        args = jnp.asarray(mask), jnp.asarray(ids), n
        wanted = slope_of(name, *map(jnp.asarray, (logprobs, old, advantages)), *args)
        assert np.all(wanted[~mask] == 0.0)
        noisy = [np.where(mask, x, y) for x, y in ((logprobs, -1e4), (old, 1e4), (advantages, 9))]
        got = slope_of(name, *(jnp.asarray(x, jnp.float32) for x in noisy), *args)
        np.testing.assert_array_equal(got, wanted)

    def test_old_logprobs_and_advantages_carry_no_gradient(self, name: str):
        def f(old: jax.Array, advantages: jax.Array) -> jax.Array:
            return losses(name, row(*[-1.0] * 6), old, advantages)[0].sum()

        for gradient in jax.grad(f, argnums=(0, 1))(row(*[-1.1] * 6), row(*[2.0] * 6)):
            np.testing.assert_array_equal(gradient, np.zeros((1, 6)))
