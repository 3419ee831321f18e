"""Which tokens top-k, top-p and min-p leave: one threshold per row, found without a sort.

Shared by the sampler, which draws among the tokens that are left, and the learner, which needs the
log-prob of the same distribution. The order is top-k, then top-p of what top-k left, then min-p, as
in transformers; each keeps a token together with all tokens of equal probability.

The mask depends on the logits, so two forward passes that differ by rounding may disagree about a
token at the very edge. That changes the log of the kept mass by at most the probability of that token
over the mass; the learner counts the token that was drawn as kept in any case (`kept_weights`).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# lax.top_k of so many tokens costs a third of the search over 152k on a CPU (benchmarks/sampling.py);
# where a nucleus is larger the search runs.
_TOP = 256
_SMALL_VOCABULARY = 8192  # below it the search alone is quicker
_ONE = 0x3F800000  # the bits of float32 1.0; bits of floats >= 0 are ordered like the floats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncation:
    """How the tail of a distribution is cut off. The defaults cut nothing."""

    top_k: int = 0  # 0: no limit
    top_p: float = 1.0
    min_p: float = 0.0  # of the probability of the most likely token

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise ValueError(f"{self.top_k=} must be >= 0 (0 keeps every token)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"{self.top_p=} must be in (0, 1] (1 keeps every token)")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"{self.min_p=} must be in [0, 1) (0 keeps every token)")

    @property
    def is_on(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def kept_floor(
    weights: Float[Array, "B V"],
    top_k: Int[Array, " B"],
    top_p: Float[Array, " B"],
    min_p: Float[Array, " B"],
) -> Float[Array, " B"]:
    """The smallest weight that is kept: {i : wᵢ >= floor} is the set that is sampled from.

    top-k: Fan et al. 1805.04833, 5; top-p: Holtzman et al. 1904.09751, equation 2; min-p: Nguyen
    et al. 2407.01082, equation 1.

    Args:
      weights: exp(logit - largest logit), so that each row's largest weight is 1.
      top_k: 0 for none. top_p: 1 for none. min_p: 0 for none.
    """

    def search(weights: Array) -> Array:
        counted = _largest_floor(
            lambda f: jnp.sum(weights >= f[:, None], axis=-1, dtype=jnp.int32) >= top_k, weights
        )
        floor = jnp.where(top_k > 0, counted, 0.0)
        target = top_p * _mass(weights, floor)
        nucleus = _largest_floor(lambda f: _mass(weights, f) >= target, weights)
        return jnp.where(top_p < 1, nucleus, floor)

    if weights.shape[1] <= _SMALL_VOCABULARY:
        return jnp.maximum(search(weights), min_p)
    top, _ = jax.lax.top_k(weights, _TOP)
    at = jnp.clip(top_k - 1, 0, _TOP - 1)
    floor = jnp.where(top_k > 0, jnp.take_along_axis(top, at[:, None], axis=1)[:, 0], 0.0)
    target = top_p * _mass(weights, floor)
    is_reached = jnp.cumsum(top, axis=-1) >= target[:, None]
    last = jnp.argmax(is_reached, axis=-1)
    nucleus = jnp.take_along_axis(top, last[:, None], axis=1)[:, 0]
    is_inside = (top_k <= _TOP) & ((top_p >= 1) | is_reached[:, -1])
    floor = jax.lax.cond(
        jnp.all(is_inside), lambda _: jnp.where(top_p < 1, nucleus, floor), search, weights
    )
    return jnp.maximum(floor, min_p)


def kept_weights(
    weights: Float[Array, "B V"], tokens: Int[Array, " B"], truncation: Truncation
) -> Float[Array, "B V"]:
    """Weights of the learner's rows with what is cut off set to 0; row b's token always stays.

    The token was drawn, so the sampler kept it; were it at the edge and lost here to rounding, its
    log-prob would be -inf.
    """
    b, v = weights.shape
    floor = kept_floor(
        jax.lax.stop_gradient(weights),
        jnp.full(b, truncation.top_k, jnp.int32),
        jnp.full(b, truncation.top_p, jnp.float32),
        jnp.full(b, truncation.min_p, jnp.float32),
    )
    is_drawn = jnp.arange(v)[None] == tokens[:, None]
    return jnp.where((weights >= floor[:, None]) | is_drawn, weights, 0.0)


def _mass(weights: Array, floor: Array) -> Array:
    return jnp.sum(jnp.where(weights >= floor[:, None], weights, 0.0), axis=-1)


def _largest_floor(meets, weights: Array) -> Array:
    """The largest float32 f in [0, 1] with meets(f), which holds at 0 and fails from some f on."""

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) // 2
        is_met = meets(jax.lax.bitcast_convert_type(middle, jnp.float32))
        return jnp.where(is_met, middle, low), jnp.where(is_met, high, middle)

    low = jnp.zeros(weights.shape[0], jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, jnp.full_like(low, _ONE + 1)))
    return jax.lax.bitcast_convert_type(low, jnp.float32)
