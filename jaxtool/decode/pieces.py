"""Placements, and what fits into one call of `place` and of `append`, whose shapes are fixed. Numpy alone."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.prefill import Prefilled
from jaxtool.decode.sampling import Sampling

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    cache_row: int
    prompt: Prefilled
    row_key: np.ndarray  # [2] uint32
    max_length: int  # tokens the row may hold, prompt included
    sampling: Sampling = dataclasses.field(default_factory=Sampling)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacePiece:
    """Prompts of one prefill on their way into cache rows."""

    prompt: Prefilled  # one of them: all lie in its cache
    sources: np.ndarray  # [M] int32, which of the prefilled prompts
    cache_rows: (
        np.ndarray
    )  # [M] int32; the number of cache rows where the call has no prompt: dropped


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppendPiece:
    """Up to C tokens of each of R tool outputs."""

    cache_rows: np.ndarray  # [R] int32; the number of cache rows where the call has no output
    starts: np.ndarray  # [R] int32, position of the first token
    tokens: np.ndarray  # [R, C] int32, with zeros behind a shorter part
    counts: dict[int, int]  # tokens by cache row

    @property
    def end(self) -> int:
        """Positions that the rows hold afterwards, at most."""
        starts = zip(self.cache_rows.tolist(), self.starts.tolist(), strict=True)
        return max(start + self.counts[row] for row, start in starts if row in self.counts)


def place_pieces(
    prompts: Sequence[tuple[int, Prefilled]], config: EngineConfig
) -> Iterator[PlacePiece]:
    """Cache rows with their prompts, by prefill, `prefill_rows` at a time."""
    for part in calls_of(prompts, lambda item: item[1], config.prefill_rows):
        sources = np.zeros(config.prefill_rows, np.int32)
        cache_rows = np.full_like(sources, config.num_cache_rows)
        for i, (cache_row, prompt) in enumerate(part):
            sources[i], cache_rows[i] = prompt.source, cache_row
        yield PlacePiece(prompt=part[0][1], sources=sources, cache_rows=cache_rows)


def calls_of(
    items: Sequence[_Item], prompt_of: Callable[[_Item], Prefilled], size: int
) -> Iterator[Sequence[_Item]]:
    """Items whose prompts lie in one prefilled cache, at most `size` at a time: what one call can copy."""
    by_call: dict[int, list[_Item]] = {}
    for item in items:
        by_call.setdefault(id(prompt_of(item).cache), []).append(item)
    for group in by_call.values():
        yield from chunks(group, size)


def append_pieces(
    outputs: Mapping[int, Sequence[int]], lengths: np.ndarray, config: EngineConfig
) -> Iterator[AppendPiece]:
    """Every token but the last of each output, `forced_tokens` at a time; the last becomes pending.

    An example with C = 4 and R = 2: row 5 holds 20 tokens and gets 7, row 8 holds 9 and gets 3.

      piece 0:  cache_rows [5 8]  starts [20 9]   counts {5: 4, 8: 2}
      piece 1:  cache_rows [5 .]  starts [24 .]   counts {5: 2}

    Args:
      outputs: by cache row; `append_rows` of them go together.
      lengths: [B] of all cache rows, before the first piece.
    """
    c, r = config.forced_tokens, config.append_rows
    before = {cache_row: int(lengths[cache_row]) for cache_row in outputs}
    for part in chunks(sorted(outputs), r):
        for begin in range(0, max(len(outputs[cache_row]) - 1 for cache_row in part), c):
            tokens = np.zeros((r, c), np.int32)
            cache_rows = np.full(r, config.num_cache_rows, np.int32)
            starts = np.full(r, config.max_tokens, np.int32)
            counts: dict[int, int] = {}
            for i, cache_row in enumerate(part):
                ids = outputs[cache_row][begin : min(begin + c, len(outputs[cache_row]) - 1)]
                if ids:
                    cache_rows[i], starts[i] = cache_row, before[cache_row] + begin
                    tokens[i, : len(ids)] = ids
                    counts[cache_row] = len(ids)
            yield AppendPiece(cache_rows=cache_rows, starts=starts, tokens=tokens, counts=counts)


def chunks(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """`items` in parts of `size`, the last one shorter."""
    return [items[i : i + size] for i in range(0, len(items), size)]
