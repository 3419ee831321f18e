"""What a plan advises where a program does not fit, or mostly sends."""

import dataclasses

from helpers.program_plans import HOST, RESIDENT, config_of, program, small_cold_start

from jaxtool.model.config import tiny
from jaxtool.model.lora import LoraConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import AxisRules
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.plan import program as names
from jaxtool.plan.advice import advise
from jaxtool.plan.chips import GIB


def test_advice_is_silent_where_everything_fits(tmp_path):
    assert advise(config_of(tmp_path), [program(names.LEARN, 1)], RESIDENT, 15 * GIB, HOST, 8) == ()


def test_larger_blocks_are_advised_where_a_block_mostly_sends(tmp_path):
    """1 of 3 s is collectives; temporaries of 2 GiB may grow to 0.95 x 15 - 3 = 11.25 GiB: 5 times.

    32 rows are 8 blocks of 4, 24 s, or 2 of 16, (4 x 2 + 1) x 2 = 18 s; 2 of 20 would take 22 s.
    """
    block = program(
        names.LEARN,
        2,
        arguments=1.0 * GIB,
        other_resident=2.0 * GIB,
        roofline_s=2.0,
        collectives_s=1.0,
    )

    def lines(block, rows):
        return advise(config_of(tmp_path), [block], RESIDENT, 15 * GIB, HOST, rows)

    [line] = lines(block, 32)
    assert line == (
        "GrpoConfig.micro_batch_rows = 16  # an update may take 18.0 s in place of 24.0: collectives are 33% of a "
        "gradient block, whatever its rows"
    )
    assert lines(block, 12)[0].startswith(
        "GrpoConfig.micro_batch_rows = 12 "
    )  # an update has no more rows
    assert lines(block, 4) == ()
    assert lines(dataclasses.replace(block, collectives_s=0.1), 32) == ()
    assert lines(dataclasses.replace(block, temporaries=6.0 * GIB), 32) == ()


def test_advice_for_a_learner_names_every_lever_that_is_left(tmp_path):
    config = config_of(tmp_path, mesh=MeshConfig(fsdp=2, tensor=2))
    lines = "\n".join(advise(config, [program(names.LEARN, 20)], RESIDENT, 15 * GIB, HOST, 8))
    for lever in (
        "RlConfig.unloads_decoder = True  # 9.0 GiB",
        "remat = 'block'",
        "compute_dtype = 'bfloat16'",
        "AxisRules.length = ('context', 'tensor')",
        "GrpoConfig.micro_batch_rows = 2",
        "algos/adam8bit.gin  # 3.0 GiB less",
        "algos/lora.gin  # trains adapters: nearly 6.0 GiB less",
    ):
        assert lever in lines
    model = dataclasses.replace(tiny(17), remat="block", compute_dtype="bfloat16")
    config = dataclasses.replace(
        config,
        policy=RandomInit(config=model),
        unloads_decoder=True,
        axes=AxisRules(length=("context", "tensor")),
        mesh=MeshConfig(fsdp=4, tensor=2),
    )
    lines = "\n".join(advise(config, [program(names.LEARN, 20)], RESIDENT, 15 * GIB, HOST, 8))
    assert "unloads" not in lines
    assert "remat" not in lines
    assert "micro_batch_rows" not in lines
    adapted = dataclasses.replace(config, lora=LoraConfig())
    lines = "\n".join(advise(adapted, [program(names.LEARN, 20)], RESIDENT, 15 * GIB, HOST, 8))
    assert "algos/" not in lines
    assert "a larger slice: parameters, optimizer state and gradients take 8.0 GiB" in lines


def test_replicas_are_advised_to_share_their_state(tmp_path):
    """6 GiB of state and gradients, on 4 replicas a quarter of it each."""
    config = config_of(tmp_path, mesh=MeshConfig(data=4, fsdp=1, tensor=2), unloads_decoder=True)
    over = [program(names.APPLY, 20)]
    lines = advise(config, over, RESIDENT, 15 * GIB, HOST, 8)
    assert lines[0].startswith(
        "AxisRules.optimizer_embed = ('fsdp', 'context', 'data')  # 4.5 GiB less"
    )
    assert lines[1].startswith("MeshConfig.data = 1")
    rules = AxisRules(optimizer_embed=("fsdp", "context", "data"))
    lines = advise(dataclasses.replace(config, axes=rules), over, RESIDENT, 15 * GIB, HOST, 8)
    assert lines[0].startswith("MeshConfig.data = 1")


def test_advice_for_a_cold_start_is_in_its_own_names(tmp_path):
    resident = {name: RESIDENT[name] for name in ("parameters", "optimizer state", "gradients")}
    over = [program(names.LEARN, 20), program(names.APPLY, 16)]
    lines = "\n".join(advise(small_cold_start(tmp_path), over, resident, 15 * GIB, {}, 8))
    for lever in (
        "SftConfig.micro_batch_rows = 2",
        "SftConfig.lm_head_chunk = 128",
        "algos/adam8bit.gin  # 3.0 GiB less",
        "SftRunConfig.lora = @LoraConfig()  # trains adapters: nearly 6.0 GiB less optimizer state and",
        "a larger slice: parameters, optimizer state and gradients take 8.0 GiB",
    ):
        assert lever in lines
    for other in ("RlConfig", "EngineConfig", "GrpoConfig"):
        assert other not in lines
    block = program(names.LEARN, 2, arguments=GIB, roofline_s=2.0, collectives_s=1.0)
    [line] = advise(small_cold_start(tmp_path), [block], resident, 15 * GIB, {}, 32)
    assert line.startswith("SftConfig.micro_batch_rows = ")


def test_advice_for_a_decoder_counts_the_slots_that_fit(tmp_path):
    config = config_of(tmp_path)
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, decode_rows=64))
    lines = advise(config, [program(names.WINDOW, 17)], RESIDENT, 15 * GIB, HOST, 8)
    # 8 GiB of cache are 64 rows; 2 GiB too much are 16 of them.
    assert lines[0].startswith("EngineConfig.decode_rows = 48")
    assert lines[1].startswith("MeshConfig.tensor = 4")
    assert "decoders/int8.gin" in lines[2]
    # A host of one tensor group has no more devices to cut by, and any number of rows divides.
    whole = HOST | {"data": 1, "tensor": 4}
    cache_rows, int8, _ = advise(
        config, [program(names.WINDOW, 17.2)], RESIDENT, 15 * GIB, whole, 8
    )
    assert cache_rows.startswith("EngineConfig.decode_rows = 46")
    assert "int8" in int8


def test_a_decoder_that_does_not_fit_may_have_the_learners_room(tmp_path):
    config = config_of(tmp_path, unloads_decoder=True)
    over = [program(names.WINDOW, 17.2)]
    [line, *_] = advise(config, over, RESIDENT, 15 * GIB, HOST, 8)
    rests = RESIDENT["optimizer state"] / GIB
    assert line.startswith(f"RlConfig.offloads_learner = True  # {rests:.1f} GiB on the host")
    away = dataclasses.replace(config, offloads_learner=True)
    assert advise(away, over, RESIDENT, 15 * GIB, HOST, 8)[0].startswith("EngineConfig.decode_rows")
