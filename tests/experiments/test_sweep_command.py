"""`experiments.sweep`: what it prints, writes and refuses."""

import json
import re
import shlex
import sys

import pytest
from helpers.sweeps import GRID, HEAD, InProcess, make_run, sweep_of

from jaxtool.cli import entry, launch_tpu, sweep, train
from jaxtool.study import job_pool, stage_jobs
from jaxtool.study import sweep as sweeps
from jaxtool.study.job_pool import JobFailed
from jaxtool.study.sweep_commands import cloud_name
from jaxtool.train import run_files

SLICE = "--type v5e-8 --zone us-west4-a --project my-project --bucket gs://my-bucket/sweep --spot"


class Commands:
    """The command in a directory, and the jobs of its sweep."""

    def __init__(self, folder, monkeypatch):
        self._monkeypatch, self.folder, self.workdir = monkeypatch, folder, folder / "w"
        self.sweep = sweep_of(folder, GRID + "[points]\nbase = ['Schedule.samples = 2']\n")
        self.jobs = sweeps.jobs_of(self.sweep, self.workdir)
        monkeypatch.setattr(entry, "prepare", lambda: None)

    def __call__(self, *flags):
        """The JSON that it writes."""
        path = self.folder / "said.json"
        words = ["sweep", self.sweep.file, "--workdir", str(self.workdir), "--json", str(path)]
        self._monkeypatch.setattr(sys, "argv", [*words, *flags])
        sweep.main()
        return json.loads(path.read_text())


@pytest.fixture
def call(tmp_path, monkeypatch):
    return Commands(tmp_path, monkeypatch)


def test_a_sweep_ends_with_a_table_a_page_and_its_record(call, monkeypatch, capsys):
    pool = InProcess(call.jobs)
    monkeypatch.setattr(stage_jobs, "run_jobs", pool)
    found = call("--sandbox", "localhost:1")
    assert len(pool.made) == 6
    said = capsys.readouterr().out
    assert "samples=8 │ 2/2" in said
    assert f"report {call.workdir}/report.html" in said
    assert json.loads((call.workdir / "sweep.json").read_text()) == found
    assert found["points"]["base"]["reward/mean"]["mean"] == 4.0
    assert found["settings"]["file"] == call.sweep.file
    assert all(job["is_done"] and job["state"] == "finished" for job in found["jobs"])
    assert {"command", "commit", "machine", "seconds"} == set(found["how"])
    call()  # nothing is left, so no pool is asked
    assert len(pool.made) == 6


def test_a_job_that_failed_leaves_the_others_their_table(call, monkeypatch, capsys):
    def failing(jobs, *rest, **options):
        make_run(call.jobs[0], [1.0])
        raise JobFailed("1 of 6 jobs failed")

    monkeypatch.setattr(stage_jobs, "run_jobs", failing)
    with pytest.raises(JobFailed, match="1 of 6"):
        call()
    assert "samples=4 │ 1/2" in capsys.readouterr().out
    assert (call.workdir / "report.html").is_file()


@pytest.mark.parametrize("flag", ["--dry_run", "--print_jobs"])
def test_looking_writes_nothing(call, capsys, flag):
    found = call(flag)
    assert not call.workdir.exists()
    assert [job["state"] for job in found["jobs"]] == ["not begun"] * 6
    assert "Schedule.samples = 4" in " ".join(capsys.readouterr().out.split())


def test_the_table_of_what_is_there_starts_nothing(call, monkeypatch):
    monkeypatch.setattr(stage_jobs, "run_jobs", None)
    make_run(call.jobs[0], [5.0])
    assert call("--table")["points"]["samples=4"]["reward/mean"]["seeds"] == {"0": 5.0}


def test_each_printed_command_makes_the_run_of_its_job(call, monkeypatch, capsys):
    make_run(call.jobs[0], [5.0])
    rows = call("--print_jobs", "--sandbox", "localhost:1")["commands"]
    printed = [line for line in capsys.readouterr().out.splitlines() if line[0] != "#"]
    assert [shlex.split(line) for line in printed] == [row["command"] for row in rows]
    assert [row["job"] for row in rows] == [job.name for job in call.jobs[1:]]
    for row, job in zip(rows, call.jobs[1:], strict=True):
        monkeypatch.setattr(sys, "argv", row["command"][2:])
        flags = train.parse()
        params = run_files.steps_params(flags.gin_file, flags.gin_param, flags.steps)
        assert run_files.load_run(flags.gin_file, params) == job.composed.config
        assert (flags.workdir, flags.seed) == (job.workdir, job.seed)
        assert flags.sandbox == ["localhost:1"]


def test_each_slice_has_a_name_of_its_own_and_a_command_that_fetches_its_run(call):
    rows = call("--print_jobs", "launch_tpu", "--launch_flags", SLICE)["commands"]
    names = set()
    for row, job in zip(rows, call.jobs, strict=True):
        assert row["command"][:3] == ["python", "-m", "experiments.launch_tpu"]
        flags = launch_tpu.parse(row["command"][3:])
        assert flags.gin_param == list(job.composed.point.params)
        assert (flags.seed, flags.steps, flags.spot) == (job.seed, 4, True)
        names.add(flags.name)
        place = f"gs://my-bucket/sweep/{flags.name}/workdir"
        assert row["fetch"][-2:] == [place, str(job.workdir)]
    assert len(names) == 6


def test_names_of_slices_that_look_alike_or_are_long_stay_apart(tmp_path):
    long = "x" * 80
    text = HEAD + f'[points]\n"a.b" = []\na_b = ["Schedule.samples = 4"]\n{long} = ["STEPS = 4"]\n'
    one = sweep_of(tmp_path, text.replace("steps = 4\n", "") + f'{long}y = ["STEPS = 5"]\n')
    names = [cloud_name(one, job) for job in sweeps.jobs_of(one, tmp_path)]
    assert len(set(names)) == 8
    assert names[0].startswith("s-grid-a-b-seed0-")
    assert all(re.fullmatch(r"[a-z][-a-z0-9]{0,61}[a-z0-9]", name) for name in names)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (SLICE + " --seed 3", "--launch_flags: --seed is the sweep's"),
        (SLICE + " --gin_param 'A.b = 1'", "--launch_flags: --gin_param is the sweep's"),
        (SLICE.replace("us-west4-a", "west"), "--zone 'west' must be a zone"),
        (SLICE.replace("v5e-8", "v9-8"), "v9-8"),
    ],
    ids=["seed", "binding", "zone", "type"],
)
def test_flags_of_a_slice_are_checked_before_a_command_is_printed(call, capsys, flags, message):
    with pytest.raises(ValueError, match=message):
        call("--print_jobs", "launch_tpu", "--launch_flags", flags)
    assert capsys.readouterr().out == ""


def test_weights_of_this_machine_are_refused_for_a_slice(call):
    policy = call.folder / "policy"
    policy.mkdir()
    (policy / "model_config.json").write_text("{}")
    path = call.folder / "grid.toml"
    path.write_text(path.read_text().replace("steps", f"init_from = '{policy}'\nsteps", 1))
    with pytest.raises(ValueError, match=r"grid.toml: init_from .*policy"):
        call("--print_jobs", "launch_tpu", "--launch_flags", SLICE)


@pytest.mark.parametrize(
    "flags",
    [("--print_jobs", "launch_tpu"), ("--launch_flags", SLICE), ("--dry_run", "--table")],
    ids=["no slice", "no launch", "two"],
)
def test_flags_that_do_not_go_together_are_refused(call, flags):
    with pytest.raises(SystemExit) as ended:
        call(*flags)
    assert ended.value.code == 2


def test_a_resumed_sweep_gives_each_process_the_cores_that_it_had(call, monkeypatch):
    """With one job of six left there are still as many places."""
    monkeypatch.setattr(job_pool, "usable_cores", lambda: [0, 1, 2, 3])
    seen = []
    monkeypatch.setattr(stage_jobs, "run_jobs", lambda jobs, places, *_, **__: seen.append(places))
    call()
    for job in call.jobs[1:]:
        make_run(job, [1.0])
    call()
    assert seen == [[(0,), (1,), (2,), (3,)]] * 2


def test_more_jobs_than_cores_are_refused_before_a_record_is_written(call):
    with pytest.raises(ValueError, match="jobs=100000 must be in"):
        call("--jobs", "100000")
    assert not call.workdir.exists()


def test_a_wrong_binding_is_one_line_and_nothing_is_written(call):
    path = call.folder / "grid.toml"
    path.write_text(path.read_text().replace("Schedule.samples", "Schedule.samplez"))
    with pytest.raises(ValueError, match=r"grid.toml:5: job samplez=4/seed0: Schedule.samplez = 4"):
        call()
    assert not call.workdir.exists()
