"""Reads a trace as a viewer does, and checks that it can be drawn."""

import gzip
import json
from pathlib import Path


def read_trace(path: Path) -> tuple[dict, dict[str, list[dict]]]:
    """The file, and its events by the name of their track, in order of their start."""
    trace = json.loads(gzip.decompress(path.read_bytes()))
    names, tracks = {}, {}
    for event in trace["traceEvents"]:
        assert event["ph"] in ("M", "X")
        assert isinstance(event["name"], str)
        if event["name"] == "thread_name":
            names[event["tid"]] = event["args"]["name"]
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            tracks.setdefault(names[event["tid"]], []).append(event)
    return trace, tracks


def check_nests(events: list[dict]) -> int:
    """Asserts that events of one track follow or hold each other; returns how deep they go."""
    open_until: list[float] = []
    deepest = 0
    for event in events:
        start, stop = event["ts"], event["ts"] + event["dur"]
        while open_until and open_until[-1] <= start + 1e-3:
            open_until.pop()
        assert not open_until or stop <= open_until[-1] + 1e-3, event
        open_until.append(stop)
        deepest = max(deepest, len(open_until))
    return deepest
