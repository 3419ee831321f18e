"""Which row holds which page of a paged cache: bookkeeping in plain Python, without any array.

A row takes pages as it grows. The full pages of a prompt are held once for all rows of its group, and
counted; each row has its own copy of the last, partly filled page, for that one it writes to. A row can
move to the memory of the host and come back into other pages. Its share of the prompt stays where it is as
long as another row of the group is on the device, and moves with the last one.
Not covered: bytes and copies (`paged_cache`), which row moves when (there as well).

An example: 6 pages of 4 tokens, and a prompt of 6 tokens in the cache: one full page, and one half full.

  open(0, 6, "p")   pages [0 1]    writes chunk 0 to page 0, chunk 1 to page 1   free 2 3 4 5
  open(1, 6, "p")   pages [0 2]    writes chunk 1 to page 2; page 0 is shared     free 3 4 5
  grow(0, 11)       pages [0 1 3]                                                 free 4 5
  move_out(0)       own pages 1 and 3 go to the host; page 0 stays for row 1       free 1 3 4 5
  close(1)          page 2 is free; page 0 goes to the host, since row 0 needs it  free 0 1 2 3 4 5
  move_in(0)        own pages come back to 0 and 1, the prompt's to 2              free 3 4 5
  pages(0)          [2 0 1]
"""

import dataclasses
import heapq
from collections.abc import Hashable


class PoolIsDry(Exception):
    """Fewer pages are free than are needed; nothing has changed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
    """Pages to be copied between device and host, or to be written; in the order of a row's positions."""

    own: tuple[int, ...] = ()  # of the row
    prompt: tuple[int, ...] = ()  # full pages of its prompt: the whole of them or none
    key: Hashable = None  # of the prompt
    frees_host_prompt: bool = (
        False  # no row of the group is on the host any more: neither need its prompt be
    )


@dataclasses.dataclass(kw_only=True)
class _Prompt:
    num_pages: int
    pages: list[int]  # none while no row of the group is on the device
    resident: set[int]  # rows on the device: the reference count
    moved: set[int]  # rows on the host


@dataclasses.dataclass(kw_only=True)
class _Row:
    key: Hashable
    own: list[int]
    num_moved: int | None = None  # own pages on the host; None: the row is on the device


class PagePool:
    """Pages 0..pages-1. The lowest free page is given first, so the same verbs give the same pages."""

    def __init__(self, *, pages: int, page_tokens: int):
        self.num_pages = pages
        self.page_tokens = page_tokens
        self._free = list(range(pages))
        self._rows: dict[int, _Row] = {}
        self._prompts: dict[Hashable, _Prompt] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def rows(self) -> tuple[int, ...]:
        """That are open, on the device or moved."""
        return tuple(self._rows)

    def is_moved(self, row: int) -> bool:
        return self._rows[row].num_moved is not None

    def pages_of(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)

    def pages(self, row: int) -> list[int]:
        """Of a row on the device, in the order of its positions."""
        held = self._rows[row]
        return [*self._shared(held), *held.own]

    def open(self, row: int, tokens: int, key: Hashable = None) -> Copies:
        """Gives a new row the pages of its prompt; returns those that must be written.

        Args:
          tokens: of the prompt, in the cache.
          key: rows with the same one have the same prompt; None shares nothing.

        Raises:
          PoolIsDry: too few pages are free.
        """
        full = 0 if key is None else tokens // self.page_tokens
        # 1) Full pages are there already where a row of the group is on the device.
        prompt = self._prompts.get(key) if full else None
        is_there = prompt is not None and bool(prompt.pages)
        fresh = self._take(self.pages_of(tokens) - (full if is_there else 0))
        # 2) Pages of the prompt are written by the first row, the rest by every row for itself.
        written: list[int] = []
        if full and not is_there:
            written, fresh = fresh[:full], fresh[full:]
            if prompt is None:
                prompt = _Prompt(num_pages=full, pages=[], resident=set(), moved=set())
                self._prompts[key] = prompt
            prompt.pages = list(written)
        if prompt is not None:
            prompt.resident.add(row)
        self._rows[row] = _Row(key=key if full else None, own=list(fresh))
        return Copies(own=tuple(fresh), prompt=tuple(written), key=key if full else None)

    def missing(self, row: int, tokens: int) -> int:
        """Pages that a row on the device lacks to hold so many tokens."""
        return max(0, self.pages_of(tokens) - len(self.pages(row)))

    def grow(self, row: int, tokens: int) -> None:
        """Gives a row on the device pages for so many tokens in all.

        Raises:
          PoolIsDry: too few pages are free.
        """
        self._rows[row].own += self._take(self.missing(row, tokens))

    def move_out(self, row: int) -> Copies:
        """Frees the pages of a row; their content must be copied to the host before they are written again."""
        held = self._rows[row]
        own, held.own, held.num_moved = tuple(held.own), [], len(held.own)
        self._give(own)
        prompt = self._prompts.get(held.key)
        if prompt is None:
            return Copies(own=own)
        prompt.resident.remove(row)
        prompt.moved.add(row)
        return Copies(own=own, prompt=self._leave(prompt), key=held.key)

    def pages_to_return(self, row: int) -> int:
        """Pages that a moved row needs to be where it was."""
        held = self._rows[row]
        assert held.num_moved is not None, f"row {row} is on the device"
        prompt = self._prompts.get(held.key)
        return held.num_moved + (prompt.num_pages if prompt is not None and not prompt.pages else 0)

    def move_in(self, row: int) -> Copies:
        """Gives a moved row pages again; returns those that must be filled from the host.

        Raises:
          PoolIsDry: too few pages are free.
        """
        fresh, held = self._take(self.pages_to_return(row)), self._rows[row]
        assert held.num_moved is not None
        own, shared = fresh[: held.num_moved], fresh[held.num_moved :]
        held.own, held.num_moved = list(own), None
        prompt = self._prompts.get(held.key)
        if prompt is not None:
            prompt.moved.remove(row)
            prompt.resident.add(row)
            prompt.pages = prompt.pages or list(shared)
        return Copies(
            own=tuple(own),
            prompt=tuple(shared),
            key=held.key,
            frees_host_prompt=prompt is not None and not prompt.moved,
        )

    def close(self, row: int) -> Copies:
        """Forgets a row. `Copies.prompt` must go to the host where rows of the group are there."""
        held = self._rows.pop(row)
        self._give(held.own)
        prompt = self._prompts.get(held.key)
        if prompt is None:
            return Copies()
        prompt.resident.discard(row)
        prompt.moved.discard(row)
        left = self._leave(prompt)
        if not prompt.resident and not prompt.moved:
            del self._prompts[held.key]
        if not prompt.moved:
            return Copies(key=held.key, frees_host_prompt=True)
        return Copies(prompt=left, key=held.key)

    def check(self) -> None:
        """Raises AssertionError unless each page is free, of one row or of one prompt, and counts are right."""
        held = [page for row in self._rows.values() for page in row.own]
        held += [page for prompt in self._prompts.values() for page in prompt.pages]
        assert sorted([*held, *self._free]) == list(range(self.num_pages)), (
            "a page is lost or held twice"
        )
        for key, prompt in self._prompts.items():
            rows = {i for i, row in self._rows.items() if row.key == key}
            moved = {i for i in rows if self.is_moved(i)}
            assert (prompt.resident, prompt.moved) == (rows - moved, moved), f"count of {key!r}"
            assert rows, f"{key!r} has no row"
            assert len(prompt.pages) == (prompt.num_pages if prompt.resident else 0), key
        for row in self._rows.values():
            assert row.key is None or row.key in self._prompts
            assert row.num_moved is None or not row.own

    def _shared(self, held: _Row) -> list[int]:
        prompt = self._prompts.get(held.key)
        return prompt.pages if prompt is not None else []

    def _leave(self, prompt: _Prompt) -> tuple[int, ...]:
        """Frees a prompt's pages where no row of the group is on the device; which they were."""
        if prompt.resident:
            return ()
        pages, prompt.pages = tuple(prompt.pages), []
        self._give(pages)
        return pages

    def _take(self, count: int) -> list[int]:
        if count > len(self._free):
            raise PoolIsDry(
                f"{count} pages are needed, {len(self._free)} of {self.num_pages} are free"
            )
        return [heapq.heappop(self._free) for _ in range(count)]

    def _give(self, pages: tuple[int, ...] | list[int]) -> None:
        for page in pages:
            heapq.heappush(self._free, page)
