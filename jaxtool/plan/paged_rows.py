"""How many rows a pool of pages holds, and how often they move: the engine's own bookkeeping, without arrays.

A host's answers are drawn with the lengths that a plan assumes, and `PagedCache` itself admits, grows, moves
and returns their rows, window by window. Not covered: tools, whose calls are as short as windows are; prompts
that several rows share count as the engine counts them.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxtool.decode import programs
from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.paged_cache import PagedCache
from jaxtool.decode.paged_programs import PageContent
from jaxtool.decode.prefill import Prefilled
from jaxtool.plan.lengths import draw_lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class PagedRows:
    """Decoding of one host's share of a step, from the first row to the last."""

    windows: int
    rows: float  # that a window decodes, mean
    most_rows: int
    live_tokens: float  # of such a row, mean
    moved_rows: int
    moved_pages: int  # there and back


class NoPages:
    """Stands in for the table of programs: pages hold nothing."""

    def place(self, bucket: int) -> Any:
        return lambda cache, prompts, sources, chunks, pages: cache

    def take_page(self) -> Any:
        return lambda cache, page: PageContent(None, None)

    def put_page(self) -> Any:
        return lambda cache, content, page: cache

    def page_shapes(self) -> PageContent:
        return PageContent(None, None)


def paged_rows(
    engine: EngineConfig,
    *,
    problems: int,
    samples: int,
    prompt_tokens: float,
    response_tokens: float,
    limit: int,
    spread: float,
    problem_share: float,
) -> PagedRows:
    """Decodes a host's answers on paper.

    Args:
      engine: with its pool filled in.
      problems, samples: of this host; samples of each problem.
      limit: of a response.
      spread, problem_share: as in `lengths_of`.
    """
    prompt = max(2, round(prompt_tokens))
    lengths = draw_lengths(
        response_tokens,
        limit,
        spread=spread,
        problem_share=problem_share,
        problems=problems,
        samples=samples,
    )
    queue = [(i // samples, prompt + length) for i, length in enumerate(lengths)]
    rows = programs.idle_rows(engine.num_cache_rows, 1)
    ages = np.zeros(engine.num_cache_rows, np.int64)
    counts = EngineCounts()
    cache = PagedCache(engine, NoPages(), counts)
    prompts = [
        Prefilled(((np.zeros((1, 1, prompt)),),), 0, (0,) * prompt)  # type: ignore[arg-type]
        for _ in range(problems)
    ]
    free = list(range(engine.num_cache_rows))
    begun = windows = most = 0
    decoded = live = 0.0
    while begun < len(queue) or rows.is_running.any():
        # 1) Rows begin while there is room, as in `Admission.take`.
        while begun < len(queue) and free and cache.has_room(prompt, rows.lengths):
            problem, end = queue[begun]
            row, begun = free.pop(0), begun + 1
            cache.promise(row, prompt, response_tokens)
            rows.lengths[row], rows.max_lengths[row] = prompt - 1, end
            rows.is_running[row], ages[row] = True, begun
            cache.place((), [(row, prompts[problem])], rows, ages)
        # 2) A window: every row that has its pages goes on by K tokens, or to its end.
        _, chosen, _ = cache.ready((), rows, ages)
        before = rows.lengths[chosen]
        rows.lengths[chosen] = np.minimum(before + engine.window_steps, rows.max_lengths[chosen])
        windows, most = windows + 1, max(most, len(chosen))
        decoded += len(chosen)
        live += float((before + rows.lengths[chosen]).sum()) / 2
        # 3) Rows that are full end.
        for row in chosen[rows.lengths[chosen] >= rows.max_lengths[chosen]]:
            rows.is_running[row], rows.lengths[row] = False, 0
            cache.release((), int(row))
            free.append(int(row))
    return PagedRows(
        windows=windows,
        rows=decoded / windows,
        most_rows=most,
        live_tokens=live / decoded,
        moved_rows=counts.moved_rows,
        moved_pages=counts.moved_pages,
    )
