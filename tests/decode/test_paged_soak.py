"""A long soak of engine and pool with stub programs: no page leaks, and every row reads what it wrote.

The stub of the window draws each token from the sum of all that the row's pages hold. So a page that was lost,
mixed up or not restored changes the tokens of its row. JAXTOOL_TEST_TRAJECTORIES=10000 is the long form.
"""

import dataclasses
import os
import random

import jax
import numpy as np
import pytest
from helpers.decoding import Job, make_engine, random_jobs, run_jobs
from helpers.tiny_models import FAMILIES, VOCAB, random_params

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.paged_programs import PageContent
from jaxtool.decode.pages_config import PagesConfig
from jaxtool.decode.programs import Window

MODEL = FAMILIES["qwen3"]
PAGE, POOL, STEPS = 8, 20, 4
STOPS = (3, 5, 7, 11)
COUNT = int(os.environ.get("JAXTOOL_TEST_TRAJECTORIES", "600"))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Content:
    """A page on the host, without an array."""

    ids: tuple[int, ...]


def next_token(total: int, length: int) -> int:
    return (total * 31 + length * 7) % VOCAB


class StubTable:
    """The programs of a paged engine on a pool of token ids, [P, page]."""

    def __init__(self, config):
        self.config = config

    def prefill(self, bucket):
        return self._of(("prefill", bucket), lambda params, tokens: (([tokens[:, None, :]]),))

    def place(self, bucket):
        def place(cache, prompts, sources, chunks, pages):
            for source, chunk, page in zip(sources, chunks, pages, strict=True):
                if page < POOL:
                    part = prompts[0][0][source, 0, chunk * PAGE : (chunk + 1) * PAGE]
                    cache[page, : len(part)] = part
            return cache

        return self._of(("place", bucket), place)

    def append(self, view):
        def append(params, cache, table, tokens, starts):
            for pages, ids, start in zip(table, tokens, starts, strict=True):
                for position, token in enumerate(ids.tolist(), start):
                    write(cache, pages, position, token)
            return cache

        return self._of(("append", view), append)

    def window(self, width, view, mode):
        def window(params, cache, rows, table, least, is_stop):
            tokens = np.zeros((STEPS, width), np.int32)
            is_sampled = np.zeros((STEPS, width), bool)
            for b in np.flatnonzero(rows.is_running):
                pages = table[b]
                for step in range(STEPS):
                    if not rows.is_running[b]:
                        break
                    length = int(rows.lengths[b])
                    assert pages[length // PAGE] < POOL, "a row decodes without a page"
                    write(cache, pages, length, int(rows.pending[b]))
                    held = cache[pages[: length // PAGE + 1]].reshape(-1)[: length + 1]
                    rows.lengths[b] += 1
                    if rows.forced_next[b] < rows.forced_count[b]:
                        rows.pending[b] = rows.forced[b, rows.forced_next[b]]
                        rows.forced_next[b] += 1
                        continue
                    token = next_token(int(held.sum()), length + 1)
                    tokens[step, b], is_sampled[step, b], rows.pending[b] = token, True, token
                    is_full = rows.lengths[b] + 1 >= rows.max_lengths[b]
                    rows.is_running[b] = not (token in STOPS or is_full)
            log = Window(
                tokens=tokens,
                logprobs=np.zeros((STEPS, width), np.float32),
                is_sampled=is_sampled,
                steps=np.int32(STEPS),
            )
            return cache, rows, log

        return self._of(("window", width, view, mode), window)

    def window_of(self, columns, width, view, mode):
        assert columns == 1
        return self.window(width, view, mode)

    def take_page(self):
        def take(cache, page):
            return PageContent(Content(tuple(cache[page].tolist())), None)

        return self._of(("take_page",), take)

    def put_page(self):
        def put(cache, content, page):
            cache[page] = content.values.ids
            return cache

        return self._of(("put_page",), put)

    def page_shapes(self):
        # Leafless, as what moves is: jax maps over nothing.
        return self.shapes

    shapes = None

    def _of(self, key, function):
        class Program:
            def __call__(self, *arguments):
                return function(*arguments)

        program = Program()
        program.key = key
        return program


def write(cache, pages, position, token):
    column = position // PAGE
    if column < len(pages) and pages[column] < POOL:
        cache[pages[column], position % PAGE] = token


def decoded_alone(job: Job) -> list[int]:
    """The tokens that a row has by its own history."""
    ids, outputs = list(job.prompt), list(job.outputs)
    while True:
        token = next_token(sum(ids), len(ids))
        ids.append(token)
        if token in STOPS or len(ids) >= job.limit:
            if not outputs or len(outputs[0]) >= job.limit - len(ids):
                return ids
            ids += outputs.pop(0)


@pytest.fixture
def engine(monkeypatch):
    config = EngineConfig(
        decode_rows=6,
        cache_rows=10,
        max_tokens=64,
        window_steps=STEPS,
        min_view=64,
        prefill_rows=4,
        min_prompt_bucket=8,
        forced_tokens=6,
        append_rows=2,
        pages=PagesConfig(
            page_tokens=PAGE, pool_tokens=POOL * PAGE, headroom_tokens=PAGE, pages_in_flight=2
        ),
    )
    made = make_engine(MODEL, random_params(MODEL), config)
    table = StubTable(made.config)
    made._table = made._paged._table = table
    made._cache = np.zeros((POOL, PAGE), np.int64)
    monkeypatch.setattr("jaxtool.decode.host_pages.on_device", lambda page, shapes: page)
    return made


def test_no_page_leaks_and_each_row_reads_what_it_wrote(engine):
    """Groups of rows with common prompts of up to 20 tokens, tools of any latency, a pool of 2.5 long rows."""
    numbers = random.Random(0)
    jobs = []
    for i, job in enumerate(random_jobs(COUNT // 3, outputs=(2, 9, 14), seed=1)):
        prompt = tuple(numbers.randrange(12, VOCAB) for _ in range(2 + i % 19))
        jobs += [
            dataclasses.replace(job, name=f"{i} {sample}", prompt=prompt, limit=30 + 15 * sample)
            for sample in range(3)
        ]
    waits = random.Random(1)
    rows = run_jobs(engine, jobs, latency=lambda: waits.randrange(8), shares_prompts=True)
    assert {name: row.ids for name, row in rows.items()} == {
        job.name: decoded_alone(job) for job in jobs
    }
    pool, counts = engine._paged.pool, engine.counts
    pool.check()
    assert (pool.num_free, pool.rows, engine._paged.host_pages) == (POOL, (), 0)
    assert engine.num_free == 10
    assert counts.reprefilled_tokens == 0
    assert counts.moved_rows > len(jobs) // 3  # many rows went to the host and came back
