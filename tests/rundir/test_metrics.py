"""Metrics: each step once whatever happens, nothing but finite numbers and good names."""

import json
import math

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxtool.rundir import metric_table, metrics


def write_steps(workdir, steps, resume_step=None, value=0.5):
    with metrics.MetricsWriter(workdir, resume_step) as writer:
        for step in steps:
            writer.write(step, {"reward/mean": value + step})


def read(workdir):
    return metrics.read_metrics(workdir / metrics.METRICS_NAME)


def scalars(workdir):
    """(step, tag, value) of all event files, read as TensorBoard's format says."""
    found = []
    for file in sorted((workdir / metrics.TENSORBOARD_FOLDER).iterdir()):
        content, position = file.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            event = event_pb2.Event.FromString(content[position + 12 : position + 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            position += 12 + length + 4
    return found


def test_a_row_holds_step_time_and_values(tmp_path):
    with metrics.MetricsWriter(tmp_path / "deep" / "run") as writer:
        writer.write(3, {"reward/mean": np.float32(0.25), "tools/calls_count": np.array(2)})
    (line,) = (tmp_path / "deep" / "run" / metrics.METRICS_NAME).read_text().splitlines()
    row = json.loads(line)
    assert row.pop("time_s") >= 0
    assert row == {
        "step": 3,
        "reward/mean": 0.25,
        "tools/calls_count": 2.0,
        metrics.NON_FINITE_COUNT: 0,
    }


def test_non_finite_values_become_null_and_are_counted(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        writer.write(0, {"a/x": math.nan, "a/y": -math.inf, "a/z": 1.0})
    text = (tmp_path / metrics.METRICS_NAME).read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    (row,) = read(tmp_path)
    assert math.isnan(row["a/x"])
    assert math.isnan(row["a/y"])
    assert row[metrics.NON_FINITE_COUNT] == 2
    assert {tag for _, tag, _ in scalars(tmp_path)} == {"a/z", metrics.NON_FINITE_COUNT}


@pytest.mark.parametrize(
    "name", ["reward", "Reward/mean", "reward/", "/mean", "a b/c", "a/b/c/d", "step", "a/b-c"]
)
def test_malformed_names_are_refused(name, tmp_path):
    with (
        metrics.MetricsWriter(tmp_path) as writer,
        pytest.raises(ValueError, match="is malformed; write area/name_unit"),
    ):
        writer.write(0, {name: 1.0})
    assert read(tmp_path) == []


@pytest.mark.parametrize("name", ["reward/mean", "timing/decode_s", "eval/accuracy/add-2.x_3"])
def test_good_names_are_accepted(name):
    metrics.check_metric_name(name)


def test_steps_must_increase(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        writer.write(1, {})
        with pytest.raises(ValueError, match="step=1 must be after the last step 1"):
            writer.write(1, {})


def test_a_killed_and_resumed_run_has_each_step_once(tmp_path):
    write_steps(tmp_path, range(8))
    with open(tmp_path / metrics.METRICS_NAME, "a") as file:
        file.write('{"step": 8, "time_s": 4.5, "rew')  # killed inside a write
    assert [row["step"] for row in read(tmp_path)] == list(range(8))
    write_steps(tmp_path, range(5, 10), resume_step=4, value=100.5)
    rows = read(tmp_path)
    assert [row["step"] for row in rows] == list(range(10))
    assert [row["reward/mean"] for row in rows[3:7]] == [3.5, 4.5, 105.5, 106.5]
    assert not list(tmp_path.glob("*.resuming"))


def test_time_goes_on_after_a_resume(tmp_path):
    (tmp_path / metrics.METRICS_NAME).write_text('{"step":1,"time_s":1000.0}\n')
    write_steps(tmp_path, [2], resume_step=1)
    assert 1000.0 <= read(tmp_path)[1]["time_s"] < 1010.0


def test_starting_without_a_checkpoint_starts_from_nothing(tmp_path):
    write_steps(tmp_path, range(3))
    write_steps(tmp_path, [0])
    assert [row["step"] for row in read(tmp_path)] == [0]
    assert {step for step, _, _ in scalars(tmp_path)} == {0}


def test_resuming_where_nothing_was_written_works(tmp_path):
    write_steps(tmp_path, [6], resume_step=5)
    assert [row["step"] for row in read(tmp_path)] == [6]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / metrics.METRICS_NAME
    path.write_text('{"step":1}\nbroken\n{"step":2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:2: not a JSON row"):
        metrics.read_metrics(path)
    path.write_text('{"loss":1}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:1: a row must be"):
        metrics.read_metrics(path)


def test_tensorboard_gets_the_same_numbers_and_resumes_keep_the_old_file(tmp_path):
    write_steps(tmp_path, range(3))
    write_steps(tmp_path, [2], resume_step=1, value=9.5)
    values = [(step, value) for step, tag, value in scalars(tmp_path) if tag == "reward/mean"]
    assert sorted(values) == [(0, 0.5), (1, 1.5), (2, 2.5), (2, 11.5)]
    assert len(list((tmp_path / metrics.TENSORBOARD_FOLDER).iterdir())) == 2


def test_a_row_without_the_clock_has_what_an_equal_run_gives_again():
    row = {
        "step": 3,
        "time_s": 1.5,
        "timing/call_p50_s/search": 0.2,
        "tokens/sampled_per_s": 90.0,
        "tokens/useful_row_steps_fraction": 0.7,
        "tokens/useful_until_queue_empty_fraction": 0.8,
        "tokens/sampled_total": 640,
        "tools/calls_count/_own": 2,
    }
    kept = {"step": 3, "tokens/sampled_total": 640, "tools/calls_count/_own": 2}
    assert metric_table.without_clock(row) == kept


def test_names_of_python_functions_are_names_of_tools_in_metrics():
    metrics.check_metric_name("tools/calls_count/_own")
    with pytest.raises(ValueError, match="malformed"):
        metrics.check_metric_name("tools/calls_count/my tool")
