"""A run stops above the failure rate and hears of a tool that nobody calls."""

import pytest

from jaxtool.tools.health import (
    StepHealth,
    ToolHealth,
    ToolHealthConfig,
    TooManyFailures,
    chance_of,
)

_CONFIG = ToolHealthConfig(max_failure_rate=0.1, window=100, min_trajectories=20)


def test_it_stops_above_the_rate_and_not_below():
    health = ToolHealth(_CONFIG)
    assert health.observe(lost=10, trajectories=100) == StepHealth()
    with pytest.raises(TooManyFailures, match=r"11 of the last 100 .*11\.0%"):
        health.observe(lost=11, trajectories=100)


def test_chance_of_losses_by_hand():
    """Two of two: 0.1²; one or more of two: 1 - 0.9²."""
    assert chance_of(2, 2, 0.1) == pytest.approx(0.01)
    assert chance_of(1, 2, 0.1) == pytest.approx(0.19)
    assert chance_of(0, 5, 0.1) == pytest.approx(1.0)
    assert chance_of(1, 1, 0.0) == 0.0


@pytest.mark.parametrize(
    ("lost", "trajectories"), [(2, 2), (2, 4), (4, 8), (8, 16), (9, 16), (14, 32), (4, 64)]
)
def test_half_of_any_batch_ends_the_run_at_the_first_step(lost, trajectories):
    with pytest.raises(TooManyFailures, match=f"{lost} of the last {trajectories} "):
        ToolHealth(ToolHealthConfig()).observe(lost=lost, trajectories=trajectories)


@pytest.mark.parametrize(("lost", "trajectories"), [(1, 1), (1, 8), (2, 16), (4, 32), (3, 64)])
def test_what_chance_may_lose_passes(lost, trajectories):
    health = ToolHealth(ToolHealthConfig())
    assert health.observe(lost=lost, trajectories=trajectories).may_learn


def test_small_batches_add_up():
    """One of four each step: 1 of 4 is chance, 2 of 8 still is, 3 of 12 is not."""
    health = ToolHealth(ToolHealthConfig())
    for _ in range(2):
        assert health.observe(lost=1, trajectories=4).may_learn
    with pytest.raises(TooManyFailures, match="3 of the last 12 "):
        health.observe(lost=1, trajectories=4)


def test_an_outage_late_in_a_run_teaches_nothing_and_ends_it_where_it_lasts():
    """After 512 whole trajectories 9 of 16 are few of the window, and most of the step."""
    health = ToolHealth(ToolHealthConfig())
    health.observe(lost=0, trajectories=512)
    broken = health.observe(lost=9, trajectories=16)
    assert not broken.may_learn
    assert broken.warnings == (
        "9 of 16 trajectories were lost to the tool's infrastructure: nothing is learned from this step",
    )
    assert health.observe(lost=0, trajectories=16) == StepHealth()
    assert not health.observe(lost=9, trajectories=16).may_learn
    with pytest.raises(TooManyFailures, match="27 of the last 512 "):
        health.observe(lost=9, trajectories=16)


def test_old_failures_are_forgotten():
    health = ToolHealth(_CONFIG)
    health.observe(lost=10, trajectories=100)
    health.observe(lost=0, trajectories=100)
    assert health.failure_rate == 0.0


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"max_failure_rate": 2.0}, "max_failure_rate"),
        ({"min_trajectories": 0}, "min_trajectories"),
        ({"known_answers_every": -1}, "known_answers_every"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, word):
    with pytest.raises(ValueError, match=word):
        ToolHealthConfig(**settings)
