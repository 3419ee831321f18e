"""The GPU's kernel over the cache: equal to XLA's in interpret mode, lowered for CUDA without a GPU. Speed is not tested."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from jaxtool.model import attention_backends, paged_attention
from jaxtool.model.attention import cached_attention
from jaxtool.model.config import tiny
from jaxtool.model.kv_cache import LayerCache
from jaxtool.model.pallas_gpu_attention import (
    KERNEL,
    head_obstacle,
    shapes_of,
    split_cached_attention,
    summed_parts,
)
from jaxtool.model.quantize import quantize
from jaxtool.parallel.axis_rules import single_device

# Of numbers around 1. bfloat16: weights are rounded to 8 bits under another highest score than XLA's, and the result is.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}


def cache_of(k, v, dtype, is_int8: bool) -> LayerCache:
    if not is_int8:
        return LayerCache(k.astype(dtype), v.astype(dtype))
    (k_int8, k_scale), (v_int8, v_scale) = quantize(k, (-1,)), quantize(v, (-1,))
    return LayerCache(k_int8, v_int8, k_scale, v_scale)


def inputs(dtype, is_int8, *, rows=3, columns=1, heads=4, kv_heads=2, positions=300, width=32):
    numbers = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(numbers.standard_normal(shape), jnp.float32)

    q = draw(rows, columns, heads, width).astype(dtype)
    shape = (rows, kv_heads, positions, width)
    return q, cache_of(draw(*shape), draw(*shape), dtype, is_int8)


def at(*starts: int, columns: int = 1):
    return jnp.asarray([[start + i for i in range(columns)] for start in starts], jnp.int32)


def check(q, cache, positions):
    dtype = str(q.dtype)
    ours = split_cached_attention(q, cache, positions, interpret=True)
    theirs = cached_attention(q, cache, jnp.minimum(positions, cache.k.shape[2] - 1))
    assert ours.dtype == q.dtype
    ours, theirs = (np.asarray(x, np.float32) for x in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCES[dtype])


@pytest.mark.parametrize(
    ("dtype", "is_int8", "columns"),
    [("float32", False, 1), ("float32", True, 5), ("bfloat16", False, 5), ("bfloat16", True, 1)],
)
def test_it_equals_xla_whatever_the_lengths(dtype, is_int8, columns):
    """A first token, one in the middle of a block, one at the end of a cache that is no multiple of the block."""
    q, cache = inputs(dtype, is_int8, columns=columns)
    check(q, cache, at(0, 130, 300 - columns, columns=columns))


def test_many_queries_are_several_blocks_and_each_sees_its_own_past():
    """40 tokens of 4 heads to a key are 160 queries: blocks of 64, the last of them filled up."""
    q, cache = inputs("float32", False, rows=2, columns=40, heads=4, kv_heads=1)
    check(q, cache, at(0, 200, columns=40))


def test_positions_beyond_the_cache_are_its_last():
    q, cache = inputs("float32", False, rows=2)
    check(q, cache, at(299, 400))


def test_what_lies_beyond_a_row_is_not_read():
    """NaN there would come through any product."""
    q, cache = inputs("float32", False, positions=512)
    lengths = (64, 128, 256)
    blank = jnp.arange(512)[None, None, :, None] >= jnp.asarray(lengths)[:, None, None, None]
    spoiled = LayerCache(*(jnp.where(blank, jnp.nan, x) for x in (cache.k, cache.v)))
    _, block, _ = shapes_of(3, 2, 2, 512, 32, 4)
    assert all(length % block == 0 for length in lengths[1:])
    positions = at(*(length - 1 for length in lengths))
    ours = split_cached_attention(
        q[1:], LayerCache(spoiled.k[1:], spoiled.v[1:]), positions[1:], interpret=True
    )
    theirs = cached_attention(q[1:], LayerCache(cache.k[1:], cache.v[1:]), positions[1:])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours():
    """The same program with the same shapes: to the bit."""
    q, cache = inputs("bfloat16", True)
    run = jax.jit(lambda p: split_cached_attention(q, cache, p, interpret=True))
    first, second = run(at(5, 100, 250)), run(at(290, 100, 7))
    np.testing.assert_array_equal(*(np.asarray(x[1], np.float32) for x in (first, second)))


def test_the_sum_over_parts_by_hand():
    """The example of the module's first lines; a third part without positions changes nothing."""
    highest = jnp.asarray([2.0, 3.0, -1e30]).reshape(1, 1, 1, 3, 1)
    total = jnp.asarray([1 + np.exp(-1), 1.0, 0.0]).reshape(1, 1, 1, 3, 1)
    values = jnp.asarray([20 + 10 * np.exp(-1), 30.0, 0.0]).reshape(1, 1, 1, 3, 1, 1)
    weights = np.exp([1.0, 2.0, 3.0])
    expected = weights @ [10, 20, 30] / weights.sum()
    assert expected == pytest.approx(25.75, abs=0.01)
    np.testing.assert_allclose(summed_parts(values, highest, total).ravel(), [expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 4, 7, 16_384, 128, 2), (16, 64, 8)),
        ((64, 4, 7, 16_384, 128, 2), (16, 64, 1)),
        ((1, 8, 4, 32_768, 128, 2), (16, 64, 32)),
        ((1, 1, 1, 100, 64, 2), (16, 128, 1)),  # nothing worth a second part
        ((4, 2, 640, 2048, 128, 4), (64, 32, 3)),
        ((2, 2, 1, 1024, 256, 4), (16, 16, 4)),
    ],
)
def test_shapes(shape, expected):
    assert shapes_of(*shape) == expected


@pytest.mark.parametrize("width", [8, 96, 512])
def test_widths_that_cannot_be_served_are_named(width):
    assert f"head_dim={width} is no power of two" in (head_obstacle(width) or "")
    assert head_obstacle(128) is None


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a model on one GPU."""

    rows: int
    columns: int
    heads: int
    kv_heads: int
    positions: int


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("shape", "is_int8"),
    [
        (Shape(32, 1, 28, 4, 8192), False),
        (Shape(4, 128, 28, 4, 8320), True),
        (Shape(1, 8, 40, 8, 18_432), True),
    ],
    ids=["step", "append", "long"],
)
def test_it_is_lowered_for_cuda_without_a_gpu(shape, is_int8):
    """As far as jax goes without one: the kernel is a program of Triton's in the module. Nothing is compiled.

    jax 0.12 wants to know the GPU, and takes one that is not there.
    """
    b, s, kv = shape.rows, shape.positions, shape.kv_heads

    def of(dtype, *dims):
        return jax.ShapeDtypeStruct(dims, dtype)

    values = of(jnp.int8 if is_int8 else jnp.bfloat16, b, kv, s, 128)
    scales = [of(jnp.float32, b, kv, s)] * 2 * is_int8
    h100 = AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    with use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=h100)):
        traced = jax.jit(split_cached_attention).trace(
            of(jnp.bfloat16, b, shape.columns, shape.heads, 128),
            LayerCache(values, values, *scales),
            of(jnp.int32, b, shape.columns),
        )
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "triton" in text
    assert KERNEL in text


@pytest.fixture
def asked(monkeypatch):
    """A model that asks for the kernel, as on a GPU; the kernel's operations run one by one."""
    for module in (attention_backends, paged_attention):
        monkeypatch.setattr(module, "cached_backend", lambda *_: "pallas_gpu")
    kernel = functools.partial(split_cached_attention, interpret=True)
    monkeypatch.setattr(attention_backends, "split_cached_attention", kernel)
    return dataclasses.replace(tiny(64), attention="pallas_gpu")


def test_the_backend_takes_it_for_contiguous_and_for_paged_caches(asked):
    """Two rows of up to two pages of 128 positions; the pages hold what the rows hold."""
    q, cache = inputs("float32", False, rows=2, positions=256)
    positions = at(40, 200)
    expected = cached_attention(q, cache, positions)
    got = attention_backends.attend_to_cache(q, cache, positions, asked, single_device())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    table = jnp.asarray([[3, 1], [0, 2]], jnp.int32)

    def pages_of(x):  # [B, K, 2 x 128, H] -> [P, K, 128, H], page table[b, i] is part i of row b
        parts = x.reshape(2, 2, 2, 128, -1).swapaxes(1, 2).reshape(4, 2, 128, -1)
        return jnp.zeros_like(parts).at[table.ravel()].set(parts)

    def token(x):  # its key and value, to be written where they are already
        rows = x[jnp.arange(2), :, positions[:, 0]]
        return rows[:, None]

    paged, _ = paged_attention.write_and_attend_to_pages(
        *(q, token(cache.k), token(cache.v), LayerCache(pages_of(cache.k), pages_of(cache.v))),
        *(positions, table, asked, single_device()),
    )
    np.testing.assert_allclose(paged, expected, rtol=0, atol=1e-5)
