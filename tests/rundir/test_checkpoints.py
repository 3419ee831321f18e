"""Optimizer states of every kind come back from a checkpoint bit by bit, also onto another mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.learn.optimizer import Adafactor, AdamW8bit, OptimizerConfig, UpdateRule
from jaxtool.learn.state import TrainState, make_state
from jaxtool.model.param_axes import param_axes
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rundir.checkpoints import Checkpoints

# Large enough for factored and quantised moments.
MODEL = dataclasses.replace(
    FAMILIES["qwen2"], d_model=128, d_ff=256, num_layers=1, vocab_size=128, head_dim=128
)


def state_of(rule: UpdateRule, sharding: Sharding) -> TrainState:
    params = random_params(MODEL)
    params = jax.device_put(params, sharding.tree(param_axes(params)))
    return make_state(params, OptimizerConfig(rule=rule), sharding)


@pytest.mark.parametrize("rule", [AdamW8bit(), Adafactor()], ids=["AdamW8bit", "Adafactor"])
def test_states_come_back_on_another_mesh(rule, tmp_path):
    numbers = np.random.default_rng(0)
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)))
    saved = jax.tree.map(
        lambda x: jax.device_put(
            jnp.asarray(numbers.integers(0, 100, x.shape), x.dtype), x.sharding
        ),
        state_of(rule, sharding),
    )
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(3, saved, {"seed": 1})
    target = state_of(rule, single_device())
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        step, restored, meta = checkpoints.restore_newest(target)
    assert (step, meta) == (3, {"seed": 1})
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    for x, y, z in zip(*map(jax.tree.leaves, (restored, saved, target)), strict=True):
        np.testing.assert_array_equal(x, y)
        assert (x.dtype, x.sharding) == (z.dtype, z.sharding)
    assert {x.dtype for x in jax.tree.leaves(restored.opt_state)} >= (
        {jnp.dtype("int8"), jnp.dtype("uint8")} if rule == AdamW8bit() else {jnp.dtype("float32")}
    )
