"""The kernel for TPUs with prompts that stand once, and the blocks that it leaves out. Interpreted on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.model import splash_attention as module
from jaxtool.model.attention import attention, segment_mask
from jaxtool.model.splash_attention import splash_attention
from jaxtool.model.splash_blocks import _meet, _next_busy, busy_blocks
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh

# Two prompts with three and two responses, one segment alone, padding; and a row that is one segment.
LENGTHS = ((150, 40, 60, 30), (70, 50, 40), (30,))
TOKENS = 512


def places() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Segments, positions and prefixes [2, 512]."""
    segments, positions, prefixes = [], [], []
    number = 0
    for prompt, *responses in LENGTHS:
        first = number = number + 1
        segments += [number] * prompt
        positions += range(prompt)
        prefixes += [0] * prompt
        for length in responses:
            number += 1
            segments += [number] * length
            positions += range(prompt, prompt + length)
            prefixes += [first] * length
    rest = TOKENS - len(segments)
    assert rest > 0
    rows = [
        (segments + [0] * rest, [1] * TOKENS),
        (positions + [0] * rest, [*range(TOKENS)]),
        (prefixes + [0] * rest, [0] * TOKENS),
    ]
    return tuple(jnp.asarray(row, jnp.int32) for row in rows)  # pyright: ignore[reportReturnType]


def weighted(attend, q, k, v, weights):
    total = lambda *x: jnp.sum(attend(*x) * weights)  # noqa: E731
    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)


@pytest.mark.parametrize(
    "mesh",
    [None, MeshConfig(fsdp=2, context=2, tensor=2)],
    ids=["one_block", "balanced"],  # two parts of two blocks of 128 tokens each
)
def test_prefixes_equal_xla_in_values_and_gradients(mesh):
    segments, positions, prefixes = places()
    q, k, v, weights = (
        jnp.asarray(np.random.default_rng(i).standard_normal((2, TOKENS, heads, 64)), jnp.float32)
        for i, heads in enumerate((4, 2, 2, 4))
    )
    weights *= (segments != 0)[:, :, None, None]
    sharding = None if mesh is None else Sharding(make_mesh(mesh))
    mask = segment_mask(segments, positions, None, prefixes)
    value, got = weighted(
        lambda *x: splash_attention(
            *x, segments, prefix_ids=prefixes, sharding=sharding, interpret=True
        ),
        *(q, k, v, weights),
    )
    wanted_value, wanted = weighted(lambda *x: attention(*x, mask), q, k, v, weights)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-5)
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_the_next_busy_block_by_hand():
    busy = jnp.asarray([[1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    assert _next_busy(busy).tolist() == [[0, 1, 1], [1, 1, 2], [0, 0, 0]]


def test_blocks_meet_where_a_segment_is_in_both():
    """Blocks of 2: (1 1) (1 2) (2 3) (3 0); the last query block looks at nothing or at segment 1."""
    keys = jnp.asarray([1, 1, 1, 2, 2, 3, 3, 0])
    assert _meet(keys, keys, 2, 2).astype(int).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 1, 1, 1],
        [0, 0, 1, 1],
    ]
    prefixes = jnp.asarray([-1, -1, -1, 1])
    assert _meet(prefixes, keys, 2, 2).astype(int).tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]


def test_blocks_that_are_left_out_change_no_bit():
    """Four segments of a block each: of 10 blocks on or below the diagonal 4 are computed."""
    segments = jnp.repeat(jnp.asarray([1, 2, 3, 0]), 128)
    kernel = module._kernel(512, 2, 1, 4, True)  # chunks of 128 tokens: so are the blocks
    fewer = busy_blocks(kernel, segments, segments)
    for table in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info"):
        counts = [np.count_nonzero(getattr(x, table).block_mask) for x in (kernel, fewer)]
        assert counts == [10, 4]
    q, k, v = (
        jnp.asarray(np.random.default_rng(i).standard_normal(shape), jnp.float32)
        for i, shape in enumerate(((2, 512, 64), (512, 64), (512, 64)))
    )
    ids = module.splash.SegmentIds(segments, segments)
    outs = [weighted(lambda *x, a=a: a(*x, ids), q, k, v, jnp.cos(q)) for a in (kernel, fewer)]
    for x, y in zip(*(jax.tree.leaves(out) for out in outs), strict=True):
        assert np.any(x != 0)
        np.testing.assert_array_equal(x, y)
