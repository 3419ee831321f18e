"""A run stops above the failure rate and hears of a tool that nobody calls."""

import pytest

from jaxtool.tools.health import ToolHealth, ToolHealthConfig, TooManyFailures

_CONFIG = ToolHealthConfig(max_failure_rate=0.1, window=100, min_trajectories=20, quiet_steps=3)


def test_it_stops_above_the_rate_and_not_below():
    health = ToolHealth(_CONFIG)
    assert health.observe(lost=10, trajectories=100, tool_calls=5) == ""
    with pytest.raises(TooManyFailures, match=r"11 of the last 100 .*11\.0%"):
        health.observe(lost=11, trajectories=100, tool_calls=1)


def test_a_few_trajectories_say_nothing_yet():
    health = ToolHealth(_CONFIG)
    assert health.observe(lost=19, trajectories=19, tool_calls=1) == ""
    with pytest.raises(TooManyFailures):
        health.observe(lost=1, trajectories=1, tool_calls=1)


def test_old_failures_are_forgotten():
    health = ToolHealth(_CONFIG)
    health.observe(lost=10, trajectories=100, tool_calls=1)
    health.observe(lost=0, trajectories=100, tool_calls=1)
    assert health.failure_rate == 0.0


def test_silence_is_reported_every_few_steps():
    health = ToolHealth(_CONFIG)
    warnings = [health.observe(lost=0, trajectories=4, tool_calls=0) for _ in range(6)]
    assert warnings == ["", "", "no tool calls for 3 steps", "", "", "no tool calls for 6 steps"]
    assert health.observe(lost=0, trajectories=4, tool_calls=1) == ""
    assert health.observe(lost=0, trajectories=4, tool_calls=0) == ""


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"max_failure_rate": 2.0}, "max_failure_rate"),
        ({"min_trajectories": 0}, "min_trajectories"),
        ({"quiet_steps": 0}, "quiet_steps"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, word):
    with pytest.raises(ValueError, match=word):
        ToolHealthConfig(**settings)
