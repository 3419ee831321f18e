"""The balanced split of rows: who works on which chunk, there and back, and the same work for all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxtool.model import splash_attention
from jaxtool.model.attention import attention, segment_mask
from jaxtool.model.split_attention import split_attention
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.parallel.zigzag import from_zigzag, to_zigzag, zigzag_columns


@pytest.mark.parametrize(
    ("length", "parts", "columns"),
    [
        (4, 2, [0, 3, 1, 2]),
        (6, 3, [0, 5, 1, 4, 2, 3]),
        (8, 2, [0, 1, 6, 7, 2, 3, 4, 5]),
        (2, 1, [0, 1]),
    ],
)
def test_columns_by_hand(length, parts, columns):
    assert zigzag_columns(length, parts).tolist() == columns


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_devices_exchange_chunks_and_give_them_back(parts):
    mesh = make_mesh(MeshConfig(context=parts, fsdp=1), jax.devices()[:parts])
    row = jnp.arange(4 * parts)[None]
    spec = PartitionSpec(None, "context")
    exchange = functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec)
    there = exchange(lambda x: to_zigzag(x, ("context",), parts))(row)
    assert there[0].tolist() == zigzag_columns(4 * parts, parts).tolist()
    back = exchange(lambda x: from_zigzag(x, ("context",), parts))(there)
    assert back.tolist() == row.tolist()


@pytest.mark.parametrize("table", ["fwd_mask_info", "dkv_mask_info"])
def test_every_device_has_the_same_blocks_to_compute(table):
    """P = 4 of one row of 8 blocks: 2P + 1 = 9 each; contiguous parts have 1 + 2, 3 + 4, 5 + 6 and 7 + 8."""

    def work(chunks: int) -> list[int]:
        kernel = splash_attention._kernel(8192, 1, 4, chunks, True)
        blocks = np.asarray(getattr(kernel, table).block_mask)[0]  # 0: skipped
        return [int(np.count_nonzero(part)) for part in np.split(blocks, 4)]

    assert work(chunks=8) == [9, 9, 9, 9]
    assert work(chunks=4) == [3, 7, 11, 15]


@pytest.mark.parametrize("length", [16, 12], ids=["balanced", "contiguous"])
@pytest.mark.parametrize("block", [None, 3])
def test_split_attention_is_attention(length, block):
    numbers = np.random.default_rng(0)
    q, k, v, weights = (
        jnp.asarray(numbers.standard_normal((2, length, heads, 8)), jnp.float32)
        for heads in (4, 2, 2, 4)
    )
    segments = jnp.asarray([[1] * 7 + [2] * (length - 7), [1] * length], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length), (2, length))
    sharding = Sharding(make_mesh(MeshConfig(fsdp=2, context=4)))
    split = split_attention(block, (segments, positions), sharding)
    mask = segment_mask(segments, positions)

    def gradients(attend):
        total = lambda *x: jnp.sum(attend(*x) * weights)  # noqa: E731
        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    (value, got), (wanted_value, wanted) = (
        gradients(split),
        gradients(lambda q, k, v: attention(q, k, v, mask)),
    )
    np.testing.assert_allclose(value, wanted_value, rtol=1e-5)
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
