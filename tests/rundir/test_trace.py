"""The trace: by hand, in bounds, and a file that a viewer can draw."""

import pytest
from helpers.traces import check_nests, read_trace

from jaxtool.rundir import trace
from jaxtool.rundir.timeline import Timeline, TimeSpan
from jaxtool.rundir.trace import trace_events, write_trace

SPANS = [
    TimeSpan(track="row 10", name="p0/1", start_s=101.0, stop_s=103.0),
    TimeSpan(track="row 2", name="tool", start_s=101.5, stop_s=102.0),
    TimeSpan(track="row 2", name="p0/0", start_s=101.0, stop_s=102.0),
    TimeSpan(track="decoder", name="window", start_s=101.0, stop_s=101.25),
    TimeSpan(track="loop", name="step", start_s=100.5, stop_s=104.0),
]


def test_events_by_hand():
    """Times from the first span on, in microseconds; the loop comes first, rows by their number."""
    events = trace_events(SPANS)
    names = [e["args"]["name"] for e in events if e["name"] == "thread_name"]
    assert names == ["loop", "decoder", "row 2", "row 10"]
    drawn = [(e["tid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert drawn == [
        (1, "step", 0.0, 3_500_000.0),
        (4, "p0/1", 500_000.0, 2_000_000.0),
        (3, "p0/0", 500_000.0, 1_000_000.0),
        (2, "window", 500_000.0, 250_000.0),
        (3, "tool", 1_000_000.0, 500_000.0),
    ]
    assert trace_events([]) == []


def test_a_file_is_read_back_and_nests(tmp_path):
    write_trace(tmp_path / "t.json.gz", SPANS, lost=7, title="mine")
    whole, tracks = read_trace(tmp_path / "t.json.gz")
    assert whole["otherData"] == {"earlier_spans_left_out": 7}
    assert whole["traceEvents"][0]["args"] == {"name": "mine"}
    assert {name: check_nests(events) for name, events in tracks.items()} == {
        "loop": 1,
        "decoder": 1,
        "row 2": 2,
        "row 10": 1,
    }


def test_spans_that_overlap_are_seen_by_the_check():
    crossing = [{"ts": 0.0, "dur": 10.0}, {"ts": 5.0, "dur": 10.0}]
    with pytest.raises(AssertionError):
        check_nests(crossing)


def test_a_full_trace_stays_small(tmp_path, monkeypatch):
    """As many spans as are kept, a hundred times less: 4 MB of file for 200,000 is 40 kB for 2,000."""
    line = Timeline(keeps=trace.KEPT_SPANS // 100)
    for i in range(trace.KEPT_SPANS // 50):
        line.add(f"row {i % 64}", "generate", i / 7, i / 7 + 0.01)
    spans, lost = line.kept()
    assert (len(spans), lost) == (2000, 2000)
    write_trace(tmp_path / "t.json.gz", spans, lost=lost, title="mine")
    assert (tmp_path / "t.json.gz").stat().st_size < 60_000
