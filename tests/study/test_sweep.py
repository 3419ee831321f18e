"""A sweep is refused as a whole or run as a whole, once, and continued."""

import json
import re

import pytest
from helpers.small_runs import one_device_mesh
from helpers.sweeps import GRID, HEAD, InProcess, make_run, sweep_of

from jaxtool.core.locks import hold
from jaxtool.rundir.run_listing import find_runs
from jaxtool.rundir.run_record import LOCK, read_record
from jaxtool.study import stage_jobs, sweep_figures
from jaxtool.study import sweep as sweeps
from jaxtool.train.rl_config import RlConfig

OPTIONS = sweeps.Options(places=((0,),), sandbox_addresses=("localhost:1",))


def jobs_in(folder, text=GRID):
    sweep = sweep_of(folder, text)
    return sweep, sweeps.jobs_of(sweep, folder / "w")


def run(folder, text=GRID, *, monkeypatch):
    sweep, jobs = jobs_in(folder, text)
    pool = InProcess(jobs)
    monkeypatch.setattr(stage_jobs, "run_jobs", pool)
    sweeps.check(sweep, jobs, folder / "w")
    sweeps.run(sweep, jobs, folder / "w", OPTIONS, lambda line: None)
    return pool.made


def test_jobs_are_points_times_seeds_all_points_of_a_seed_first(tmp_path):
    _, jobs = jobs_in(tmp_path)
    assert [job.name for job in jobs] == [
        "samples=4/seed0",
        "samples=8/seed0",
        "samples=4/seed1",
        "samples=8/seed1",
    ]
    configs = [job.composed.config for job in jobs]
    assert [one.schedule.samples for one in configs if isinstance(one, RlConfig)] == [4, 8, 4, 8]
    # `steps` is STEPS, which the run has, and its warm-up ends before.
    assert {job.composed.steps for job in jobs} == {4}
    assert jobs[0].composed.config.optimizer.warmup_steps == 3
    assert jobs[3].workdir == tmp_path / "w" / "samples=8" / "seed1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[grid]\nSchedule.pool = [64]\nSchedule.samplez = [4, 8]",
            "6: job pool=64,samplez=4/seed0: Schedule.samplez = 4: Schedule has no parameter samplez; did you mean",
        ),
        (
            "[grid]\nSchedule.samples = [4, 8.5]",
            "5: job samples=8.5/seed0: Schedule.samples = 8.5: Schedule.samples: expected int, got 8.5",
        ),
        (
            "[points]\nbase = []\nbad = [\n'Schedule.samples = 4',\n'Schedule.problems_per_step = 0',\n]",
            "8: job bad/seed0: Schedule.problems_per_step = 0: rl_config.Schedule refuses its values",
        ),
        (
            '[grid]\nOptimizerConfig.rule = ["adam"]',
            "5: job rule=adam/seed0: OptimizerConfig.rule = adam: ",
        ),
        (
            "[points]\ntwo = ['Schedule.samples = 4', 'rl_config.Schedule.samples = 8']",
            "5: job two/seed0: rl_config.Schedule.samples = 8: line 5 binds it, too: leave one out",
        ),
        (
            "[grid]\nSTEPS = [3, 5]",
            "5: job STEPS=3/seed0: STEPS = 3: `steps`, line 3 binds it, too: leave one out",
        ),
        (
            "[grid]\nOptimizerConfig.learning_rate = [1e-3, 0.0010]",
            "5: grid.OptimizerConfig.learning_rate has 0.001 twice",
        ),
        (
            "[points]\nbase = []\nsame = ['Schedule.samples = 8']",
            "6: job same/seed0 is the same run as base of line 5: leave one out",
        ),
    ],
    ids=["name", "type", "value", "text", "bound twice", "steps", "value twice", "same run"],
)
def test_one_wrong_binding_refuses_the_sweep_in_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(f"grid.toml:{message}")) as said:
        jobs_in(tmp_path, f"{HEAD}{text}\n")
    assert "\n" not in str(said.value)


def test_values_that_fit_alone_and_not_together_are_laid_to_the_later_one(tmp_path):
    """Some refusals name no binding."""
    sweep = sweep_of(tmp_path, HEAD + "[points]\nx = ['Schedule.samples = 4', 'Schedule.pool = 0']")
    error = sweeps._blamed(sweep, sweep.points[0], "what names no binding")
    assert "job x/seed0: Schedule.pool = 0: what names no binding" in str(error)


def test_a_run_that_does_not_load_is_no_fault_of_a_binding(tmp_path):
    with pytest.raises(
        ValueError, match=r"grid.toml:1: run does not load: .*none.gin: no such file"
    ):
        jobs_in(tmp_path, 'run = ["none.gin"]\nseeds = [0]\n[grid]\nSchedule.samples = [4]\n')


def test_finished_jobs_are_not_repeated_and_points_seeds_and_steps_may_be_added(
    tmp_path, monkeypatch
):
    made = run(tmp_path, monkeypatch=monkeypatch)
    assert [one["params"][0] for one in made] == [
        "Schedule.samples = 4",
        "Schedule.samples = 8",
    ] * 2
    assert [one["seed"] for one in made] == [0, 0, 1, 1]
    first = made[0]
    assert first["files"] == ["gin_configs/runs/quickstart_grpo.gin"]
    assert (first["sandbox_addresses"], first["search_addresses"]) == (["localhost:1"], [])
    assert first["init_from"] is None
    assert run(tmp_path, monkeypatch=monkeypatch) == []
    more = GRID.replace("[4, 8]", "[4, 8, 16]").replace("[0, 1]", "[0, 1, 2]")
    assert [
        (one["params"][0][-2:], one["seed"]) for one in run(tmp_path, more, monkeypatch=monkeypatch)
    ] == [
        ("16", 0),
        ("16", 1),
        (" 4", 2),
        (" 8", 2),
        ("16", 2),
    ]
    longer = more.replace("steps = 4", "steps = 6")
    assert len(run(tmp_path, longer, monkeypatch=monkeypatch)) == 9
    assert len(find_runs(tmp_path)) == 9
    with pytest.raises(ValueError, match=r"holds a run of 6 steps, more than steps=4"):
        run(tmp_path, more, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[4, 8]", "[8]"), "point samples=4 is gone"),
        (("[0, 1]", "[0]"), "seed 1 is gone"),
        (("quickstart_grpo", "quickstart_otc_grpo"), "run: ['gin_configs/runs/quickstart_grpo.gin'] -> ['gin"),
        (("steps = 4", 'steps = 4\ninit_from = "x"'), "init_from: None -> x"),
        (("[points]", "[points]\nnew = []"), None),
        (("Schedule.pool = 64", "Schedule.pool = 32"), "point own: ['Schedule.pool = 64'] -> ['Schedule.pool = 32']"),
    ],
    ids=["point", "seed", "run", "start", "more", "bindings"],
)  # fmt: skip
def test_a_directory_of_another_sweep_is_refused_with_what_differs(tmp_path, change, message):
    text = GRID + "[points]\nown = ['Schedule.pool = 64']\n"
    sweep, _ = jobs_in(tmp_path, text)
    (tmp_path / "w").mkdir()
    sweeps.write_record(tmp_path / "w", {"settings": sweeps.settings_of(sweep)})
    other = sweep_of(tmp_path, text.replace(*change))
    if message is None:
        sweeps.check(other, [], tmp_path / "w")
        return
    with pytest.raises(ValueError, match=re.escape(f"holds another sweep ({message}")) as said:
        sweeps.check(other, [], tmp_path / "w")
    assert "choose another --workdir" in str(said.value)


def test_directories_of_other_runs_are_refused_before_anything_starts(tmp_path):
    sweep, jobs = jobs_in(tmp_path)
    _, others = jobs_in(tmp_path, GRID.replace("[4, 8]", "[16]"))
    make_run(others[0], [1.0])
    others[0].workdir.parent.rename(jobs[2].workdir.parent)  # as if it were that of samples=4
    with pytest.raises(
        ValueError, match=r"samples=4/seed0 holds a run .*Schedule.samples: 16 -> 4"
    ):
        sweeps.check(sweep, jobs, tmp_path / "w")
    make_run(others[1], [1.0])
    with pytest.raises(ValueError, match=r"seed1 holds a run: choose another --workdir"):
        sweeps.check(sweep, jobs, others[1].workdir)


def test_a_damaged_record_and_missing_weights_are_one_line(tmp_path):
    sweep, jobs = jobs_in(tmp_path, HEAD + f'init_from = "{tmp_path}/seed{{seed}}/policy"\n')
    with pytest.raises(ValueError, match=r"toml:4: job run/seed0: init_from: .*seed0/policy"):
        sweeps.check(sweep, jobs, tmp_path / "w")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "sweep.json").write_text('{"settings": ')
    with pytest.raises(ValueError, match=r"sweep.json cannot be read .*choose another --workdir"):
        sweeps.check(sweep, jobs, tmp_path / "w")


def test_two_sweeps_in_one_directory_are_refused(tmp_path):
    sweep, jobs = jobs_in(tmp_path)
    (tmp_path / "w").mkdir()
    with hold(tmp_path / "w" / LOCK), pytest.raises(ValueError, match="is in use by process"):
        sweeps.run(sweep, jobs, tmp_path / "w", OPTIONS)
    assert not (tmp_path / "w" / "sweep.json").exists()


def test_the_record_is_there_while_jobs_run(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch=monkeypatch)
    record = json.loads((tmp_path / "w" / "sweep.json").read_text())
    assert record["settings"]["points"]["samples=8"] == ["Schedule.samples = 8"]


SMALL = """
run = ["gin_configs/runs/quickstart_pretrain.gin"]
seeds = [3]
steps = 1
metrics = ["sft/loss_nats"]

[grid]
ModelConfig.num_layers = [1]
ModelConfig.d_model = [32]
DemonstrationStream.count = [8]
SftConfig.micro_batch_rows = [4]
SftRunConfig.log_every = [1]
"""


def test_a_job_is_a_run_of_train_and_resumes_as_one(tmp_path, monkeypatch):
    """The loop itself, in this process: one step, then the sweep with two."""

    def in_process(jobs, places, run, report, *, goes_on):
        for job in jobs:
            assert not job.is_done()
            run(job.argument, one_device_mesh())
            assert job.is_done()

    monkeypatch.setattr(stage_jobs, "run_jobs", in_process)
    for text in (SMALL, SMALL.replace("steps = 1", "steps = 2")):
        sweep, jobs = jobs_in(tmp_path, text)
        sweeps.check(sweep, jobs, tmp_path / "w")
        sweeps.run(sweep, jobs, tmp_path / "w", OPTIONS)
    [result] = sweep_figures.results_of(jobs)
    assert [row["step"] for row in result.rows] == [0, 1]
    assert result.figure("sft/loss_nats") == result.rows[-1]["sft/loss_nats"]
    record = read_record(jobs[0].workdir)
    assert record is not None
    assert jobs[0].name == "num_layers=1,d_model=32,count=8,micro_batch_rows=4,log_every=1/seed3"
    assert [start.from_step for start in record.starts] == [0, 1]
    assert record.starts[0].files == ("gin_configs/runs/quickstart_pretrain.gin",)
    assert record.settings["policy.config.d_model"].origin.startswith("--gin_param 'ModelConfig")
