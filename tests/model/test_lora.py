"""Adapters: the same policy while B is zero, the policy of the merged weights afterwards."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import (
    FAMILIES,
    full_logits,
    next_token_loss,
    random_adapter,
    random_params,
    random_tokens,
)

from jaxtool.core import rng
from jaxtool.model.lora import (
    MODULES,
    FrozenPolicy,
    LoraConfig,
    init_adapter,
    merged,
    merged_in_place,
    source_dtype,
    without_adapters,
)
from jaxtool.model.low_rank import LoraWeight, adapted_product, merged_kernel
from jaxtool.model.param_axes import param_axes
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

LORA = LoraConfig(rank=3, alpha=6.0)
FAMILY = dataclasses.replace(FAMILIES["qwen3"], has_qkv_bias=True)


def test_adapted_product_by_hand():
    """W = [[1, 0], [0, 1]], A = (1, 2)ᵀ, B = (3, -1), scale 2: W' = [[7, -2], [12, -3]]."""
    weight = LoraWeight(jnp.eye(2), jnp.array([[1.0], [2.0]]), jnp.array([[3.0, -1.0]]), 2.0)
    np.testing.assert_array_equal(merged_kernel(weight), [[7, -2], [12, -3]])
    x = jnp.array([[1.0, 1.0]])
    np.testing.assert_array_equal(adapted_product(x, weight, 1), [[19, -5]])
    dx, dw = jax.grad(lambda x, w: adapted_product(x, w, 1)[0, 0], (0, 1))(x, weight)
    np.testing.assert_array_equal(dx, [[7, 12]])
    # ∂A = 2 xᵀ (ȳ Bᵀ) = 2 · 3 · (1, 1)ᵀ; ∂B = 2 (x A) ȳ = 2 · 3 · (1, 0).
    np.testing.assert_array_equal(dw.a, [[6], [6]])
    np.testing.assert_array_equal(dw.b, [[6, 0]])
    np.testing.assert_array_equal(dw.frozen, np.zeros((2, 2)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_before_the_first_update_it_is_the_frozen_policy(dtype):
    """B is 0, so what it adds is; the program with adapters may round otherwise than the one without."""
    model = dataclasses.replace(FAMILY, compute_dtype=dtype)
    params, tokens = random_params(model), random_tokens(2, 8)
    adapter = init_adapter(model, LORA, rng.key(0, "lora"), single_device())
    frozen = FrozenPolicy(params=params, config=LORA)
    forward = jax.jit(full_logits, static_argnums=(1, 3))
    wanted = forward(params, model, tokens, single_device())
    np.testing.assert_allclose(
        forward(frozen.with_adapter(adapter), model, tokens, single_device()),
        wanted,
        atol=1e-5 if dtype == "float32" else 0.05,
    )
    other = frozen.with_adapter(random_adapter(model, LORA))
    other = forward(other, model, tokens, single_device())
    assert float(jnp.max(jnp.abs(other - wanted))) > 0.01


@pytest.mark.parametrize(("scans", "remat"), [(True, "none"), (False, "none"), (True, "dots")])
def test_loss_and_gradient_are_those_through_merged_weights(scans, remat):
    """The slow way: merge, differentiate, of every parameter; then the chain rule to A and B."""
    model = dataclasses.replace(FAMILY, scans_layers=scans, remat=remat)
    base = FrozenPolicy(params=random_params(model), config=LORA)
    adapter, tokens = random_adapter(model, LORA), random_tokens(2, 8)

    def thin(adapter):
        return next_token_loss(base.with_adapter(adapter), model, tokens, single_device())

    def slow(adapter):
        whole = merged(base.with_adapter(adapter), single_device())
        return next_token_loss(whole, model, tokens, single_device())

    loss, gradient = jax.jit(jax.value_and_grad(thin))(adapter)
    wanted_loss, wanted = jax.jit(jax.value_and_grad(slow))(adapter)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        assert np.any(x != 0)
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6)


def test_loss_and_gradient_on_eight_devices_equal_one():
    base = FrozenPolicy(params=random_params(FAMILY), config=LORA)
    adapter, tokens = random_adapter(FAMILY, LORA), random_tokens(8, 8)

    @jax.jit(static_argnums=(3,))
    def step(adapter, base, tokens, sharding):
        def loss(adapter):
            return next_token_loss(base.with_adapter(adapter), FAMILY, tokens, sharding)

        return jax.value_and_grad(loss)(adapter)

    loss, gradient = step(adapter, base, tokens, single_device())
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))

    def placed(tree):
        return jax.device_put(tree, sharding.tree(param_axes(tree)))

    other_loss, other = step(
        placed(adapter),
        dataclasses.replace(base, params=placed(base.params)),
        jax.device_put(tokens, sharding.named("batch", "length")),
        sharding,
    )
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-6)


def test_adapters_begin_the_same_on_every_mesh_and_with_fewer_targets():
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)))
    key = rng.key(3, "lora")
    one = init_adapter(FAMILY, LORA, key, single_device())
    eight = init_adapter(FAMILY, LORA, key, sharding)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    lora_a = one["layers"]["attention"]["output"]["lora_a"]
    assert lora_a.shape == (2, 4, 12, 3)  # L, N, H, r
    assert 0.9 * 48**-0.5 < float(jnp.max(jnp.abs(lora_a))) <= 48**-0.5
    assert not np.any(one["layers"]["attention"]["output"]["lora_b"])
    assert eight["layers"]["mlp"]["gate"]["lora_a"].sharding.shard_shape((2, 32, 3)) == (2, 8, 3)
    few = init_adapter(FAMILY, dataclasses.replace(LORA, targets=("down", "q")), key, sharding)
    assert len(jax.tree.leaves(few)) == 4
    np.testing.assert_allclose(
        few["layers"]["mlp"]["down"]["lora_a"],
        one["layers"]["mlp"]["down"]["lora_a"],
        rtol=1e-5,
        atol=1e-7,
    )


def test_merged_weights_are_the_policy():
    """One matrix by hand, and no adapter is left."""
    base = FrozenPolicy(params=random_params(FAMILY), config=LORA)
    adapter = random_adapter(FAMILY, LORA)
    policy = base.with_adapter(adapter)
    whole = merged(policy, single_device())
    assert jax.tree.structure(whole) == jax.tree.structure(base.params)
    pair = adapter["layers"]["attention"]["output"]
    low = 2.0 * np.einsum("lnhr,lrd->lnhd", pair["lora_a"], pair["lora_b"])
    kernel = base.params["layers"]["attention"]["output"]["kernel"]
    np.testing.assert_allclose(
        whole["layers"]["attention"]["output"]["kernel"], kernel + low, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(whole["embedding"], base.params["embedding"])
    plain = without_adapters(policy)
    assert all(x is y for x, y in zip(*map(jax.tree.leaves, (plain, base.params)), strict=True))


def test_a_base_in_bfloat16_is_half_as_large_and_exact_where_weights_come_so():
    params = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), random_params(FAMILY)
    )
    adapter = random_adapter(FAMILY, LORA)

    def policy(lora: LoraConfig):
        base = jax.tree.map(lambda x: x.astype(source_dtype(lora)), params)
        return FrozenPolicy(params=base, config=lora).with_adapter(adapter)

    half = policy(dataclasses.replace(LORA, frozen_dtype="bfloat16"))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(without_adapters(half)))
    policies = [merged(each, single_device()) for each in (policy(LORA), half)]
    for x, y in zip(*map(jax.tree.leaves, policies), strict=True):
        assert x.dtype == y.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_merged_in_place_is_what_a_bfloat16_model_multiplies_by_and_makes_no_second_model():
    model = dataclasses.replace(FAMILY, compute_dtype="bfloat16", num_layers=8)
    lora = dataclasses.replace(LORA, frozen_dtype="bfloat16")
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params(model))
    base, adapter = FrozenPolicy(params=params, config=lora), random_adapter(model, lora)
    forward = jax.jit(full_logits, static_argnums=(1, 3))
    tokens, policy = random_tokens(2, 8), base.with_adapter(adapter)
    wanted = forward(policy, model, tokens, single_device())
    memory = merged_in_place.lower(base, adapter, single_device()).compile().memory_analysis()
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    assert memory.alias_size_in_bytes == size
    assert memory.temp_size_in_bytes < size / 4
    whole = merged_in_place(base, adapter, single_device())
    assert all(x.is_deleted() for x in jax.tree.leaves(params))
    assert {x.dtype for x in jax.tree.leaves(whole)} == {jnp.dtype("bfloat16")}
    got = forward(whole, model, tokens, single_device())
    np.testing.assert_allclose(got, wanted, atol=0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, r"rank=0 must be >= 1; without LoRA leave `lora` out"),
        ({"alpha": 0.0}, r"LoraConfig.alpha must be > 0, got 0"),
        ({"targets": ("q", "q_proj")}, r"\('q', 'q_proj'\) must name some of q, k, v, o, gate, up"),
        ({"targets": ()}, r"targets=\(\) must name some of"),
        ({"targets": ("q", "q")}, "each once"),
        ({"frozen_dtype": "int8"}, "frozen_dtype='int8' must be float32 or bfloat16"),
    ],
)
def test_impossible_adapters_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**fields)


def test_every_target_is_a_matrix_of_the_block():
    kernels = {
        (group, name)
        for group, modules in random_params(FAMILY)["layers"].items()
        for name, module in modules.items()
        if isinstance(module, dict) and "kernel" in module
    }
    assert set(MODULES.values()) == kernels
