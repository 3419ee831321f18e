"""How many rows fit, by hand, and what is said when they do not."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers.decoding import SMALL, make_engine, random_jobs, run_jobs
from helpers.tiny_models import FAMILIES, VOCAB, random_params

from jaxtool.decode import programs
from jaxtool.decode.engine import DecodeEngine
from jaxtool.decode.memory import plan_memory
from jaxtool.model.kv_cache import cache_bytes, make_cache
from jaxtool.model.param_axes import param_shapes
from jaxtool.model.transformer import unstack_layers
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MODEL = FAMILIES["qwen3"]
ROW = 2 * 2 * 2 * 12 * 64 * 4  # k and v, layers, kv heads, head width, tokens, float32
STEP = 4 * 4 * VOCAB


def weights() -> int:
    return 4 * sum(x.size for x in jax.tree.leaves(param_shapes(MODEL)))


def test_the_parts_by_hand():
    plan = plan_memory(MODEL, SMALL, single_device())
    assert plan.weights == weights()
    assert plan.per_row == ROW + STEP
    assert plan.fixed == 2 * SMALL.prefill_rows * ROW
    assert plan.total == weights() + 8 * (ROW + STEP) + 8 * ROW
    more = plan_memory(MODEL, dataclasses.replace(SMALL, cache_rows=16), single_device())
    assert more.total - plan.total == 8 * (ROW + STEP) + 8 * ROW


def test_prompts_that_are_never_long_need_less_and_what_is_free_can_be_told():
    config = dataclasses.replace(SMALL, memory_share=0.5)
    plan = plan_memory(MODEL, config, single_device(), longest_prompt=17, free=1e9)
    assert plan.fixed == 2 * SMALL.prefill_rows * ROW * 16 // 64  # all but the last token are run
    assert plan.budget == 5e8
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)), axis_rules.decode())
    assert plan_memory(MODEL, config, sharding, free=1e9).budget == 8 * 5e8
    with pytest.raises(ValueError, match=r"0 rows fit into 90% of 0\.00 GiB"):
        plan_memory(MODEL, config, single_device(), free=1e3)
    engine = DecodeEngine(
        model=MODEL,
        config=config,
        sharding=single_device(),
        is_stop=np.zeros(VOCAB, bool),
        longest_prompt=17,
    )
    assert engine.memory.fixed == plan.fixed


@pytest.mark.parametrize("rows", [1, 5, 13])
def test_as_many_rows_as_fit(rows):
    planned = weights() + 8 * ROW + rows * (ROW + STEP) + 100
    config = dataclasses.replace(SMALL, decode_rows=0, memory_gib=planned / 0.9 / 2**30)
    plan = plan_memory(MODEL, config, single_device())
    assert plan.config.decode_rows == rows
    assert f"decoder: {rows} rows of 64 tokens, 0.00 GiB of 0.00 GiB (EngineC" in str(plan)


def test_how_much_of_the_budget_may_be_planned():
    planned = weights() + 8 * ROW + 7 * (ROW + STEP)
    config = dataclasses.replace(SMALL, decode_rows=0, memory_gib=planned / 0.97 / 2**30)
    assert plan_memory(MODEL, config, single_device()).config.decode_rows < 7
    config = dataclasses.replace(config, planned_share=0.9701)
    assert plan_memory(MODEL, config, single_device()).config.decode_rows == 7
    with pytest.raises(ValueError, match=r"planned_share.*1\.5"):
        dataclasses.replace(config, planned_share=1.5)


def test_rows_are_a_multiple_of_the_mesh_and_no_more_than_asked():
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), axis_rules.decode())
    planned = 4 * weights() + 8 * ROW + 11 * (ROW + STEP)
    config = dataclasses.replace(SMALL, decode_rows=0, memory_gib=planned / 0.9 / 2**30)
    assert plan_memory(MODEL, config, sharding).config.decode_rows == 8
    config = dataclasses.replace(SMALL, decode_rows=0, memory_gib=1.0, most_decode_rows=30)
    assert plan_memory(MODEL, config, sharding).config.decode_rows == 28


def test_without_a_setting_the_memory_of_the_host_is_asked():
    config = dataclasses.replace(SMALL, decode_rows=0, most_decode_rows=12)
    plan = plan_memory(MODEL, config, single_device())
    assert plan.config.decode_rows == 12
    assert "of the host" in str(plan)


def test_rows_that_do_not_divide_are_named():
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)), axis_rules.decode())
    config = dataclasses.replace(SMALL, decode_rows=6)
    with pytest.raises(ValueError, match="decode_rows=6 must be a multiple of fsdp = 4"):
        plan_memory(MODEL, config, sharding)


def test_rows_that_do_not_fit_are_refused_with_the_numbers():
    config = dataclasses.replace(SMALL, memory_gib=(weights() + 8 * ROW + 3 * (ROW + STEP)) / 2**30)
    with pytest.raises(ValueError, match=r"8 rows of 64 tokens need 0.00 GiB .* 1 rows? fit"):
        plan_memory(MODEL, config, single_device())
    config = dataclasses.replace(SMALL, decode_rows=0, memory_gib=weights() / 2**30)
    with pytest.raises(ValueError, match=r"0 rows fit into 90% .* raise memory_gib"):
        plan_memory(MODEL, config, single_device())


def test_an_engine_takes_what_fits_and_a_larger_group_waits():
    params = random_params(MODEL)
    planned = weights() + 8 * ROW + 3 * (ROW + STEP) + 100
    config = dataclasses.replace(SMALL, decode_rows=0, memory_gib=planned / 0.9 / 2**30)
    engine = make_engine(MODEL, params, config)
    assert engine.num_free == engine.config.decode_rows == 3
    jobs = random_jobs(5, seed=30)
    rows = run_jobs(engine, jobs)
    wide = run_jobs(make_engine(MODEL, params), jobs)
    assert {name: row.ids for name, row in rows.items()} == {n: r.ids for n, r in wide.items()}


@pytest.mark.parametrize("cache", ["compute_dtype", "int8"])
def test_an_append_copies_its_rows_of_one_layer_at_a_time(cache):
    """All layers at once would not be counted by the plan: 6 of 32 GiB at 32B, 8 rows, 18k tokens."""
    model = dataclasses.replace(MODEL, num_layers=8, cache=cache)
    rows, positions = 4, 8192
    whole = jax.eval_shape(lambda: make_cache(model, 6, positions))
    at, tokens = np.zeros(rows, np.int32), np.zeros((rows, 1), np.int32)
    params = jax.eval_shape(unstack_layers, param_shapes(model))
    memory = programs.append.lower(
        params, whole, at, tokens, at, config=model, view=positions, sharding=single_device()
    )
    temporaries = memory.compile().memory_analysis().temp_size_in_bytes
    # In float32 for int8 as well: so XLA attends to it on CPUs.
    layer = cache_bytes(MODEL, rows, positions) // MODEL.num_layers
    scores = 4 * rows * model.num_heads * positions
    assert temporaries < 2 * layer + 2 * scores
    assert 2 * layer + 2 * scores < cache_bytes(model, rows, positions)
