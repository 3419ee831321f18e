"""A paged cache on one host's devices: rows grow, move to the host where the pool is dry, and come back.

The content of a page never changes on its way, and no program looks at more than a row's own pages. So no
token depends on where a row was, and nothing is prefilled again.
Not covered: the bookkeeping of pages (`page_pool`), and what rows do (`engine`).

Who moves and who waits, with a pool of 6 pages of 4 tokens and windows of 4 steps:

  row 0 (oldest) has 11 tokens in 3 pages and runs; row 1 has 6 in 2 pages and waits for a tool; row 2 has 3 in
  1 page and runs. Row 0 needs 15 tokens for the next window, so 4 pages: the pool is dry.
  Row 1 moves, because it waits. Row 0 takes one of its pages, row 2 the other, and both decode.
  Row 1's tool answers: it needs 2 pages and there are none, so it waits on the host until row 0 or 2 ends.
  Had row 1 not waited for a tool, row 2, the youngest, would have moved.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.device_program import DeviceProgram
from jaxtool.decode.host_pages import HostPages
from jaxtool.decode.page_pool import Copies, PagePool, PoolIsDry
from jaxtool.decode.paged_programs import PageContent
from jaxtool.decode.pieces import calls_of
from jaxtool.decode.prefill import Prefilled
from jaxtool.decode.programs import DecodeRows
from jaxtool.model.kv_cache import KVCache


class PagePrograms(Protocol):
    """What a paged cache asks of `ProgramTable`."""

    def place(self, bucket: int) -> Any: ...

    def take_page(self) -> Any: ...

    def put_page(self) -> Any: ...

    def page_shapes(self) -> PageContent: ...


class PagedCache:
    """Pages of the cache rows of an engine. The pool's arrays go in and come out of each verb."""

    def __init__(
        self,
        config: EngineConfig,
        table: PagePrograms,
        counts: EngineCounts,
        use: Callable[[DeviceProgram], DeviceProgram] = lambda program: program,
    ):
        """`use` is told each program before it is called."""
        assert config.pages is not None
        self._config, self._table, self._counts = config, table, counts
        self._pages, self._use = config.pages, use
        self.pool = PagePool(pages=self._pages.num_pages, page_tokens=self._pages.page_tokens)
        self._host = HostPages(in_flight=self._pages.pages_in_flight)
        # Rows that were taken and have no page yet: tokens of their prompts.
        self._promised: dict[int, int] = {}
        self._expected = np.zeros(config.num_cache_rows, np.int64)  # tokens in the end; 0: unknown
        self._appended: dict[
            int, Sequence[int]
        ] = {}  # tool outputs that wait for their row's pages

    @property
    def moved(self) -> tuple[int, ...]:
        """Rows in the memory of the host."""
        return tuple(row for row in self.pool.rows if self.pool.is_moved(row))

    @property
    def host_pages(self) -> int:
        return len(self._host)

    def has_room(self, tokens: int, lengths: np.ndarray) -> bool:
        """Whether a row with a prompt of so many tokens should begin, rather than wait in the queue.

        It should where its first window and what all rows in flight will soon need fit into the pool. A row
        will soon need `headroom_tokens`, or what it lacks of the length that is expected of it.

        An example: pages of 4, a pool of 10, headroom 8, windows of 4. Row 0 holds 6 tokens in 2 pages and is
        expected to end at 9: it lacks 3, of which 2 fit into its pages, so it needs 1 more page. A row that
        begins with 5 tokens needs 9 for its window and 8 of headroom: 17, or 5 pages. 2 + 1 + 5 are 8 of 10: it
        begins.
        """
        pool, window = self.pool, self._config.window_steps
        if any(pool.is_moved(row) for row in pool.rows):
            return False  # those come first
        if not pool.rows and not self._promised:
            return True
        pages = 0
        for row in pool.rows:
            pages += pool.missing(row, int(lengths[row]) + self._soon(row, int(lengths[row])))
        for promised in (*self._promised.values(), tokens):
            pages += pool.pages_of(promised + window + self._pages.headroom_tokens)
        return pages <= pool.num_free

    def promise(self, row: int, prompt_tokens: int, response_tokens: float) -> None:
        """A row that was taken will have such a prompt, and perhaps such a response; 0: unknown."""
        self._promised[row] = prompt_tokens
        is_known = response_tokens > 0
        self._expected[row] = prompt_tokens + response_tokens if is_known else 0

    def place(
        self,
        cache: KVCache,
        prompts: Sequence[tuple[int, Prefilled]],
        rows: DecodeRows,
        ages: np.ndarray,
    ) -> KVCache:
        """Gives prefilled prompts pages, and copies into them what no other row of their group has there."""
        writes: list[tuple[Prefilled, int, int]] = []  # prompt, chunk of it, page
        for row, prompt in prompts:
            self._promised.pop(row, None)
            tokens = len(prompt.ids) - 1
            while True:
                try:
                    opened = self.pool.open(row, tokens, prompt.key)
                    break
                except PoolIsDry:
                    # What was placed may move at once, so it must be there first.
                    cache, writes = self._write(cache, writes), []
                    cache = self._move_one(cache, rows, ages, younger_than=None)
            pages = self.pool.pages(row)
            writes += [
                (prompt, chunk, page)
                for chunk, page in enumerate(pages)
                if page in opened.own or page in opened.prompt
            ]
        return self._write(cache, writes)

    def defer(self, outputs: dict[int, Sequence[int]]) -> None:
        """Keeps long tool outputs until their rows have pages for them, see `ready`."""
        self._appended |= outputs

    def ready(
        self, cache: KVCache, rows: DecodeRows, ages: np.ndarray
    ) -> tuple[KVCache, np.ndarray, dict[int, Sequence[int]]]:
        """Gives the next window's rows their pages.

        Returns:
          The pool, the rows in rising order, and the long tool outputs of these rows, to be run first.
        """
        wanted = np.flatnonzero(rows.is_running)
        wanted = [int(row) for row in wanted[np.argsort(ages[wanted], kind="stable")]]
        # 1) Rows on the device grow, the oldest first. Who waits for a tool makes room for them, then who is
        #    younger, the youngest first. A row that finds no room stays where it is and skips the window.
        chosen: list[int] = []
        for row in wanted:
            if len(chosen) < self._config.decode_rows and not self.pool.is_moved(row):
                cache, has_grown = self._grow(cache, row, rows, ages)
                chosen += [row] if has_grown else []
        # 2) Rows on the host come back while there is room. The oldest comes in any case where no other can
        #    decode: those that wait for tools make room for it.
        for row in wanted:
            if len(chosen) < self._config.decode_rows and self.pool.is_moved(row):
                if chosen and not self._has_room_to_return(row, rows, len(chosen)):
                    break
                cache = self._return(cache, row, rows, ages)
                chosen.append(row)
        # 3) Who will come back next is sent to the device while the window runs.
        waiting = next((row for row in wanted if self.pool.is_moved(row)), None)
        if waiting is not None:
            self._host.stage(("row", waiting), self._table.page_shapes())
        appended = {row: self._appended.pop(row) for row in chosen if row in self._appended}
        return cache, np.asarray(sorted(chosen), np.int32), appended

    def release(self, cache: KVCache | None, row: int) -> None:
        """Frees the pages of a row, on the device and on the host."""
        self._promised.pop(row, None)
        self._appended.pop(row, None)
        if row not in self.pool.rows:
            return
        copies = self.pool.close(row)
        self._host.drop(("row", row))
        self._save_prompt(cache, copies)
        if copies.frees_host_prompt:
            self._host.drop(("prompt", copies.key))

    def tables(self, cache_rows: np.ndarray, view: int) -> np.ndarray:
        """[B, view / page] int32: the pages of these rows, and the number of pages where there is none."""
        out = np.full((len(cache_rows), self.pool.pages_of(view)), self.pool.num_pages, np.int32)
        for line, row in zip(out, cache_rows, strict=True):
            if row in self.pool.rows:
                pages = self.pool.pages(int(row))[: len(line)]
                line[: len(pages)] = pages
        return out

    def _needed(self, row: int, rows: DecodeRows) -> int:
        """Tokens that a row holds at the end of its next window, at most."""
        length = int(rows.lengths[row]) + len(self._appended.get(row, ()))
        return min(length + self._config.window_steps, int(rows.max_lengths[row]))

    def _soon(self, row: int, length: int) -> int:
        lacking = int(self._expected[row]) - length
        headroom = self._pages.headroom_tokens
        return min(headroom, lacking) if lacking > 0 else headroom

    def _grow(
        self, cache: KVCache, row: int, rows: DecodeRows, ages: np.ndarray
    ) -> tuple[KVCache, bool]:
        needed = self._needed(row, rows)
        while self.pool.missing(row, needed) > self.pool.num_free:
            victim = self._victim(rows, ages, younger_than=int(ages[row]), but=row)
            if victim is None:
                return cache, False
            cache = self._move_out(cache, victim)
        self.pool.grow(row, needed)
        return cache, True

    def _has_room_to_return(self, row: int, rows: DecodeRows, others: int) -> bool:
        """With half of the headroom that a new row needs, for every row that decodes."""
        reserve = (others + 1) * self._pages.headroom_tokens // 2
        pages = self._pages_with_window(row, rows) + self.pool.pages_of(reserve)
        return pages <= self.pool.num_free

    def _pages_with_window(self, row: int, rows: DecodeRows) -> int:
        held = self.pool.pages_of(int(rows.lengths[row]))
        return self.pool.pages_to_return(row) + max(
            0, self.pool.pages_of(self._needed(row, rows)) - held
        )

    def _return(self, cache: KVCache, row: int, rows: DecodeRows, ages: np.ndarray) -> KVCache:
        """Brings a row back, with pages for its next window."""
        while self._pages_with_window(row, rows) > self.pool.num_free:
            cache = self._move_one(cache, rows, ages, younger_than=None)
        copies = self.pool.move_in(row)
        for name, pages in ((("row", row), copies.own), (("prompt", copies.key), copies.prompt)):
            # The prompt is not there where another row of the group brought it back.
            contents = self._host.bring(name, self._table.page_shapes()) if pages else ()
            for i, (page, content) in enumerate(zip(pages, contents, strict=True)):
                cache = self._use(self._table.put_page())(cache, content, np.int32(page))
                self._counts.moved_pages += 1
                if not (i + 1) % self._pages.pages_in_flight:
                    jax.block_until_ready(cache)  # no more than these are on the device
        self._host.drop(("row", row))
        if copies.frees_host_prompt:
            self._host.drop(("prompt", copies.key))
        cache, has_grown = self._grow(cache, row, rows, ages)
        assert has_grown, f"row {row} has come back without room for its window"
        return cache

    def _move_one(
        self, cache: KVCache, rows: DecodeRows, ages: np.ndarray, *, younger_than: int | None
    ) -> KVCache:
        victim = self._victim(rows, ages, younger_than=younger_than)
        assert victim is not None, "the pool holds a row of any length"
        return self._move_out(cache, victim)

    def _victim(
        self, rows: DecodeRows, ages: np.ndarray, *, younger_than: int | None, but: int = -1
    ) -> int | None:
        """Who moves: the youngest row that waits for a tool, else the youngest of those that may."""
        resident = [row for row in self.pool.rows if row != but and not self.pool.is_moved(row)]
        waiting = [row for row in resident if not rows.is_running[row]]
        if not waiting and younger_than is not None:
            resident = [row for row in resident if ages[row] > younger_than]
        return max(waiting or resident, key=lambda row: int(ages[row]), default=None)

    def _move_out(self, cache: KVCache, row: int) -> KVCache:
        copies = self.pool.move_out(row)
        for page in copies.own:
            self._take(cache, ("row", row), page)
        self._save_prompt(cache, copies)
        self._counts.moved_rows += 1
        return cache

    def _save_prompt(self, cache: KVCache | None, copies: Copies) -> None:
        """The full pages of a prompt to the host, once, where its last row leaves the device."""
        name = ("prompt", copies.key)
        if copies.prompt and name not in self._host:
            assert cache is not None
            for page in copies.prompt:
                self._take(cache, name, page)

    def _take(self, cache: KVCache, name: Hashable, page: int) -> None:
        self._host.add(name, self._use(self._table.take_page())(cache, np.int32(page)))
        self._counts.moved_pages += 1

    def _write(self, cache: KVCache, writes: Sequence[tuple[Prefilled, int, int]]) -> KVCache:
        """Chunks of prompts into pages, `prefill_rows` at a time."""
        size = self._config.prefill_rows
        for part in calls_of(writes, lambda write: write[0], size):
            sources, chunks = np.zeros(size, np.int32), np.zeros(size, np.int32)
            pages = np.full(size, self.pool.num_pages, np.int32)  # out of range: dropped
            for i, (prompt, chunk, page) in enumerate(part):
                sources[i], chunks[i], pages[i] = prompt.source, chunk, page
            program = self._use(self._table.place(part[0][0].bucket))
            cache = program(cache, part[0][0].cache, sources, chunks, pages)
        return cache
