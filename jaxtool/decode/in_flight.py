"""Host side of one window: which rows it decodes, and what its end says about them."""

import dataclasses

import numpy as np

from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.programs import Rows, Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flight:
    """A window on the device."""

    # [W] int32, the cache rows it decodes in rising order; the number of cache rows where a place is empty
    chosen: np.ndarray
    lengths: np.ndarray  # [W] int32, before
    rows: Rows
    log: Window


def choose_rows(
    rows: Rows, ages: np.ndarray, config: EngineConfig
) -> tuple[np.ndarray, np.ndarray, int]:
    """Slots of the next window: of those that run, the ones placed first.

    Args:
      ages: [B] int64, rising with each row that is placed.

    Returns:
      `Flight.chosen`, the cache rows among them that run, and the narrowest view of the cache that these
      cannot outgrow.
    """
    running = np.flatnonzero(rows.is_running)
    width = next((w for w in config.widths if w >= len(running)), config.decode_rows)
    running = running[np.argsort(ages[running], kind="stable")][:width]
    longest = int(rows.lengths[running].max()) + config.window_steps + 1
    view = next((v for v in config.views if v >= longest), config.views[-1])
    count = config.num_cache_rows
    if width == count:
        return np.arange(count, dtype=np.int32), running, view
    chosen = np.full(width, count, np.int32)
    chosen[: len(running)] = np.sort(running)
    return chosen, running, view


def land(flight: Flight, after: Rows, log: Window, rows: Rows, counts: EngineCounts) -> Window:
    """Writes what a window did into `rows` and `counts`.

    Args:
      after, log: the results of the flight as host arrays.
      rows: of all cache rows.

    Returns:
      The log with a column for each cache row, decoded in this window or not.
    """
    count = len(rows.is_running)
    places = np.flatnonzero(flight.chosen < count)
    chosen = flight.chosen[places]
    for name in ("lengths", "pending", "is_running", "forced_next"):
        getattr(rows, name)[chosen] = getattr(after, name)[places]
    steps = int(log.steps)
    counts.windows += 1
    counts.steps += steps
    counts.row_steps += steps * len(flight.chosen)
    counts.useful_row_steps += int((after.lengths - flight.lengths)[places].sum())
    counts.sampled_tokens += int(log.is_sampled[:steps].sum())

    def widened(x: np.ndarray) -> np.ndarray:
        if len(flight.chosen) == count:
            return x[:steps]
        out = np.zeros((steps, count), x.dtype)
        out[:, chosen] = x[:steps, places]
        return out

    return Window(
        tokens=widened(log.tokens),
        logprobs=widened(log.logprobs),
        is_sampled=widened(log.is_sampled),
        steps=steps,
    )
