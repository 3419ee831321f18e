"""Draws over a sharded vocabulary are those of whole rows, up to the rounding of sums."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.core import rng
from jaxtool.decode.sampling import Sampling, plain_rows, sample
from jaxtool.decode.sharded_sampling import _inverse_cdf, sample_over_devices
from jaxtool.parallel.axis_rules import Sharding, decode
from jaxtool.parallel.mesh import MeshConfig, make_mesh

ROWS = 6


def sharding_of(**sizes: int) -> Sharding:
    count = int(np.prod(list(sizes.values())))
    return Sharding(make_mesh(MeshConfig(**sizes), jax.devices()[:count]), decode())


def arguments(vocab: int, sharding: Sharding, temperature: float = 0.7):
    logits = 3 * np.random.default_rng(vocab).standard_normal((ROWS, vocab)).astype(np.float32)
    keys = [rng.row_key(0, row) for row in range(ROWS)]
    rows = plain_rows(ROWS)
    for row in range(ROWS):
        rows.set(row, Sampling(temperature=temperature))
    placed = jax.device_put(logits, sharding.named("batch", "vocab"))
    return placed, jnp.asarray(np.stack(keys)), jnp.arange(ROWS, dtype=jnp.int32), rows


# 4 x 999 words: parts begin within blocks; 1536: they end where blocks do; 8 x 130: a part is less than a block.
@pytest.mark.parametrize(("vocab", "tensor", "fsdp"), [(3996, 4, 2), (3072, 2, 1), (1040, 8, 1)])
@pytest.mark.parametrize("mode", ["plain", "greedy"])
def test_the_draws_are_those_of_whole_rows(vocab, tensor, fsdp, mode):
    sharding = sharding_of(data=1, fsdp=fsdp, tensor=tensor)
    given = arguments(vocab, sharding)
    part_by_part = jax.jit(
        functools.partial(sample_over_devices, sharding=sharding), static_argnums=4
    )
    for step in range(8):
        step_given = (*given[:2], given[2] + 100 * step, given[3], mode)
        tokens, logprobs = part_by_part(*step_given)
        wanted, wanted_logprobs = jax.jit(sample, static_argnums=4)(*step_given)
        np.testing.assert_array_equal(tokens, wanted)
        np.testing.assert_allclose(logprobs, wanted_logprobs, atol=2e-6)
    assert mode == "greedy" or len(set(np.asarray(tokens).tolist())) > 1


def test_no_device_has_the_logits_of_a_row():
    sharding = sharding_of(data=1, fsdp=1, tensor=4)
    part_by_part = jax.jit(
        functools.partial(sample_over_devices, sharding=sharding), static_argnums=4
    )
    text = part_by_part.lower(*arguments(3996, sharding), "plain").compile().as_text()
    assert "f32[6,999]" in text
    # Sums of blocks and one block travel, by sums over devices; a whole row would be gathered.
    assert "all-gather" not in text
    assert not re.search(r"\[6,(?:3996|4096|8,512)\]", text)


def test_truncated_rows_and_small_vocabularies_are_drawn_whole():
    sharding = sharding_of(data=1, fsdp=1, tensor=4)
    part_by_part = jax.jit(
        functools.partial(sample_over_devices, sharding=sharding), static_argnums=4
    )
    for vocab, mode in ((3996, "mixed"), (512, "plain")):
        given = arguments(vocab, sharding)
        given[3].top_p[:] = 0.5 if mode == "mixed" else 1.0
        tokens, logprobs = part_by_part(*given, mode)
        wanted, wanted_logprobs = jax.jit(sample, static_argnums=4)(*given, mode)
        np.testing.assert_array_equal(tokens, wanted)
        np.testing.assert_allclose(logprobs, wanted_logprobs, atol=2e-6)


def test_the_docstrings_example(monkeypatch):
    from jaxtool.decode import sharded_sampling

    monkeypatch.setattr(sharded_sampling, "VOCAB_BLOCK", 4)
    p = np.array([[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1, 1e-30]], np.float32)
    mesh = jax.make_mesh((2,), ("words",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    draw = jax.shard_map(
        lambda scores, uniforms: _inverse_cdf(scores, uniforms, ("words",)),
        mesh=mesh,
        in_specs=(jax.P(None, "words"), jax.P()),
        out_specs=jax.P(),
        check_vma=False,
    )
    token, logprob = draw(jnp.log(p), jnp.asarray([[0.5, 0.6]], jnp.float32))
    assert token.tolist() == [5]
    np.testing.assert_allclose(logprob, np.log(0.1), atol=1e-5)
