"""Guesses at a row's next tokens: what followed when its last tokens stood somewhere before.

Prompt lookup (Saxena 2023; "n-gram" drafts of vLLM) over the row itself and what others said to the same
problem. On the device, so that each pass of a window guesses anew.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Int

NOTHING = -1  # no token: between texts, and where there is no guess


def match_lengths(
    corpus: Int[Array, "B E"], ends: Int[Array, " B"], most: int
) -> Int[Array, "B E"]:
    """How many tokens up to and with j are those up to and with `ends`, at most `most`.

    An example: the tokens up to index 6 end in 5 6, and so do those up to index 2.

      In:   corpus [4 5 6 7 9 5 6]  ends 6  most 3
      Out:         [0 0 2 0 0 0 3]
    """
    lengths = jnp.zeros(corpus.shape, jnp.int32)
    is_same = jnp.ones(corpus.shape, bool)
    for back in range(most):
        last = jnp.take_along_axis(corpus, jnp.maximum(ends - back, 0)[:, None], axis=1)
        last = jnp.where((ends >= back)[:, None], last, NOTHING)
        shifted = jnp.pad(corpus, ((0, 0), (back, 0)), constant_values=NOTHING)
        is_same &= (shifted[:, : corpus.shape[1]] == last) & (last != NOTHING)
        lengths += is_same
    return lengths


def look_up(
    corpus: Int[Array, "B E"],
    ends: Int[Array, " B"],
    count: int,
    *,
    least_match: int,
    most_match: int,
) -> Int[Array, "B count"]:
    """The `count` tokens that are guessed to follow index `ends` of each row.

    Of all places whose match is at least `least_match` long and which have something behind them, the
    longest match serves; of several the last one. A guess that reaches the row's end goes on from its own
    start: behind `1 2 1 2` it is `1 2 1 2 ..`.

    An example: 5 6 stood before with 7 9 behind it, in another text that ends there.

      In:   corpus [5 6 7 9 -1 3 5 6]  ends 7  count 3  least_match 2
      Out:         [7 9 -1]

    Args:
      corpus: texts with NOTHING between them; what lies behind `ends` is not read.
    """
    width = corpus.shape[1]
    index = jnp.arange(width, dtype=jnp.int32)[None]
    lengths = match_lengths(corpus, ends, most_match)
    following = jnp.pad(corpus[:, 1:], ((0, 0), (0, 1)), constant_values=NOTHING)
    is_place = (index < ends[:, None]) & (following != NOTHING) & (lengths >= least_match)
    place = jnp.argmax(jnp.where(is_place, lengths * width + index, -1), axis=1).astype(jnp.int32)
    period = jnp.maximum(ends - place, 1)
    ahead = jnp.arange(count, dtype=jnp.int32)[None] % period[:, None]
    at = jnp.minimum(place[:, None] + 1 + ahead, width - 1)
    guesses = jnp.take_along_axis(corpus, at, axis=1)
    is_text = jnp.cumprod(guesses != NOTHING, axis=1).astype(bool)
    return jnp.where(jnp.any(is_place, axis=1)[:, None] & is_text, guesses, NOTHING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookup:
    """What a window's program must know of `DraftsConfig`."""

    own_start: int  # index of the row's own first token in its corpus; other texts lie before
    least_match: int
    most_match: int
