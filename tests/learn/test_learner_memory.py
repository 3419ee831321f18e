"""The learner's memory from shapes is that of the arrays which it then holds."""

import dataclasses

import jax
import pytest
from helpers.tiny_models import random_params

from jaxtool.core import rng
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.learner import make_learner
from jaxtool.learn.memory import learner_memory, memory_of_device
from jaxtool.learn.optimizer import Adafactor, AdamW, AdamW8bit, Muon, OptimizerConfig
from jaxtool.learn.policy_view import split_policy
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.state import zero_gradients
from jaxtool.model.config import tiny
from jaxtool.model.lora import LoraConfig
from jaxtool.model.param_axes import param_axes
from jaxtool.parallel.axis_rules import AxisRules, Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

# Wide enough for Adafactor to factor, and for several scales of eight-bit moments.
MODEL = dataclasses.replace(tiny(64), num_layers=1, d_model=128, d_ff=256)
LORA = LoraConfig(rank=4, targets=("q", "down"))
OPTIMIZERS = {
    rule.__name__: OptimizerConfig(rule=rule()) for rule in (AdamW, AdamW8bit, Adafactor, Muon)
}


def memory_of(sharding, optimizer, lora=None, critic=None, keeps_first=False):
    setup = LearnerSetup(
        model=MODEL,
        grpo=GrpoConfig(),
        optimizer=optimizer,
        sharding=sharding,
        temperature=1.0,
        num_trajectories=1,
    )

    def start(trained, view):
        return make_learner(setup, critic, view).start(trained)

    return learner_memory(start, MODEL, lora, sharding, keeps_first=keeps_first), start


def held(tree):
    """Bytes of the first device."""
    first = jax.devices()[0]
    return sum(
        shard.data.nbytes
        for x in jax.tree.leaves(tree)
        for shard in x.addressable_shards
        if shard.device == first
    )


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_it_is_what_the_arrays_take_on_one_device_of_a_mesh(rule):
    rules = AxisRules(optimizer_embed=("data", "fsdp")) if rule == "AdamW" else AxisRules()
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), rules)
    memory, start = memory_of(sharding, OPTIMIZERS[rule])
    params = random_params(MODEL)
    params = jax.device_put(params, sharding.tree(param_axes(params)))
    trained, view = split_policy(params, MODEL, None, rng.key(0, "lora"), sharding)
    state = start(trained, view)
    assert memory.parameters == held(state.params)
    # A count of steps is whole on every device, whatever the compiler makes of it.
    assert memory.optimizer_state == pytest.approx(held(state.opt_state), abs=64)
    assert memory.gradients == held(zero_gradients(params, sharding).grads)
    assert memory.reference == 0


def test_it_counts_by_hand():
    numbers = sum(x.size for x in jax.tree.leaves(random_params(MODEL)))
    plain, _ = memory_of(single_device(), OPTIMIZERS["AdamW"], keeps_first=True)
    assert plain.parameters == plain.reference == plain.gradients == 4 * numbers
    assert plain.optimizer_state == pytest.approx(8 * numbers, abs=64)
    assert plain.total == pytest.approx(20 * numbers, abs=64)
    assert plain.trained == f"all {numbers:,} parameters"
    eight, _ = memory_of(single_device(), OPTIMIZERS["AdamW8bit"])
    assert 2 * numbers < eight.optimizer_state < 3 * numbers
    factored, _ = memory_of(single_device(), OPTIMIZERS["Adafactor"])
    assert factored.optimizer_state < numbers
    muon, _ = memory_of(single_device(), OPTIMIZERS["Muon"])
    assert 4 * numbers < muon.optimizer_state < 8 * numbers


def test_an_adapter_and_a_critic_are_counted_beyond_the_frozen_policy():
    numbers = sum(x.size for x in jax.tree.leaves(random_params(MODEL)))
    heads = MODEL.num_heads * MODEL.head_dim
    adapter = 4 * (MODEL.d_model + heads) + 4 * (MODEL.d_ff + MODEL.d_model)
    lora = dataclasses.replace(LORA, frozen_dtype="bfloat16")
    alone, _ = memory_of(single_device(), OPTIMIZERS["AdamW"], lora, keeps_first=True)
    assert alone.trained == f"{adapter:,} in an adapter, {numbers:,} stay frozen"
    assert alone.parameters == 2 * numbers + 4 * adapter
    assert alone.reference == 0  # it is the frozen policy
    assert alone.gradients == 4 * adapter
    critic = CriticConfig(optimizer=OPTIMIZERS["AdamW"])
    both, _ = memory_of(single_device(), OPTIMIZERS["AdamW"], lora, critic)
    tower = adapter + MODEL.d_model  # its head
    assert both.trained == f"{alone.trained}; {tower:,} of the critic"
    assert both.parameters == alone.parameters + 4 * tower
    assert both.optimizer_state == pytest.approx(8 * (adapter + tower), abs=64)
    assert both.gradients == 4 * tower


def test_more_than_a_device_has_is_refused_with_what_to_do():
    memory, _ = memory_of(single_device(), OPTIMIZERS["AdamW"])
    memory.check_fits(None)
    memory.check_fits(memory.total)
    message = (
        r"takes .* GiB a device \(parameters .*optimizer state .*gradients .*AdamW8bit or Adafactor"
    )
    with pytest.raises(ValueError, match=message):
        memory.check_fits(memory.total - 1)


def test_cpu_devices_share_the_memory_of_the_host():
    one = memory_of_device(make_mesh(MeshConfig(), jax.devices()[:1]))
    eight = memory_of_device(make_mesh(MeshConfig()))
    assert one is None or (one > 2**28 and eight == one // 8)
