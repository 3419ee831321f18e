"""A run with --log: metrics, tables and settings reach the tracker; a longer run continues the same one."""

import dataclasses

from helpers.small_runs import CountingTool, rl_config, train

from jaxtool.rundir.run_start import Launch
from jaxtool.rundir.trackers import opening
from jaxtool.rundir.trackers.spec import TrackerSpec

LAUNCH = Launch(trackers=(TrackerSpec(kind="mlflow", project="p"),))


class Recorder:
    """Stands for MLflow's."""

    opened: list["Recorder"] = []  # noqa: RUF012 (one list for the test)

    def __init__(self, asked):
        self.asked, self.run_id, self.place = asked, asked.run_id or "id 1", "here"
        self.metrics, self.tables, self.is_finished = {}, {}, None
        self.opened.append(self)

    def log_metrics(self, step, values):
        assert step not in self.metrics
        self.metrics[step] = values

    def log_table(self, step, rows):
        self.tables[step] = rows

    def close(self, is_finished):
        self.is_finished = is_finished


def test_steps_reach_the_tracker_once_and_a_longer_run_continues_it(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_TRACKERS", {"mlflow": Recorder})
    monkeypatch.setattr(Recorder, "opened", [])
    config = rl_config(tmp_path)
    for steps in (1, 2):
        schedule = dataclasses.replace(config.schedule, steps=steps)
        longer = dataclasses.replace(config, schedule=schedule)
        tool = CountingTool()
        train(longer, workdir=tmp_path / "run", seed=1, tool=tool, launch=LAUNCH)
    first, second = Recorder.opened
    assert (first.asked.run_id, second.asked.run_id) == ("", "id 1")
    assert first.asked.name == second.asked.name
    assert first.asked.name.startswith("run-")
    assert first.asked.config["optimizer.learning_rate"] == 0.01
    assert [sorted(one.metrics) for one in (first, second)] == [[0], [1]]
    assert [sorted(one.tables) for one in (first, second)] == [[0], [1]]
    assert first.metrics[0]["metrics/tracker_lost_total"] == 0
    assert len(first.tables[0]) == 8
    assert first.is_finished
