"""Host side of the decoder: rows of the cache, and the verbs prefill, place, append, window.

Which program runs a token, and in which shape, depends on that token's own row alone (its prompt's
length bucket, its tool output's length), never on its neighbours, as long as there is one view and one
window width. With several, neighbours choose among programs that differ by rounding.

With `EngineConfig.pages` rows hold pages of a pool (`paged_cache`), else each a row of the cache.
Not covered here: text, tags, tools, queues (see `jaxtool.rollout.collector`).
"""

import dataclasses
import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxtool.decode import compile_ahead, programs
from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.device_program import DeviceProgram
from jaxtool.decode.draft_check import windows_agree
from jaxtool.decode.drafting import make_drafting
from jaxtool.decode.host_copy import publish_to_host
from jaxtool.decode.in_flight import InFlightWindow, apply_window, choose_rows, places_of
from jaxtool.decode.memory import plan_memory
from jaxtool.decode.paged_cache import PagedCache
from jaxtool.decode.pieces import Placement, append_pieces, place_pieces
from jaxtool.decode.prefill import PrefillCall, Prefilled, advance_prefill, start_prefill
from jaxtool.decode.program_table import ProgramTable
from jaxtool.decode.programs import Window
from jaxtool.decode.sampling import Sampling, SamplingMode, common_sampling_mode
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import KVCache, cache_bytes
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_memory import to_device_memory, to_host_memory


class DecodeEngine:
    """Rows of one KV cache. Host arrays say what each row does; the cache stays on the device."""

    def __init__(
        self,
        *,
        model: ModelConfig,
        config: EngineConfig,
        sharding: Sharding,
        is_stop: np.ndarray,
        longest_prompt: int | None = None,
        returned: float = 0.0,
    ):
        """Plans the memory and makes an empty cache.

        Args:
          is_stop: [V] bool, tokens after which a row waits for the host.
          longest_prompt: tokens that prefill is planned for; None for up to `EngineConfig.max_tokens`.
          returned: see `plan_memory`: what `on_published` frees.

        Raises:
          ValueError: the rows do not fit, or do not divide over the devices; see `plan_memory`.
        """
        if is_stop.shape != (model.vocab_size,):
            raise ValueError(f"{is_stop.shape=} must be ({model.vocab_size},)")
        model = config.numerics.model(model)
        self.memory = plan_memory(
            model, config, sharding, longest_prompt=longest_prompt, returned=returned
        )
        self.on_published: Callable[[], None] = lambda: None  # in `load`, before it makes a cache
        config = self.memory.config
        self.model, self.config, self.sharding = model, config, sharding
        self.counts = EngineCounts()
        self._is_stop = jax.device_put(is_stop, sharding.named(None))
        self._rows = programs.idle_rows(config.num_cache_rows, config.forced_tokens)
        self._high_water = np.zeros(config.num_cache_rows, np.int32)
        self._sampling_modes: list[SamplingMode] = ["plain"] * config.num_cache_rows
        self._ages = np.zeros(config.num_cache_rows, np.int64)  # the older row decodes first
        self._placed = 0
        self._free = list(range(config.num_cache_rows))  # a heap: equal trajectories, equal rows
        # Programs of `compile`; None: it was not called.
        self._known: set[tuple[int | str, ...]] | None = None
        self._params: Params | None = None
        self.drafting = make_drafting(config)
        self._table = ProgramTable(model=model, config=config, sharding=sharding)
        self._cache: KVCache | None = self._table.empty_cache()
        self._kept: KVCache | None = None  # on the host, while unloaded with rows
        is_paged = config.pages is not None
        self._paged = PagedCache(config, self._table, self.counts, self._use) if is_paged else None

    @property
    def cache_bytes(self) -> int:
        pages = self.config.pages
        if pages is not None:
            return cache_bytes(self.model, pages.num_pages, pages.page_tokens)
        return cache_bytes(self.model, self.config.num_cache_rows, self.config.max_tokens)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def has_room(self, prompt_tokens: int) -> bool:
        """Whether a row with such a prompt should begin; with pages it may wait though a cache row is free."""
        if self._paged is None or not self._free:
            return bool(self._free)
        return self._paged.has_room(prompt_tokens, self._rows.lengths)

    @property
    def num_running(self) -> int:
        """Rows that could decode; with more cache rows than decode rows not all do."""
        return int(self._rows.is_running.sum())

    @property
    def is_any_running(self) -> bool:
        return bool(self._rows.is_running.any())

    def load(self, params: Params) -> None:
        """Publishes learner parameters (stacked layers, float32) in the decoder's sharding and dtype."""
        self._params = None  # frees the last copy first: two need not fit
        weights = self.config.numerics.weights
        self._params = publish_to_host(params, self.model, self.sharding, weights)
        self.on_published()
        if self._cache is None:
            kept, self._kept = self._kept, None
            self._cache = self._table.empty_cache() if kept is None else to_device_memory(kept)

    def unload(self, *, keeps_rows: bool = False) -> None:
        """Frees parameters and cache for the learner, between windows; `load` makes both again.
        With `keeps_rows` taken rows go on afterwards, bit for bit, from a copy on this host (prompts that are not
        placed yet stay on the devices). Without it a taken row raises RuntimeError.
        """
        if (taken := self.config.num_cache_rows - len(self._free)) and not keeps_rows:
            raise RuntimeError(f"{taken} cache rows are still taken")
        self._params = None
        self._kept = to_host_memory(self._loaded_cache()) if taken else None
        self._cache = None

    def compile(
        self,
        samplings: Sequence[Sampling],
        report: Callable[[int, int, str], None] = lambda done, total, name: None,
        *,
        longest_prompt: int | None = None,
    ) -> int:
        """Compiles every program that rows with these samplings can need; returns how many.

        Args:
          samplings: rows of one window share one; else give a truncated one too, which serves all.
          report: told (programs done, programs in all, name of the one just done).
          longest_prompt: tokens; None for up to `EngineConfig.max_tokens`.
        """
        modes: set[SamplingMode] = {sampling.sampling_mode for sampling in samplings}
        made = compile_ahead.compile_all(
            dataclasses.replace(
                self._table,
                params=self._loaded(),
                cache=self._loaded_cache(),
                is_stop=self._is_stop,
            ),
            sampling_modes=tuple(modes),
            longest_prompt=longest_prompt or self.config.max_tokens,
            report=report,
        )
        self._known = (self._known or set()) | made
        if self.config.drafts is not None:
            shapes = itertools.product(self.config.widths, self.config.views, modes)
            is_empty = self.num_free == self.config.num_cache_rows
            if is_empty:  # its memory serves the checks
                self._cache = None
            for key in shapes:
                self.drafting.check(key, self._may_draft)
            if is_empty:
                self._cache = self._table.empty_cache()
        return len(made)

    def take_cache_row(self, prompt_tokens: int = 1, response_tokens: float = 0.0) -> int:
        """A free row. With pages what it will need counts from now on, see `has_room`.

        Args:
          response_tokens: that are expected of it; 0: unknown.
        """
        cache_row = heapq.heappop(self._free)
        if self._paged is not None:
            self._paged.promise(cache_row, prompt_tokens, response_tokens)
        return cache_row

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[Prefilled]:
        """Runs all but the last token of each prompt, once, in calls of one fixed shape."""
        out: dict[int, Prefilled] = {}
        for call in self.start_prefill(prompts):
            while not call.is_done:
                self.advance_prefill(call)
            out |= dict(zip(call.indices, call.prefilled(), strict=True))
        return [out[index] for index in range(len(prompts))]

    def start_prefill(self, prompts: Sequence[Sequence[int]]) -> list[PrefillCall]:
        """The same in pieces, so that windows can run in between: see `advance_prefill`."""
        calls = start_prefill(prompts, self.config)
        self.counts.prefilled_tokens += sum(len(ids) - 1 for ids in prompts)
        return calls

    def advance_prefill(self, call: PrefillCall) -> None:
        """Runs up to `EngineConfig.prefill_chunk` tokens of each prompt of a call."""
        self._use(self._table.prefill(call.bucket))
        advance_prefill(call, self._loaded(), self._table)

    def place(self, placements: Sequence[Placement]) -> None:
        """Copies prefilled prompts into cache rows and starts those rows."""
        for placement in placements:
            self._start(placement)
        self._copy([(p.cache_row, p.prompt) for p in placements])

    def append(self, outputs: dict[int, Sequence[int]]) -> None:
        """Puts tool tokens behind each cache row's pending token and sets those rows running.

        Short outputs ride the next window as forced tokens; long ones run in chunks here.
        """
        long: dict[int, Sequence[int]] = {}
        for cache_row, ids in outputs.items():
            self.counts.appended_tokens += len(ids)
            self.drafting.write(cache_row, int(self._rows.lengths[cache_row]) + 1, ids)
            if len(ids) <= self.config.forced_tokens:
                self._rows.forced[cache_row, : len(ids)] = ids
                self._rows.forced_next[cache_row] = 0
                self._rows.forced_count[cache_row] = len(ids)
            else:
                long[cache_row] = [int(self._rows.pending[cache_row]), *ids]
            self._rows.is_running[cache_row] = True
        if self._paged is None:
            self._append_long(long)
        else:  # when they have pages for it
            self._paged.defer(long)

    def rerun(self, rows: dict[int, Sequence[int]]) -> None:
        """In place of `append`, for comparison: forgets each row's cache and runs all its tokens again.

        Args:
          rows: every token of the row, from its prompt to the end of the tool's output.
        """
        cache_rows = sorted(rows)
        for call in start_prefill([rows[cache_row] for cache_row in cache_rows], self.config):
            while not call.is_done:
                self.advance_prefill(call)
            copies = zip([cache_rows[i] for i in call.indices], call.prefilled(), strict=True)
            if self._paged is not None:
                for i in call.indices:
                    self._paged.release(self._cache, cache_rows[i])
            self._copy(list(copies))
        for cache_row in cache_rows:
            ids = rows[cache_row]
            self.drafting.write(cache_row, 0, ids)
            known = int(self._rows.lengths[cache_row])
            self.counts.reprefilled_tokens += known
            self.counts.appended_tokens += len(ids) - 1 - known
            self._rows.lengths[cache_row] = self._high_water[cache_row] = len(ids) - 1
            self._rows.pending[cache_row] = ids[-1]
            self._rows.is_running[cache_row] = True

    def resume(self, cache_row: int) -> None:
        """Sets a row running again that stopped at what was no closing tag."""
        self._rows.is_running[cache_row] = True

    def release(self, cache_row: int) -> None:
        """Frees a cache row; it is overwritten by whoever comes next."""
        self.drafting.end(cache_row)
        self._rows.is_running[cache_row] = False
        self._rows.lengths[cache_row] = 0
        self._rows.forced_count[cache_row] = self._rows.forced_next[cache_row] = 0
        heapq.heappush(self._free, cache_row)
        if self._paged is not None:
            self._paged.release(self._cache, cache_row)

    def is_running(self, cache_row: int) -> bool:
        return bool(self._rows.is_running[cache_row])

    def dispatch_window(self, *, others_wait: bool = False) -> InFlightWindow:
        """Starts K steps on the device and returns at once; `fetch` waits for them.

        The rows that were placed first decode first where more run than there are decode rows.

        Args:
          others_wait: rows that are not placed yet could use cache rows that become free, so the
            window may end when fewer than `EngineConfig.refill_below` of its rows run.
        """
        where: np.ndarray | None
        if self._paged is None:
            chosen, running, view = choose_rows(self._rows, self._ages, self.config)
            is_whole = len(chosen) == self.config.num_cache_rows
            where, rows = (None, self._rows) if is_whole else (chosen, self._rows.take(chosen))
        else:
            self._cache, running, long = self._paged.ready(
                self._loaded_cache(), self._rows, self._ages
            )
            self._append_long(long)
            chosen, view = places_of(self._rows, running, self.config)
            where, rows = self._paged.tables(chosen, view), self._rows.take(chosen)
        others_wait = others_wait or self.num_running > len(running)
        least = math.ceil(self.config.refill_below * len(running)) if others_wait else 1
        mode = common_sampling_mode(self._sampling_modes[cache_row] for cache_row in running)
        started = time.perf_counter()
        key = (len(chosen), view, mode)
        columns = self.drafting.choose(key, running, self._may_draft)
        program = self._use(self._table.window_of(columns, *key))
        self._cache, after, log, *guesses = program(
            self._loaded(),
            self._loaded_cache(),
            rows,
            *(() if columns == 1 else (self.drafting.rows(chosen),)),
            where,
            np.int32(max(1, least)),
            self._is_stop,
        )
        return InFlightWindow(
            chosen=chosen,
            lengths=rows.lengths.copy(),
            rows=after,
            log=log,
            key=key,
            columns=columns,
            guesses=guesses[0] if guesses else None,
            dispatched_s=started,
        )

    def fetch(self, in_flight: InFlightWindow) -> Window:
        """Waits for a window; afterwards rows with is_running False wait for the host.

        Returns:
          The log with a column for each cache row, decoded in this window or not.
        """
        after, log, guesses = jax.device_get((in_flight.rows, in_flight.log, in_flight.guesses))
        log = apply_window(in_flight, after, log, self._rows, self.counts)
        self.drafting.observe(in_flight, log, guesses, self._rows.lengths)
        np.maximum(self._high_water, self._rows.lengths, out=self._high_water)
        return log

    def _start(self, placement: Placement) -> None:
        rows, cache_row = self._rows, placement.cache_row
        rows.lengths[cache_row] = self._high_water[cache_row] = len(placement.prompt.ids) - 1
        rows.pending[cache_row] = placement.prompt.ids[-1]
        rows.is_running[cache_row] = True
        rows.max_lengths[cache_row] = placement.max_length
        rows.keys[cache_row] = placement.row_key
        rows.forced_next[cache_row] = rows.forced_count[cache_row] = 0
        rows.sampling.set(cache_row, placement.sampling)
        self._sampling_modes[cache_row] = placement.sampling.sampling_mode
        self._placed += 1
        self._ages[cache_row] = self._placed
        self.drafting.start(cache_row, placement.prompt.ids)

    def _copy(self, prompts: Sequence[tuple[int, Prefilled]]) -> None:
        """Prefilled caches into cache rows, `prefill_rows` at a time."""
        if self._paged is not None:
            self._cache = self._paged.place(self._loaded_cache(), prompts, self._rows, self._ages)
            return
        for piece in place_pieces(prompts, self.config):
            place = self._use(self._table.place(piece.prompt.bucket))
            self._cache = place(
                self._loaded_cache(), piece.prompt.cache, piece.sources, piece.cache_rows
            )

    def _append_long(self, outputs: dict[int, Sequence[int]]) -> None:
        """Runs every token but the last of each output; the last becomes pending."""
        for piece in append_pieces(outputs, self._rows.lengths, self.config):
            for cache_row, count in piece.counts.items():
                start = int(self._rows.lengths[cache_row])
                self.counts.reprefilled_tokens += max(0, int(self._high_water[cache_row]) - start)
                self._rows.lengths[cache_row] = self._high_water[cache_row] = start + count
            view = next(v for v in self.config.views if v >= piece.end)
            append = self._use(self._table.append(view))
            where = piece.cache_rows
            if self._paged is not None:
                where = self._paged.tables(where, view)
            self._cache = append(
                self._loaded(), self._loaded_cache(), where, piece.tokens, piece.starts
            )
        for cache_row, ids in outputs.items():
            self._rows.pending[cache_row] = ids[-1]

    def _may_draft(self, key: tuple[int, int, SamplingMode], columns: int) -> bool:
        """Whether the window of so many columns computes the bits of the ordinary one."""
        table = dataclasses.replace(self._table, params=self._loaded(), is_stop=self._is_stop)
        return windows_agree(table, key, columns)

    def _use(self, program: DeviceProgram) -> DeviceProgram:
        """The program; counts it where `compile` should have made it."""
        if self._known is not None and program.key not in self._known:
            self._known.add(program.key)
            self.counts.late_programs += 1
        return program

    def _loaded(self) -> Params:
        if self._params is None:
            raise RuntimeError("the engine has no parameters; call load(params) first")
        return self._params

    def _loaded_cache(self) -> KVCache:
        if self._cache is None:
            raise RuntimeError("the KV cache was freed by unload(); call load(params) first")
        return self._cache
