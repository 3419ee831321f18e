"""Trackers: flags, what a failing one does to a run (nothing), and the real packages, offline.

The packages are no part of the test extra; what is not installed is skipped and said.
"""

import importlib.util
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.config.settings import Setting
from jaxtool.rundir.metrics import read_metrics
from jaxtool.rundir.run_log import LOST, RunLog
from jaxtool.rundir.trackers import base, opening, spec
from jaxtool.rundir.trackers.guarded import GuardedTracker, Patience
from jaxtool.rundir.trackers.opening import log_outcome, spec_of_part
from jaxtool.rundir.trackers.spec import TrackerSpec, check_trackers, parse_tracker
from jaxtool.rundir.trajectory_log import TokenView, TrajectoryView

SPEC = TrackerSpec(kind="mlflow")
HASTY = Patience(pauses_s=(0.0, 0.001), room=3, close_s=2.0)
SETTINGS = {"schedule.steps": Setting(name="Schedule.steps", value="4")}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("wandb:tools/first try", ("wandb", "tools", "first try")),
        ("wandb:tools", ("wandb", "tools", "")),
        ("mlflow", ("mlflow", "", "")),
        ("mlflow:a/b/c", ("mlflow", "a", "b/c")),
        ("trackio:p", ("trackio", "p", "")),
    ],
)
def test_a_flag_names_tracker_project_and_run(text, parts):
    found = parse_tracker(text)
    assert (found.kind, found.project, found.name) == parts
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comet:x", "no tracker 'comet'; write wandb:PROJECT"),
        ("wandb", "names no project; write wandb:PROJECT"),
        ("trackio:/x", "names no project"),
        ("mlflow:/x", "names no project"),
    ],
)
def test_a_flag_that_names_none_is_one_line_with_the_spelling(text, message):
    with pytest.raises(ValueError, match=f"^--log {text}: {message}"):
        parse_tracker(text)


def test_a_missing_package_a_missing_key_and_a_double_are_said_before_a_run(monkeypatch, tmp_path):
    wandb = parse_tracker("wandb:p")
    monkeypatch.setattr(spec.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"wandb is not installed: pip install wandb, or .*trackers"
    ):
        check_trackers([wandb], {})
    monkeypatch.setattr(spec.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"W&B has no key: run `wandb login` or set WANDB_API_KEY"):
        check_trackers([wandb], {})
    check_trackers([wandb], {"WANDB_MODE": "offline"})
    check_trackers([wandb], {"WANDB_API_KEY": "x"})
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    check_trackers([wandb], {})
    with pytest.raises(ValueError, match="--log mlflow is given twice: leave one out"):
        check_trackers([SPEC, SPEC], {})


class Recorder:
    """A tracker that keeps what it gets, or raises."""

    def __init__(self, fails=0):
        self.got, self.fails, self.closed = [], fails, None

    def log_metrics(self, step, values):
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no network, password=hush")
        self.got.append((step, values))

    def log_table(self, step, rows):
        self.got.append((step, len(rows)))

    def log_page(self, page):
        self.got.append(page.name)

    def close(self, is_finished):
        self.closed = is_finished


def guarded(tmp_path, tracker, *, is_new=True, patience=HASTY):
    memory = base.Memory(tmp_path, is_new=is_new)
    return GuardedTracker(SPEC, lambda: tracker, memory, patience)


def view(step, text="it is 2"):
    tokens = (
        TokenView(text="1+1?", token_id=1, origin="prompt"),
        TokenView(text=text, token_id=2, origin="policy"),
    )
    return TrajectoryView(
        variant="v",
        step=step,
        problem_id=f"p{step}",
        level="",
        question="1+1?",
        reference_answer="2",
        sample=0,
        reward=1.0,
        is_correct=True,
        tokens=tokens,
    )


def test_a_row_that_fails_is_tried_again_and_the_trouble_is_said_once(tmp_path, capsys):
    tracker = Recorder(fails=2)
    one = guarded(tmp_path, tracker)
    one.log_metrics(0, {"a/b": 1.0})
    one.log_metrics(1, {"a/b": 2.0})
    one.close(is_finished=True)
    assert tracker.got == [(0, {"a/b": 1.0}), (1, {"a/b": 2.0})]
    assert (one.lost, tracker.closed) == (0, True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ConnectionError: no network, password=***. The run goes on" in said


def test_what_stays_lost_is_counted_in_the_runs_own_metrics(tmp_path, capsys):
    tracker = Recorder(fails=10**6)
    one = guarded(tmp_path, tracker)
    with RunLog(tmp_path, None, SETTINGS, [one]) as log:
        log.write(0, {"reward/mean": 1.0})
        deadline = time.monotonic() + 10
        while not one.lost and time.monotonic() < deadline:
            time.sleep(0.005)
        log.write(1, {"reward/mean": 1.0})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row[LOST] for row in rows] == [0.0, 1.0]
    assert one.lost == 2
    assert "2 rows, tables or pages were lost" in capsys.readouterr().err


def test_a_tracker_that_hangs_slows_nothing_and_its_queue_has_an_end(tmp_path, capsys):
    release = threading.Event()

    class Hanging(Recorder):
        def log_metrics(self, step, values):
            release.wait(30)

    one = guarded(tmp_path, Hanging(), patience=Patience(room=3, close_s=0.05))
    started = time.monotonic()
    for step in range(100):
        one.log_metrics(step, {})
    one.close(is_finished=True)
    assert time.monotonic() - started < 5
    release.set()
    assert one.lost >= 99 - 3
    assert "did not end within 0.05 s and is left alone" in capsys.readouterr().err


def test_a_tracker_that_cannot_be_opened_is_tried_again_with_the_next_row(tmp_path):
    tracker, failures = Recorder(), [ImportError("broken"), SystemExit(1), OSError("down")]

    def opened():
        if failures:
            raise failures.pop()
        return tracker

    one = GuardedTracker(SPEC, opened, base.Memory(tmp_path, is_new=True), HASTY)
    one.log_metrics(0, {})
    one.log_metrics(1, {})
    one.close(is_finished=False)
    assert one.lost + len(tracker.got) == 2
    assert tracker.got[-1] == (1, {})
    assert tracker.closed is False


def test_a_resumed_run_gives_no_step_twice(tmp_path):
    first, second = Recorder(), Recorder()
    for tracker, steps, is_new in ((first, range(3), True), (second, range(1, 5), False)):
        one = guarded(tmp_path, tracker, is_new=is_new, patience=Patience())
        with RunLog(tmp_path, None if is_new else 0, SETTINGS, [one]) as log:
            for step in steps:
                log.write_views(step, [view(step)])
                log.write(step, {"reward/mean": 1.0})
    values = {"reward/mean": 1.0, LOST: 0.0}
    assert first.got == [x for step in range(3) for x in ((step, 1), (step, values))]
    assert second.got == [x for step in (3, 4) for x in ((step, 1), (step, values))]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(5))


def test_the_page_goes_behind_the_steps_and_again_with_every_start(tmp_path, monkeypatch):
    made = []

    def opened(asked):
        made.append(Recorder())
        made[-1].run_id, made[-1].place = asked.run_id or "7", "here"
        return made[-1]

    monkeypatch.setitem(opening._TRACKERS, "mlflow", opened)
    for _ in range(2):
        log_outcome([SPEC], tmp_path, tmp_path / "report.html", {"test/x": 1.0}, HASTY)
    assert [one.got for one in made] == [[(0, {"test/x": 1.0}), "report.html"], ["report.html"]]
    assert [one.closed for one in made] == [True, True]
    assert {one.run_id for one in made} == {"7"}


def test_a_page_that_does_not_arrive_ends_nothing_and_is_counted(tmp_path, monkeypatch, capsys):
    def opened(asked):
        raise ConnectionError("no network")

    monkeypatch.setitem(opening._TRACKERS, "mlflow", opened)
    log_outcome([SPEC], tmp_path, tmp_path / "report.html", patience=HASTY)
    said = capsys.readouterr().err
    assert "1 rows, tables or pages were lost" in said
    assert "ConnectionError: no network" in said


def test_runs_of_one_directory_have_names_of_their_own_that_a_second_start_finds_again(tmp_path):
    named = parse_tracker("trackio:p/first")
    assert str(spec_of_part(named, tmp_path, "grpo")) == "trackio:p/first-grpo"
    assert not (tmp_path / base.MEMORY_NAME).exists()
    unnamed = parse_tracker("trackio:p")
    workdir = tmp_path / "study"
    first = [spec_of_part(unnamed, workdir, part) for part in ("grpo", "otc")]
    assert [spec_of_part(unnamed, workdir, part) for part in ("grpo", "otc")] == first
    assert re.fullmatch(r"study-[0-9a-f]{4}-grpo", first[0].name)
    assert first[0].name[:-5] == first[1].name[:-4]
    assert parse_tracker(str(first[0])) == first[0]


def test_another_run_in_the_directory_continues_no_tracker_and_a_damaged_memory_is_none(tmp_path):
    base.Memory(tmp_path, is_new=True).keep(SPEC, id="x", name="n", last_step=7)
    kept = base.Memory(tmp_path, is_new=False)
    assert (kept.run_id(SPEC), kept.name(SPEC), kept.last_step(SPEC)) == ("x", "n", 7)
    fresh = base.Memory(tmp_path, is_new=True)
    assert (fresh.run_id(SPEC), fresh.last_step(SPEC)) == ("", -1)
    (tmp_path / base.MEMORY_NAME).write_text("{")
    assert base.Memory(tmp_path, is_new=False).last_step(SPEC) == -1


def test_a_table_is_a_bounded_sample_with_long_texts_cut_in_the_middle():
    rows = base.rows_of([view(3, text="a" * 5000 + "b")] * 20)
    assert len(rows) == base.MAX_ROWS
    row = dict(zip(base.COLUMNS, rows[0], strict=True))
    assert row["response"].startswith("aaa")
    assert row["response"].endswith("ab")
    assert "[... 1001 characters ...]" in row["response"]
    assert (row["question"], row["tokens"], row["is_correct"]) == ("1+1?", 2, True)


def test_settings_are_numbers_truth_values_and_texts():
    texts = {"a": "3", "b": "1e-06", "c": "True", "d": "'x y'", "e": "m.f", "f": "None"}
    settings = {name: Setting(name=name, value=value) for name, value in texts.items()}
    wanted = {"a": 3, "b": 1e-6, "c": True, "d": "x y", "e": "m.f", "f": "None"}
    assert base.config_of(settings) == wanted


SCRIPT = """
import sys
from pathlib import Path
from test_trackers import SETTINGS, view
from jaxtool.rundir.run_log import RunLog
from jaxtool.rundir.trackers.opening import log_outcome, open_trackers
from jaxtool.rundir.trackers.spec import parse_tracker
workdir, tracker, first, last = Path(sys.argv[1]), parse_tracker(sys.argv[2]), *map(int, sys.argv[3:])
trackers = open_trackers([tracker], workdir, SETTINGS, is_new=first == 0)
with RunLog(workdir, first - 1 if first else None, SETTINGS, trackers) as log:
    for step in range(first, last):
        log.write_views(step, [view(step)])
        log.write(step, {"reward/mean": step / 2})
assert trackers[0].lost == 0
page = workdir / "report.html"
page.write_text(f"<html>{last} steps</html>")
log_outcome([tracker], workdir, page)
"""
PAGE = b"<html>5 steps</html>"  # of the second process


def run_twice(tmp_path, text, **environment):
    """Steps 0 to 2 in one process, 1 to 4 in a second one, as after a kill; the id of the tracker's run."""
    package = parse_tracker(text).kind
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -e '.[trackers]'")
    places = [str(REPOSITORY_ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = (
        os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(places)} | environment
    )
    for steps in (("0", "3"), ("1", "5")):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), text, *steps]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning: --log" not in done.stderr
    memory = json.loads((tmp_path / "trackers.json").read_text())[text]
    assert memory["last_step"] == 4
    return memory["id"]


def records_of(file):
    """Records of an offline file: LevelDB's log format behind a header of seven bytes."""
    data, position, parts = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        if kind:
            parts += data[position + 7 : position + 7 + length]
            position += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""
        left = 32768 - position % 32768  # a header does not cross the end of a block
        if left < 7 or not kind:
            position += left


def test_wandb_offline_has_each_step_once_under_one_id(tmp_path):
    run_id = run_twice(tmp_path, "wandb:proj/first", WANDB_MODE="offline")
    from wandb.proto import wandb_internal_pb2  # type: ignore[import-not-found]

    found, pages = [], []
    for file in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        assert file.name == f"run-{run_id}.wandb"
        for data in records_of(file):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.artifact.type == "report":
                assert record.artifact.name == f"report-{run_id}"
                [content] = record.artifact.manifest.contents
                pages.append((content.path, Path(content.local_path).read_bytes()))
            items = {"/".join(item.nested_key) or item.key: item for item in record.history.item}
            if "reward/mean" in items:
                assert items["trajectories/_type"].value_json == '"table-file"'
                found.append((record.history.step.num, float(items["reward/mean"].value_json)))
    assert found == [(step, step / 2) for step in range(5)]
    assert len(pages) == 2
    assert pages[-1] == ("report.html", PAGE)


def test_mlflow_in_a_store_of_files_or_sqlite_has_each_step_once_in_one_run(tmp_path):
    has_sqlite = importlib.util.find_spec("sqlalchemy") is not None
    store = f"sqlite:///{tmp_path}/mlflow.db" if has_sqlite else f"file://{tmp_path}/mlruns"
    run_id = run_twice(
        tmp_path, "mlflow:exp/first", MLFLOW_TRACKING_URI=store, MLFLOW_ALLOW_FILE_STORE="true"
    )
    if has_sqlite:
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            query = "select step, value from metrics where key = 'reward/mean' and run_uuid = ?"
            found = sorted(database.execute(query, (run_id,)))
        assert found == [(step, step / 2) for step in range(5)]
        return
    (run,) = (tmp_path / "mlruns").glob(f"*/{run_id}")
    lines = (run / "metrics" / "reward" / "mean").read_text().splitlines()
    assert [(int(s), float(x)) for _, x, s in map(str.split, lines)] == [
        (s, s / 2) for s in range(5)
    ]
    assert (run / "params" / "schedule.steps").read_text() == "4"
    table = json.loads((run / "artifacts" / "trajectories" / "step_000004.json").read_text())
    assert table["columns"] == list(base.COLUMNS)
    assert table["data"][0][1] == "p4"
    assert (run / "artifacts" / "report.html").read_bytes() == PAGE


def test_trackio_has_each_step_once_in_one_run(tmp_path):
    run_id = run_twice(tmp_path, "trackio:proj", TRACKIO_DIR=str(tmp_path / "trackio"))
    with sqlite3.connect(tmp_path / "trackio" / "proj.db") as database:
        query = "select step, metrics from metrics where run_id = ? order by step, id"
        rows = [(step, json.loads(text)) for step, text in database.execute(query, (run_id,))]
    assert [(s, m["reward/mean"]) for s, m in rows if "reward/mean" in m] == [
        (step, step / 2) for step in range(5)
    ]
    tables = [m["trajectories"] for _, m in rows if "trajectories" in m]
    assert [table["_value"][0]["problem_id"] for table in tables] == [
        f"p{step}" for step in range(5)
    ]
    kept = (tmp_path / "trackio" / "artifacts" / "proj" / "blobs").rglob("*")
    assert PAGE in [file.read_bytes() for file in kept if file.is_file()]
