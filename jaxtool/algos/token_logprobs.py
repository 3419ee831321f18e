"""Log-prob and entropy of each token, in chunks of the sequence: [B, T, V] never exists."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.core.truncation import Truncation, kept_weights
from jaxtool.model.float_product import float_product


@functools.partial(jax.named_call, name="token_logprobs")
def token_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "..."],
    tokens: Int[Array, "B T"],
    *,
    temperature: float,
    chunk: int,
    is_table: bool = False,
    truncation: Truncation | None = None,
    parts: int = 1,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """log softmax(h_{t-1} W / τ)[token_t] and -Σ p log p of that distribution, float32.

    Column 0 is 0: nothing predicts a first token. The backward pass recomputes each chunk's logits; of a
    row that is one chunk they are kept, since its backward pass would be the first thing to need them.

    Args:
      head: W [D, V], or the embedding table [V, D].
      temperature: τ of the sampler, so that both speak of the same distribution.
      chunk: tokens of a row whose logits exist at once; the last chunk may be shorter.
      is_table: `head` is the embedding table.
      truncation: of the sampler: both values are then of the renormalised rest, whose tokens are
        found anew from these logits (`jaxtool.core.truncation` says what that can differ by).
      parts: of a row whose chunks are gone through side by side, each by the devices that hold it.
    """
    measure = functools.partial(
        _next_logprobs,
        temperature=temperature,
        chunk=chunk,
        is_table=is_table,
        truncation=truncation,
    )
    if parts == 1:
        logprobs, entropy = measure(hidden[:, :-1], head, tokens[:, 1:])
    else:

        def cut(x: Array) -> Array:
            return x.reshape(x.shape[0], parts, -1, *x.shape[2:])

        following = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))  # the last column predicts nothing
        side_by_side = jax.vmap(measure, in_axes=(1, None, 1), out_axes=1)
        found = side_by_side(cut(hidden), head, cut(following))
        logprobs, entropy = (x.reshape(tokens.shape)[:, :-1] for x in found)
    return jnp.pad(logprobs, ((0, 0), (1, 0))), jnp.pad(entropy, ((0, 0), (1, 0)))


def _next_logprobs(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "..."],
    targets: Int[Array, "B T"],
    *,
    temperature: float,
    chunk: int,
    is_table: bool,
    truncation: Truncation | None,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """log softmax(h_t W / τ)[target_t], and the entropy."""
    length = targets.shape[1]
    chunk = min(chunk, length)
    padding = -length % chunk

    def piece(carry: None, xs: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
        h, y = xs
        scores = float_product(h, head, 1, is_table) / temperature
        chosen = jnp.take_along_axis(scores, y[:, :, None], axis=-1)[:, :, 0]
        if truncation is None or not truncation.is_on:
            normaliser = jax.nn.logsumexp(scores, axis=-1)
            probs = jnp.exp(scores - normaliser[:, :, None])
        else:
            top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
            weights = jnp.exp(scores - top).reshape(-1, scores.shape[-1])
            weights = kept_weights(weights, y.reshape(-1), truncation).reshape(scores.shape)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            normaliser = (top + jnp.log(total))[:, :, 0]
            probs = weights / total
        mean_score = jnp.sum(probs * scores, axis=-1)
        return carry, (chosen - normaliser, normaliser - mean_score)

    def cut(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 2))
        return x.reshape(x.shape[0], -1, chunk, *x.shape[2:]).swapaxes(0, 1)

    def join(x: Array) -> Array:
        return x.swapaxes(0, 1).reshape(targets.shape[0], -1)[:, :length]

    if chunk == length:
        return piece(None, (hidden, targets))[1]
    _, (logprobs, entropy) = jax.lax.scan(jax.checkpoint(piece), None, (cut(hidden), cut(targets)))
    return join(logprobs), join(entropy)
