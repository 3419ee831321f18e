"""The device programs of the decoder: prefill, place, append and the window of K steps.

The convention that makes them one: a row holds `lengths` tokens in the cache and one *pending* token
that has not been run. A step runs the pending token and makes the next one pending, whether it was
sampled or forced on the row by a tool. So a prompt and a tool's output only write the cache; logits
are computed nowhere but in the window, and no token is ever run twice.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from jaxtool.decode.sampling import RowSampling, SamplingMode, plain_rows
from jaxtool.decode.sharded_sampling import sample_over_devices
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import (
    KVCache,
    gather_rows,
    make_cache,
    put_columns,
    scatter_rows,
    view_rows,
)
from jaxtool.model.param_axes import CACHE_AXES
from jaxtool.model.transformer import Params, cached_hidden_states, logits
from jaxtool.parallel.axis_rules import Sharding

_STATICS = ("config", "sharding")
# Rows of the cache; with pages a table of them; None: all rows, in place.
Where = Int[Array, " B"] | Int[Array, "B n"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeRows:
    """The small per-row state that host and device hand each other once per window.

    On the device B is the width of the window, which may be a part of the cache's rows.
    """

    lengths: Any  # [B] int32, tokens in the cache
    pending: Any  # [B] int32, the token to run next
    is_running: Any  # [B] bool
    max_lengths: Any  # [B] int32, the row stops when it holds this many tokens, pending included
    keys: Any  # [B, 2] uint32, key data of the row
    forced: Any  # [B, F] int32, tool tokens that ride the window
    forced_next: Any  # [B] int32, first forced token not yet made pending
    forced_count: Any  # [B] int32
    sampling: RowSampling

    def take(self, chosen: np.ndarray) -> "DecodeRows":
        """Copies of some rows of host arrays; idle rows where an index is out of range."""
        rows = self.lengths.shape[0]
        taken = jax.tree.map(lambda x: x[np.minimum(chosen, rows - 1)], self)
        taken.is_running[chosen >= rows] = False
        return taken


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """What K steps did. Step k of row b sampled a token iff is_sampled[k, b]."""

    tokens: Any  # [K, B] int32
    logprobs: Any  # [K, B] float32
    is_sampled: Any  # [K, B] bool
    steps: Any  # [] int32, steps run before every row was idle


def empty_cache(*, config: ModelConfig, sharding: Sharding, rows: int, positions: int) -> KVCache:
    """A cache of zeros, sharded over the mesh."""
    cache = _zeros(config=config, sharding=sharding, rows=rows, positions=positions)
    return jax.device_put(cache, cache_shardings(cache, sharding))


@functools.partial(jax.jit, static_argnames=(*_STATICS, "rows", "positions"))
def _zeros(*, config: ModelConfig, sharding: Sharding, rows: int, positions: int) -> KVCache:
    return constrain(make_cache(config, rows, positions), sharding)


def cache_shardings(cache: KVCache, sharding: Sharding) -> Any:
    """The shardings that programs give their caches: an equal one of another name compiles anew."""

    def of_array(x: Any) -> NamedSharding:
        if sharding.mesh.size == 1:
            return NamedSharding(sharding.mesh, PartitionSpec())
        return sharding.named(*CACHE_AXES[: x.ndim])

    return jax.tree.map(of_array, cache)


@functools.partial(jax.jit, static_argnames=_STATICS)
def prefill(
    params: Params, tokens: Int[Array, "R C"], *, config: ModelConfig, sharding: Sharding
) -> KVCache:
    """Keys and values of R prompts, padded on the right: [R, K, C, H] per layer."""
    r, c = tokens.shape
    cache = make_cache(config, r, c)
    _, cache = cached_hidden_states(
        params, config, tokens, columns_of(r, c), cache, view=c, sharding=sharding
    )
    return constrain(cache, sharding)


@functools.partial(jax.jit, static_argnames=_STATICS, donate_argnames=("cache",))
def prefill_chunk(
    params: Params,
    cache: KVCache,
    tokens: Int[Array, "R C"],
    start: Int[Array, ""],
    *,
    config: ModelConfig,
    sharding: Sharding,
) -> KVCache:
    """Columns start..start+C-1 of R prompts whose earlier columns are in `cache` [R, K, bucket, H]."""
    r, c = tokens.shape
    view = jax.tree.leaves(cache)[0].shape[2]
    positions = start + columns_of(r, c)
    _, cache = cached_hidden_states(
        params, config, tokens, positions, cache, view=view, sharding=sharding
    )
    return constrain(cache, sharding)


@functools.partial(jax.jit, static_argnames=("sharding",), donate_argnames=("cache",))
def place(
    cache: KVCache,
    prompts: KVCache,
    sources: Int[Array, " M"],
    cache_rows: Int[Array, " M"],
    *,
    sharding: Sharding,
) -> KVCache:
    """Copies prompt `sources[i]` into cache row `cache_rows[i]`; indices out of range are dropped."""
    return constrain(scatter_rows(cache, cache_rows, gather_rows(prompts, sources)), sharding)


@functools.partial(jax.jit, static_argnames=(*_STATICS, "view"), donate_argnames=("cache",))
def append(
    params: Params,
    cache: KVCache,
    where: Where,
    tokens: Int[Array, "R C"],
    starts: Int[Array, " R"],
    *,
    config: ModelConfig,
    view: int,
    sharding: Sharding,
) -> KVCache:
    """Runs C tokens of R rows from `starts` on; padding is overwritten, or dropped where it has no page."""
    r, c = tokens.shape
    positions = starts[:, None] + columns_of(r, c)
    rows, table = rows_or_table(where)
    _, cache = cached_hidden_states(
        *(params, config, tokens, positions, cache),
        view=view,
        sharding=sharding,
        rows=rows,
        table=table,
    )
    return constrain(cache, sharding)


@functools.partial(
    jax.jit,
    static_argnames=(*_STATICS, "sampling_mode", "steps", "view"),
    donate_argnames=("cache",),
)
def window(
    params: Params,
    cache: KVCache,
    rows: DecodeRows,
    where: Where,
    least: Int[Array, ""],
    is_stop: Bool[Array, " V"],
    *,
    config: ModelConfig,
    sampling_mode: SamplingMode,
    steps: int,
    view: int,
    sharding: Sharding,
) -> tuple[KVCache, DecodeRows, Window]:
    """Up to `steps` tokens for every running row; ends early when fewer than `least` rows run.

    A row stops when it samples a token of `is_stop` (one that ends the response, or that could
    complete a closing tag: the host looks at the text) or when it holds `max_lengths` tokens.

    Args:
      where: rows of the cache that `rows` are; they are copied out, decoded together, and what they
        wrote is copied back. With pages their table, and nothing is copied. None: all rows, in place.
      least: 1 or more; with 1 the window ends only when every row is idle.
    """
    chosen, table = rows_or_table(where)
    if chosen is not None:
        first = rows.lengths
        part = constrain(view_rows(cache, chosen, view), sharding)
        part, rows, log = decode_loop(
            params, part, rows, least, is_stop, config, sampling_mode, steps, view, sharding
        )
        return constrain(scatter_columns(cache, part, chosen, first, steps), sharding), rows, log
    return decode_loop(
        params, cache, rows, least, is_stop, config, sampling_mode, steps, view, sharding, table
    )


def rows_or_table(where: Where) -> tuple[Array | None, Array | None]:
    """Cache rows, or a table of pages; both None: all rows, in place."""
    return (None, where) if where is not None and where.ndim == 2 else (where, None)


def scatter_columns(
    whole: KVCache, part: KVCache, chosen: Array, first: Array, count: int
) -> KVCache:
    """Copies columns first[b]..first[b]+count-1 of row b of `part` to row chosen[b] of `whole`."""
    columns = first[:, None] + jnp.arange(count)[None]

    def copy(x: Array, y: Array) -> Array:
        b = jnp.arange(y.shape[0])[:, None, None]
        heads = jnp.arange(y.shape[1])[None, :, None]  # see put_columns
        new = y.at[b, heads, columns[:, None, :]].get(mode="clip")
        inside = jnp.where(columns < y.shape[2], columns, x.shape[2])  # what was clipped is dropped
        return put_columns(x, chosen, inside, new)

    return jax.tree.map(copy, whole, part)


def decode_loop(
    params: Params,
    cache: KVCache,
    rows: DecodeRows,
    least: Array,
    is_stop: Array,
    config: ModelConfig,
    sampling_mode: SamplingMode,
    steps: int,
    view: int,
    sharding: Sharding,
    table: Array | None = None,
) -> tuple[KVCache, DecodeRows, Window]:
    """The loop of a window: each step runs every row's pending token and makes the next one pending.

    An example with K = 4 and two rows; token 3 is a stop token. Row 0 has prefilled the prompt
    5 6 7, so 5 6 are in the cache and 7 is pending. Row 1 called a tool: 4 tokens are in its cache,
    9 is pending, and the tool's output 30 31 is to be forced on it.

      In:      lengths [2 4]  pending [7  9]  forced [[.] [30 31]]  is_running [T T]
      step 0:  runs [7  9]    row 0 samples 8        row 1 is forced to 30
      step 1:  runs [8 30]    row 0 samples 3: ends  row 1 is forced to 31
      step 2:  runs [3 31]    row 0 is idle          row 1 samples 14
      step 3:  runs [3 14]    row 0 is idle          row 1 samples 15
      Out:     lengths [4 8]  pending [3 15]  is_running [F T]
               tokens  [[8 .] [3 .] [. 14] [. 15]], is_sampled True where there is a number

    Row 0 keeps its stop token pending: the host may resume it, or append a tool's output behind it.

    Args:
      table: [B, n], the cache is a pool of pages (`paged_programs`). Idle rows then write nothing.
    """
    # 1) An empty log: K lines, of which the loop fills as many as it runs.
    b = rows.lengths.shape[0]
    log = Window(
        tokens=jnp.zeros((steps, b), jnp.int32),
        logprobs=jnp.zeros((steps, b), jnp.float32),
        is_sampled=jnp.zeros((steps, b), bool),
        steps=jnp.int32(0),
    )

    # 2) Stop early when too few rows run: the host then refills the others.
    def has_work(carry: tuple[KVCache, DecodeRows, Window]) -> Array:
        _, rows, log = carry
        return (log.steps < steps) & (jnp.sum(rows.is_running, dtype=jnp.int32) >= least)

    def step(carry: tuple[KVCache, DecodeRows, Window]) -> tuple[KVCache, DecodeRows, Window]:
        cache, rows, log = carry
        # 3) Run the pending token at position `lengths`. Idle rows run theirs as well, for shapes are
        #    fixed: they write the same key and value to the same position again, which harms nothing.
        positions = rows.lengths
        if table is not None:  # beyond the table: nothing is written, and the kernel takes no step
            positions = jnp.where(rows.is_running, positions, view)
        hidden, cache = cached_hidden_states(
            params,
            config,
            rows.pending[:, None],
            positions[:, None],
            cache,
            view=view,
            sharding=sharding,
            table=table,
        )
        # 4) Draw a token for each row, also where a forced one will take its place. The key is folded
        #    with the drawn token's own position, so a draw depends on no neighbour and no window.
        scores = logits(params, config, hidden[:, 0])
        tokens, logprobs = sample_over_devices(
            scores, rows.keys, rows.lengths + 1, rows.sampling, sampling_mode, sharding
        )
        # 5) Choose between forced and drawn token, and write the step into the log.
        rows, is_sampled = advance(rows, tokens, is_stop)
        log = Window(
            tokens=log.tokens.at[log.steps].set(tokens),
            logprobs=log.logprobs.at[log.steps].set(logprobs),
            is_sampled=log.is_sampled.at[log.steps].set(is_sampled),
            steps=log.steps + 1,
        )
        return constrain(cache, sharding), rows, log

    return jax.lax.while_loop(has_work, step, (cache, rows, log))


def advance(rows: DecodeRows, tokens: Array, is_stop: Array) -> tuple[DecodeRows, Array]:
    """Each running row takes its next forced token, or else the sampled one.

    Step 0 of the example in `decode_loop`, where 8 and 12 were drawn:

      In:   tokens [8 12]  lengths [2 4]  pending [7  9]  forced_next [0 0]  forced_count [0 2]
      Out:                 lengths [3 5]  pending [8 30]  forced_next [0 1]  is_sampled [T F]
    """
    # 1) A row with forced tokens left takes the next of them. The index is clipped, since rows without
    #    any read one too.
    is_forced = rows.forced_next < rows.forced_count
    at = jnp.minimum(rows.forced_next, rows.forced.shape[1] - 1)
    forced = jnp.take_along_axis(rows.forced, at[:, None], axis=1)[:, 0]
    is_sampled = rows.is_running & ~is_forced
    # 2) The token that was pending is in the cache now.
    lengths = rows.lengths + rows.is_running
    # 3) Only a sampled token ends a row, by what it is or because cache and pending token fill the row.
    #    Whether a tool's output fits was asked by the host before it was forced.
    is_done = is_sampled & (is_stop[tokens] | (lengths + 1 >= rows.max_lengths))
    return dataclasses.replace(
        rows,
        lengths=lengths,
        pending=jnp.where(rows.is_running, jnp.where(is_forced, forced, tokens), rows.pending),
        is_running=rows.is_running & ~is_done,
        forced_next=rows.forced_next + (rows.is_running & is_forced),
    ), is_sampled


def columns_of(rows: int, columns: int) -> Array:
    return jnp.broadcast_to(jnp.arange(columns, dtype=jnp.int32), (rows, columns))


def constrain(cache: KVCache, sharding: Sharding) -> KVCache:
    """`cache` with its layout fixed: rows over the batch's axes, heads over theirs."""
    return jax.tree.map(lambda x: sharding.constrain(x, *CACHE_AXES[: x.ndim]), cache)


def idle_rows(rows: int, forced_capacity: int) -> DecodeRows:
    """Host arrays of rows that do nothing."""
    return DecodeRows(
        lengths=np.zeros(rows, np.int32),
        pending=np.zeros(rows, np.int32),
        is_running=np.zeros(rows, bool),
        max_lengths=np.zeros(rows, np.int32),
        keys=np.zeros((rows, 2), np.uint32),
        forced=np.zeros((rows, forced_capacity), np.int32),
        forced_next=np.zeros(rows, np.int32),
        forced_count=np.zeros(rows, np.int32),
        sampling=plain_rows(rows),
    )
