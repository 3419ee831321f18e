"""The watch of a run: what it says within a step, and that a disk or a second thread changes nothing."""

import threading

import pytest

from jaxtool.rollout.activity import Activity
from jaxtool.rundir.health import Health, HealthLimits, WatchConfig
from jaxtool.rundir.live_status import LIVE, ROLLOUTS, UPDATE, VALIDATION, read_live
from jaxtool.train import watching
from jaxtool.train.watching import RunWatch


@pytest.fixture
def clock(monkeypatch):
    times = [100.0]
    for module in ("jaxtool.train.watching", "jaxtool.rollout.activity", "jaxtool.rundir.timeline"):
        monkeypatch.setattr(f"{module}.time.monotonic", lambda: times[0])
    return times


def watch_of(folder, activity, *, every_s=0.0, note=print, **options):
    config = WatchConfig(line_every_s=every_s)
    return RunWatch(folder, config, activity, steps=10, start=2, note=note, **options)


def test_a_step_by_hand(tmp_path, clock):
    """8 answers asked, 2 back after 20 s: 60 s more, and then 7 s as in the step before."""
    activity = Activity()
    phase = activity.timeline.phase
    with watch_of(tmp_path, activity) as watch:
        watch.read({"timing/update_s": 6.0, "timing/judge_s": 1.0})
        began = read_live(tmp_path)
        assert began is not None
        assert (began.step, began.phase, began.left_run_s) == (2, "", None)
        with watch.step(3):
            with phase(ROLLOUTS):
                activity.ask(("train", 3), 8)
                activity._answers[("train", 3)] = (2, 8)
                activity.call()
                activity.sample(500)
                clock[0] += 20
                now = watch.status()
                assert (now.phase, now.phase_s, now.step_s, now.step) == (ROLLOUTS, 20, 20, 3)
                assert (now.answers_done, now.answers_asked) == (2, 8)
                assert (now.calls, now.waiting, now.tokens_per_s) == (0, 1, 25.0)
                assert (now.left_step_s, now.left_run_s) == (67.0, None)
                activity.called()
            with phase(UPDATE):
                clock[0] += 2
                now = watch.status()
                assert (now.left_step_s, now.calls, now.waiting) == (4.0, 1, 0)
                assert now.tokens_per_s == 0  # since the status before
            with phase(VALIDATION):
                activity.ask((VALIDATION,), 4)
                activity._answers[(VALIDATION,)] = (1, 4)
                clock[0] += 5
                assert watch.status().left_step_s == 15.0
        now = watch.status()
        # One step of 27 s was made: step 4 and the five behind it.
        assert (now.step, now.phase, now.left_run_s) == (4, "", 6 * 27.0)
    last = read_live(tmp_path)
    assert last is not None
    assert last.step == 4


def test_answers_that_were_there_before_the_step_say_nothing_of_its_rate(tmp_path, clock):
    """Rollouts that overlap: 3 of 8 were back, a fourth came in 10 s: the other four take 40 s."""
    activity = Activity()
    activity.ask(("train", 4), 8)
    activity._answers[("train", 4)] = (3, 8)
    with watch_of(tmp_path, activity) as watch, watch.step(4), activity.timeline.phase(ROLLOUTS):
        activity._answers[("train", 4)] = (4, 8)
        clock[0] += 10
        assert watch.status().left_step_s == 40.0


def test_lines_come_within_a_step_from_a_thread(tmp_path):
    said, lines = threading.Event(), []

    def note(text):
        lines.append(text)
        said.set()

    activity = Activity()
    with watch_of(tmp_path, activity, every_s=0.02, note=note) as watch:
        with watch.step(6), activity.timeline.phase(ROLLOUTS):
            activity.ask(("train", 6), 8)
            said.clear()
            assert said.wait(60)
        assert lines[-1].startswith("step 7/10  rollouts 0:0")
    assert not [t for t in threading.enumerate() if t.name == "watch"]


def test_a_disk_that_fails_is_said_once_and_stops_nothing(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(watching, "write_live", full)
    monkeypatch.setattr(watching, "_REST_S", 0.0)
    with watch_of(tmp_path, Activity()) as watch:
        for step in range(3):
            with watch.step(step):
                pass
    assert capsys.readouterr().err == "warning: live.json was not written: no space left\n"


def test_only_the_first_host_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watching.hosts, "is_first", lambda: False)
    health = Health(HealthLimits(steps_in_a_row=1))
    with watch_of(tmp_path, Activity(), every_s=0.01, health=health) as watch, watch.step(0):
        metrics = watch.read({"tools/calls_per_answer": 0.0})
        assert not [t for t in threading.enumerate() if t.name == "watch"]
    assert metrics == {"health/beyond_count/calls_died_out": 1.0}
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / LIVE).exists()


def test_warnings_stay_in_the_state_until_they_recover(tmp_path, capsys):
    health = Health(HealthLimits(steps_in_a_row=1))
    with watch_of(tmp_path, Activity(), health=health) as watch:
        with watch.step(0):
            watch.read({"tools/calls_per_answer": 0.0})
        assert list(watch.status().warnings) == ["calls_died_out"]
        assert capsys.readouterr().err.startswith("warning: step 0: calls died out: ")
        with watch.step(1):
            watch.read({"tools/calls_per_answer": 1.0})
        assert watch.status().warnings == {}
