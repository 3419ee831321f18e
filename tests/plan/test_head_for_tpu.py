"""What the head of a learner sends on a TPU slice, by the real TPU compiler, which runs on a CPU."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from jaxtool.model.token_logprobs import token_logprobs
from jaxtool.parallel.axis_rules import AxisRules, Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.plan.chips import parse_slice, slice_devices
from jaxtool.plan.hlo import collectives

ROWS, TOKENS, WIDTH, WORDS = 4, 2048, 512, 16_384

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'libtpu>=0.0.50' flatbuffers in Python 3.12",
)


def gathered_bytes(chunk: int) -> float:
    """That a device sends for all-gathers in both passes, with rows sharded over the tensor axis too."""
    rules = dataclasses.replace(AxisRules(), length=("context", "tensor"))
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=4), slice_devices(parse_slice("v6e-8")))
    sharding = Sharding(mesh, rules)

    def of(shape, dtype, *axes):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.named(*axes))

    def total(hidden, head, targets, wanted):
        options = {"chunk": chunk, "shards": 2, "sharding": sharding}
        found = token_logprobs(hidden, head, targets, temperature=1.0, wanted=wanted, **options)
        return jnp.sum(found[0])

    arguments = (
        of((ROWS, TOKENS, WIDTH), jnp.bfloat16, "batch", "length", None),
        of((WIDTH, WORDS), jnp.float32, "embed", "vocab"),
        of((ROWS, TOKENS), jnp.int32, "batch", "length"),
        of((ROWS, TOKENS), jnp.bool_, "batch", "length"),
    )
    gradient = jax.jit(
        jax.grad(total, (0, 1)), out_shardings=tuple(x.sharding for x in arguments[:2])
    )
    found = collectives(gradient.lower(*arguments).compile().as_text() or "")
    return sum(one.sent_bytes for one in found if one.kind == "all-gather")


def test_the_head_and_a_devices_rows_are_gathered_once_not_for_every_chunk():
    """By itself the compiler gathers both anew in the body of each loop."""
    head, rows = WIDTH * WORDS // 4 * 2, ROWS // 2 * TOKENS * WIDTH * 2
    few, many = gathered_bytes(1024), gathered_bytes(128)
    # Half of the head and three quarters of the rows: one to three times, of 2 x 16 chunks.
    assert head / 2 + rows * 3 / 4 <= many <= 3 * (head / 2 + rows * 3 / 4)
    assert many == pytest.approx(few, rel=0.05)
