"""A whole plan of a small run by the real TPU compiler, which runs on a CPU."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from helpers.small_runs import cold_start_of, rl_config

from jaxtool.learn.optimizer import AdamW8bit
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.sft import SftConfig
from jaxtool.model.config import tiny
from jaxtool.model.lora import LoraConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import AxisRules
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.plan import program as names
from jaxtool.plan.chips import GIB, parse_slice, slice_devices
from jaxtool.plan.compiled import compile_program
from jaxtool.plan.plan import plan_run
from jaxtool.plan.program import Program
from jaxtool.plan.rl_programs import run_programs
from jaxtool.plan.step import default_assumptions
from jaxtool.renderers.demonstrations import DemonstrationFile

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'libtpu>=0.0.50' flatbuffers in Python 3.12",
)


def config_of(tmp_path, **fields):
    base = rl_config(tmp_path)
    model = dataclasses.replace(tiny(256), remat="block", compute_dtype="bfloat16")
    return dataclasses.replace(
        base,
        **{
            "policy": RandomInit(config=model),
            "mesh": MeshConfig(fsdp=4, tensor=2),
            "axes": AxisRules(length=("context", "tensor")),
            "grpo": dataclasses.replace(base.grpo, updates_per_batch=2),
            "engine": dataclasses.replace(base.engine, prefill_rows=4),
            "unloads_decoder": True,
        }
        | fields,
    )


@needs_libtpu
@pytest.mark.slow
def test_every_program_of_a_small_run_compiles_for_a_slice(tmp_path):
    config = config_of(tmp_path)
    told = []
    plan = plan_run(config, "v5e-8", default_assumptions(config), report=told.append)
    assert plan.fits, [program.error for program in plan.programs]
    assert {program.name for program in plan.programs} == {
        names.WINDOW,
        names.PREFILL,
        names.PLACE,
        names.APPEND,
        names.PUBLISH,
        names.PUBLISH_ENDS,
        names.LEARN,
        names.APPLY,
        names.OLD,
    }
    assert told == list(plan.programs)
    found = {program.name: program for program in plan.programs}
    assert all(program.compiler_s for program in plan.programs)
    assert found[names.WINDOW].flops > 0
    # Rows are sharded over fsdp, so gradients must meet; heads over tensor, so every layer's output must.
    assert {c.kind for c in found[names.LEARN].collectives} & {"all-reduce", "reduce-scatter"}
    assert any(c.kind == "all-reduce" for c in found[names.WINDOW].collectives)
    # Optimizer and gradients are sharded over all 8 devices but for biases and norms.
    resident = plan.resident
    assert resident["optimizer state"] == pytest.approx(2 * resident["parameters"], rel=0.01)
    assert resident["gradients"] == pytest.approx(resident["parameters"], rel=0.01)
    assert 0 < plan.hbm_used < GIB
    assert plan.step_s is not None


@needs_libtpu
@pytest.mark.slow
def test_adapters_and_small_optimizer_states_are_planned_as_they_run(tmp_path):
    """Bytes of the real trees; a KL under LoRA keeps no reference, in memory or as an argument."""
    tpu = parse_slice("v5e-8")
    model = dataclasses.replace(tiny(256), d_model=256, d_ff=512, remat="block")
    base = config_of(tmp_path, policy=RandomInit(config=model))
    base = dataclasses.replace(base, grpo=dataclasses.replace(base.grpo, kl_coef=0.1))
    lora = dataclasses.replace(base, lora=LoraConfig(rank=4, frozen_dtype="bfloat16"))
    small = dataclasses.replace(base.optimizer, rule=AdamW8bit())
    small = dataclasses.replace(base, optimizer=small)
    plain, adapted, quantised = (run_programs(config, tpu) for config in (base, lora, small))
    parameters = plain.resident["parameters"]
    assert plain.resident["reference"] == parameters
    assert adapted.resident["reference"] == 0
    assert adapted.resident["parameters"] < 0.6 * parameters
    assert adapted.resident["optimizer state"] < 0.2 * parameters
    assert adapted.resident["gradients"] < 0.1 * parameters
    assert quantised.resident["optimizer state"] < 0.65 * parameters
    [learn] = [program for program in adapted.programs if program.name == names.LEARN]
    plan = compile_program(learn, adapted.resident, tpu)
    assert plan.error is None
    # Half the parameters, adapter and gradients; with a reference it would be half of them more.
    assert plan.arguments < parameters


@needs_libtpu
@pytest.mark.slow
def test_a_critic_is_planned_with_the_policy(tmp_path):
    """PPO: two trained towers in memory, and three programs more."""
    base = config_of(tmp_path)
    plain = run_programs(base, parse_slice("v5e-8"))
    config = dataclasses.replace(base, critic=CriticConfig())
    plan = plan_run(config, "v5e-8", default_assumptions(config))
    assert plan.fits
    found = {program.name: program for program in plan.programs}
    assert {*found} - {program.name for program in plain.programs} == {
        names.VALUES,
        names.CRITIC,
        names.CRITIC_APPLY,
    }
    # The tower is the policy's and a vector, for the embedding is tied; AdamW keeps twice as much.
    assert {name: plan.resident[name] for name in plain.resident} == plain.resident
    tower = plan.resident["critic"]
    assert tower == plain.resident["parameters"] + 4 * config.policy.model_config().d_model
    assert plan.resident["critic optimizer state"] == pytest.approx(2 * tower, rel=0.01)
    # Each is an argument of its own programs and resident in all others.
    both = tower + plan.resident["critic optimizer state"]
    policy = plain.resident["parameters"] + plain.resident["optimizer state"]
    other_resident = {program.name: program.other_resident for program in plan.programs}
    without = {
        program.name: sum(plain.resident[name] for name in program.other_resident)
        for program in plain.programs
    }
    for name, other_bytes in without.items():
        assert other_resident[name] == other_bytes + both
    assert other_resident[names.CRITIC] == policy + plan.resident["critic optimizer state"]
    assert other_resident[names.CRITIC_APPLY] == policy
    assert found[names.CRITIC].arguments > found[names.VALUES].arguments > 0
    assert found[names.CRITIC].flops > 2 * found[names.VALUES].flops > 0


@needs_libtpu
@pytest.mark.slow
def test_a_cold_start_is_planned(tmp_path):
    """One gradient block and one update; nothing decodes."""
    rl = config_of(tmp_path)
    config = cold_start_of(rl, [8], DemonstrationFile(path="none"))
    plan = plan_run(config, "v5e-8", default_assumptions(config))
    assert plan.fits
    assert [program.name for program in plan.programs] == [names.LEARN, names.APPLY]
    assert plan.resident == {
        name: run_programs(rl, parse_slice("v5e-8")).resident[name]
        for name in ("parameters", "optimizer state", "gradients")
    }
    block, update = plan.programs
    assert block.other_resident == plan.resident["optimizer state"]
    assert update.other_resident == 0
    assert block.flops > 0
    assert {*plan.seconds} == {names.LEARN, names.APPLY}
    assert plan.step_s == pytest.approx(
        plan.runs[names.LEARN] * block.time_s + update.time_s, rel=1e-6
    )
    too_many = dataclasses.replace(config, sft=SftConfig(micro_batch_rows=3))
    with pytest.raises(ValueError, match="micro_batch_rows=3"):
        plan_run(too_many, "v5e-8", default_assumptions(config))


@needs_libtpu
def test_a_program_that_is_too_large_comes_back_with_its_size():
    tpu = parse_slice("v5e-8")
    on = jax.sharding.SingleDeviceSharding(slice_devices(tpu)[0])
    x = jax.ShapeDtypeStruct((8, 1 << 29), jnp.float32, sharding=on)
    program = Program(
        name="sum",
        shape="",
        trace=lambda: jax.jit(lambda x: x + 1).trace(x),
        num_devices=1,
        other_resident=("cache",),
    )
    plan = compile_program(program, {"cache": 2.0 * GIB}, tpu)
    assert plan.error == "needs 32.0 GiB alone"
    assert plan.hbm == 34 * GIB


def test_a_mesh_that_does_not_divide_the_slice_is_refused_without_a_compiler(tmp_path):
    config = config_of(tmp_path, mesh=MeshConfig(fsdp=3, tensor=2))
    with pytest.raises(ValueError, match="does not divide 8 devices"):
        plan_run(config, "v5e-8", default_assumptions(config))


@needs_libtpu
def test_hosts_decode_on_devices_of_their_own(tmp_path):
    """v5e-16 is four hosts of four; tensor=4 is sharded over four chips in a row, which two hosts have."""
    model = dataclasses.replace(tiny(256), num_heads=4, num_kv_heads=4)
    base = rl_config(tmp_path)
    config = dataclasses.replace(
        base, policy=RandomInit(config=model), mesh=MeshConfig(tensor=4), sandbox=base.sandbox
    )
    tpu = parse_slice("v5e-16")
    built = run_programs(config, tpu)
    assert built.host == {"data": 1, "fsdp": 1, "context": 1, "tensor": 4}
    assert {program.name: program.num_devices for program in built.programs} == {
        names.WINDOW: 4,
        names.PREFILL: 4,
        names.PLACE: 4,
        names.APPEND: 4,
        names.PUBLISH: 16,
        names.PUBLISH_ENDS: 16,
        names.LEARN: 16,
        names.APPLY: 16,
    }
    # The whole of its part, though the learner cuts it by fsdp as well.
    assert built.resident["published copy"] == pytest.approx(
        4 * built.resident["parameters"], rel=0.1
    )
    publish = next(program for program in built.programs if program.name == names.PUBLISH)
    plan = compile_program(publish, built.resident, tpu)
    [moved] = [c for c in plan.collectives if c.kind == "to hosts"]
    layers = built.resident["published copy"] - 256 * model.d_model * 4 / 4
    assert moved.sent_bytes == pytest.approx(layers / model.num_layers, rel=0.05)
    assert any(c.kind == "all-gather" for c in plan.collectives)
    append = next(program for program in built.programs if program.name == names.APPEND)
    assert any(
        c.kind == "all-reduce" for c in compile_program(append, built.resident, tpu).collectives
    )


REFUSED = {
    "MeshConfig.tensor=8 does not divide the 4 devices of a host": {"mesh": MeshConfig(tensor=8)},
    "Schedule.max_staleness=1: rollouts overlap with updates on one host only": {
        "unloads_decoder": False
    },
    "EngineConfig.prefill_rows=2 must be a multiple of data = 4": {"mesh": MeshConfig(tensor=1)},
}


@needs_libtpu
@pytest.mark.parametrize(("message", "fields"), REFUSED.items())
def test_what_the_run_would_refuse_the_plan_refuses(tmp_path, message, fields):
    model = dataclasses.replace(tiny(256), num_heads=8, num_kv_heads=8)
    base = rl_config(tmp_path)
    if "max_staleness" in message:
        fields = fields | {"schedule": dataclasses.replace(base.schedule, max_staleness=1)}
    config = dataclasses.replace(
        base,
        policy=RandomInit(config=model),
        grpo=dataclasses.replace(base.grpo, micro_batch_rows=16),
        **fields,
    )
    with pytest.raises(ValueError, match=message):
        plan_run(config, "v6e-16", default_assumptions(config))


@needs_libtpu
def test_rows_that_need_more_than_the_decoder_may_take_are_refused(tmp_path):
    base = rl_config(tmp_path)
    config = dataclasses.replace(
        base,
        mesh=MeshConfig(data=4, fsdp=1, tensor=2),
        policy=RandomInit(config=tiny(256)),
        engine=dataclasses.replace(base.engine, decode_rows=1 << 26, prefill_rows=4),
    )
    with pytest.raises(ValueError, match=r"fit into 90% of 63\.00 GiB .50% of what is free"):
        plan_run(config, "v5e-8", default_assumptions(config))
