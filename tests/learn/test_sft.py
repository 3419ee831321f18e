"""The cold start's loss by hand, and optimizers that lower it."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.ledgers import ledger
from helpers.tiny_models import VOCAB, full_logits, random_params

from jaxtool.core.types import ToolStatus
from jaxtool.learn.optimizer import AdamW, Cosine, Muon, OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.sft import SftConfig, SftSetup
from jaxtool.learn.sft_learner import SftLearner
from jaxtool.learn.state import row_blocks
from jaxtool.model.config import tiny
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.batching import PackConfig, to_batch

MODEL = dataclasses.replace(tiny(VOCAB), num_layers=1)
LEDGERS = [ledger("QQpppttpp", calls=[ToolStatus.OK]), ledger("Qppp", first_id=30)]
BATCH = to_batch(LEDGERS, PackConfig(row_tokens=16))


def setup_of(config: SftConfig | None = None, **fields) -> SftSetup:
    return SftSetup(
        model=MODEL,
        sft=config or SftConfig(micro_batch_rows=2, lm_head_chunk=8),
        optimizer=OptimizerConfig(**fields),
        sharding=single_device(),
    )


def losses(setup: SftSetup, steps: int) -> list[float]:
    learner = SftLearner(setup=setup, view=PolicyView())
    state = learner.start(random_params(MODEL))
    out = []
    for _ in range(steps):
        state, metrics = learner.update(state, BATCH)
        out.append(float(metrics["sft/loss_nats"]))
    return out


def test_the_loss_is_the_mean_over_tokens_that_the_author_wrote():
    """By log-softmax of whole sequences: policy tokens count, prompt and interpreter do not."""
    params = random_params(MODEL)
    wanted = []
    for t in LEDGERS:
        scores = full_logits(params, MODEL, t.ids[None], single_device())
        logprobs = jax.nn.log_softmax(scores)[0]
        wanted += [-float(logprobs[i - 1, t.ids[i]]) for i in np.flatnonzero(t.origins == 2)]
    assert len(wanted) == 8
    [first] = losses(setup_of(), 1)
    assert first == pytest.approx(np.mean(wanted), rel=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"rule": AdamW(), "learning_rate": 1e-2},
        {"rule": Muon(matrix_learning_rate=0.05), "learning_rate": 1e-2},
    ],
)
def test_every_optimizer_lowers_the_loss(fields):
    curve = losses(setup_of(**fields), 12)
    assert curve[-1] < 0.5 * curve[0]


def rows_of(count: int):
    made = [ledger("QQQpppp" * 2, first_id=i) for i in range(count)]
    return to_batch(made, PackConfig(row_tokens=16))


def test_the_last_of_several_blocks_is_short_where_so_many_rows_are_enough():
    for count, shapes in ((7, [4, 3]), (5, [4, 3]), (8, [4, 4]), (3, [4])):
        blocks = row_blocks(rows_of(count), 4, single_device(), 3)
        assert [block.tokens.shape[0] for block in blocks] == shapes


def test_a_short_last_block_changes_nothing():
    after = []
    for config in (SftConfig(micro_batch_rows=4, last_block_rows=3), SftConfig(micro_batch_rows=4)):
        setup = setup_of(config)
        learner = SftLearner(setup=setup, view=PolicyView())
        after.append(learner.update(learner.start(random_params(MODEL)), rows_of(5)))
    for x, y in zip(*(jax.tree.leaves(x) for x in after), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("last", [0, 5])
def test_a_last_block_longer_than_others_is_refused(last):
    with pytest.raises(
        ValueError, match=f"last_block_rows={last} must be in 1..micro_batch_rows=4"
    ):
        SftConfig(micro_batch_rows=4, last_block_rows=last)


def test_schedules_by_hand():
    warm = OptimizerConfig(learning_rate=1.0, warmup_steps=4).schedule(1.0)
    assert [float(warm(i)) for i in (0, 4, 9)] == [0.25, 1.0, 1.0]
    cosine = OptimizerConfig(warmup_steps=2, decay=Cosine(total_steps=10, end_fraction=0.1))
    values = [float(cosine.schedule(2.0)(i)) for i in (0, 2, 6, 10)]
    np.testing.assert_allclose(values, [0.0, 2.0, 1.1, 0.2], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "sgd"}, "OptimizerConfig.rule='sgd' is a string"),
        ({"rule": AdamW}, "learn.optimizer.AdamW is a class; write \\(\\) behind it"),
        ({"rule": lambda: None}, r"called as f\(shared\), and .*<lambda>\(\) cannot be"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        (
            {"decay": Cosine(total_steps=5), "warmup_steps": 5},
            "total_steps=5 > self.warmup_steps=5",
        ),
    ],
)
def test_impossible_optimizers_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**fields)


def test_impossible_matrix_rates_are_refused():
    with pytest.raises(ValueError, match=r"matrix_learning_rate must be > 0"):
        Muon(matrix_learning_rate=0.0)
