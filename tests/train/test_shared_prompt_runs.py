"""A run whose learner reads one copy of a prompt for all its samples."""

import dataclasses

import pytest
from helpers.small_runs import CountingTool, rl_config, train

from jaxtool.learn.ppo import CriticConfig
from jaxtool.rundir.metrics import read_metrics
from jaxtool.rundir.trajectory_log import read_trajectories


def test_a_run_with_shared_prompts_agrees_with_its_sampler(tmp_path):
    """The learner's log-probs are those of the sampler, which had a cache for each sample."""
    config = rl_config(tmp_path, critic=CriticConfig(warmup_batches=0))
    config = dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, steps=1),
        pack=dataclasses.replace(config.pack, row_tokens=128, shares_prompts=True),
    )
    workdir = train(config, workdir=tmp_path / "run", seed=1, tool=CountingTool()).parent
    [row] = read_metrics(workdir / "metrics.jsonl")
    assert row["mismatch/max_abs_logprob_nats"] < 1e-4
    # Prompts "0+1=" of 4 tokens, of which 3 stand once for each of two problems.
    assert 0 < row["tokens/shared_prompts_fraction"] < 0.25
    views = read_trajectories(workdir / "trajectories.jsonl")
    assert views
    for view in views:
        for token in view.tokens:
            assert (token.advantage is None) == (token.origin in ("prompt", "tool"))


def test_a_run_that_began_with_copies_cannot_go_on_without_them(tmp_path):
    config = rl_config(tmp_path)
    config = dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, steps=1))
    train(config, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    shared = dataclasses.replace(config.pack, shares_prompts=True)
    with pytest.raises(ValueError, match="PackConfig.shares_prompts"):
        train(
            dataclasses.replace(config, pack=shared),
            workdir=tmp_path / "run",
            seed=1,
            tool=CountingTool(),
        )
