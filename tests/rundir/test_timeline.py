"""The time line: seconds by name, the loop's present phase, and spans only where a trace wants them."""

import pytest

from jaxtool.rundir import timeline
from jaxtool.rundir.timeline import Timeline, TimeSpan


@pytest.fixture
def clock(monkeypatch):
    times = [0.0]
    monkeypatch.setattr(timeline.time, "monotonic", lambda: times[0])
    return times


def test_seconds_add_up_by_name_until_they_are_restarted(clock):
    line = Timeline()
    line.add("decoder", "window", 1.0, 3.5)
    line.add("decoder", "window", 4.0, 4.5)
    line.add("decoder", "prefill", 3.5, 4.0)
    assert (line.seconds("window"), line.seconds("prefill"), line.seconds("none")) == (3.0, 0.5, 0)
    line.restart()
    assert line.seconds("window") == 0


def test_the_present_is_the_innermost_phase_and_a_phase_that_raises_ends(clock):
    line = Timeline(keeps=8)
    assert line.present == ("", 0.0)

    def step():
        with line.phase("step"):
            clock[0] = 1.0
            with line.phase("update"):
                clock[0] = 4.0
                assert line.present == ("update", 1.0)
            assert line.present == ("step", 0.0)
            raise KeyError

    with pytest.raises(KeyError):
        step()
    assert line.present == ("", 4.0)
    inner, outer = line.kept()[0]
    assert inner == TimeSpan(track="loop", name="update", start_s=1.0, stop_s=4.0)
    assert outer == TimeSpan(track="loop", name="step", start_s=0.0, stop_s=4.0)


def test_the_newest_spans_are_kept_and_the_others_counted():
    line = Timeline(keeps=2)
    for i in range(5):
        line.add("row 0", f"{i}", i, i + 1)
    line.add("row 0", "nothing", 9.0, 9.0)
    spans, lost = line.kept()
    assert ([span.name for span in spans], lost) == (["3", "4"], 3)
    assert not Timeline().is_kept
