"""Long tool outputs through the policy: by chunks, behind what their cache rows hold."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.programs import DecodeRows


def append_chunks(
    outputs: dict[int, Sequence[int]],
    *,
    rows: DecodeRows,
    high_water: np.ndarray,
    config: EngineConfig,
    counts: EngineCounts,
    run: Callable[[np.ndarray, np.ndarray, np.ndarray, int], None],
) -> None:
    """Runs every token but the last of each output; the last becomes pending.

    Args:
      outputs: by cache row, of up to `append_rows` of them; the pending token comes first.
      rows: of all cache rows.
      high_water: [B] int32, the longest that each row was.
      run: the program of a chunk: (cache rows [R], tokens [R, F], first positions [R], end of the longest
        row). A place without a row has the number of cache rows, and a position that is dropped.
    """
    c, r = config.forced_tokens, config.append_rows
    longest = max(len(ids) - 1 for ids in outputs.values())
    for begin in range(0, longest, c):
        tokens = np.zeros((r, c), np.int32)
        cache_rows = np.full(r, config.num_cache_rows, np.int32)
        starts = np.full(r, config.max_tokens, np.int32)
        end = 0
        for i, (cache_row, ids) in enumerate(outputs.items()):
            part = ids[begin : min(begin + c, len(ids) - 1)]
            if not part:
                continue
            start = int(rows.lengths[cache_row])
            cache_rows[i], starts[i] = cache_row, start
            tokens[i, : len(part)] = part
            counts.reprefilled_tokens += max(0, int(high_water[cache_row]) - start)
            rows.lengths[cache_row] = high_water[cache_row] = start + len(part)
            end = max(end, start + len(part))
        run(cache_rows, tokens, starts, end)
    for cache_row, ids in outputs.items():
        rows.pending[cache_row] = ids[-1]
