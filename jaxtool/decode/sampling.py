"""Draws a token and gives the log-prob of the distribution it was drawn from.

Inverse CDF: a uniform number finds a block of the vocabulary among the sums of blocks, and a second one
finds the token inside it. The sum of all blocks is the normaliser, so the log-prob costs nothing more.
On XLA's CPU this is four to twenty times quicker than `jax.random.categorical`, which is Gumbel noise on
every token and an argmax (benchmarks/sampling.py). Every row has its own temperature and truncation.

Why two numbers: a uniform has 23 bits, and running sums near 1 have steps of 1.2e-7. What is left of one
number inside a block of probability 1e-7 is rounding noise, and such blocks would give their first token
nearly always.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jaxtool.core.ranges import check_range
from jaxtool.core.truncation import Truncation, kept_floor

VOCAB_BLOCK = 512  # near the square root of the common vocabulary sizes (50k to 152k)
SMALL_VOCABULARY = 2 * VOCAB_BLOCK  # up to it there is one block

# What the rows of a window need: "plain" is temperature alone; "mixed" can do everything per row.
SamplingMode = Literal["greedy", "plain", "mixed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens of one row are drawn: temperature first, then top-k, top-p and min-p."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0: no limit
    top_p: float = 1.0
    min_p: float = 0.0  # of the probability of the most likely token

    def __post_init__(self) -> None:
        check_range(self, "temperature", least=0)
        _ = self.truncation

    @property
    def truncation(self) -> Truncation:
        """What the learner must repeat, besides the temperature."""
        return Truncation(top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)

    @property
    def sampling_mode(self) -> SamplingMode:
        if self.temperature == 0:
            return "greedy"
        return "mixed" if self.truncation.is_on else "plain"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RowSampling:
    """`Sampling` of every row, on host or device."""

    temperature: Any  # [B] float32
    top_k: Any  # [B] int32
    top_p: Any  # [B] float32
    min_p: Any  # [B] float32

    def set(self, row: int, sampling: Sampling) -> None:
        """Writes one row of host arrays."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[row] = getattr(sampling, field.name)


def plain_rows(rows: int) -> RowSampling:
    """Host arrays of rows at temperature 1."""
    return RowSampling(
        temperature=np.ones(rows, np.float32),
        top_k=np.zeros(rows, np.int32),
        top_p=np.ones(rows, np.float32),
        min_p=np.zeros(rows, np.float32),
    )


def common_sampling_mode(modes: Iterable[SamplingMode]) -> SamplingMode:
    """The cheapest mode that serves all these rows."""
    wanted = set(modes)
    return wanted.pop() if len(wanted) == 1 else "mixed"


def sample(
    logits: Float[Array, "B V"],
    row_keys: UInt32[Array, "B 2"],
    positions: Int[Array, " B"],
    sampling: RowSampling,
    sampling_mode: SamplingMode,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Tokens and their log-probs under the distribution they were drawn from.

    Args:
      row_keys: key data of (seed, step, problem, sample), see `jaxtool.core.rng.row_key`.
      positions: index in the trajectory of the token to be drawn, folded into the key.
      sampling_mode: "greedy" and "plain" must be true of all rows. Greedy draws report the log-prob at
        temperature 1 of the whole vocabulary.
    """
    if sampling_mode == "greedy":
        return _greedy(logits)
    uniforms = jax.vmap(uniforms_of)(row_keys, positions)
    if sampling_mode == "plain":
        return inverse_cdf(logits / sampling.temperature[:, None], uniforms)
    is_greedy = sampling.temperature == 0
    scores = logits / jnp.where(is_greedy, 1.0, sampling.temperature)[:, None]
    tokens, logprobs = inverse_cdf(scores, uniforms, sampling)
    best, best_logprobs = _greedy(logits)
    return jnp.where(is_greedy, best, tokens), jnp.where(is_greedy, best_logprobs, logprobs)


def _greedy(logits: Array) -> tuple[Array, Array]:
    tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    best = jnp.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
    return tokens, best - jax.nn.logsumexp(logits, axis=-1)


def uniforms_of(row_key: Array, position: Array) -> Array:
    """Two numbers at the centres of 2^23 cells of (0, 1), (2k + 1) / 2^24, exact in float32.

    At 0, the lower end of the first cell, the first token of any weight would be drawn.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(row_key), position)
    return jax.random.uniform(key, (2,)) + 2.0**-24


def inverse_cdf(
    logits: Float[Array, "B V"],
    uniforms: Float[Array, "B 2"],
    truncation: RowSampling | None = None,
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """A token i of p = softmax(logits) renormalised over what is kept, and log p_i.

    Up to 1024 tokens: min { i : Σ_{j≤i} p_j > u₀ }. Beyond: the block that u₀ finds in the same way among
    the sums of blocks, and in it the token that u₁ finds among p renormalised over the block.

    A worked example with blocks of two: p = .1 .2 | .3 .4 and u = (.5, .4). Running sums of blocks are
    .3 and 1, so u₀ = .5 finds the second one. Inside it running sums are 3/7 and 1: u₁ = .4 finds token 2.
    """
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - top)
    if truncation is not None:
        floor = kept_floor(weights, truncation.top_k, truncation.top_p, truncation.min_p)
        weights = jnp.where(weights >= floor[:, None], weights, 0.0)
    if logits.shape[1] <= SMALL_VOCABULARY:
        tokens = invert(weights, uniforms[:, 0])
        total = jnp.sum(weights, axis=-1)
    else:
        tokens, total = _invert_in_blocks(weights, uniforms)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=1)
    return tokens, chosen[:, 0] - top[:, 0] - jnp.log(total)


def _invert_in_blocks(weights: Array, uniforms: Array) -> tuple[Array, Array]:
    """Tokens [B], and the sum of all weights of each row [B]."""
    b, v = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -v % VOCAB_BLOCK))).reshape(b, -1, VOCAB_BLOCK)
    sums = jnp.sum(blocks, axis=-1)
    vocab_block = invert(sums, uniforms[:, 0])
    inside = jnp.take_along_axis(blocks, vocab_block[:, None, None], axis=1)[:, 0]
    tokens = vocab_block * VOCAB_BLOCK + invert(inside, uniforms[:, 1])
    return tokens, jnp.sum(sums, axis=-1)


def invert(weights: Array, uniforms: Array) -> Array:
    """min { i : Σ_{j≤i} w_j > u Σ w } of each row."""
    cumulative = jnp.cumsum(weights, axis=-1)
    return _first_above(cumulative, uniforms * cumulative[:, -1], weights)


def _first_above(cumulative: Array, target: Array, weights: Array) -> Array:
    """First index whose cumulative weight exceeds the target; never one of weight zero.

    XLA sums prefixes in a tree, so rounding can make the sum rise or fall over an entry of weight
    zero, and can put the target on the total: then the last entry that has weight is meant.
    """
    is_possible = weights > 0
    is_above = is_possible & (cumulative > target[:, None])
    last = weights.shape[1] - 1 - jnp.argmax(is_possible[:, ::-1], axis=-1)
    first = jnp.argmax(is_above, axis=-1)
    return jnp.where(jnp.any(is_above, axis=-1), first, last).astype(jnp.int32)
