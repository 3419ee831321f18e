"""The ablation in which observations carry the loss: what is learned, what stays a mean over sampled tokens, what is refused."""

import dataclasses

import numpy as np
import pytest
from helpers.ledgers import ledger
from helpers.small_runs import CountingTool, rl_config, train

from jaxtool.core.types import ToolStatus
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rundir.metrics import read_metrics


def test_observations_are_in_the_loss_mask_and_not_among_the_sampled_tokens():
    trajectory = ledger("QQpptp", calls=[ToolStatus.OK])
    plain = to_batch([trajectory], PackConfig(row_tokens=8))
    learned = to_batch([trajectory], PackConfig(row_tokens=8, learns_observations=True))
    assert plain.sampled_mask is None
    assert plain.loss_mask[0].tolist() == [0, 0, 1, 1, 0, 1, 0, 0]
    assert learned.loss_mask[0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert learned.sampled_mask[0].tolist() == plain.loss_mask[0].tolist()
    np.testing.assert_array_equal(learned.behaviour_logprobs, plain.behaviour_logprobs)
    with pytest.raises(
        ValueError, match="mask of sampled tokens covers one that the loss mask does"
    ):
        dataclasses.replace(plain, sampled_mask=learned.loss_mask).check()


def test_a_run_learns_otherwise_and_its_gap_to_the_sampler_is_that_of_sampled_tokens(tmp_path):
    """An observation has no log-prob of the sampler: were it counted, the largest difference would be some nats."""
    config = rl_config(tmp_path)
    config = dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, steps=2),
        grpo=dataclasses.replace(config.grpo, off_policy=()),
    )
    rows = {}
    for name, learns in (("plain", False), ("learned", True)):
        pack = dataclasses.replace(config.pack, learns_observations=learns)
        changed = dataclasses.replace(config, pack=pack)
        train(changed, workdir=tmp_path / name, seed=1, tool=CountingTool())
        rows[name] = read_metrics(tmp_path / name / "metrics.jsonl")
    first, ablated = rows["plain"][0], rows["learned"][0]
    assert first["tools/calls_per_answer"] > 0
    assert ablated["reward/mean"] == first["reward/mean"]  # the same answers, from the same policy
    assert ablated["policy/loss"] != first["policy/loss"]
    assert ablated["policy/entropy_nats"] != first["policy/entropy_nats"]
    assert ablated["mismatch/max_abs_logprob_nats"] == first["mismatch/max_abs_logprob_nats"] < 1e-4
    same = "mismatch/mean_abs_logprob_nats"
    assert ablated[same] == pytest.approx(first[same], rel=1e-5)
    assert rows["learned"][1]["reward/mean"] != rows["plain"][1]["reward/mean"]


@pytest.mark.parametrize("fields", [{}, {"off_policy": (), "old_policy": "sampler"}])
def test_weights_against_the_sampler_are_refused_beside_it(tmp_path, fields):
    config = rl_config(tmp_path)
    grpo = dataclasses.replace(config.grpo, **fields)
    pack = dataclasses.replace(config.pack, learns_observations=True)
    with pytest.raises(ValueError, match=r"learns_observations needs GrpoConfig.off_policy = \(\)"):
        rl_config(tmp_path, grpo=grpo, pack=pack)
