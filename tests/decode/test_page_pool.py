"""The bookkeeping of pages: the worked example, a model of it under random verbs, and what is refused."""

import contextlib
import random

import pytest

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.page_pool import Copies, PagePool, PoolIsDry
from jaxtool.decode.pages_config import PagesConfig


def test_the_worked_example():
    pool = PagePool(pages=6, page_tokens=4)
    assert pool.open(0, 6, "p") == Copies(own=(1,), prompt=(0,), key="p")
    assert pool.open(1, 6, "p") == Copies(own=(2,), prompt=(), key="p")
    pool.grow(0, 11)
    assert (pool.pages(0), pool.pages(1), pool.num_free) == ([0, 1, 3], [0, 2], 2)
    assert pool.move_out(0) == Copies(own=(1, 3), prompt=(), key="p")
    assert pool.num_free == 4
    assert pool.close(1) == Copies(own=(), prompt=(0,), key="p")
    assert pool.num_free == 6
    assert pool.pages_to_return(0) == 3
    assert pool.move_in(0) == Copies(own=(0, 1), prompt=(2,), key="p", frees_host_prompt=True)
    assert pool.pages(0) == [2, 0, 1]
    pool.check()
    assert pool.close(0) == Copies(key="p", frees_host_prompt=True)
    assert pool.num_free == 6


def test_a_dry_pool_says_so_and_changes_nothing():
    pool = PagePool(pages=3, page_tokens=4)
    pool.open(0, 8)
    for verb in (lambda: pool.open(1, 5), lambda: pool.grow(0, 13)):
        with pytest.raises(PoolIsDry, match="2 pages are needed, 1 of 3 are free"):
            verb()
        pool.check()
        assert (pool.rows, pool.num_free) == ((0,), 1)


def test_rows_without_a_common_prompt_or_a_full_page_share_nothing():
    pool = PagePool(pages=6, page_tokens=4)
    pool.open(0, 8)
    pool.open(1, 8)
    assert not set(pool.pages(0)) & set(pool.pages(1))
    pool.open(2, 3, "short")
    assert pool.open(3, 3, "short").own == (5,)


class Watched:
    """A pool with what each page holds and what is on the host: (prompt, number) or (row, number)."""

    def __init__(self):
        self.pool = PagePool(pages=24, page_tokens=4)
        self.content: dict[int, tuple] = {}
        self.host: dict[tuple, tuple] = {}
        self.rows: dict[int, tuple[str | None, int]] = {}  # key and tokens

    def full(self, row: int) -> int:
        """Full pages of the prompt, whose length is in the key."""
        key, _ = self.rows[row]
        return 0 if key is None else int(key.split()[1]) // 4

    def wanted(self, row: int) -> list[tuple]:
        key, tokens = self.rows[row]
        pages = range(self.pool.pages_of(tokens))
        return [(key, i) if i < self.full(row) else (row, i) for i in pages]

    def open(self, row: int, key: str | None, tokens: int) -> None:
        opened = self.pool.open(row, tokens, key)
        self.rows[row] = (key, tokens)
        for page, what in zip(self.pool.pages(row), self.wanted(row), strict=True):
            if page in (*opened.own, *opened.prompt):
                self.content[page] = what

    def grow(self, row: int, more: int) -> None:
        (key, tokens), before = self.rows[row], len(self.pool.pages(row))
        self.pool.grow(row, tokens + more)
        self.rows[row] = (key, tokens + more)
        for i, page in list(enumerate(self.pool.pages(row)))[before:]:
            self.content[page] = (row, i)

    def leave(self, row: int, copies: Copies) -> None:
        """What the verb says must be copied, is; nothing else is."""
        for i, page in enumerate(copies.own, self.full(row)):
            self.host[(row, i)] = self.content[page]
        for i, page in enumerate(copies.prompt):
            self.host[(copies.key, i)] = self.content[page]

    def move_in(self, row: int) -> None:
        copies = self.pool.move_in(row)
        for i, page in enumerate(copies.own, self.full(row)):
            self.content[page] = self.host.pop((row, i))
        for i, page in enumerate(copies.prompt):
            self.content[page] = self.host[(copies.key, i)]

    def check(self) -> None:
        self.pool.check()
        for row in self.rows:
            if not self.pool.is_moved(row):
                held = [self.content[page] for page in self.pool.pages(row)]
                assert held == self.wanted(row)


@pytest.mark.parametrize("seed", range(3))
def test_no_page_is_lost_or_held_twice_under_random_verbs(seed):
    numbers, watched = random.Random(seed), Watched()
    pool, born, moves = watched.pool, 0, 0

    def act(row: int | None) -> None:
        nonlocal born, moves
        verb = numbers.randrange(6)
        if row is None or verb <= 1:
            born, tokens = born + 1, numbers.randrange(1, 20)
            watched.open(born, numbers.choice([None, f"a {tokens}", f"b {tokens}"]), tokens)
        elif verb == 2:
            watched.leave(row, pool.close(row))
            del watched.rows[row]
        elif pool.is_moved(row):
            watched.move_in(row)
        elif verb == 3:
            watched.grow(row, numbers.randrange(6))
        else:
            watched.leave(row, pool.move_out(row))
            moves += 1

    for _ in range(2000):
        with contextlib.suppress(PoolIsDry):
            act(numbers.choice(sorted(watched.rows)) if watched.rows else None)
        watched.check()
    assert moves > 100
    for row in watched.rows:
        pool.close(row)
    assert pool.num_free == 24


@pytest.mark.parametrize(
    ("pages", "engine", "message"),
    [
        (
            {"page_tokens": 100},
            {},
            "max_tokens=512 must be a multiple of .*=100: set max_tokens=600",
        ),
        (
            {"page_tokens": 64, "pool_tokens": 448},
            {},
            "pool_tokens=448 holds not one row of EngineConfig.max_tokens=512: raise pool_tokens to 512",
        ),
        (
            {"page_tokens": 64, "pool_tokens": 1000},
            {},
            "multiple of page_tokens=64: set 960 or 1024",
        ),
        ({"page_tokens": 0}, {}, "PagesConfig.page_tokens must be >= 1, got 0"),
        (
            {"page_tokens": 64},
            {"decode_rows": 0},
            "decode_rows=0 .* says nothing with EngineConfig.pages",
        ),
    ],
)
def test_bad_sizes_are_refused_in_one_line_with_the_remedy(pages, engine, message):
    with pytest.raises(ValueError, match=message) as error:
        EngineConfig(pages=PagesConfig(**pages), **engine)
    assert "\n" not in str(error.value)
