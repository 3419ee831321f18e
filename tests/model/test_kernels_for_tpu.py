"""The TPU kernels compiled ahead for real slices, forward and backward, on one chip and sharded over four.

Nothing runs: the TPU compiler of `pip install libtpu` says whether a slice would take the program.
"""

import dataclasses
import importlib.util
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, next_token_loss
from jax.experimental import topologies

from jaxtool.model.kv_cache import LayerCache, make_cache
from jaxtool.model.pallas_attention import (
    flash_cached_attention,
    flash_paged_attention,
    flash_writing_attention,
)
from jaxtool.model.param_axes import param_axes, param_shapes
from jaxtool.model.splash_attention import splash_attention
from jaxtool.model.transformer import cached_hidden_states, unstack_layers
from jaxtool.parallel.axis_rules import AxisRules, Sharding, decode
from jaxtool.parallel.mesh import AXES

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed: pip install libtpu",
)

MODEL = dataclasses.replace(
    FAMILIES["qwen2"],
    d_model=256,
    d_ff=512,
    head_dim=128,
    vocab_size=512,
    compute_dtype="bfloat16",
    attention="pallas_tpu",
)
ROWS, SLOTS = 8, 256


def sharding_on(topology: str, shape: tuple[int, ...], rules: AxisRules) -> Sharding:
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # do not ask the cloud what machine this is
    slice_ = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    devices = np.array(slice_.devices[: int(np.prod(shape))]).reshape(shape)
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return Sharding(jax.sharding.Mesh(devices, AXES, axis_types=types), rules)


def shapes(sharding: Sharding, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding.named("batch", None))


def params_on(sharding: Sharding) -> dict:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        param_shapes(MODEL),
        sharding.tree(param_axes(param_shapes(MODEL))),
    )


@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 1, 2), (1, 1, 2, 2)], ids=str)
def test_splash_attention_of_a_gradient_compiles(topology, shape):
    """Rows of four blocks of 128 tokens: over two devices (context) each has an early and a late one."""
    sharding = sharding_on(topology, shape, AxisRules())
    gradient = jax.jit(jax.grad(next_token_loss), static_argnums=(1, 3))
    compiled = gradient.lower(
        params_on(sharding), MODEL, shapes(sharding, ROWS, 512), sharding
    ).compile()
    text = compiled.as_text()
    assert text.count("tpu_custom_call") >= 3  # forward, queries' and keys' gradients
    is_split = shape[AXES.index("context")] > 1
    assert not is_split or "collective-permute" in text  # chunks change places


@pytest.mark.parametrize(
    ("topology", "shape"), [("v5e:2x2", (1, 1, 1, 1)), ("v6e:2x2", (1, 1, 2, 2))], ids=str
)
def test_splash_attention_with_shared_prompts_compiles(topology, shape):
    """Two calls forward and two backward, whose tables of blocks are made from segments and prefixes."""
    sharding = sharding_on(topology, shape, AxisRules())

    def total(q, k, v, segments, prefixes):
        out = splash_attention(q, k, v, segments, prefix_ids=prefixes, sharding=sharding)
        return jnp.sum(out.astype(jnp.float32))

    def heads(count: int) -> jax.ShapeDtypeStruct:
        on = sharding.named("batch", "queries", None, None)
        return jax.ShapeDtypeStruct((2, 1024, count, 128), jnp.bfloat16, sharding=on)

    ids = shapes(sharding, 2, 1024)
    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    compiled = gradient.lower(heads(4), heads(2), heads(2), ids, ids).compile()
    assert compiled.as_text().count("tpu_custom_call") >= 6


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@pytest.mark.parametrize("cache", ["compute_dtype", "int8"])
@pytest.mark.parametrize(("heads", "group", "columns"), [(2, 5, 1), (8, 1, 4), (1, 8, 200)])
def test_the_kernel_over_a_cache_compiles_at_the_shapes_of_runs(
    topology, cache, heads, group, columns
):
    """18 432 positions in blocks of 2048, and 4992 in blocks that end beyond the cache."""
    on = sharding_on(topology, (1, 1, 1, 1), decode()).named()

    def array(dtype: str, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=on)

    for positions in (18432, 4992):
        values = array("int8" if cache == "int8" else "bfloat16", 4, heads, positions, 128)
        scale = array("float32", 4, heads, positions) if cache == "int8" else None
        arguments = (
            array("bfloat16", 4, columns, heads * group, 128),
            LayerCache(values, values, scale, scale),
            array("int32", 4, columns),
        )
        programs = [jax.jit(flash_cached_attention).lower(*arguments)]
        if cache == "int8" and columns == 1:
            new = array("float32", 4, heads)
            writing = jax.jit(flash_writing_attention, donate_argnames="cache")
            programs.append(writing.lower(*arguments, (new, new)))
        for program in programs:
            text = program.compile().as_text()
            assert text.count("tpu_custom_call") == 1
            # Values and scales are read and written as they lie: no copy of them is made.
            assert not re.search(rf"\[4,{heads},{positions}[,\]].* copy\(", text)


@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("cache", ["compute_dtype", "int8"])
@pytest.mark.parametrize(("page", "columns"), [(2048, 1), (1024, 1), (1024, 128)])
def test_the_kernel_over_pages_compiles_at_the_shapes_of_runs(topology, cache, page, columns):
    """Rows of 18 432 positions in a pool that is read and written as it lies."""
    on = sharding_on(topology, (1, 1, 1, 1), decode()).named()

    def array(dtype: str, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=on)

    rows, pages = (104, 400) if columns == 1 else (8, 400)
    values = array("int8" if cache == "int8" else "bfloat16", pages, 2, page, 128)
    scale = array("float32", pages, 2, page) if cache == "int8" else None
    new = array("float32", rows, 2)
    arguments = (
        array("bfloat16", rows, columns, 10, 128),
        LayerCache(values, values, scale, scale),
        array("int32", rows, columns),
        array("int32", rows, 18432 // page),
        (new, new) if cache == "int8" and columns == 1 else None,
    )
    program = jax.jit(flash_paged_attention, donate_argnames="cache").lower(*arguments).compile()
    text = program.as_text()
    assert text.count("tpu_custom_call") == 1
    assert not re.search(rf"\[{pages},2,{page}[,\]].* copy\(", text)


@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize("cache", ["compute_dtype", "int8"])
@pytest.mark.parametrize(
    ("shape", "columns", "view"),
    [((1, 1, 1, 1), 1, SLOTS), ((1, 1, 1, 1), 200, SLOTS), ((1, 2, 1, 2), 1, 2 * SLOTS)],
    ids=str,
)
def test_cached_attention_of_a_decode_step_compiles(topology, cache, shape, columns, view):
    sharding = sharding_on(topology, shape, decode())
    config = dataclasses.replace(MODEL, cache=cache)

    def step(params, tokens, positions, cache):
        return cached_hidden_states(
            unstack_layers(params), config, tokens, positions, cache, view=view, sharding=sharding
        )

    def positions(x):
        axes = ("batch", "kv_heads", *(None,) * (x.ndim - 2))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.named(*axes))

    compiled = (
        jax.jit(step)
        .lower(
            params_on(sharding),
            shapes(sharding, ROWS, columns),
            shapes(sharding, ROWS, columns),
            jax.tree.map(positions, jax.eval_shape(lambda: make_cache(config, ROWS, 2 * SLOTS))),
        )
        .compile()
    )
    assert compiled.as_text().count("tpu_custom_call") == config.num_layers
