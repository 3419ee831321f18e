"""Loss and gradients on 8 virtual devices equal those on one, and XLA replicates nothing by surprise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, next_token_loss, random_params, random_tokens

from jaxtool.model.config import tiny
from jaxtool.model.kv_cache import make_cache
from jaxtool.model.param_axes import CACHE_AXES, param_axes
from jaxtool.model.sources import RandomInit
from jaxtool.model.transformer import cached_hidden_states, unstack_layers
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MESHES = {
    "fsdp4_tensor2": MeshConfig(fsdp=4, tensor=2),
    "data2_fsdp2_tensor2": MeshConfig(data=2, fsdp=2, tensor=2),
}

value_and_grad = jax.jit(jax.value_and_grad(next_token_loss), static_argnums=(1, 3))


@pytest.mark.parametrize(
    ("family", "mesh"),
    [
        ("llama", "fsdp4_tensor2"),
        ("qwen2", "fsdp4_tensor2"),
        ("qwen3", "data2_fsdp2_tensor2"),
    ],
)
def test_loss_and_gradients_equal_one_device(family, mesh):
    config = FAMILIES[family]
    params, tokens = random_params(config), random_tokens(8, 16)
    loss, gradients = value_and_grad(params, config, tokens, single_device())
    sharding = Sharding(make_mesh(MESHES[mesh]))
    placed = jax.device_put(params, sharding.tree(param_axes(params)))
    rows = jax.device_put(tokens, sharding.named("batch", "length"))
    assert len(placed["layers"]["mlp"]["gate"]["kernel"].sharding.device_set) == 8
    other_loss, other_gradients = value_and_grad(placed, config, rows, sharding)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(gradients), jax.tree.leaves(other_gradients), strict=True):
        assert np.any(x != 0)
        np.testing.assert_allclose(y, x, atol=1e-6, rtol=1e-4)


def test_random_init_gives_the_same_numbers_on_every_mesh():
    config = tiny(64)
    _, one = RandomInit(config=config).load(single_device(), seed=3)
    _, eight = RandomInit(config=config).load(Sharding(make_mesh(MESHES["fsdp4_tensor2"])), seed=3)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(
            x, y, rtol=1e-5, atol=1e-7
        )  # two programs round alike, or nearly


def test_cached_forward_on_eight_devices_equals_one():
    config = FAMILIES["qwen3"]
    params, tokens = random_params(config), random_tokens(4, 6)
    positions = jnp.broadcast_to(jnp.arange(6)[None], tokens.shape)
    forward = jax.jit(cached_hidden_states, static_argnames=("config", "view", "sharding"))

    def run(sharding: Sharding):
        placed = jax.device_put(params, sharding.tree(param_axes(params)))
        cache = jax.device_put(make_cache(config, 4, 8), sharding.named(*CACHE_AXES))
        numerics = jax.jit(unstack_layers)(placed)
        return forward(numerics, config, tokens, positions, cache, view=8, sharding=sharding)

    hidden, cache = run(single_device())
    mesh = make_mesh(MESHES["data2_fsdp2_tensor2"])
    other_hidden, other_cache = run(Sharding(mesh, axis_rules.decode()))
    np.testing.assert_allclose(other_hidden, hidden, atol=1e-5)
    np.testing.assert_allclose(other_cache[1].k, cache[1].k, atol=1e-5)


CASES = [  # jax 0.10 and 0.12 warn in different ones when activations are left to them
    (MESHES["fsdp4_tensor2"], True),
    (MESHES["data2_fsdp2_tensor2"], True),
    (MESHES["data2_fsdp2_tensor2"], False),
]


def compile_messages(capfd) -> str:
    """What XLA's C++ writes on stderr while it compiles the training step of the module's docstring."""
    for mesh, scans_layers in CASES:
        config = dataclasses.replace(FAMILIES["qwen2"], scans_layers=scans_layers)
        sharding, params = Sharding(make_mesh(mesh)), random_params(config)
        placed = sharding.tree(param_axes(params))
        step = jax.jit(
            jax.value_and_grad(next_token_loss), static_argnums=(1, 3), out_shardings=(None, placed)
        )
        tokens = jax.device_put(random_tokens(8, 16), sharding.named("batch", "length"))
        step.lower(jax.device_put(params, placed), config, tokens, sharding).compile()
    return capfd.readouterr().err


def test_training_step_has_no_involuntary_full_rematerialization(capfd):
    assert "Involuntary full rematerialization" not in compile_messages(capfd)


def test_the_rematerialization_warning_is_seen_where_activations_are_left_to_xla(
    capfd, monkeypatch
):
    """Without this the test above would pass for ever once XLA words its warning differently."""
    monkeypatch.setattr(Sharding, "constrain", lambda self, x, *axes: x)
    assert "Involuntary full rematerialization" in compile_messages(capfd)
