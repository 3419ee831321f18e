"""Rows cut along their tokens (MeshConfig.context): the same loss and gradients, each device its part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.ledgers import ledger
from helpers.targets import with_advantages
from helpers.tiny_models import FAMILIES, random_params, random_tokens

from jaxtool.core.truncation import Truncation
from jaxtool.core.types import ToolStatus
from jaxtool.learn import grpo
from jaxtool.learn.aggregation_choices import SequenceMean
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import check_row_tokens, row_blocks, zero_gradients
from jaxtool.model.attention import attention, segment_mask
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_axes
from jaxtool.model.splash_attention import splash_attention
from jaxtool.model.token_logprobs import token_logprobs
from jaxtool.parallel.axis_rules import AxisRules, Sharding, decode, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rollout.batching import PackConfig, to_batch

# Segments that cross the borders of the parts and their chunks, which are 16, 8 or 4 tokens long, and padding.
SHAPES = ("QQpppppttpppppppp", "QQppppppp", "QQppppptttpppppppppppp", "Qppp", "QQQpppp")
QWEN2 = FAMILIES["qwen2"]


def batch_of():
    made = [
        dataclasses.replace(
            ledger(shape, problem=f"p{i}", calls=[ToolStatus.OK] * ("t" in shape)),
            ids=np.asarray(random_tokens(1, len(shape), i))[0],
        )
        for i, shape in enumerate(SHAPES)
    ]
    return with_advantages(to_batch(made, PackConfig(row_tokens=32)), np.linspace(-1, 2, len(made)))


def gradients(model: ModelConfig, sharding: Sharding):
    """Loss and gradient of every term of the loss, on the mesh."""
    params, batch = random_params(model), batch_of()
    setup = LearnerSetup(
        model=model,
        grpo=GrpoConfig(
            micro_batch_rows=4, lm_head_chunk=3, entropy_coef=0.3, aggregation=SequenceMean()
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        sharding=sharding,
        temperature=0.7,
        num_trajectories=len(SHAPES),
    )
    params = jax.device_put(params, sharding.tree(param_axes(params)))
    total = zero_gradients(params, sharding)
    [block] = row_blocks(batch, 4, sharding)
    count = np.float32(len(SHAPES))
    return grpo.grpo_block(total, params, PolicyView(), block, None, count, setup=setup)[0]


@pytest.fixture(scope="module")
def one_device():
    return gradients(QWEN2, single_device())


@pytest.mark.parametrize(
    ("mesh", "rules", "fields"),
    [
        (MeshConfig(fsdp=4, context=2), AxisRules(), {}),
        (
            MeshConfig(fsdp=1, context=4, tensor=2),
            AxisRules(length=("context", "tensor")),
            {"attention_block": 3},
        ),
        (
            MeshConfig(fsdp=2, context=2, tensor=2),
            AxisRules(length=("context", "tensor")),
            {"remat": "block"},
        ),
    ],
    ids=["fsdp4_context2", "context4_tensor2_blocks", "fsdp2_context2_tensor2_remat"],
)
def test_loss_and_gradients_equal_one_device(one_device, mesh, rules, fields):
    got = gradients(dataclasses.replace(QWEN2, **fields), Sharding(make_mesh(mesh), rules))
    np.testing.assert_allclose(got.loss, one_device.loss, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(got.grads), jax.tree.leaves(one_device.grads), strict=True):
        assert np.any(y != 0)
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    kernel = got.grads["layers"]["mlp"]["gate"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 8


@pytest.mark.parametrize(
    "mesh",
    [MeshConfig(fsdp=2, context=4), MeshConfig(fsdp=2, context=2, tensor=2)],
    ids=["contiguous", "balanced"],  # 4 parts of 128 tokens are one block each
)
def test_the_kernel_for_tpus_takes_parts_of_the_queries(mesh):
    segments = jnp.asarray(np.repeat([[1, 2, 3, 0], [1, 1, 1, 2]], [100, 300, 80, 32], axis=1))
    segments = segments.astype(jnp.int32)
    columns = np.arange(512)
    q, k, v = (
        jnp.asarray(np.random.default_rng(i).standard_normal((2, 512, n, 64)), jnp.float32)
        for i, n in enumerate((4, 2, 2))
    )
    weights = q * (segments != 0)[:, :, None, None]
    mask = segment_mask(segments, jnp.broadcast_to(columns, (2, 512)))
    sharding = Sharding(make_mesh(mesh))

    def weighted(attend):
        total = lambda *x: jnp.sum(attend(*x) * weights)  # noqa: E731
        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    value, got = weighted(
        lambda *x: splash_attention(*x, segments, sharding=sharding, interpret=True)
    )
    wanted_value, wanted = weighted(lambda *x: attention(*x, mask))
    np.testing.assert_allclose(value, wanted_value, rtol=1e-5)
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("truncation", [None, Truncation(top_k=5)])
def test_parts_of_a_row_give_the_logprobs_of_the_row(truncation):
    numbers = np.random.default_rng(0)
    hidden = jnp.asarray(numbers.standard_normal((2, 24, 8)), jnp.float32)
    head = jnp.asarray(numbers.standard_normal((8, 20)), jnp.float32)
    tokens = jnp.asarray(numbers.integers(0, 20, (2, 24)), jnp.int32)

    def measured(**fields):
        return token_logprobs(
            hidden, head, tokens, temperature=0.8, chunk=5, truncation=truncation, **fields
        )

    for x, y in zip(measured(parts=3), measured(), strict=True):
        assert np.all(x[:, 0] == 0)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_rows_that_do_not_divide_are_named():
    sharding = Sharding(make_mesh(MeshConfig(fsdp=2, context=4)))
    with pytest.raises(ValueError, match="row_tokens=30 does not divide over context = 4 devices"):
        check_row_tokens(30, sharding)
    rules = AxisRules(length=("tensor",))
    with pytest.raises(ValueError, match='does not: put "context" first in it'):
        check_row_tokens(32, dataclasses.replace(sharding, rules=rules))
    with pytest.raises(ValueError, match="micro_batch_rows=3 does not divide over data x fsdp = 2"):
        next(row_blocks(batch_of(), 3, sharding))


def test_a_decoder_on_the_same_mesh_cuts_its_rows_by_it():
    sharding = Sharding(make_mesh(MeshConfig(fsdp=2, context=2, tensor=2)), decode())
    assert sharding.parts("batch") == 4
    assert sharding.parts("length") == sharding.parts("queries") == 1
