"""The exact law of the sampler: how many cells of its uniforms fall to each token, against the softmax.

A uniform has 2^23 values. The token rises with it, so bisection finds where each token begins, and no
draw is left to chance.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.decode.sampling import inverse_cdf

CELLS = 1 << 23
BLOCK = 512  # of the vocabulary, where there are more than 1024 tokens


@functools.partial(jax.jit, static_argnames=("size", "level"))
def begins(logits, first, entries, *, size, level):
    """The first cell of uniform `level` that draws these entries of `size` tokens, or later ones; else CELLS.

    Args:
      first: cell of the other uniform.
    """
    tiled = jnp.broadcast_to(logits, (len(entries), len(logits)))

    def halve(_, ends):
        low, high = ends
        middle = jnp.minimum((low + high) // 2, CELLS - 1)
        cells = jnp.stack([middle, first] if level == 0 else [first, middle], axis=1)
        uniforms = (2 * cells + 1).astype(jnp.float32) / (2 * CELLS)  # centres, exact in float32
        is_before = inverse_cdf(tiled, uniforms)[0] // size < entries
        is_open = low < high
        low = jnp.where(is_open & is_before, middle + 1, low)
        return low, jnp.where(is_open & ~is_before, middle, high)

    return jax.lax.fori_loop(0, 24, halve, (jnp.zeros_like(first), jnp.full_like(first, CELLS)))[0]


def exact_law(logits):
    """Each token's probability over all pairs of uniforms."""
    tokens = np.arange(len(logits), dtype=np.int32)
    if len(logits) <= 1024:
        starts = np.asarray(begins(logits, 0 * tokens, tokens, size=1, level=0))
        return np.diff(np.append(starts, CELLS)) / CELLS
    # 1) The first uniform's share of each block.
    blocks = np.arange(-(-len(logits) // BLOCK), dtype=np.int32)
    block_starts = np.asarray(begins(logits, 0 * blocks, blocks, size=BLOCK, level=0))
    shares = np.diff(np.append(block_starts, CELLS)) / CELLS
    # 2) The second one's share of each token, with the first in the first cell of the token's block.
    of = tokens // BLOCK
    first = np.minimum(block_starts, CELLS - 1)[of]
    starts = np.asarray(begins(logits, first, tokens, size=1, level=1))
    ends = np.where(np.append(of[1:] != of[:-1], True), CELLS, np.append(starts[1:], CELLS))
    return shares[of] * (ends - starts) / CELLS


def softmax(logits):
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


@pytest.mark.parametrize("peak", [None, 20.0])
@pytest.mark.parametrize("vocab", [40, 700, 1025, 1300])  # the last two end in a ragged block
def test_the_law_is_the_softmax(vocab, peak):
    """Total variation at most a third of a cell for each border of a level; theory says a sixth."""
    logits = (2.5 * np.random.default_rng(vocab).standard_normal(vocab)).astype(np.float32)
    if peak is not None:
        logits[vocab // 3] = peak
    law, wanted = exact_law(logits), softmax(logits)
    assert law.sum() == pytest.approx(1.0, abs=1e-9)
    borders = vocab if vocab <= 1024 else vocab / BLOCK + BLOCK
    assert np.abs(law - wanted).sum() / 2 < borders / CELLS / 3


@pytest.mark.parametrize("vocab", [1025, 1300])
def test_the_first_token_of_a_light_block_gets_its_own_probability_only(vocab):
    """One token has nearly all of the mass, so what one uniform would leave inside a block is noise."""
    logits = (2.5 * np.random.default_rng(vocab).standard_normal(vocab)).astype(np.float32)
    logits[vocab // 3] = 20.0
    firsts = np.arange(0, vocab, BLOCK)
    law, wanted = exact_law(logits)[firsts].sum(), softmax(logits)[firsts].sum()
    assert abs(law - wanted) < 0.5 / CELLS


def test_tokens_of_no_weight_to_speak_of_are_hardly_ever_drawn():
    """All other tokens together have less than 1e-20: not one cell is theirs."""
    for vocab in (700, 1300):
        logits = np.random.default_rng(vocab).standard_normal(vocab).astype(np.float32)
        logits[vocab // 2] = 60.0
        assert exact_law(logits)[vocab // 2] == 1.0
