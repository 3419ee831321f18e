"""bfloat16 computing over float32 masters: what an update keeps that bfloat16 would round away."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from helpers.ledgers import random_ledgers
from helpers.targets import with_advantages
from helpers.tiny_models import VOCAB, random_params

from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import make_state
from jaxtool.model.config import tiny
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.batching import PackConfig, to_batch

SHAPES = ("QQpppttpp", "QQppp", "QQpppppp", "Qppttp")
ADVANTAGES = np.array([1.0, -0.5, 0.25, 2.0], np.float32)
RATE = 1e-6


def setup_of(compute_dtype: str) -> LearnerSetup:
    model = dataclasses.replace(tiny(VOCAB), num_layers=1, compute_dtype=compute_dtype)
    return LearnerSetup(
        model=model,
        grpo=GrpoConfig(micro_batch_rows=4, lm_head_chunk=8),
        optimizer=OptimizerConfig(learning_rate=RATE, weight_decay=0.0),
        sharding=single_device(),
        temperature=1.0,
        num_trajectories=len(SHAPES),
    )


def after(num_updates: int, compute_dtype: str):
    """Parameters before and after."""
    setup = setup_of(compute_dtype)
    before = random_params(setup.model)
    state = make_state(before, setup.optimizer, setup.sharding)
    packed = to_batch(random_ledgers(SHAPES, 0), PackConfig(row_tokens=16))
    batch = place_batch(with_advantages(packed, ADVANTAGES), setup)
    for _ in range(num_updates):
        state, _ = GrpoLearner(setup=setup, view=PolicyView()).update(state, batch)
    return before, state


def test_steps_below_a_bfloat16_ulp_add_up_in_the_masters():
    """AdamW moves each parameter by about 1e-6; of 0.25 bfloat16 knows steps of 1e-3 alone."""
    before, state = after(5, "bfloat16")
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        assert leaf.dtype in (jnp.float32, jnp.int32)
    old, new = (np.asarray(tree["embedding"]) for tree in (before, state.params))
    moved = np.abs(new - old)
    assert 3.5 * RATE < moved.max() < 6 * RATE  # five steps one way
    large = np.abs(old) > 0.25
    assert large.any()
    assert moved[large].max() > 0
    bfloat16 = [array[large].astype(jnp.bfloat16) for array in (old, new)]
    assert (bfloat16[0] == bfloat16[1]).mean() > 0.99


def test_gradients_of_bfloat16_are_float32_and_near_those_of_float32():
    before, state = after(1, "bfloat16")
    _, exact = after(1, "float32")
    for name in ("embedding", "final_norm"):
        moves = [np.asarray(s.params[name]) - np.asarray(before[name]) for s in (state, exact)]
        # AdamW's first step is the sign of the gradient.
        same = np.sign(moves[0]) == np.sign(moves[1])
        assert same.mean() > 0.9, name
