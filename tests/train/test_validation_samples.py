"""Validations with several answers a question and their own way of sampling; the best policy by them is kept."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.ledgers import group_of, ledger
from helpers.small_runs import CountingTool, rl_config, train

from jaxtool.core.types import FinishReason
from jaxtool.decode.sampling import Sampling
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir.best_policy import best_step, kept_for_best
from jaxtool.rundir.kept_policies import KeepPolicies, kept_steps
from jaxtool.rundir.metric_table import without_clock
from jaxtool.rundir.metrics import read_metrics
from jaxtool.train.evaluation import evaluation_of
from jaxtool.train.rl_config import Schedule, samplings_of, validation_sampling
from jaxtool.train.weights import weights_named

LOST, ANSWER = FinishReason.INFRASTRUCTURE, FinishReason.ANSWER
OWN = Sampling(temperature=0.5, top_p=0.9)


def groups(*right):
    """A question for each argument, with an answer for each of its flags; None is a lost one."""
    return [
        group_of(
            *(
                ledger("Qpp", problem=f"q{i}", sample=j, reason=LOST if flag is None else ANSWER)
                for j, flag in enumerate(flags)
            ),
            is_correct=[bool(flag) for flag in flags],
        )
        for i, flags in enumerate(right)
    ]


def at(found):
    metrics = evaluation_of(found, 0.5).metrics()
    prefix = "validation/"
    return {n.removeprefix(prefix): value for n, value in metrics.items() if "_at_" in n}


def test_avg_and_pass_at_k_by_hand():
    """One of four right: avg 1/4, pass@2 1 - C(3,2)/C(4,2) = 1/2, pass@4 1. All right: 1 everywhere."""
    found = at(groups([True, False, False, False], [True] * 4))
    assert found == pytest.approx(
        {
            "average_at_fraction/4": 0.625,
            "pass_at_fraction/1": 0.625,
            "pass_at_fraction/2": 0.75,
            "pass_at_fraction/4": 1.0,
        }
    )


def test_a_question_that_lost_answers_counts_where_enough_are_left():
    """Of (right, lost, wrong) two are left: avg 1/2, pass@1 1/2, pass@2 1, and it is in no pass@3."""
    found = at(groups([True, None, False], [False] * 3))
    assert found == pytest.approx(
        {
            "average_at_fraction/3": 0.25,
            "pass_at_fraction/1": 0.25,
            "pass_at_fraction/2": 0.5,
            "pass_at_fraction/3": 0.0,
        }
    )


def test_one_answer_a_question_has_the_accuracy_alone():
    assert at(groups([True], [False])) == {}


def test_a_validation_samples_as_the_training_does_unless_it_is_told_otherwise(tmp_path):
    config = rl_config(tmp_path, sampling=Sampling(temperature=0.7))
    assert validation_sampling(config) == Sampling(temperature=0.7)
    assert samplings_of(config) == (Sampling(temperature=0.7),)
    schedule = dataclasses.replace(config.schedule, eval_every=1, eval_sampling=OWN)
    own = dataclasses.replace(config, schedule=schedule)
    assert validation_sampling(own) == OWN
    assert samplings_of(own) == (Sampling(temperature=0.7), OWN)


def test_windows_that_training_and_a_greedy_validation_share_have_a_program(tmp_path):
    """Overlapped rollouts decode both kinds of rows side by side: neither "plain" nor "greedy" serves them."""
    schedule = dataclasses.replace(
        rl_config(tmp_path).schedule,
        eval_every=1,
        max_staleness=1,
        eval_sampling=Sampling(temperature=0.0),
    )
    modes = {one.sampling_mode for one in samplings_of(rl_config(tmp_path, schedule=schedule))}
    assert modes == {"plain", "greedy", "mixed"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eval_samples": 0}, "Schedule.eval_samples must be >= 1, got 0"),
        (
            {"eval_samples": 4, "eval_sampling": Sampling(temperature=0.0)},
            "Schedule.eval_samples=4 beside a greedy Schedule.eval_sampling",
        ),
    ],
)
def test_samples_that_say_nothing_are_refused(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Schedule(steps=1, **fields)
    assert "\n" not in str(caught.value)


def test_the_best_of_no_validation_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"KeepPolicies.best needs validations: set Schedule.eval_ev"
    ):
        rl_config(tmp_path, keep_policies=KeepPolicies(best=True))


def config_of(folder: Path, **fields):
    folder.mkdir(exist_ok=True)
    schedule = rl_config(folder).schedule
    schedule = dataclasses.replace(schedule, eval_every=2, eval_problems=3, **fields)
    keep = KeepPolicies(every=1, best=True)
    return rl_config(folder, keep_policies=keep, schedule=schedule)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """One that validates as before, and one with three answers in its own way."""
    made = {}
    for name, fields in (("plain", {}), ("own", {"eval_samples": 3, "eval_sampling": OWN})):
        made[name] = tmp_path_factory.mktemp(name) / "run"
        config = config_of(made[name].parent, **fields)
        train(config, workdir=made[name], seed=1, tool=CountingTool())
    return made


def rows(run: Path):
    return [without_clock(row) for row in read_metrics(run / "metrics.jsonl")]


def test_how_a_run_is_validated_changes_no_number_of_its_training(runs):
    def trained(row):
        return {name: v for name, v in row.items() if not name.startswith("validation/")}

    # Totals of a run, and calls since the last row, count what its validations did, too.
    def without_totals(row):
        return {
            n: v for n, v in trained(row).items() if not n.endswith("_total") and "_count/" not in n
        }

    plain, own = rows(runs["plain"]), rows(runs["own"])
    assert [without_totals(row) for row in own] == [without_totals(row) for row in plain]
    assert [row.get("validation/answers_count") for row in plain] == [None, 3, None, 3]
    assert [row.get("validation/answers_count") for row in own] == [None, 9, None, 9]
    assert not any("_at_" in name for row in plain for name in row)
    assert {name for name in own[1] if "_at_" in name} == {
        "validation/average_at_fraction/3",
        *(f"validation/pass_at_fraction/{k}" for k in (1, 2, 3)),
    }
    late = [
        row["timing/late_programs_total"] for row in read_metrics(runs["own"] / "metrics.jsonl")
    ]
    assert late == [0, 0, 0, 0]  # the windows of its own way were compiled before the first step


def params_of(name):
    return jax.tree.leaves(weights_named(name).load(single_device(), 0)[1])


def test_the_best_policy_of_a_run_is_the_one_of_its_step(runs):
    run = runs["own"]
    step = best_step(run)
    assert step in (2, 4)
    assert kept_for_best(run)[-1] == step
    assert kept_steps(run) == [1, 2, 3]  # the last one is the policy itself
    for x, y in zip(params_of(f"{run}@best"), params_of(f"{run}@{step}"), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_run_of_a_version_without_these_settings_is_resumed(runs):
    """Its record does not know them; at their defaults they change nothing, and nothing is said of them."""
    run = runs["plain"]
    record = json.loads((run / "run.json").read_text())
    fresh = ("schedule.eval_samples", "schedule.eval_sampling", "pack.learns_observations")
    for path in fresh:
        del record["settings"][path]
    (run / "run.json").write_text(json.dumps(record))
    config = config_of(run.parent)
    more = dataclasses.replace(config, pack=dataclasses.replace(config.pack, row_tokens=40))
    with pytest.raises(ValueError, match=r"configuration \(PackConfig.row_tokens: 32 -> 40\)"):
        train(more, workdir=run, seed=1, tool=CountingTool())
    train(config, workdir=run, seed=1, tool=CountingTool())
    grpo = dataclasses.replace(config.grpo, off_policy=())
    learns = dataclasses.replace(config.pack, learns_observations=True)
    with pytest.raises(ValueError, match=r"PackConfig.learns_observations: nothing -> True"):
        train(
            dataclasses.replace(config, grpo=grpo, pack=learns),
            workdir=run,
            seed=1,
            tool=CountingTool(),
        )


def test_another_way_of_validating_may_come_on_a_resume(runs, tmp_path):
    """Also within the way: its temperature. That of the training may not."""
    config = config_of(tmp_path, eval_sampling=OWN)
    short = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, steps=2))
    train(short, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    warmer = dataclasses.replace(OWN, temperature=0.8)
    other = dataclasses.replace(config.schedule, steps=2, eval_sampling=warmer, eval_samples=2)
    changed = dataclasses.replace(config, schedule=other)
    train(changed, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    trained = dataclasses.replace(changed, sampling=Sampling(temperature=0.9))
    with pytest.raises(ValueError, match=r"Sampling.temperature: 1.0 -> 0.9"):
        train(trained, workdir=tmp_path / "run", seed=1, tool=CountingTool())
