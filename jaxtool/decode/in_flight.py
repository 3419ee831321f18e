"""Host side of one window: which rows it decodes, and what its end says about them."""

import dataclasses

import numpy as np

from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.draft_window import DraftLog
from jaxtool.decode.programs import DecodeRows, Window
from jaxtool.decode.sampling import SamplingMode


@dataclasses.dataclass(frozen=True, kw_only=True)
class InFlightWindow:
    """A window on the device."""

    # [W] int32, the cache rows it decodes in rising order; the number of cache rows where a place is empty
    chosen: np.ndarray
    lengths: np.ndarray  # [W] int32, before
    rows: DecodeRows
    log: Window
    key: tuple[int, int, SamplingMode] = (0, 0, "plain")  # width, view and sampling mode
    columns: int = 1  # tokens of a row in one pass; 1: no drafts
    guesses: DraftLog | None = None  # what became of them, of a window with drafts
    dispatched_s: float = 0.0  # by `time.perf_counter`


def choose_rows(
    rows: DecodeRows, ages: np.ndarray, config: EngineConfig
) -> tuple[np.ndarray, np.ndarray, int]:
    """Cache rows of the next window: of those that run, the ones placed first.

    An example with 6 cache rows, windows of 2 or 4 rows, views of 32 or 64 positions and K = 8.
    Rows 0, 2 and 5 run; the others are free or wait for a tool.

      In:   lengths [20 0 10 0 0 30]  is_running [T F T F F T]  ages [7 1 3 2 0 5]
      Out:  chosen [0 2 5 6]  running [2 5 0]  view 64

    Three rows need a window of four, whose last place stays empty: 6 is no row. The longest row may
    reach 30 + 8 tokens and one more that is pending, which a view of 32 does not hold.

    Args:
      ages: [B] int64, rising with each row that is placed.

    Returns:
      `InFlightWindow.chosen`, the cache rows among them that run, and the narrowest view of the cache
      that these cannot outgrow.
    """
    # 1) The narrowest window that holds all running rows; the widest where none does.
    running = np.flatnonzero(rows.is_running)
    width = next((w for w in config.widths if w >= len(running)), config.decode_rows)
    # 2) The oldest rows first: otherwise a row could wait for ever while others come and go.
    running = running[np.argsort(ages[running], kind="stable")][:width]
    # 3) The view is fixed for the whole window, so it must hold K tokens more than there are now.
    view = _view(rows, running, config)
    # 4) A window of all cache rows works on the cache in place, idle rows included. Any other copies its
    #    rows out and back; an empty place has an index out of range, whose copy back is dropped.
    count = config.num_cache_rows
    if width == count:
        return np.arange(count, dtype=np.int32), running, view
    chosen = np.full(width, count, np.int32)
    chosen[: len(running)] = np.sort(running)
    return chosen, running, view


def places_of(
    rows: DecodeRows, running: np.ndarray, config: EngineConfig
) -> tuple[np.ndarray, int]:
    """As `choose_rows`, where it is known which rows decode (with pages): places and view."""
    width = next(w for w in config.widths if w >= len(running))
    chosen = np.full(width, config.num_cache_rows, np.int32)
    chosen[: len(running)] = np.sort(running)
    return chosen, _view(rows, running, config)


def _view(rows: DecodeRows, running: np.ndarray, config: EngineConfig) -> int:
    longest = int(rows.lengths[running].max()) + config.window_steps + 1
    return next((v for v in config.views if v >= longest), config.views[-1])


def apply_window(
    in_flight: InFlightWindow,
    after: DecodeRows,
    log: Window,
    rows: DecodeRows,
    counts: EngineCounts,
) -> Window:
    """Writes what a window did into `rows` and `counts`.

    The example of `choose_rows` continued. The window ran two steps, and place i has column i of its log:

      In:   chosen [0 2 5 6]  log.tokens [[11 12 13 0] [14 15 16 0]]
      Out:  tokens [[11 0 12 0 0 13] [14 0 15 0 0 16]], a column for each of the 6 cache rows

    Args:
      after: where the window ended, as host arrays.
      log: what it did, as host arrays.
      rows: of all cache rows.

    Returns:
      The log with a column for each cache row, decoded in this window or not.
    """
    # 1) Places that hold a row, and which cache row each of them is.
    count = len(rows.is_running)
    places = np.flatnonzero(in_flight.chosen < count)
    chosen = in_flight.chosen[places]
    # 2) Only these four fields change on the device.
    for name in ("lengths", "pending", "is_running", "forced_next"):
        getattr(rows, name)[chosen] = getattr(after, name)[places]
    # 3) A row's length grows by one in each step in which it ran: the useful part of what was paid. With
    #    drafts that is so of each column that was right, and the log has a line for each column of a pass.
    counts.windows += 1
    counts.steps += int(log.steps)
    steps = int(log.steps) * in_flight.columns
    counts.row_steps += steps * len(in_flight.chosen)
    counts.useful_row_steps += int((after.lengths - in_flight.lengths)[places].sum())
    counts.sampled_tokens += int(log.is_sampled[:steps].sum())

    # 4) Columns by cache row, so that callers need not know which rows were chosen.
    def widened(x: np.ndarray) -> np.ndarray:
        if len(places) == count:
            return x[:steps]
        out = np.zeros((steps, count), x.dtype)
        out[:, chosen] = x[:steps, places]
        return out

    return Window(
        tokens=widened(log.tokens),
        logprobs=widened(log.logprobs),
        is_sampled=widened(log.is_sampled),
        steps=int(log.steps),
    )
