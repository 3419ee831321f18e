"""Inverse-CDF sampling by hand, against float64, and at the ends of the interval."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.core import rng
from jaxtool.decode.sampling import RowSampling, Sampling, common_sampling_mode, inverse_cdf, sample

LARGEST = 1.0 - 2.0**-24  # the largest float32 below 1
# Key data 0 and 0: the position whose first uniform is 0 before it is moved to the centre of its cell.
ZERO_DRAW = 15_405_709
draw = jax.jit(inverse_cdf)
_sample = jax.jit(sample, static_argnums=4)


def rows_of(samplings) -> RowSampling:
    fields = ("temperature", "top_k", "top_p", "min_p")
    values = {name: np.array([getattr(s, name) for s in samplings]) for name in fields}
    as_int = values.pop("top_k").astype(np.int32)
    return RowSampling(top_k=as_int, **{n: v.astype(np.float32) for n, v in values.items()})


def sampled(logits, keys, positions, sampling):
    """One way for all rows, or a list with one for each."""
    ways = sampling if isinstance(sampling, list) else [sampling] * len(logits)
    return _sample(
        logits,
        keys,
        positions,
        rows_of(ways),
        common_sampling_mode(way.sampling_mode for way in ways),
    )


def test_inverse_cdf_by_hand():
    """p = 1/8, 1/4, 1/8, 1/2: the steps are at 1/8, 3/8 and 1/2."""
    p = np.array([0.125, 0.25, 0.125, 0.5], np.float32)
    uniforms = np.array([0.0, 0.124, 0.126, 0.374, 0.376, 0.499, 0.501, LARGEST], np.float32)
    unread = np.full(8, 0.7, np.float32)
    tokens, logprobs = draw(jnp.tile(jnp.log(p)[None], (8, 1)), np.stack([uniforms, unread], 1))
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_allclose(logprobs, np.log(p[tokens]), atol=1e-6)


def definition(p, uniforms):
    """Tokens by float64 running sums, and how far the uniforms are from a border between two tokens."""
    tokens, distance = np.zeros(len(p), int), np.ones(len(p))
    size = p.shape[1] if p.shape[1] <= 1024 else 512
    for row, (weights, us) in enumerate(zip(p, uniforms, strict=True)):
        parts = [weights[i : i + size] for i in range(0, len(weights), size)]
        levels = [np.cumsum([part.sum() for part in parts])] if len(parts) > 1 else []
        at = int((levels[0] <= us[0]).sum()) if levels else 0
        levels.append(np.cumsum(parts[at]) / parts[at].sum())
        tokens[row] = at * size + (levels[-1] <= us[len(levels) - 1]).sum()
        distance[row] = min(np.abs(c - u).min() for c, u in zip(levels, us, strict=False))
    return tokens, distance


@pytest.mark.parametrize("vocab", [40, 1024, 1025, 3000])
def test_both_paths_equal_the_definition_in_float64(vocab):
    numbers = np.random.default_rng(vocab)
    logits = (3 * numbers.standard_normal((256, vocab))).astype(np.float32)
    uniforms = numbers.random((256, 2)).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    wanted, distance = definition(p, uniforms)
    # Where a uniform falls within rounding of a step, float32 may say either neighbour.
    is_clear = distance > 2e-6
    assert is_clear.mean() > 0.9
    tokens, logprobs = draw(logits, uniforms)
    np.testing.assert_array_equal(np.asarray(tokens)[is_clear], wanted[is_clear])
    np.testing.assert_allclose(logprobs, np.log(p[np.arange(256), tokens]), atol=2e-5)


@pytest.mark.parametrize("vocab", [48, 1000, 1025, 5000])
@pytest.mark.parametrize("uniform", [0.0, LARGEST, None])
def test_a_token_of_probability_zero_is_never_drawn(vocab, uniform):
    """Also where rounding makes a running sum rise over an entry that adds nothing."""
    numbers = np.random.default_rng(vocab)
    logits = (2 * numbers.standard_normal((2048, vocab))).astype(np.float32)
    is_possible = numbers.random((2048, vocab)) < numbers.random((2048, 1))
    is_possible[:, numbers.integers(vocab)] = True
    logits = np.where(is_possible, logits, -np.inf).astype(np.float32)
    uniforms = numbers.random((2048, 2)) if uniform is None else np.full((2048, 2), uniform)
    tokens, logprobs = draw(logits, uniforms.astype(np.float32))
    assert is_possible[np.arange(2048), tokens].all()
    assert np.isfinite(logprobs).all()


def test_uniforms_on_every_step_never_hit_an_impossible_token():
    """The running sums themselves as uniforms, impossible tokens between all possible ones."""
    numbers = np.random.default_rng(0)
    v = 1000
    weights = numbers.random(v).astype(np.float32) * (np.arange(v) % 2)
    steps = np.asarray(jnp.cumsum(jnp.asarray(weights)))
    uniforms = (steps / steps[-1]).astype(np.float32)
    uniforms = np.clip(np.concatenate([uniforms, np.nextafter(uniforms, 0)]), 0, LARGEST)
    logits = np.tile(np.log(np.maximum(weights, 1e-45))[None], (len(uniforms), 1))
    logits[:, weights == 0] = -np.inf
    tokens, _ = draw(logits.astype(np.float32), np.stack([uniforms, uniforms], 1))
    assert (np.asarray(tokens) % 2 == 1).all()


@pytest.mark.parametrize("vocab", [600, 3000])
def test_a_uniform_of_zero_does_not_draw_a_token_that_is_all_but_impossible(vocab):
    """The first token has a probability of e^-70."""
    key = jax.random.fold_in(jax.random.key(0), ZERO_DRAW)
    assert jax.random.uniform(key) == 0
    logits = np.full((1, vocab), -80.0, np.float32)
    logits[0, [0, 1, 2]] = -70.0, 0.0, -1.0
    row_keys, positions = np.zeros((1, 2), np.uint32), np.array([ZERO_DRAW], np.int32)
    for way in (Sampling(), Sampling(top_k=3)):
        tokens, _ = sampled(logits, row_keys, positions, way)
        assert tokens.tolist() == [1]


def test_frequencies_are_the_softmax():
    """40 000 draws of 8 tokens; a bound of 5 standard errors fails by chance 8 · 5.7e-7 = 5e-6."""
    count = 40_000
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -3.0, 1.5, 0.2], np.float32)
    keys = np.tile(rng.row_key(1, "frequencies"), (count, 1))
    positions = np.arange(count, dtype=np.int32)
    tiled = np.tile(logits[None], (count, 1))
    tokens, _ = sampled(tiled, keys, positions, Sampling(temperature=2.0))
    p = np.exp(logits / 2)
    p /= p.sum()
    frequency = np.bincount(tokens, minlength=8) / count
    error = np.sqrt(p * (1 - p) / count)
    assert math.erfc(5 / math.sqrt(2)) * 8 < 1e-5
    assert (np.abs(frequency - p) < 5 * error).all()


def test_a_draw_depends_on_key_and_position_alone():
    numbers = np.random.default_rng(3)
    logits = numbers.standard_normal((16, 48)).astype(np.float32)
    keys = np.stack([rng.row_key(0, i) for i in range(16)])
    positions = np.arange(16, dtype=np.int32)
    tokens, logprobs = sampled(logits, keys, positions, Sampling())
    order = numbers.permutation(16)
    again, again_logprobs = sampled(logits[order], keys[order], positions[order], Sampling())
    np.testing.assert_array_equal(again, tokens[order])
    np.testing.assert_allclose(again_logprobs, logprobs[order], atol=1e-6)
    later, _ = sampled(logits, keys, positions + 100, Sampling())
    assert (later != tokens).any()


def test_greedy_takes_the_most_likely_and_reports_its_logprob_at_temperature_one():
    logits = np.log(np.array([[0.2, 0.5, 0.3]], np.float32))
    keys, positions = np.zeros((1, 2), np.uint32), np.zeros(1, np.int32)
    tokens, logprobs = sampled(logits, keys, positions, Sampling(temperature=0.0))
    assert tokens.tolist() == [1]
    np.testing.assert_allclose(logprobs, np.log([0.5]), atol=1e-6)


def test_a_negative_temperature_is_refused():
    with pytest.raises(ValueError, match=r"Sampling\.temperature must be >= 0"):
        Sampling(temperature=-1)


def test_each_row_draws_in_its_own_way():
    numbers = np.random.default_rng(4)
    logits = (2 * numbers.standard_normal((24, 1500))).astype(np.float32)
    keys = np.stack([rng.row_key(0, i) for i in range(24)])
    positions = np.arange(24, dtype=np.int32)
    ways = [Sampling(), Sampling(temperature=0.0), Sampling(temperature=1.7)]
    ways += [Sampling(top_k=5), Sampling(top_p=0.5), Sampling(min_p=0.3, temperature=0.8)]
    mixed = sampled(logits, keys, positions, ways * 4)
    assert common_sampling_mode(way.sampling_mode for way in ways) == "mixed"
    for i, way in enumerate(ways):
        tokens, logprobs = sampled(logits, keys, positions, way)
        np.testing.assert_array_equal(mixed[0][i::6], tokens[i::6])
        np.testing.assert_allclose(mixed[1][i::6], logprobs[i::6], atol=1e-6)


def test_the_cheapest_program_that_serves_all_rows_is_chosen():
    assert common_sampling_mode(["plain", "plain"]) == "plain"
    assert common_sampling_mode(["greedy"]) == "greedy"
    assert common_sampling_mode(["greedy", "plain"]) == "mixed"
    assert Sampling(top_k=3, temperature=0.0).sampling_mode == "greedy"
    assert Sampling(top_p=0.9).sampling_mode == "mixed"


def test_truncated_frequencies_are_the_renormalised_softmax():
    """p = 0.4, 0.3, 0.2, 0.1 with top_p 0.65: the nucleus is the first two, 4/7 and 3/7."""
    count = 20_000
    logits = np.tile(np.log([[0.4, 0.3, 0.2, 0.1]]), (count, 1)).astype(np.float32)
    keys = np.tile(rng.row_key(1, "nucleus"), (count, 1))
    way = Sampling(top_p=0.65)
    tokens, logprobs = sampled(logits, keys, np.arange(count, dtype=np.int32), way)
    assert set(np.asarray(tokens).tolist()) == {0, 1}
    wanted = np.log(np.array([4 / 7, 3 / 7]))
    np.testing.assert_allclose(logprobs, wanted[np.asarray(tokens)], atol=1e-6)
    share = float(np.mean(np.asarray(tokens) == 0))
    assert abs(share - 4 / 7) < 5 * math.sqrt(4 / 7 * 3 / 7 / count)
