"""Log-prob and entropy of each token, in chunks of the sequence: [B, T, V] never exists.

Where only some tokens are wanted, as those that a loss counts, they are moved to the front of each row
and the logits of the rest are not computed: half of the head's work where half of a row is prompt and
tool output.

How a row travels, with T = 8, chunk = 2, and the policy's tokens wanted (w), the rest not (.):

  positions       0 1 2 3 4 5 6 7
  wanted          . . w w . . w .
  order           2 3 6 0 1 4 5 7     a stable sort puts wanted positions first
  count           3                   most wanted tokens of any row
  chunks          [2 3][6 0][1 4][5 7]
  computed        ^^^^^ ^^^^^         ceil(3 / 2) = 2 chunks; position 0 is computed too, and masked
  back            3 4 0 1 5 6 2 7     the inverse of order: values return to their positions

The backward pass walks the same chunks: it recomputes the logits of a chunk, turns them into dlogits, and
from these takes the chunk's part of dh and adds the chunk's part of dW.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtool.core.truncation import Truncation, kept_weights
from jaxtool.model.float_product import float_product, input_gradient, weight_gradient
from jaxtool.parallel.axis_rules import Sharding

_PARTS = 4  # of a row that is one chunk: logits of 0, 1, .. 4 quarters of it are computed


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rule:
    """What `token_logprobs` is told and does not differentiate. Hashable, so jit-static."""

    temperature: float
    chunk: int
    is_table: bool
    truncation: Truncation | None
    shards: int
    sharding: Sharding | None

    def read(self, head: Array, dtype: jnp.dtype) -> Array:
        """The head as the products of a loop read it, made before the loop."""
        axes = ("vocab", None) if self.is_table else (None, "vocab")
        head = head.astype(dtype)
        return self.sharding.constrain(head, *axes) if self.sharding else head

    def chunks(self, x: Array) -> Array:
        """Hidden states [N, B, (parts,) C, D] of which a loop takes one chunk after the other."""
        axes = ("batch", *("queries",)[: x.ndim - 4], None, None)
        return self.sharding.constrain(x, None, *axes) if self.sharding else x


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
    shards: int = 1,
    sharding: Sharding | None = None,
    wanted: Bool[Array, "B T"] | None = None,
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
      shards: of the rows, on devices of their own. Each sums the head's gradient over its chunks, and the
        sums are added once; without this every chunk's gradient is all-reduced.
      sharding: of rows and head. Where `wanted` is given, the parts of D of the head, and of a row all chunks, are
        then gathered once, not for every chunk.
      wanted: tokens that are asked for; both values of the others are 0. As many chunks are computed as
        the row (or part) with most of them needs. None asks for all.
    """
    rule = _Rule(
        temperature=temperature,
        chunk=chunk,
        is_table=is_table,
        truncation=truncation,
        shards=shards,
        sharding=sharding,
    )
    if parts == 1:
        asked = None if wanted is None else wanted[:, 1:]
        found = _next_logprobs(hidden[:, :-1], head, tokens[:, 1:], asked, rule)
        return _shifted(found[0]), _shifted(found[1])

    def cut(x: Array) -> Array:
        return x.reshape(x.shape[0], parts, -1, *x.shape[2:])

    def following(x: Array) -> Array:  # the last column predicts nothing
        return jnp.pad(x[:, 1:], ((0, 0), (0, 1)))

    asked = None if wanted is None else cut(following(wanted))
    found = _next_logprobs(cut(hidden), head, cut(following(tokens)), asked, rule)
    logprobs, entropy = (x.reshape(tokens.shape)[:, :-1] for x in found)
    return _shifted(logprobs), _shifted(entropy)


def _shifted(values: Float[Array, "B T-1"]) -> Float[Array, "B T"]:
    return jnp.pad(values, ((0, 0), (1, 0)))


def _next_logprobs(
    hidden: Float[Array, "*rows T D"],
    head: Float[Array, "..."],
    targets: Int[Array, "*rows T"],
    wanted: Bool[Array, "*rows T"] | None,
    rule: _Rule,
) -> tuple[Float[Array, "*rows T"], Float[Array, "*rows T"]]:
    """log softmax(h_t W / τ)[target_t], and the entropy."""
    length = targets.shape[-1]
    if wanted is not None:
        # Wanted tokens first, compute that many, and back to where they stood.
        order = jnp.argsort(~wanted, axis=-1, stable=True)
        back = jnp.argsort(order, axis=-1)
        count = jnp.max(jnp.sum(wanted, axis=-1, dtype=jnp.int32))
        first = _reordered(hidden, order, back), head, _take(targets, order)
        found: Any = _first_logprobs(*first, count, rule)
        logprobs, entropy = (jnp.where(wanted, _take(x, back), 0.0) for x in found)
        return logprobs, entropy
    if rule.chunk >= length:
        return _piece(hidden, head, targets, rule)
    piece = jax.checkpoint(lambda h, y: _piece(h, head, y, rule))
    cut = _cut(hidden, rule.chunk, 2), _cut(targets, rule.chunk, 1)
    _, found = jax.lax.scan(lambda carry, xs: (carry, piece(*xs)), None, cut)
    return _join(found[0], length, 1), _join(found[1], length, 1)


def _piece(
    hidden: Float[Array, "*rows C D"],
    head: Float[Array, "..."],
    targets: Int[Array, "*rows C"],
    rule: _Rule,
) -> tuple[Float[Array, "*rows C"], Float[Array, "*rows C"]]:
    return _measured(float_product(hidden, head, 1, rule.is_table), targets, rule)


def _measured(
    logits: Float[Array, "*rows C V"], targets: Int[Array, "*rows C"], rule: _Rule
) -> tuple[Float[Array, "*rows C"], Float[Array, "*rows C"]]:
    """Log-prob of the target and entropy of each distribution."""
    scores = logits / rule.temperature
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    if rule.truncation is None or not rule.truncation.is_on:
        normaliser = jax.nn.logsumexp(scores, axis=-1)
        probs = jnp.exp(scores - normaliser[..., None])
    else:
        top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
        weights = jnp.exp(scores - top).reshape(-1, scores.shape[-1])
        weights = kept_weights(weights, targets.reshape(-1), rule.truncation).reshape(scores.shape)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        normaliser = (top + jnp.log(total))[..., 0]
        probs = weights / total
    mean_score = jnp.sum(probs * scores, axis=-1)
    return chosen - normaliser, normaliser - mean_score


def _cut(x: Array, chunk: int, trailing: int) -> Array:
    """[*rows, T, ...] as chunks [N, *rows, C, ...], the last filled up with zeros."""
    axis = x.ndim - trailing
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, -x.shape[axis] % chunk)
    x = jnp.pad(x, padding)
    x = x.reshape(*x.shape[:axis], -1, chunk, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _join(chunks: Array, length: int, trailing: int) -> Array:
    """Undoes `_cut` of T = `length`."""
    axis = chunks.ndim - 1 - trailing
    x = jnp.moveaxis(chunks, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)


def _by_shard(x: Array, shards: int) -> Array:
    """[B, *parts, C, D] as [shards, *parts, B / shards, C, D]."""
    x = x.reshape(shards, -1, *x.shape[1:])
    return jnp.moveaxis(x, 1, -3)


def _take(x: Array, order: Int[Array, "*rows T"]) -> Array:
    """[*rows, T] or [*rows, T, D] in another order of T."""
    axis = order.ndim - 1
    return jnp.take_along_axis(x, order[..., None] if x.ndim > order.ndim else order, axis=axis)


@jax.custom_vjp
def _reordered(x: Array, order: Array, back: Array) -> Array:
    """`_take` of an order whose inverse is known: the gradient is taken back, not scattered."""
    return _take(x, order)


_reordered.defvjp(
    lambda x, order, back: (_take(x, order), back), lambda back, dx: (_take(dx, back), None, None)
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _first_logprobs(
    hidden: Float[Array, "*rows T D"],
    head: Float[Array, "..."],
    targets: Int[Array, "*rows T"],
    count: Int[Array, ""],
    rule: _Rule,
) -> tuple[Float[Array, "*rows T"], Float[Array, "*rows T"]]:
    """Both values of the first `count` tokens of each row, or a few more; 0 for the rest."""
    return _forward(hidden, head, targets, count, rule)[0]


def _forward(
    hidden: Array, head: Array, targets: Array, count: Array, rule: _Rule
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    length = targets.shape[-1]
    # One chunk holds the row. `count` is known on the device only, and a program needs static shapes: so
    # one branch for each quarter of the row, and `switch` takes the smallest that holds `count`.
    if rule.chunk >= length:
        words = head.shape[0 if rule.is_table else -1]

        def begin(size: int) -> tuple[Array, Array, Array]:
            logits = float_product(hidden[..., :size, :], head, 1, rule.is_table)
            found = *_measured(logits, targets[..., :size], rule), logits
            rest = (0, length - size)
            rows = [(0, 0)] * (targets.ndim - 1)
            padding = [[*rows, rest], [*rows, rest], [*rows, rest, (0, 0)]]
            return tuple(jnp.pad(x, p) for x, p in zip(found, padding, strict=True))  # pyright: ignore

        zeros = jnp.zeros(targets.shape, jnp.float32)
        nothing = lambda: (zeros, zeros, jnp.zeros((*targets.shape, words), jnp.float32))  # noqa: E731
        sizes, index = _sizes(length, count)
        ways = [nothing, *(functools.partial(begin, size) for size in sizes)]
        logprobs, entropy, logits = jax.lax.switch(index, ways)
        return (logprobs, entropy), (hidden, head, targets, count, logits)
    # Several chunks: a loop that ends behind the last chunk with a wanted token.
    chunks = rule.chunks(_cut(hidden, rule.chunk, 2)), _cut(targets, rule.chunk, 1)
    read = rule.read(head, hidden.dtype)

    def step(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        h, y = (x[i] for x in chunks)
        return tuple(x.at[i].set(v) for x, v in zip(found, _piece(h, read, y, rule), strict=True))  # pyright: ignore

    zeros = jnp.zeros(chunks[1].shape, jnp.float32)
    logprobs, entropy = _loop(count, rule.chunk, len(zeros), step, (zeros, zeros))
    found = _join(logprobs, length, 1), _join(entropy, length, 1)
    return found, (hidden, head, targets, count)


def _backward(rule: _Rule, kept: tuple[Array, ...], cotangents: tuple[Array, Array]):
    """Gradients of hidden and head; tokens and count have none.

    Written by hand, because autodiff of a loop of unknown length does not exist, and because autodiff of
    a scan would keep one dW for every chunk.
    """
    hidden, head, targets, count, *logits = kept
    length = targets.shape[-1]

    # 1. From the two cotangents of a token to its row of dlogits: ordinary autodiff of `_measured`, so that
    # truncation needs no second derivation. For a plain softmax dlogits = ((onehot - p) dlogprob + ...) / τ.
    def score_gradient(logits: Array, y: Array, pulled: tuple[Array, Array]) -> Array:
        _, pull = jax.vjp(lambda x: _measured(x, y, rule), logits)
        return pull(pulled)[0].astype(hidden.dtype)

    # 2. dW of a chunk is hᵀ dlogits; dh is dlogits Wᵀ (`input_gradient`).
    def head_gradient(h: Array, scores: Array) -> Array:
        return weight_gradient(h, scores, 1, rule.is_table).astype(head.dtype)

    # 3a. The row was one chunk: its logits were kept, and the same branch as in the forward pass is taken.
    if logits:

        def begin(size: int) -> tuple[Array, Array]:
            pulled = cotangents[0][..., :size], cotangents[1][..., :size]
            scores = score_gradient(logits[0][..., :size, :], targets[..., :size], pulled)
            dh = input_gradient(scores, head, 1, rule.is_table)
            padding = [(0, 0)] * (dh.ndim - 2) + [(0, length - size), (0, 0)]
            return jnp.pad(dh, padding), head_gradient(hidden[..., :size, :], scores)

        nothing = lambda: (jnp.zeros_like(hidden), jnp.zeros_like(head))  # noqa: E731
        sizes, index = _sizes(length, count)
        ways = [nothing, *(functools.partial(begin, size) for size in sizes)]
        dh, dhead = jax.lax.switch(index, ways)
        return dh, dhead, None, None
    # 3b. Several chunks: logits are recomputed chunk by chunk. dW is a running sum, one for each shard and
    # part of the rows, so that devices add their own chunks without talking; step 4 adds the sums once.
    chunks = rule.chunks(_cut(hidden, rule.chunk, 2)), _cut(targets, rule.chunk, 1)
    pulls = [_cut(x, rule.chunk, 1) for x in cotangents]
    read = rule.read(head, hidden.dtype)
    apart = (rule.shards, *hidden.shape[1:-2])  # shards and parts, each with a sum of its own
    if math.prod(apart) == 1:
        apart = ()
    for _ in apart:
        head_gradient = jax.vmap(head_gradient)

    def step(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        h, y = (x[i] for x in chunks)
        logits = float_product(h, read, 1, rule.is_table)
        scores = score_gradient(logits, y, (pulls[0][i], pulls[1][i]))
        dh = input_gradient(scores, read, 1, rule.is_table)
        dhead = head_gradient(*(_by_shard(x, rule.shards) if apart else x for x in (h, scores)))
        return found[0].at[i].set(dh), found[1] + dhead

    zeros = rule.chunks(jnp.zeros_like(chunks[0])), jnp.zeros((*apart, *head.shape), head.dtype)
    dh, dhead = _loop(count, rule.chunk, len(chunks[0]), step, zeros)
    # 4. dh back into one row; the sums of shards and parts into one dW.
    return _join(dh, length, 2), jnp.sum(dhead, axis=range(len(apart))), None, None


_first_logprobs.defvjp(_forward, _backward)


def _sizes(length: int, count: Array) -> tuple[list[int], Array]:
    """Numbers of tokens that can be computed at once, and which of them holds `count`: 0 is none.

    T = 10, count = 4: quarters of 3, so sizes [3, 6, 9, 10] and index 2 (6 tokens are computed).
    """
    quarter = -(-length // _PARTS)
    sizes = [min(length, quarter * (part + 1)) for part in range(_PARTS)]
    return sizes, (count + quarter - 1) // quarter


def _loop(count: Array, chunk: int, most: int, step, start):
    """`step` for each chunk that has one of the first `count` tokens.

    The bound `most` never ends it; it tells an account of the program's cost how long it can be.
    """
    needed = (count + chunk - 1) // chunk
    _, found = jax.lax.while_loop(
        lambda carry: (carry[0] < needed) & (carry[0] < most),
        lambda carry: (carry[0] + 1, step(*carry)),
        (jnp.int32(0), start),
    )
    return found
