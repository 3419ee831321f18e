"""A lookup in a sharded table gives the rows of the whole one, and moves no table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.model.cut_table import looked_up, looked_up_in_parts
from jaxtool.model.int8_params import quantize_layers
from jaxtool.model.quantize import Int8Weight
from jaxtool.parallel.axis_rules import Sharding, decode
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MESHES = {
    "tensor2": MeshConfig(data=2, fsdp=2, tensor=2),
    "tensor8": MeshConfig(data=1, fsdp=1, tensor=8),
}
V, D = 48, 6


def table_of(kind: str, sharding: Sharding) -> tuple[jax.Array | Int8Weight, jnp.dtype]:
    table = jax.random.normal(jax.random.key(1), (V, D))
    if kind == "int8":
        quantised = quantize_layers({"embedding": table})["embedding"]
        layout = Int8Weight(sharding.named("vocab", None), sharding.named("vocab"))  # pyright: ignore[reportArgumentType]
        return jax.device_put(quantised, layout), jnp.dtype(jnp.bfloat16)
    dtype = jnp.dtype(kind)
    return jax.device_put(table.astype(dtype), sharding.named("vocab", None)), dtype


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("rows", [4, 3], ids=["rows divide", "rows do not divide"])
def test_rows_are_those_of_the_whole_table(mesh, kind, rows):
    """Bit for bit: of each sum over devices all terms but one are zero."""
    sharding = Sharding(make_mesh(MESHES[mesh]), decode())
    table, dtype = table_of(kind, sharding)
    tokens = np.random.default_rng(0).integers(0, V, (rows, 5)).astype(np.int32)
    tokens[0, :3] = 0, V - 1, V // 2  # the ends of parts
    in_parts = jax.jit(functools.partial(looked_up_in_parts, dtype=dtype, sharding=sharding))
    got = in_parts(table, tokens)
    assert (got.shape, got.dtype) == ((rows, 5, D), dtype)
    whole = looked_up(jax.tree.map(np.asarray, table), tokens, dtype)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(whole))


def test_no_table_travels():
    sharding = Sharding(make_mesh(MESHES["tensor2"]), decode())
    table, dtype = table_of("bfloat16", sharding)
    in_parts = jax.jit(functools.partial(looked_up_in_parts, dtype=dtype, sharding=sharding))
    text = in_parts.lower(table, np.zeros((4, 1), np.int32)).compile().as_text() or ""
    assert "all-reduce" in text
    assert "all-gather" not in text
