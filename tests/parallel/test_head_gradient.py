"""The head on a mesh: its parts are gathered once; each device sums its own rows' chunks, and the sums are added once."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.model.token_logprobs import token_logprobs
from jaxtool.parallel.axis_rules import AxisRules, Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh

ROWS, TOKENS, WIDTH, WORDS = 16, 16, 32, 1024
NUMBERS = np.random.default_rng(0)
HIDDEN = NUMBERS.standard_normal((ROWS, TOKENS, WIDTH)).astype(np.float32)
HEAD = NUMBERS.standard_normal((WIDTH, WORDS)).astype(np.float32)
TARGETS = NUMBERS.integers(0, WORDS, (ROWS, TOKENS)).astype(np.int32)
WANTED = NUMBERS.random((ROWS, TOKENS)) < 0.5
WEIGHTS = NUMBERS.standard_normal((ROWS, TOKENS)).astype(np.float32)


def gradients_of(is_table, **options):
    """(gradient of hidden, of the head) of a weighted sum of log-probs and entropies."""

    def total(hidden, head, targets, wanted, weights):
        found = token_logprobs(
            hidden, head, targets, temperature=0.7, is_table=is_table, wanted=wanted, **options
        )
        return jnp.sum(weights * (found[0] + 0.3 * found[1]))

    return jax.grad(total, argnums=(0, 1))


@functools.cache
def single_device_gradients():
    return gradients_of(False, chunk=4)(HIDDEN, HEAD, TARGETS, WANTED, WEIGHTS)


def program(mesh: MeshConfig, is_table: bool, chunk: int, length: tuple[str, ...] = ("context",)):
    """The compiled gradients on a mesh, and their arguments there."""
    sharding = Sharding(make_mesh(mesh), dataclasses.replace(AxisRules(), length=length))
    rows = sharding.named("batch", "queries")
    head_axes = ("vocab", "embed") if is_table else ("embed", "vocab")
    layouts = (sharding.named("batch", "length", None), sharding.named(*head_axes), *[rows] * 3)
    values = (HIDDEN, HEAD.T if is_table else HEAD, TARGETS, WANTED, WEIGHTS)
    arguments = [jax.device_put(x, at) for x, at in zip(values, layouts, strict=True)]
    parts, shards = sharding.parts("queries"), sharding.parts("batch")
    options = {"parts": parts, "shards": shards, "sharding": sharding}
    gradients = gradients_of(is_table, chunk=chunk, **options)
    return jax.jit(gradients, out_shardings=layouts[:2]).lower(*arguments).compile(), arguments


MESHES = {
    "fsdp8": MeshConfig(fsdp=8),
    "fsdp4_tensor2": MeshConfig(fsdp=4, tensor=2),
    "data2_fsdp2_tensor2": MeshConfig(data=2, fsdp=2, tensor=2),
    "fsdp2_context2_tensor2": MeshConfig(fsdp=2, context=2, tensor=2),
    "context8": MeshConfig(context=8, fsdp=1),
}


@pytest.mark.parametrize("is_table", [False, True])
@pytest.mark.parametrize("mesh", MESHES)
def test_it_equals_a_single_device_and_no_chunk_asks_other_devices(mesh, is_table):
    compiled, arguments = program(MESHES[mesh], is_table, chunk=1 if mesh == "context8" else 4)
    text = text_of_equal(compiled, arguments, is_table)
    sums = sends(text, "all-reduce|reduce-scatter", WIDTH * WORDS // 8)
    assert sums, "the sums of the devices meet somewhere"
    assert not sums & bodies_of_loops(text)


@pytest.mark.parametrize("is_table", [False, True])
def test_rows_sharded_over_the_tensor_axis_are_gathered_once(is_table):
    """XLA's CPU backend moves gathers out of loops by itself; the TPU's does not (tests/plan/test_head_for_tpu.py)."""
    length = ("context", "tensor")
    compiled, arguments = program(MeshConfig(fsdp=2, tensor=4), is_table, chunk=4, length=length)
    text = text_of_equal(compiled, arguments, is_table)
    gathers = sends(text, "all-gather", ROWS // 2 * TOKENS * WIDTH)
    assert gathers, "a device's rows are gathered somewhere"
    assert not gathers & bodies_of_loops(text)


def text_of_equal(compiled: jax.stages.Compiled, arguments: list, is_table: bool) -> str:
    """The program's text; its gradients are those of a single device."""
    hidden, head = compiled(*arguments)
    wanted_hidden, wanted_head = single_device_gradients()
    np.testing.assert_allclose(hidden, wanted_hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.T if is_table else head, wanted_head, rtol=1e-4, atol=1e-5)
    text = compiled.as_text()
    assert text is not None
    return text


def sends(text: str, kinds: str, least: int) -> set[str]:
    """Computations with a collective of these kinds whose result has at least so many numbers."""
    found, name = set(), ""
    for line in text.splitlines():
        if line.endswith("{") and "->" in line:
            name = line.split()[0 if line.startswith("%") else 1].lstrip("%")
        shape = re.search(rf"= f32\[([\d,]+)\]\S* (?:{kinds})(?:-start)?\(", line)
        if shape and np.prod([int(n) for n in shape[1].split(",")]) >= least:
            found.add(name)
    return found


def bodies_of_loops(text: str) -> set[str]:
    return set(re.findall(r"\bbody=%([\w.-]+)", text))
