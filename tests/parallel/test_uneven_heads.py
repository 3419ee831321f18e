"""Heads that the tensor axis does not divide: refused before a weight is read, with advice that works."""

import asyncio
import dataclasses
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_runs import MODEL, CountingTool, rl_config
from helpers.tiny_models import FAMILIES, next_token_loss, random_params, random_tokens

from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import make_cache
from jaxtool.model.param_axes import CACHE_AXES, param_axes
from jaxtool.model.sources import RandomInit
from jaxtool.model.transformer import cached_hidden_states, unstack_layers
from jaxtool.parallel.axis_rules import AxisRules, Sharding, decode, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy
from jaxtool.train.devices import make_shardings
from jaxtool.train.rollout_worker import open_worker

WHOLE = AxisRules(kv_heads=())  # what the refusal advises
UNEVEN = {"num_heads": 6, "num_kv_heads": 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unread:
    """A policy whose weights must not be read."""

    config: ModelConfig

    def load(self, sharding, seed):
        raise AssertionError("the weights were read")

    def model_config(self):
        return self.config


def opened(config, source):
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        sharding, _ = make_shardings(config, source.model_config())
        tool = CountingTool()
        worker, params = open_worker(stack, runner, config, source, sharding, 0, tool=tool)
        worker.engine.load(params)
        prefilled = worker.engine.prefill([[1, 2, 3]])
        return worker, prefilled


def test_a_run_is_refused_before_its_weights_are_read_and_works_as_advised(tmp_path):
    model = dataclasses.replace(MODEL, vocab_size=18, **UNEVEN)
    config = rl_config(tmp_path, mesh=MeshConfig(fsdp=4, tensor=2))
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, prefill_rows=4))
    with pytest.raises(
        ValueError, match=r"num_kv_heads=3 .* tensor=2: .* AxisRules\(kv_heads=\(\)\)"
    ):
        opened(config, Unread(config=model))
    worker, prefilled = opened(dataclasses.replace(config, axes=WHOLE), RandomInit(config=model))
    assert worker.engine.sharding.rules == dataclasses.replace(decode(), kv_heads=())
    assert len(prefilled) == 1


def test_a_saved_policy_is_refused_by_name(tmp_path):
    config = dataclasses.replace(FAMILIES["qwen2"], **UNEVEN)
    save_policy(tmp_path / "policy", random_params(config), config)
    source, mesh = SavedPolicy(path=str(tmp_path / "policy")), make_mesh(MeshConfig(tensor=2))
    with pytest.raises(ValueError, match="num_kv_heads=3 is no multiple"):
        source.load(Sharding(mesh), 0)
    assert source.load(Sharding(mesh, WHOLE), 0)[0] == config


@pytest.mark.parametrize("context", [1, 2])
def test_learning_equals_one_device(context):
    """With context > 1 attention is mapped: a part of the query heads would meet all key heads."""
    config = dataclasses.replace(FAMILIES["qwen2"], **UNEVEN)
    params, tokens = random_params(config), random_tokens(4, 16)
    value_and_grad = jax.jit(jax.value_and_grad(next_token_loss), static_argnums=(1, 3))
    loss, gradients = value_and_grad(params, config, tokens, single_device())
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4 // context, context=context, tensor=2)), WHOLE)
    placed = jax.device_put(params, sharding.tree(param_axes(params)))
    rows = jax.device_put(tokens, sharding.named("batch", "length"))
    other_loss, other_gradients = value_and_grad(placed, config, rows, sharding)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(gradients), jax.tree.leaves(other_gradients), strict=True):
        np.testing.assert_allclose(y, x, atol=1e-6, rtol=1e-4)


def test_decoding_equals_one_device():
    config = dataclasses.replace(FAMILIES["qwen2"], **UNEVEN)
    params, tokens = random_params(config), random_tokens(4, 6)
    positions = jnp.broadcast_to(jnp.arange(6)[None], tokens.shape)
    forward = jax.jit(cached_hidden_states, static_argnames=("config", "view", "sharding"))

    def run(sharding):
        placed = jax.device_put(params, sharding.tree(param_axes(params)))
        cache = jax.device_put(make_cache(config, 4, 8), sharding.named(*CACHE_AXES))
        numerics = jax.jit(unstack_layers)(placed)
        return forward(numerics, config, tokens, positions, cache, view=8, sharding=sharding)[0]

    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)), decode(WHOLE))
    np.testing.assert_allclose(run(sharding), run(single_device()), atol=1e-5)
