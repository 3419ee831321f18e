"""The soak of benchmarks/sandbox_soak.py, short: mixed session calls, kills and cancellations leave nothing."""

import dataclasses

import pytest
from helpers.sandbox_serving import why_not

from benchmarks import sandbox_soak


def test_a_figure_that_grew_is_a_leak():
    before = sandbox_soak.Footprint(
        processes=8, descriptors=32, directories=4, session_uids=1, sessions=0, running=0,
        memory_mib=50.0,
    )  # fmt: skip
    assert sandbox_soak.leaks(before, before) == []
    assert sandbox_soak.leaks(before, dataclasses.replace(before, memory_mib=62.0)) == []
    for name, value in {
        "processes": 9, "descriptors": 33, "directories": 5, "session_uids": 2, "sessions": 1,
        "running": 1, "memory_mib": 64.0,
    }.items():  # fmt: skip
        [line] = sandbox_soak.leaks(before, dataclasses.replace(before, **{name: value}))
        assert line.startswith(f"{name}: ")


@pytest.mark.nightly
@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_mixed_session_calls_leave_nothing(tier):
    if why_not(tier, False):
        pytest.skip(f"tier {tier}: {why_not(tier, False)}")
    figures = sandbox_soak.soak(120, tier, seed=7, idle_ttl_ms=1500)
    assert figures["leaks"] == []
    assert sum(figures["ends"].values()) == 120
    assert {"OPENED", "STATUS_OK", "STATUS_ERROR"} <= set(figures["ends"])
