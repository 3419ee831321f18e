"""Numbers that are not finite end a run with the batch kept, and never in a saved policy."""

import dataclasses
import json

import numpy as np
import pytest
from helpers.ledgers import ledger
from helpers.small_runs import (
    CountingTool,
    Sums,
    cold_start_of,
    one_device_mesh,
    rl_config,
    train,
)

from jaxtool.core.types import Group, Sample, Verdict
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.renderers.demonstrations import demonstration
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.train import sft_loop
from jaxtool.train.evaluation import evaluation_of
from jaxtool.train.skipped_updates import SkippedUpdates, check_sampled

FINITE = {"policy/loss": 0.5, "policy/grad_norm": 1.0, "policy/skipped_updates": 0.0}
SKIPPED = {"policy/loss": np.nan, "policy/grad_norm": 2.0, "policy/skipped_updates": 1.0}
BATCH = to_batch([ledger("QQppp")], PackConfig(row_tokens=8))


def watched(folder, metrics, limit=3, steps=100) -> SkippedUpdates:
    watch = SkippedUpdates(folder, limit=limit, steps=steps, settings="learning_rate=7")
    for step, each in enumerate(metrics):
        watch.observe(step, each, BATCH)
        watch.settle()
        watch.check()
    return watch


def test_three_steps_in_a_row_end_the_run_with_the_batch_kept(tmp_path):
    wanted = (
        r"step 3: 3 steps in a row .*policy/loss=nan\).*learning_rate=7\): lower it .*step_3.npz"
    )
    with pytest.raises(RuntimeError, match=wanted) as caught:
        watched(tmp_path, [FINITE, SKIPPED, SKIPPED, SKIPPED])
    assert "\n" not in str(caught.value)
    with np.load(tmp_path / "non_finite" / "step_3.npz") as kept:
        np.testing.assert_array_equal(kept["tokens"], BATCH.tokens)
        np.testing.assert_array_equal(kept["loss_mask"], BATCH.loss_mask)


def test_a_finite_update_begins_the_count_anew_and_a_step_without_one_does_not(tmp_path):
    watched(tmp_path, [SKIPPED, SKIPPED, FINITE, SKIPPED, SKIPPED])
    with pytest.raises(RuntimeError, match="step 4: 3 steps in a row"):
        watched(tmp_path, [SKIPPED, {}, SKIPPED, {}, SKIPPED])


def test_a_run_of_few_steps_cannot_skip_all_but_its_first(tmp_path):
    with pytest.raises(RuntimeError, match="step 1: 1 steps in a row"):
        watched(tmp_path, [FINITE, SKIPPED], steps=2)


def test_figures_are_read_a_step_late_and_counted_once(tmp_path, capsys):
    watch = SkippedUpdates(tmp_path, limit=3, steps=100, settings="")
    watch.observe(0, SKIPPED, BATCH)
    assert not capsys.readouterr().err
    watch.observe(1, SKIPPED | {"critic/skipped_updates": 2.0}, BATCH)
    assert (
        capsys.readouterr().err
        == "warning: step 0: 1 updates skipped, not finite: policy/loss=nan\n"
    )
    assert (watch.settle(), watch.settle()) == (4.0, 0.0)


def broken_group(value: float) -> Group:
    good, broken = ledger("QQppp", problem="p7"), ledger("QQppp", problem="p7", sample=1)
    logprobs = broken.behaviour_logprobs.copy()
    logprobs[3] = value
    broken = dataclasses.replace(broken, behaviour_logprobs=logprobs)
    samples = tuple(
        Sample(trajectory=t, verdict=Verdict.plain(False, "a test")) for t in (good, broken)
    )
    return Group(problem=good.problem, samples=samples)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_log_probs_of_the_decoder_that_are_not_finite_are_counted_named_and_refused(
    value, tmp_path
):
    group = broken_group(value)
    wanted = f"step 5: .* in 1 of 2 answers, first {value} at token 3 of problem p7, sample 1"
    with pytest.raises(RuntimeError, match=wanted):
        check_sampled([group], "step 5", tmp_path)
    with np.load(tmp_path / "non_finite" / "step_5.npz") as kept:
        np.testing.assert_array_equal(kept["tokens"], group.trajectories[1].ids)
    with pytest.raises(RuntimeError, match="evaluation: the decoder gave"):
        evaluation_of([group])
    check_sampled([dataclasses.replace(group, samples=group.samples[:1])], "step 5")


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    def take(self, count, *, seed, index, renderer, tokenizer):
        problems = Sums().problems("train", 4, 0)
        return [
            demonstration(problems[i], f"<{i}>[{i}]{i}!!", renderer=renderer, tokenizer=tokenizer)
            for i in range(count)
        ]


@pytest.mark.parametrize(("steps", "last"), [(8, 4), (3, 2)])
def test_a_cold_start_that_breaks_is_no_success(steps, last, tmp_path):
    """Its first update is finite and as large as the learning rate; all others have nothing to learn."""
    run = rl_config(tmp_path, optimizer=OptimizerConfig(learning_rate=1e25))
    config = cold_start_of(
        run, [3], Demonstrations(), steps=steps, log_every=10, checkpoint_every=1
    )
    workdir = tmp_path / "run"
    with pytest.raises(RuntimeError, match=rf"step {last}: .*sft/.*=nan.*=1e\+25"):
        sft_loop.train(config, workdir=workdir, seed=1, mesh=one_device_mesh())
    assert not (workdir / "policy").exists()
    assert (workdir / "non_finite" / f"step_{last}.npz").is_file()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["sft/skipped_updates"] for row in rows) == last


def test_an_rl_run_that_breaks_is_no_success(tmp_path):
    config = rl_config(tmp_path, optimizer=OptimizerConfig(learning_rate=1e25))
    with pytest.raises((RuntimeError, ValueError), match="not finite"):
        train(config, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    assert not (tmp_path / "run" / "policy").exists()
