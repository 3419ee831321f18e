"""The table of programs: shapes stand for arrays, and a plan's programs are among the engine's."""

import dataclasses

import jax
import numpy as np
from helpers.decoding import SMALL, make_engine
from helpers.tiny_models import FAMILIES, VOCAB, random_params

from jaxtool.decode.program_table import ProgramTable
from jaxtool.model.transformer import unstack_layers
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MODEL = FAMILIES["qwen3"]
CONFIG = dataclasses.replace(
    SMALL, cache_rows=16, decode_rows=8, min_decode_rows=4, prefill_chunk=16, min_view=32
)


def test_programs_from_shapes_are_those_from_the_engines_arrays():
    """Lowered for eight devices, with every sharding in the text."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    engine = make_engine(MODEL, random_params(MODEL), CONFIG, Sharding(mesh, axis_rules.decode()))
    table = engine._table
    assert engine._params is not None
    arrays = dataclasses.replace(
        table, params=engine._params, cache=engine._cache, is_stop=engine._is_stop
    )
    shapes = dataclasses.replace(
        table,
        params=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), engine._params
        ),
        cache=table.cache_shapes(),
        is_stop=table.is_stop_shape(),
    )
    pairs = zip(shapes.largest("plain", 40), arrays.largest("plain", 40), strict=True)
    for from_shapes, from_arrays in pairs:
        assert from_shapes.key == from_arrays.key
        text = from_shapes.trace().lower().as_text()
        assert text == from_arrays.trace().lower().as_text()
        assert "sharding" in text


def test_what_a_plan_takes_is_compiled_ahead_and_nothing_is_listed_twice():
    table = ProgramTable(model=MODEL, config=CONFIG, sharding=axis_rules.single_device())
    keys = [program.key for program in table.all(("plain", "mixed"), 40)]
    assert len(keys) == len(set(keys))
    largest = [program.key for program in table.largest("plain", 40)]
    assert largest == [("window", 8, 64, "plain"), ("prefill", 64), ("place", 64), ("append", 64)]
    assert set(largest) <= set(keys)
    assert {key[:2] for key in keys if key[0] == "window"} == {("window", 4), ("window", 8)}
    short = {program.key for program in table.all(("plain",), 17)}
    assert ("prefill", 16) in short  # all but the last of 17 tokens are run
    assert ("prefill", 32) not in short
    assert ("place", 32) not in short


def test_a_traced_program_runs_as_it_is_called():
    """`arguments` are in the order in which the function takes them."""
    model = dataclasses.replace(MODEL, num_layers=1)
    table = ProgramTable(model=model, config=SMALL, sharding=axis_rules.single_device())
    table = dataclasses.replace(
        table,
        params=jax.jit(unstack_layers)(random_params(model)),
        cache=table.empty_cache(),
        is_stop=np.zeros(VOCAB, bool),
    )
    window = table.window(SMALL.decode_rows, SMALL.max_tokens, "greedy")
    cache, rows, log = window(*window.arguments())
    assert int(log.steps) == 0  # every row is idle
    assert rows.lengths.tolist() == [0] * SMALL.decode_rows
    assert jax.tree.map(np.shape, cache) == jax.tree.map(np.shape, table.cache_shapes())
