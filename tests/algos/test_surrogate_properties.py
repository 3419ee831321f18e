"""The clipped surrogate for any ratio and advantage."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtool.algos import policy_loss

CLIP = {"clip_low": 0.2, "clip_high": 0.28}


def row(value: float) -> jax.Array:
    return jnp.asarray([[value]], jnp.float32)


LOG_RATIOS = st.floats(-25.0, 25.0, width=32)
SIGNALS = st.integers(-24, 24).map(lambda eighths: eighths / 8)


@settings(max_examples=100, deadline=None)
@given(log_ratio=LOG_RATIOS, advantage=SIGNALS)
def test_the_clipped_loss_is_pessimistic_and_its_gradient_is_the_free_one_or_zero(
    log_ratio: float, advantage: float
):
    def f(logprobs: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, clipped = policy_loss.clipped_surrogate(
            logprobs, row(0.0), row(advantage), dual_clip=None, **CLIP
        )
        return loss[0, 0], clipped[0, 0]

    (loss, is_clipped), gradient = jax.value_and_grad(f, has_aux=True)(row(log_ratio))
    # In float32, as the function itself: near 1 ± ε the sides must not be decided by rounding.
    ratio = np.exp(np.clip(np.float32(log_ratio), -20, 20))
    free = -ratio * np.float32(advantage)
    assert loss >= free - 1e-5 * abs(free)
    is_beyond = advantage > 0 if ratio > 1.0 + CLIP["clip_high"] else advantage < 0
    is_outside = not 1.0 - CLIP["clip_low"] <= ratio <= 1.0 + CLIP["clip_high"]
    if abs(ratio - 1.28) > 1e-5 and abs(ratio - 0.8) > 1e-5:
        assert bool(is_clipped) == (is_outside and is_beyond)
    if is_clipped:
        assert gradient[0, 0] == 0.0
    elif abs(log_ratio) < 20:
        np.testing.assert_allclose(gradient[0, 0], free, rtol=1e-5)


@settings(max_examples=100, deadline=None)
@given(log_ratio=LOG_RATIOS, advantage=SIGNALS, dual_clip=st.floats(1.5, 10.0))
def test_dual_clip_bounds_the_loss_of_bad_tokens_and_nothing_else(
    log_ratio: float, advantage: float, dual_clip: float
):
    losses = [
        float(
            policy_loss.clipped_surrogate(
                row(log_ratio), row(0.0), row(advantage), dual_clip=c, **CLIP
            )[0][0, 0]
        )
        for c in (None, dual_clip)
    ]
    expected = min(losses[0], -dual_clip * advantage) if advantage < 0 else losses[0]
    np.testing.assert_allclose(losses[1], expected, rtol=1e-5)
