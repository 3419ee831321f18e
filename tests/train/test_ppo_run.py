"""The RL run with a critic, and with everything that filters: both resume to the same numbers."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.small_runs import CountingTool, rl_config, train

from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.ppo import CriticConfig
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.selection import Selection
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.metric_table import without_clock
from jaxtool.rundir.trajectory_log import read_trajectories

VARIANTS = {
    "critic": {
        "critic": CriticConfig(optimizer=OptimizerConfig(learning_rate=1e-2), warmup_batches=1),
        "grpo": GrpoConfig(micro_batch_rows=4, lm_head_chunk=32, reward_kl_coef=0.01),
    },
    "filters": {
        "selection": Selection(
            max_draws=2, oversampling=2, tool_free_samples=2, drops_overlong=True
        ),
        "grpo": GrpoConfig(micro_batch_rows=4, lm_head_chunk=32, reward_kl_coef=0.01),
    },
}


def rows_of(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [without_clock(row) for row in rows]


def check_advantages(workdir):
    """The trajectories of a run with a critic show what each token's advantage was, not the reward."""
    views = read_trajectories(workdir / "trajectories.jsonl")
    assert {view.step for view in views} == {0, 1, 2, 3}
    for view in views:
        for token in view.tokens:
            assert (token.advantage is None) == (token.origin in ("prompt", "tool"))
    tokens = [t.advantage for view in views for t in view.tokens if t.advantage is not None]
    # Whitened over the tokens of a step's batch, of which half is kept.
    assert abs(np.mean(tokens)) < 0.5
    assert 0.5 < np.std(tokens) < 2
    assert any(len({t.advantage for t in v.tokens if t.advantage is not None}) > 2 for v in views)


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_and_resumed_equals_uninterrupted(name, tmp_path):
    config = rl_config(tmp_path, **VARIANTS[name])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tool = CountingTool()
    train(config, workdir=whole, seed=1, tool=tool)
    assert tool.calls > 4
    if (
        name == "critic"
    ):  # where optimizer state and critic wait while rows decode changes no bit either
        config = dataclasses.replace(config, unloads_decoder=True, offloads_learner=True)
    broken = CountingTool(fails_at=int(0.9 * tool.calls), error=KeyError("killed here"))
    with pytest.raises(KeyError, match="killed here"):
        train(config, workdir=parts, seed=1, tool=broken)
    assert (parts / "checkpoints" / "2").exists()
    train(config, workdir=parts, seed=1, tool=CountingTool())
    rows = rows_of(whole)
    assert rows == rows_of(parts)
    whole_params, parts_params = (
        jax.tree.leaves(SavedPolicy(path=str(d / "policy")).load(single_device(), 0)[1])
        for d in (whole, parts)
    )
    for x, y in zip(whole_params, parts_params, strict=True):
        np.testing.assert_array_equal(x, y)
    if name == "critic":
        assert ["policy/grad_norm" in row for row in rows] == [False, True, True, True]
        assert all(row["critic/loss"] > 0 for row in rows)
        assert rows[-1]["mismatch/max_abs_logprob_nats"] <= 1e-4
        check_advantages(whole)

    else:
        assert all(0 < row["filter/learned_fraction"] <= 0.5 for row in rows)
        assert max(row["filter/learned_fraction"] for row in rows) < 0.5  # somebody is overlong


def test_more_tool_free_samples_than_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match="tool_free_samples=9 are more than"):
        rl_config(tmp_path, selection=Selection(tool_free_samples=9))
