"""Log-probs and entropies: by hand, and the same however the row is cut and the head is stored."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtool.core.truncation import Truncation
from jaxtool.model.token_logprobs import token_logprobs

KEYS = jax.random.split(jax.random.key(0), 3)
HIDDEN = jax.random.normal(KEYS[0], (2, 11, 6))
TABLE = jax.random.normal(KEYS[1], (13, 6))
TOKENS = jax.random.randint(KEYS[2], (2, 11), 0, 13)
WEIGHTS = jnp.linspace(0.5, 2.0, 22).reshape(2, 11)


def test_by_hand():
    """Scores 0 and log 3 at temperature 1: chances 1/4 and 3/4; column 0 predicts nothing."""
    hidden, head = jnp.array([[[1.0], [9.0]]]), jnp.array([[0.0, math.log(3)]])
    for token, chance in ((0, 0.25), (1, 0.75)):
        found = token_logprobs(hidden, head, jnp.array([[0, token]]), temperature=1.0, chunk=8)
        np.testing.assert_allclose(found[0], [[0.0, math.log(chance)]], rtol=1e-6)
        entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
        np.testing.assert_allclose(found[1], [[0.0, entropy]], rtol=1e-6)


def test_temperature_divides_the_scores_by_hand():
    """Scores 0 and log 9 at temperature 2 are those of 0 and log 3 at 1."""
    hidden, head = jnp.array([[[1.0], [9.0]]]), jnp.array([[0.0, math.log(9)]])
    found = token_logprobs(hidden, head, jnp.array([[0, 1]]), temperature=2.0, chunk=8)[0]
    np.testing.assert_allclose(found, [[0.0, math.log(0.75)]], rtol=1e-6)


def values_and_gradients(head, weights=WEIGHTS, **options):
    def total(hidden, head):
        logprobs, entropy = token_logprobs(hidden, head, TOKENS, temperature=0.7, **options)
        return jnp.sum(weights * logprobs) + 0.3 * jnp.sum(weights * entropy), (logprobs, entropy)

    gradients, values = jax.grad(total, argnums=(0, 1), has_aux=True)(HIDDEN, head)
    return *values, *gradients


@pytest.mark.parametrize("chunk", [1, 3, 5, 9, 10, 64])
def test_every_chunk_gives_the_same_and_so_does_the_table(chunk):
    """10 is the whole row, whose logits are kept; smaller ones are computed again."""
    wanted = values_and_gradients(TABLE.T, chunk=4)
    for x in wanted:
        assert np.abs(x).max() > 0.1
    for got in (
        values_and_gradients(TABLE.T, chunk=chunk),
        [*(parts := values_and_gradients(TABLE, chunk=chunk, is_table=True))[:3], parts[3].T],
    ):
        for x, y in zip(got, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(
    ("asked", "chunk", "options"),
    [
        ((), 4, {}),
        ((3,), 1, {}),
        ((2, 5, 9, 10), 3, {}),
        ((2, 5, 9, 10), 4, {"truncation": Truncation(top_k=5)}),
        (tuple(range(11)), 4, {}),
        ((), 64, {}),
        ((3,), 10, {}),
        ((2, 5, 9, 10), 64, {}),
        ((2, 5, 9, 10), 64, {"truncation": Truncation(top_k=5)}),
        (tuple(range(11)), 64, {}),
    ],
)
def test_wanted_tokens_have_the_values_of_all_and_the_rest_has_none(asked, chunk, options):
    """The second row asks for one column more than the first, so that rows differ in number."""
    wanted = np.zeros((2, 11), bool)
    wanted[0, list(asked)] = True
    wanted[1] = wanted[0]
    wanted[1, 7] = True
    wanted[:, 0] = False
    weights = jnp.where(wanted, WEIGHTS, 0.0)
    slow = values_and_gradients(TABLE, weights, chunk=chunk, is_table=True, **options)
    fast = values_and_gradients(
        TABLE, weights, chunk=chunk, is_table=True, wanted=jnp.asarray(wanted), **options
    )
    for x, y in zip(fast[:2], slow[:2], strict=True):
        np.testing.assert_allclose(x, jnp.where(wanted, y, 0.0), rtol=1e-4, atol=5e-5)
    for x, y in zip(fast[2:], slow[2:], strict=True):
        assert np.abs(y).max() > 0.1
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("chunk", [2, 8])
def test_wanted_tokens_of_parts_of_a_row(chunk):
    """Two parts of six columns, of which the first asks for none and the second for two."""
    tokens, hidden = jnp.pad(TOKENS, ((0, 0), (0, 1))), jnp.pad(HIDDEN, ((0, 0), (0, 1), (0, 0)))
    wanted = np.zeros((2, 12), bool)
    wanted[:, [8, 11]] = True
    measure = functools.partial(
        token_logprobs, hidden, TABLE.T, tokens, temperature=1.0, chunk=chunk
    )
    for x, y in zip(measure(parts=2, wanted=jnp.asarray(wanted)), measure(), strict=True):
        np.testing.assert_allclose(x, jnp.where(wanted, y, 0.0), rtol=1e-5, atol=1e-6)
        assert np.abs(np.asarray(x)[wanted]).min() > 0


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_on_devices_of_their_own_have_the_gradients_of_all(parts):
    """Two shards of one row each, which sum the gradient of the head apart."""
    tokens, hidden = jnp.pad(TOKENS, ((0, 0), (0, 1))), jnp.pad(HIDDEN, ((0, 0), (0, 1), (0, 0)))
    wanted = jnp.ones((2, 12), bool).at[0, 4:].set(False)

    def gradients(**options):
        def total(hidden, head):
            found = token_logprobs(
                hidden, head, tokens, temperature=0.7, chunk=2, wanted=wanted, **options
            )
            return jnp.sum(found[0] + 0.3 * found[1])

        return jax.grad(total, argnums=(0, 1))(hidden, TABLE.T)

    for x, y in zip(gradients(shards=2, parts=parts), gradients(), strict=True):
        assert np.abs(y).max() > 0.1
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=5e-5)


def test_the_logits_of_a_row_in_chunks_never_exist():
    """2048 tokens x 4096 words are 32 MiB; the temporaries of value and gradient stay below."""
    shapes = (
        jax.ShapeDtypeStruct((1, 2048, 8), jnp.float32),
        jax.ShapeDtypeStruct((8, 4096), jnp.float32),
        jax.ShapeDtypeStruct((1, 2048), jnp.int32),
    )

    def temporaries(chunk):
        loss = functools.partial(token_logprobs, temperature=1.0, chunk=chunk)
        step = jax.jit(jax.grad(lambda *x: jnp.sum(loss(*x)[0]), argnums=(0, 1)))
        analysis = step.lower(*shapes).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert temporaries(128) < 8 * 2**20 < 32 * 2**20 < temporaries(2048)


def test_a_logprob_is_optax_cross_entropy_with_its_sign_turned():
    numbers = np.random.default_rng(5)
    hidden, head = numbers.normal(size=(2, 6, 8)), numbers.normal(size=(8, 11))
    tokens = jnp.asarray(numbers.integers(0, 11, (2, 6)), jnp.int32)
    found, _ = token_logprobs(
        jnp.asarray(hidden, jnp.float32),
        jnp.asarray(head, jnp.float32),
        tokens,
        temperature=0.7,
        chunk=4,
    )
    logits = jnp.asarray(hidden[:, :-1] @ head / 0.7, jnp.float32)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    np.testing.assert_allclose(found[:, 1:], -loss, rtol=2e-5, atol=1e-5)
