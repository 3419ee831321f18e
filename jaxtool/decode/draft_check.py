"""Whether a window with drafts computes the bits of the ordinary one on this machine, shape by shape.

A matrix product of more rows may add up in another order: XLA's CPU backend does so from 64 rows on in float32,
and up to 32 rows it does not. Nobody promises either, so both programs are run on the same rows and compared.
Log-probs, keys and values hold the sums of every product of a pass. Another order of addition would show in some
of so many numbers; where all are equal, the order is the same.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.decode import programs
from jaxtool.decode.draft_lookup import NOTHING
from jaxtool.decode.draft_window import DraftRows
from jaxtool.decode.program_table import ProgramTable
from jaxtool.decode.programs import DecodeRows, Window
from jaxtool.decode.sampling import SamplingMode
from jaxtool.model.kv_cache import KVCache, LayerCache

_TOKENS = 12  # of a row that are compared; long enough for several passes
_LEAST_GUESSED = 0.2  # of the compared tokens must have been right guesses, or nothing was compared


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Made:
    """What one window left of its rows, on the host; tokens it did not make are NOTHING and zeros."""

    tokens: np.ndarray  # [B, _TOKENS] int32
    logprobs: np.ndarray  # [B, _TOKENS] float32
    layer: LayerCache  # [B, _TOKENS, K, ..], what the tokens that were run have written in the last layer


def windows_agree(table: ProgramTable, key: tuple[int, int, SamplingMode], columns: int) -> bool:
    """Runs both windows over equal random caches, with the tokens of the first as guesses of the second.

    Takes the memory of one more cache while it runs.

    Args:
      table: with parameters and stop tokens.
      key: width, view and sampling mode of the windows.
    """
    width, view, mode = key
    rows, is_stop = _rows(table, width, view), jnp.zeros_like(table.is_stop)
    where = _where(table, rows, view)
    if where is not None and where.ndim == 2 and where.shape[0] < width:
        return False
    end = (where, np.int32(1), is_stop)
    ordinary, wide = table.window(width, view, mode), table.draft_window(width, view, mode, columns)
    cache, after, log = ordinary(table.params, _random_cache(table), rows, *end)
    wanted = _made(cache, rows, where, after, log)
    del cache
    drafts = _guesses(table, rows, wanted)
    cache, after, log, counts = wide(table.params, _random_cache(table), rows, drafts, *end)
    got = _made(cache, rows, where, after, log)
    # A wrong guess ends a pass, so the second window may be over before its rows are.
    count = np.minimum((got.tokens >= 0).sum(axis=1), (wanted.tokens >= 0).sum(axis=1))
    is_compared = np.arange(_TOKENS)[None] < count[:, None]
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    is_equal = all(np.array_equal(one[is_compared], other[is_compared]) for one, other in pairs)
    guessed = int(np.sum(jax.device_get(counts.accepted)))
    return is_equal and guessed >= max(1, _LEAST_GUESSED * is_compared.sum())


def _where(table: ProgramTable, rows: DecodeRows, view: int) -> np.ndarray | None:
    """Which cache rows the windows decode; with pages a table, in which each row writes to pages of its own.

    Pages that rows only read are shared, so that a pool of twice as many pages as rows serves. A smaller one gives
    a table of no rows: nothing can be checked in it.

    An example: pages of 16, two rows of 30 and 40 tokens, of which 12 more are compared. Row 0 writes to its
    pages 1 and 2, row 1 to its pages 2 and 3: these are pages 1 to 4 of the pool, all others are page 0.
    """
    width = len(rows.lengths)
    pages = table.config.pages
    if pages is None:
        return None if width == table.config.num_cache_rows else np.arange(width, dtype=np.int32)
    first = rows.lengths // pages.page_tokens
    last = np.minimum((rows.lengths + _TOKENS) // pages.page_tokens, pages.pages_of(view) - 1)
    if 1 + int((last - first + 1).sum()) > pages.num_pages:
        return np.zeros((0, pages.pages_of(view)), np.int32)
    where = np.zeros((width, pages.pages_of(view)), np.int32)
    used = 1
    for row in range(width):
        count = int(last[row] - first[row] + 1)
        where[row, first[row] : last[row] + 1] = np.arange(used, used + count)
        used += count
    return where


def _made(
    cache: KVCache, rows: DecodeRows, where: np.ndarray | None, after: DecodeRows, log: Window
) -> _Made:
    after, log = jax.device_get((after, log))
    tokens = np.full((len(rows.lengths), _TOKENS), NOTHING, np.int32)
    logprobs = np.zeros(tokens.shape, np.float32)
    for row in range(len(tokens)):
        lines = np.flatnonzero(log.is_sampled[:, row])[:_TOKENS]
        tokens[row, : len(lines)] = log.tokens[lines, row]
        logprobs[row, : len(lines)] = log.logprobs[lines, row]
    columns = rows.lengths[:, None] + np.arange(_TOKENS)
    into_rows = np.arange(len(tokens))[:, None]
    if where is not None and where.ndim == 2:
        page_tokens = cache[-1].k.shape[2]
        into_rows = where[into_rows, np.minimum(columns // page_tokens, where.shape[1] - 1)]
        columns = columns % page_tokens
    layer = jax.tree.map(lambda x: np.asarray(x[into_rows, :, columns]), cache[-1])
    return _Made(tokens=tokens, logprobs=logprobs, layer=layer)


def _guesses(table: ProgramTable, rows: DecodeRows, wanted: _Made) -> DraftRows:
    """A corpus in which the row's last tokens have stood before, with what it is to draw behind them."""
    drafts = table.config.drafts
    assert drafts is not None
    start, before = drafts.source_tokens, drafts.least_match
    corpus = np.full((len(rows.lengths), start + table.config.max_tokens), NOTHING, np.int32)
    numbers = np.random.default_rng(2)
    for row, length in enumerate(rows.lengths):
        last = [*numbers.integers(0, table.model.vocab_size, before), rows.pending[row]]
        text = [*last, *wanted.tokens[row]]
        corpus[row, : len(text)] = text
        corpus[row, start + length - before : start + length + 1] = last
    return DraftRows(corpus=corpus, is_drafting=np.ones(len(rows.lengths), bool))


def _rows(table: ProgramTable, width: int, view: int) -> DecodeRows:
    """Rows of unequal lengths that run for `_TOKENS` tokens, with keys of their own."""
    numbers = np.random.default_rng(0)
    rows = programs.idle_rows(width, table.config.forced_tokens)
    longest = max(1, view - _TOKENS - 2)
    rows.lengths[:] = numbers.integers(max(1, longest // 2), longest + 1, width)
    rows.pending[:] = numbers.integers(0, table.model.vocab_size, width)
    rows.is_running[:] = True
    rows.max_lengths[:] = np.minimum(rows.lengths + 1 + _TOKENS, table.config.max_tokens)
    rows.keys[:] = numbers.integers(0, 2**32, (width, 2), dtype=np.uint32)
    return rows


def _random_cache(table: ProgramTable) -> KVCache:
    """The same numbers at each call, of the size that keys have; zeros would hide the order of a sum."""

    def fill(index: int, x: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(1), index)
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jax.random.randint(key, x.shape, -127, 128, jnp.int32).astype(x.dtype)
        values = jax.random.normal(key, x.shape, jnp.float32)
        return (0.01 * jnp.abs(values) if x.ndim == 3 else values).astype(x.dtype)

    cache = table.empty_cache()
    leaves, tree = jax.tree.flatten(cache)
    filled = [
        jax.jit(fill, static_argnums=0, out_shardings=x.sharding)(i, x)
        for i, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, filled)
