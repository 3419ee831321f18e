"""The state of a run in a file: what a line says, what is left by hand, and reading what is not there."""

import dataclasses
import json

import pytest

from jaxtool.rundir.live_status import (
    LIVE,
    LiveStatus,
    left_in_rollouts,
    left_in_run,
    read_live,
    status_line,
    write_live,
)

STATUS = LiveStatus(
    written_at=1.0,
    every_s=30.0,
    step=11,
    steps=100,
    phase="rollouts",
    phase_s=90.0,
    step_s=91.0,
    answers_done=3012,
    answers_asked=8192,
    calls=2210,
    waiting=41,
    tokens_per_s=18_123.0,
    left_step_s=1870.0,
)


def test_the_line_of_rollouts_and_of_other_phases():
    assert status_line(STATUS) == (
        "step 12/100  rollouts 1:30  answers 3012/8192  calls 2210  waiting 41  18.1k tok/s  left 31:10"
    )
    update = dataclasses.replace(STATUS, phase="update", left_step_s=None)
    assert status_line(update) == "step 12/100  update 1:30"
    assert status_line(dataclasses.replace(update, phase="", step=100)).startswith("step 100/100  ")


def test_what_is_left_of_the_rollouts_goes_by_the_rate_so_far():
    """20 of 80 came in 10 s: 60 more take 30 s, and the update behind them 5 s."""
    assert left_in_rollouts(done=20, asked=80, came=20, phase_s=10.0, after_s=5.0) == 35.0
    # 30 were there before the step began: 10 came in 10 s.
    assert left_in_rollouts(done=40, asked=80, came=10, phase_s=10.0, after_s=5.0) == 45.0
    assert left_in_rollouts(done=0, asked=80, came=0, phase_s=10.0, after_s=5.0) is None


def test_what_is_left_of_the_run():
    assert left_in_run(steps_left=3, step_s=20.0, left_step_s=7.0) == 67.0
    assert left_in_run(steps_left=3, step_s=20.0, left_step_s=None) == 80.0
    assert left_in_run(steps_left=3, step_s=None, left_step_s=7.0) is None


def test_a_state_is_read_as_it_was_written(tmp_path):
    write_live(tmp_path, STATUS)
    assert read_live(tmp_path) == STATUS
    assert [path.name for path in tmp_path.iterdir()] == [LIVE]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"step": 1}'])
def test_a_state_that_is_missing_or_of_another_version_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / LIVE).write_text(text)
    assert read_live(tmp_path) is None
    record = dataclasses.asdict(STATUS) | {"unknown": 1}
    (tmp_path / LIVE).write_text(json.dumps(record))
    assert read_live(tmp_path) is None
