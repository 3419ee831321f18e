"""A time line as a file that Perfetto and chrome://tracing open (https://ui.perfetto.dev): the Trace Event Format.

Tracks: what the loop does, what the decoder does, and each row of the cache with the samples that it held. Complete events
alone ("X" with a start and a duration), so spans that are no longer kept leave no event half open. Times are microseconds
from the first span on. Not covered: what devices do inside a window or an update, which `jax.profiler` shows.
"""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.files import write_bytes
from jaxtool.rundir.timeline import TimeSpan

TRACE = "trace.json.gz"
KEPT_SPANS = 200_000  # the newest; 17 MB as JSON, 4 MB in the file, 50 MB of memory


def trace_events(spans: Sequence[TimeSpan]) -> list[dict[str, Any]]:
    """A name for each track, then an event for each span, a longer one before those that it holds."""
    tracks = sorted({span.track for span in spans}, key=_order)
    numbers = {track: number for number, track in enumerate(tracks, 1)}
    first = min((_nanoseconds(span.start_s) for span in spans), default=0)
    events: list[dict[str, Any]] = []
    for track, number in numbers.items():
        events.append(_meta("thread_name", number, {"name": track}))
        events.append(_meta("thread_sort_index", number, {"sort_index": number}))
    for span in sorted(spans, key=lambda span: (span.start_s, -span.stop_s)):
        start, stop = _nanoseconds(span.start_s), _nanoseconds(span.stop_s)
        events.append(
            {
                "ph": "X",
                "pid": 1,
                "tid": numbers[span.track],
                "name": span.name,
                "ts": (start - first) / 1000,
                "dur": (stop - start) / 1000,
            }
        )
    return events


def write_trace(path: Path, spans: Sequence[TimeSpan], *, lost: int, title: str) -> None:
    """Replaces the file in one step.

    Args:
      lost: spans before these that are not there any more; the file says so.
      title: of the process.
    """
    trace = {
        "traceEvents": [_meta("process_name", 0, {"name": title}), *trace_events(spans)],
        "displayTimeUnit": "ms",
        "otherData": {"earlier_spans_left_out": lost},
    }
    text = json.dumps(trace, separators=(",", ":"))
    write_bytes(path, gzip.compress(text.encode("utf-8"), compresslevel=5, mtime=0))


def _meta(name: str, track: int, values: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "pid": 1, "tid": track, "name": name, "args": values}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _order(track: str) -> tuple[int, str, int]:
    """The loop, the decoder, then rows by their number."""
    number = re.search(r"\d+$", track)
    known = {"loop": 0, "decoder": 1}
    return known.get(track, 2), track.rstrip("0123456789"), int(number[0]) if number else 0
