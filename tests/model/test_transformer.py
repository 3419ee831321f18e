"""The fast paths equal the plain forward: cache, packing, remat, scan; and nothing sees the future."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import (
    FAMILIES,
    VOCAB,
    full_logits,
    next_token_loss,
    positions_of,
    random_params,
    random_tokens,
)

from jaxtool.model.kv_cache import (
    KVCache,
    cache_bytes,
    gather_rows,
    make_cache,
    put_columns,
    scatter_rows,
    select_columns,
)
from jaxtool.model.transformer import cached_hidden_states, hidden_states, logits, unstack_layers
from jaxtool.parallel.axis_rules import single_device

ROWS, LENGTH, SLOTS = 2, 12, 16

# Jitted once for the file: the tests compare numbers, not compilations.
cached = jax.jit(cached_hidden_states, static_argnames=("config", "view", "sharding"))
hidden = jax.jit(hidden_states, static_argnames=("config", "sharding"))
full = jax.jit(full_logits, static_argnums=(1, 3))


def dirty_cache(config) -> KVCache:
    """A cache full of what other trajectories left in it."""
    clean = make_cache(config, ROWS, SLOTS)
    return jax.tree.map(lambda x: x + 1e3, clean)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("chunks", "view"), [((12,), SLOTS), ((5, 1, 6), LENGTH), ((1,) * 12, SLOTS)], ids=str
)
def test_cached_forward_equals_full_forward(family, chunks, view):
    config, sharding = FAMILIES[family], single_device()
    params = random_params(config)
    tokens = random_tokens(ROWS, LENGTH)
    expected = full(params, config, tokens, sharding)
    numerics = jax.jit(unstack_layers)(params)
    cache, start, got = dirty_cache(config), 0, []
    for size in chunks:
        part = slice(start, start + size)
        out, cache = cached(
            numerics,
            config,
            tokens[:, part],
            positions_of(tokens)[:, part],
            cache,
            view=view,
            sharding=sharding,
        )
        got.append(logits(numerics, config, out))
        start += size
    np.testing.assert_allclose(jnp.concatenate(got, axis=1), expected, atol=1e-5, rtol=1e-5)


def test_rows_of_a_cache_may_stand_at_different_positions():
    config, sharding = FAMILIES["qwen2"], single_device()
    params = jax.jit(unstack_layers)(random_params(config))
    tokens = random_tokens(ROWS, LENGTH)
    expected = full(random_params(config), config, tokens, sharding)
    positions, cache = positions_of(tokens), make_cache(config, ROWS, SLOTS)
    _, cache = cached(
        params, config, tokens[:, :8], positions[:, :8], cache, view=SLOTS, sharding=sharding
    )
    # Row 0 goes on at 3, over what it wrote there before; row 1 goes on at 8.
    at = jnp.array([[3, 4, 5], [8, 9, 10]])
    out, _ = cached(
        params,
        config,
        jnp.take_along_axis(tokens, at, axis=1),
        at,
        cache,
        view=SLOTS,
        sharding=sharding,
    )
    got = logits(params, config, out)
    picked = jnp.take_along_axis(expected, at[:, :, None], axis=1)
    np.testing.assert_allclose(got, picked, atol=1e-5, rtol=1e-5)


def test_positions_beyond_the_cache_write_nothing():
    config, sharding = FAMILIES["llama"], single_device()
    cache = dirty_cache(config)
    at = jnp.full((ROWS, 1), SLOTS, jnp.int32)
    tokens = random_tokens(ROWS, 1)
    params = jax.jit(unstack_layers)(random_params(config))
    _, after = cached(params, config, tokens, at, cache, view=SLOTS, sharding=sharding)
    for x, y in zip(jax.tree.leaves(cache), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("columns", [[[3], [0]], [[1, 2], [4, 5]]])
def test_columns_written_by_choice_are_those_of_the_scatter(columns):
    """Five positions; the last column of the second case lies beyond them and is dropped."""
    into = jax.random.normal(jax.random.key(0), (2, 3, 5, 4)).astype(jnp.bfloat16)
    columns = jnp.array(columns)
    x = jax.random.normal(jax.random.key(1), (2, 3, columns.shape[1], 4)).astype(jnp.bfloat16)
    chosen = select_columns(into, columns, x)
    np.testing.assert_array_equal(chosen, put_columns(into, jnp.arange(2), columns, x))
    assert chosen.dtype == jnp.bfloat16
    np.testing.assert_array_equal(chosen[0, :, columns[0, 0]], x[0, :, 0])
    np.testing.assert_array_equal(chosen[1, :, 1:4], into[1, :, 1:4])


def test_gathered_rows_scatter_back_to_their_places():
    config = FAMILIES["llama"]
    numbers = np.random.default_rng(0)
    cache = jax.tree.map(
        lambda x: jnp.asarray(numbers.normal(size=x.shape), x.dtype), make_cache(config, 4, SLOTS)
    )
    rows = jnp.array([2, 0, 7])  # 7 does not exist
    part = jax.tree.map(lambda x: x + 1, gather_rows(cache, rows))
    after = scatter_rows(cache, rows, part)
    for x, y in zip(jax.tree.leaves(cache), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(y[jnp.array([2, 0])], x[jnp.array([2, 0])] + 1)
        np.testing.assert_array_equal(y[jnp.array([1, 3])], x[jnp.array([1, 3])])


@pytest.mark.parametrize("kind", ["compute_dtype", "int8"])
def test_no_array_of_a_cache_is_another_one_too(kind):
    cache = make_cache(dataclasses.replace(FAMILIES["qwen3"], cache=kind), 2, 5)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(cache)]
    assert len(set(pointers)) == len(pointers)


def test_cache_bytes_counts_what_make_cache_takes():
    config = FAMILIES["qwen3"]
    total = sum(x.nbytes for x in jax.tree.leaves(make_cache(config, 3, 5)))
    assert cache_bytes(config, 3, 5) == total


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_segments_equal_single_rows(family):
    config, sharding = FAMILIES[family], single_device()
    params = random_params(config)
    first, second = random_tokens(1, 5, seed=1), random_tokens(1, 4, seed=2)
    padding = jnp.zeros((1, 3), jnp.int32)
    packed = hidden(
        params,
        config,
        jnp.concatenate([first, second, padding], axis=1),
        jnp.array([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0]]),
        jnp.array([[1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0]]),
        sharding=sharding,
    )
    for tokens, part in ((first, slice(0, 5)), (second, slice(5, 9))):
        alone = hidden(
            params, config, tokens, positions_of(tokens), jnp.ones_like(tokens), sharding=sharding
        )
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-5, rtol=1e-5)
    assert np.all(np.isfinite(packed))


@pytest.fixture(scope="module")
def loss_and_gradients():
    """Jitted; a second call with the same config compiles nothing."""
    value_and_grad = jax.jit(jax.value_and_grad(next_token_loss), static_argnums=(1, 3))
    params, tokens = random_params(FAMILIES["qwen3"]), random_tokens(ROWS, LENGTH)
    return lambda config: value_and_grad(params, config, tokens, single_device())


@pytest.mark.parametrize(
    "change",
    [
        {"remat": "block"},
        {"remat": "dots"},
        {"remat": "attention"},
        {"remat": "named"},
        {"remat": "named", "scans_layers": False},
        {"scans_layers": False},
    ],
    ids=str,
)
def test_remat_and_unrolling_change_no_number(loss_and_gradients, change):
    config = FAMILIES["qwen3"]
    loss, gradients = loss_and_gradients(config)
    other_loss, other_gradients = loss_and_gradients(dataclasses.replace(config, **change))
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(gradients), jax.tree.leaves(other_gradients), strict=True):
        assert np.any(x != 0)
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-4)


def backward_products(config) -> int:
    """Matrix products in the gradient of a loss."""
    params, tokens = random_params(config), random_tokens(ROWS, LENGTH)
    loss = lambda p: next_token_loss(p, config, tokens, single_device())  # noqa: E731
    return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general[")


def test_remat_recomputes_and_scan_scans():
    """The options above do what they say: the programs differ although the numbers do not."""
    config = FAMILIES["llama"]
    params, tokens = random_params(config), random_tokens(ROWS, LENGTH)

    def program(**change) -> str:
        other = dataclasses.replace(config, **change)
        loss = lambda p: next_token_loss(p, other, tokens, single_device())  # noqa: E731
        return str(jax.make_jaxpr(loss)(params))

    assert "remat" not in program(remat="none")
    assert "remat" in program(remat="block")
    products = {
        remat: backward_products(dataclasses.replace(config, remat=remat))
        for remat in ("none", "dots", "named", "attention", "block")
    }
    assert products["none"] < products["dots"] < products["named"] < products["block"]
    # It serves the TPU kernel (test_remat.py). XLA's attention divides last, so its products run again.
    assert products["named"] < products["attention"] <= products["block"]
    assert "scan[" in program(scans_layers=True)
    assert "scan[" not in program(scans_layers=False)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_no_token_sees_a_later_one_or_another_segment(family):
    """Gradient of one token's hidden state in the embedding of each token, all tokens distinct."""
    config = dataclasses.replace(FAMILIES[family], ties_embeddings=False)
    params = random_params(config)
    tokens = jnp.arange(8, dtype=jnp.int32)[None]
    positions = jnp.array([[0, 1, 2, 0, 1, 2, 3, 4]])
    segments = jnp.array([[1, 1, 1, 2, 2, 2, 2, 2]])

    def out(embedding, t):
        tree = params | {"embedding": embedding}
        states = hidden_states(tree, config, tokens, positions, segments, single_device())
        return jnp.sum(jnp.sin(states[0, t]))

    gradient_of = jax.jit(jax.grad(out))

    def seen_from(t: int) -> list[int]:
        gradient = gradient_of(params["embedding"], t)
        return [i for i in range(VOCAB) if np.any(gradient[i] != 0)]

    assert seen_from(1) == [0, 1]
    assert seen_from(5) == [3, 4, 5]


def test_bfloat16_compute_stays_close_and_keeps_float32_logits():
    config, sharding = FAMILIES["qwen3"], single_device()
    params, tokens = random_params(config), random_tokens(ROWS, LENGTH)
    exact = full(params, config, tokens, sharding)
    half = dataclasses.replace(config, compute_dtype="bfloat16")
    got = full(params, half, tokens, sharding)
    assert got.dtype == jnp.float32
    # bfloat16 keeps 8 bits: two layers lose well under 5 % of the spread.
    assert float(jnp.max(jnp.abs(got - exact))) < 0.05 * float(jnp.max(jnp.abs(exact)))
