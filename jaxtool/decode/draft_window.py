"""The window with drafts: each pass runs C tokens of every row, and keeps those that the row draws itself.

It is the window of `programs` with two differences. Guesses stand behind the pending token, and a row goes
on from column to column while the token that it made is the one that the next column has run. Forced tokens
are guesses that are always right, so a tool's output rides C tokens a pass.

A wrong guess leaves a key and a value beyond the row's length. They are never read: a query sees no position
behind its own, and the next pass writes these positions before it looks at them.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxtool.decode.draft_lookup import NOTHING, Lookup, look_up
from jaxtool.decode.programs import (
    DecodeRows,
    Where,
    Window,
    advance,
    columns_of,
    constrain,
    rows_or_table,
    scatter_columns,
)
from jaxtool.decode.sampling import RowSampling, SamplingMode
from jaxtool.decode.sharded_sampling import sample_over_devices
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import KVCache, view_rows
from jaxtool.model.transformer import Params, cached_hidden_states, logits
from jaxtool.parallel.axis_rules import Sharding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DraftRows:
    """What each row of a window may guess from."""

    # [B, E + S] int32: texts of others with NOTHING between and behind them, then the row's own tokens from
    # `Lookup.own_start` on, the pending one and the forced ones among them
    corpus: Any
    is_drafting: Any  # [B] bool, others guess nothing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DraftLog:
    """What became of the guesses of each row."""

    passes: Any  # [B] int32, in which the row ran
    with_guess: Any  # [B] int32, passes in which it had a guess behind its known tokens
    guessed: Any  # [B] int32, tokens
    accepted: Any  # [B] int32, guesses that the row drew itself
    wrong: Any  # [B] int32, guesses that it did not; those behind a wrong one are in neither


@functools.partial(
    jax.jit,
    static_argnames=("config", "sharding", "sampling_mode", "passes", "columns", "lookup", "view"),
    donate_argnames=("cache",),
)
def draft_window(
    params: Params,
    cache: KVCache,
    rows: DecodeRows,
    drafts: DraftRows,
    where: Where,
    least: Int[Array, ""],
    is_stop: Bool[Array, " V"],
    *,
    config: ModelConfig,
    sampling_mode: SamplingMode,
    passes: int,
    columns: int,
    lookup: Lookup,
    view: int,
    sharding: Sharding,
) -> tuple[KVCache, DecodeRows, Window, DraftLog]:
    """Up to `passes` x `columns` tokens for every running row; see `programs.window`.

    Args:
      where: as for `programs.window`.

    Returns:
      Cache and rows; the log, whose line k C + c is column c of pass k and whose `steps` are passes.
    """
    whole, first = cache, rows.lengths
    chosen, table = rows_or_table(where)
    if chosen is not None:
        cache = constrain(view_rows(cache, chosen, view), sharding)
    log = Window(
        tokens=jnp.zeros((passes * columns, rows.lengths.shape[0]), jnp.int32),
        logprobs=jnp.zeros((passes * columns, rows.lengths.shape[0]), jnp.float32),
        is_sampled=jnp.zeros((passes * columns, rows.lengths.shape[0]), bool),
        steps=jnp.int32(0),
    )
    zeros = jnp.zeros(rows.lengths.shape, jnp.int32)
    counts = DraftLog(passes=zeros, with_guess=zeros, guessed=zeros, accepted=zeros, wrong=zeros)

    def has_work(carry: tuple[KVCache, DecodeRows, Array, Window, DraftLog]) -> Array:
        _, rows, _, log, _ = carry
        return (log.steps < passes) & (jnp.sum(rows.is_running, dtype=jnp.int32) >= least)

    def one_pass(
        carry: tuple[KVCache, DecodeRows, Array, Window, DraftLog],
    ) -> tuple[KVCache, DecodeRows, Array, Window, DraftLog]:
        cache, rows, corpus, log, counts = carry
        # 1) The tokens of the pass: pending, then forced, then guessed.
        guesses, known = _guesses(rows, corpus, drafts.is_drafting, columns, lookup)
        tokens = jnp.concatenate([rows.pending[:, None], jnp.maximum(guesses, 0)], axis=1)
        positions = rows.lengths[:, None] + columns_of(len(tokens), columns)
        hidden, cache = cached_hidden_states(
            params,
            config,
            tokens,
            positions,
            cache,
            view=view,
            sharding=sharding,
            table=table,
            attends_apart=_attends_apart(sharding),
        )
        # 2) What each row draws behind each column, if it comes that far.
        draws, logprobs = _draw(
            params, config, hidden, rows, positions + 1, sampling_mode, sharding
        )
        # 3) From column to column, as far as the tokens were right.
        rows, made, is_sampled, counts = _accept(rows, draws, guesses, known, is_stop, counts)
        # 4) Log and corpus.
        line = log.steps * columns
        log = Window(
            tokens=jax.lax.dynamic_update_slice(log.tokens, draws.T, (line, 0)),
            logprobs=jax.lax.dynamic_update_slice(log.logprobs, logprobs.T, (line, 0)),
            is_sampled=jax.lax.dynamic_update_slice(log.is_sampled, is_sampled.T, (line, 0)),
            steps=log.steps + 1,
        )
        at = jnp.where(made != NOTHING, lookup.own_start + positions + 1, corpus.shape[1])
        corpus = corpus.at[jnp.arange(len(made))[:, None], at].set(made, mode="drop")
        return constrain(cache, sharding), rows, corpus, log, counts

    carry = (cache, rows, drafts.corpus, log, counts)
    cache, rows, _, log, counts = jax.lax.while_loop(has_work, one_pass, carry)
    if chosen is not None:
        cache = scatter_columns(whole, cache, chosen, first, passes * columns)
        cache = constrain(cache, sharding)
    return cache, rows, log, counts


def _attends_apart(sharding: Sharding) -> bool:
    """On a CPU, where attention is a small part of a pass and rounds by its shape; kernels read the cache once."""
    return sharding.mesh.devices.flat[0].platform == "cpu"


def _guesses(
    rows: DecodeRows, corpus: Array, is_drafting: Array, columns: int, lookup: Lookup
) -> tuple[Array, Array]:
    """Tokens guessed behind the pending one [B, C-1], and how many of them are known [B].

    A row with forced tokens left knows these; what it guesses stands behind them.

      In:   lengths 4  forced tokens left 30 31  columns 4  corpus ends in .. pending 30 31
      Out:  [30 31 g], known 2; g is what followed where the corpus had .. 30 31 before
    """
    count = columns - 1
    known = jnp.minimum(rows.forced_count - rows.forced_next, count)
    pending_at = lookup.own_start + rows.lengths
    found = look_up(
        corpus,
        pending_at + known,
        count,
        least_match=lookup.least_match,
        most_match=lookup.most_match,
    )
    found = jnp.where(is_drafting[:, None], found, NOTHING)
    column = columns_of(len(corpus), count)
    own = jnp.take_along_axis(
        corpus, jnp.minimum(pending_at[:, None] + 1 + column, corpus.shape[1] - 1), axis=1
    )
    behind = jnp.take_along_axis(found, jnp.maximum(column - known[:, None], 0), axis=1)
    return jnp.where(column < known[:, None], own, behind), known


def _draw(
    params: Params,
    config: ModelConfig,
    hidden: Array,
    rows: DecodeRows,
    positions: Array,
    sampling_mode: SamplingMode,
    sharding: Sharding,
) -> tuple[Array, Array]:
    """Tokens and log-probs [B, C] of all columns, each by the key of its row and its own position."""
    b, c, width = hidden.shape
    scores = logits(params, config, hidden.reshape(b * c, width))
    sampling: RowSampling = jax.tree.map(lambda x: jnp.repeat(x, c), rows.sampling)
    keys = jnp.repeat(rows.keys, c, axis=0)
    tokens, logprobs = sample_over_devices(
        scores, keys, positions.reshape(-1), sampling, sampling_mode, sharding
    )
    return tokens.reshape(b, c), logprobs.reshape(b, c)


def _accept(
    rows: DecodeRows,
    draws: Array,
    guesses: Array,
    known: Array,
    is_stop: Array,
    counts: DraftLog,
) -> tuple[DecodeRows, Array, Array, DraftLog]:
    """The rows after the columns that were right; the tokens made, NOTHING elsewhere; which were sampled.

    An example with C = 3: the row guessed 8 9 behind its pending 7, and draws 8, 4, 6.

      column 0:  ran 7, makes 8: the next column ran 8, so the row goes on
      column 1:  ran 8, makes 4: the next column ran 9, so the pass ends here
      Out:       lengths + 2, pending 4, made [8 4 .], 1 accepted, 1 wrong
    """
    b, c = draws.shape
    has_guess = rows.is_running & jnp.any(
        (guesses != NOTHING) & (columns_of(b, c - 1) >= known[:, None]), axis=1
    )
    counts = dataclasses.replace(
        counts,
        passes=counts.passes + rows.is_running,
        with_guess=counts.with_guess + has_guess,
        guessed=counts.guessed
        + jnp.where(
            rows.is_running,
            jnp.sum((guesses != NOTHING) & (columns_of(b, c - 1) >= known[:, None]), axis=1),
            0,
        ),
    )
    goes_on = rows.is_running
    made, sampled = [], []
    for column in range(c):
        after, is_sampled = advance(
            dataclasses.replace(rows, is_running=goes_on), draws[:, column], is_stop
        )
        is_over = goes_on & ~after.is_running
        rows = dataclasses.replace(after, is_running=rows.is_running & ~is_over)
        made.append(jnp.where(goes_on, rows.pending, NOTHING))
        sampled.append(is_sampled)
        if column < c - 1:
            was_guess = goes_on & ~is_over & (guesses[:, column] != NOTHING) & (column >= known)
            is_right = rows.pending == guesses[:, column]
            counts = dataclasses.replace(
                counts,
                accepted=counts.accepted + (was_guess & is_right),
                wrong=counts.wrong + (was_guess & ~is_right),
            )
            goes_on = goes_on & ~is_over & is_right
    return rows, jnp.stack(made, axis=1), jnp.stack(sampled, axis=1), counts
