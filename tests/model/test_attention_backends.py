"""Every attention backend gives what XLA gives; what cannot run here says why. Kernels run interpreted."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES

from jaxtool.model import pallas_attention
from jaxtool.model.attention import attention, cached_attention, segment_mask
from jaxtool.model.attention_backends import (
    attend_to_cache,
    cached_backend,
    fused_attention,
    keys_go_first,
    needs_no_view,
    training_backend,
    writes_by_select,
)
from jaxtool.model.kv_cache import LayerCache, write, write_values
from jaxtool.model.pallas_attention import (
    blocks_of,
    flash_cached_attention,
    flash_writing_attention,
    walk_of,
    walk_step,
)
from jaxtool.model.quantize import quantize
from jaxtool.model.splash_attention import splash_attention
from jaxtool.parallel.axis_rules import single_device

WIDE = dataclasses.replace(FAMILIES["qwen2"], head_dim=128)


def normal(seed: int, *shape: int, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def cache_of(
    rows: int, positions: int, *, dtype: str = "float32", int8: bool = False
) -> LayerCache:
    k, v = (
        normal(1, rows, 2, positions, 128, dtype=dtype),
        normal(2, rows, 2, positions, 128, dtype=dtype),
    )
    if not int8:
        return LayerCache(k, v)
    (k, k_scale), (v, v_scale) = quantize(k, (-1,)), quantize(v, (-1,))
    return LayerCache(k, v, k_scale, v_scale)


@pytest.mark.parametrize(
    ("columns", "positions", "dtype", "int8", "tolerance"),
    [
        (1, 384, "float32", False, 2e-6),  # one block of positions
        (1, 4096, "float32", False, 2e-6),  # two
        (5, 2176, "float32", False, 2e-6),  # two of 1152: the second ends beyond the cache
        (
            300,
            4096,
            "float32",
            False,
            2e-6,
        ),  # two blocks of queries, the last padded; 8 of positions
        (1, 4096, "bfloat16", False, 2e-2),
        (4, 2176, "bfloat16", False, 2e-2),
        (1, 4096, "float32", True, 5e-6),
        (5, 2176, "float32", True, 5e-6),
        (1, 4096, "bfloat16", True, 2e-2),
        (4, 4096, "bfloat16", True, 2e-2),
    ],
)
def test_flash_kernel_equals_xla_over_a_cache(columns, positions, dtype, int8, tolerance):
    """Rows that end at and beside the edges of blocks; garbage beyond each."""
    rows = 5
    q = normal(0, rows, columns, 4, 128, dtype=dtype)
    cache = cache_of(rows, positions, dtype=dtype, int8=int8)
    edge = positions // 2
    # The last row runs over the cache's end.
    starts = np.array([0, edge - 1, edge, 127, positions - 1])[:, None]
    at = jnp.asarray(starts + np.arange(columns), jnp.int32)
    got = flash_cached_attention(q, cache, at, interpret=True)
    wanted = cached_attention(q, cache, at)
    assert got.dtype == wanted.dtype
    got, wanted = (np.asarray(x, np.float32) for x in (got, wanted))
    assert np.std(wanted) > 0.02
    np.testing.assert_allclose(got, wanted, atol=tolerance)


@pytest.mark.parametrize("positions", [384, 4096, 2176])
def test_the_kernel_writes_scales_as_a_scatter_does(positions):
    """Rows that end at the edges of blocks; the last is beyond the cache and is not written."""
    cache, q = cache_of(5, positions, int8=True), normal(0, 5, 1, 4, 128)
    k, v = normal(5, 5, 1, 2, 128), normal(6, 5, 1, 2, 128)
    edge = positions // 2
    at = jnp.asarray([0, edge - 1, edge, positions - 1, positions], jnp.int32)[:, None]
    wanted = write(cache, k, v, at)
    values, scales = write_values(cache, k, v, at)
    out, got = flash_writing_attention(q, values, at, scales, interpret=True)
    assert not np.array_equal(wanted.k_scale, cache.k_scale)
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(x, y)
    plain = flash_cached_attention(q, wanted, at, interpret=True)
    np.testing.assert_array_equal(out, plain)


def test_a_row_does_not_depend_on_its_neighbours_lengths():
    """Bit for bit: other rows move its steps to another place of the walk, and to the other part of it."""
    q, cache = normal(0, 4, 1, 4, 128), cache_of(4, 4096)

    def third(*lengths: int) -> np.ndarray:
        at = jnp.asarray(lengths, jnp.int32)[:, None]
        return np.asarray(flash_cached_attention(q, cache, at, interpret=True))[2]

    alone = third(0, 0, 3000, 0)
    np.testing.assert_array_equal(third(4095, 4095, 3000, 4095), alone)
    np.testing.assert_array_equal(third(7, 2048, 3000, 1), alone)


@pytest.mark.nightly
def test_rows_are_split_where_the_walk_would_not_fit_the_scalar_memory(monkeypatch):
    q, cache = normal(0, 5, 9, 4, 128), cache_of(5, 2176)
    at = jnp.asarray(np.array([0, 2000, 40, 1151, 1152])[:, None] + np.arange(9), jnp.int32)
    whole = flash_cached_attention(q, cache, at, interpret=True)
    monkeypatch.setattr(pallas_attention, "_MOST_STEPS", 4)  # of 5 rows x 2 blocks
    np.testing.assert_array_equal(flash_cached_attention(q, cache, at, interpret=True), whole)


def test_a_walk_by_hand():
    """The docstring's example: 1, 3 and 2 blocks of positions, of 4 that there are."""
    first, queries, block, last = walk_of(jnp.asarray([0, 2, 1], jnp.int32), 4)
    assert first.tolist() == [0, 4, 6]
    assert queries.tolist()[:6] == [0, 1, 1, 1, 2, 2]
    assert block.tolist()[:6] == [0, 0, 1, 2, 0, 1]
    assert len(queries) == len(block) == 3 * 4
    assert last.tolist() == [0, 2, 1]
    assert walk_of(jnp.asarray([2], jnp.int32), 3).first.tolist() == [0, 3]  # nothing to share
    # Three rounds of copies before the work, and a part that has two steps less.
    rounds = [[int(walk_step(part, t - 3, first)) for t in range(7)] for part in (0, 1)]
    assert rounds == [[0, 0, 0, 0, 1, 2, 3], [4, 4, 4, 4, 5, 5, 5]]


@pytest.mark.parametrize(
    ("positions", "heads", "queries", "wanted"),
    [
        (18432, 2, 8, 2048),
        (3584, 2, 8, 1792),
        (2176, 2, 8, 1152),
        (128, 2, 8, 128),
        (18432, 8, 8, 1024),  # 8 heads x 1024 x 128 x 2 bytes are 2 MiB
        (18432, 2, 512, 512),  # 512 x 512 scores of 4 bytes are 1 MiB
    ],
)
def test_blocks_of_positions_by_hand(positions, heads, queries, wanted):
    """Keys of bfloat16, 128 wide."""
    assert blocks_of(queries, positions, heads * 128 * 2) == (queries, wanted)


def packed_rows() -> tuple[jax.Array, jax.Array]:
    """Two segments and padding that end inside a block; one row that is a single segment."""
    lengths = ((100, 90, 66), (256,))
    segments = [np.repeat(np.arange(1, len(row) + 1), row) for row in lengths]
    segments[0][segments[0] == 3] = 0
    positions = [np.concatenate([np.arange(n) for n in row]) for row in lengths]
    return jnp.asarray(np.stack(segments), jnp.int32), jnp.asarray(np.stack(positions), jnp.int32)


@pytest.mark.parametrize("backend", ["splash", "fused"])
def test_training_kernels_equal_xla_in_values_and_gradients(backend):
    segments, positions = packed_rows()
    q, k, v = normal(0, 2, 256, 4, 64), normal(1, 2, 256, 2, 64), normal(2, 2, 256, 2, 64)
    mask = segment_mask(segments, positions)
    weights = normal(3, 2, 256, 4, 64) * (segments != 0)[:, :, None, None]
    attends = {
        "splash": lambda q, k, v: splash_attention(q, k, v, segments, interpret=True),
        "fused": lambda q, k, v: fused_attention(q, k, v, mask=mask, implementation="xla"),
    }

    def weighted(attend):
        return jax.value_and_grad(lambda *x: jnp.sum(attend(*x) * weights), argnums=(0, 1, 2))

    value, gradients = weighted(attends[backend])(q, k, v)
    wanted, wanted_gradients = weighted(lambda *x: attention(*x, mask))(q, k, v)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for got, expected in zip(gradients, wanted_gradients, strict=True):
        assert np.any(expected != 0)
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-4)


def mesh_of(platform: str, parts: int = 1):
    """As much of a Sharding as choosing a backend looks at."""
    return SimpleNamespace(
        mesh=SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]), size=parts),
        parts=lambda axis: parts,
    )


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("queries", [1, 3])
def test_keys_first_is_the_same_up_to_rounding(queries, int8):
    cache = cache_of(4, 256, int8=int8)
    q = normal(0, 4, queries, 4, 128)
    positions = jnp.asarray(np.array([0, 7, 130, 250])[:, None] + np.arange(queries), jnp.int32)
    plain = cached_attention(q, cache, positions)
    np.testing.assert_allclose(
        cached_attention(q, cache, positions, keys_first=True), plain, rtol=2e-5, atol=2e-6
    )


def test_keys_go_first_in_a_step_over_many_keys_in_float32_on_a_cpu():
    """4 x 2 heads x 256 positions x 128 numbers of 4 bytes are 1 MiB, which still is near."""
    cache, q = cache_of(4, 257), normal(0, 4, 1, 4, 128)
    assert keys_go_first(q, cache, single_device())
    assert not keys_go_first(q, cache_of(4, 256), single_device())
    assert keys_go_first(q, cache_of(4, 257, int8=True), single_device())
    assert not keys_go_first(q.astype("bfloat16"), cache, single_device())
    assert not keys_go_first(normal(0, 4, 2, 4, 128), cache, single_device())
    assert not keys_go_first(q, cache, mesh_of("tpu"))
    assert not keys_go_first(q, cache, mesh_of("cpu", 2))  # each device holds half of them
    assert keys_go_first(q, cache_of(4, 514), mesh_of("cpu", 2))
    text = str(
        jax.make_jaxpr(
            lambda q: attend_to_cache(q, cache, jnp.zeros((4, 1), int), WIDE, single_device())
        )(q)
    )
    assert "optimization_barrier" in text


def test_few_tokens_go_into_a_bfloat16_cache_on_a_cpu_by_choice():
    """A scatter there converts the whole cache to float32 and back."""
    half = cache_of(4, 16, dtype="bfloat16")
    assert writes_by_select(1, half, single_device())
    assert writes_by_select(8, half, single_device())
    assert not writes_by_select(9, half, single_device())
    assert not writes_by_select(1, cache_of(4, 16), single_device())
    assert not writes_by_select(1, cache_of(4, 16, int8=True), single_device())
    assert not writes_by_select(1, half, mesh_of("tpu"))


def test_auto_takes_the_kernel_on_a_tpu_where_its_shapes_allow_it_and_xla_elsewhere():
    narrow = dataclasses.replace(WIDE, head_dim=64)
    half = dataclasses.replace(WIDE, compute_dtype="bfloat16")
    for choose in (training_backend, cached_backend):
        assert choose(WIDE, 256, mesh_of("tpu")) == "pallas_tpu"
        assert choose(WIDE, 200, mesh_of("tpu")) == "xla"
        assert choose(narrow, 256, mesh_of("tpu")) == "xla"
        assert choose(half, 256, mesh_of("gpu")) == "xla"
        assert choose(WIDE, 256, single_device()) == "xla"
    asked = dataclasses.replace(half, attention="cudnn")
    assert training_backend(asked, 200, mesh_of("gpu")) == "cudnn"
    with pytest.raises(ValueError, match="packed rows are sharded over their tokens"):
        training_backend(asked, 200, mesh_of("gpu", 2))
    assert training_backend(WIDE, 256, mesh_of("tpu", 4)) == "xla"  # parts of 64 tokens
    with pytest.raises(ValueError, match=r"cannot serve decoding: it has no kernel over a cache"):
        cached_backend(asked, 256, mesh_of("gpu"))


def test_the_gpus_kernel_over_the_cache_is_chosen_on_request():
    asked = dataclasses.replace(WIDE, attention="pallas_gpu")
    for positions in (200, 256):
        assert cached_backend(asked, positions, mesh_of("gpu")) == "pallas_gpu"
        assert cached_backend(WIDE, positions, mesh_of("gpu")) == "xla"
    assert needs_no_view(200, asked, mesh_of("gpu"))
    assert not needs_no_view(200, WIDE, mesh_of("gpu"))
    with pytest.raises(ValueError, match="cannot serve decoding: it needs a gpu, the mesh is of c"):
        cached_backend(asked, 256, single_device())
    odd = dataclasses.replace(asked, head_dim=96)
    with pytest.raises(
        ValueError, match="head_dim=96 is no power of two from 16 to 256; use 'auto'"
    ):
        cached_backend(odd, 256, mesh_of("gpu"))


@pytest.mark.parametrize(
    ("attention", "head_dim", "length", "platform", "words"),
    [
        ("pallas_tpu", 128, 256, "cpu", "needs a tpu, the mesh is of cpu devices"),
        ("pallas_tpu", 64, 256, "tpu", "head_dim=64 is no multiple of 128"),
        ("pallas_tpu", 128, 200, "tpu", "length=200 is no multiple of 128"),
        ("cudnn", 128, 256, "cpu", "needs a gpu, the mesh is of cpu devices"),
        ("cudnn", 128, 256, "gpu", "takes bfloat16, compute_dtype is float32"),
        ("pallas_gpu", 128, 256, "gpu", "it has no gradient: DecoderNumerics.attention takes it"),
    ],
)
def test_a_backend_that_cannot_serve_is_refused_with_the_reason(
    attention, head_dim, length, platform, words
):
    config = dataclasses.replace(WIDE, attention=attention, head_dim=head_dim)
    with pytest.raises(ValueError, match=words) as caught:
        training_backend(config, length, mesh_of(platform))
    assert "use 'auto' or 'xla'" in str(caught.value)
