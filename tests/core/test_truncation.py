"""Top-k, top-p and min-p by hand, against a sort in float64, and as the learner repeats them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.core.truncation import Truncation, kept_floor, kept_weights
from jaxtool.model.token_logprobs import token_logprobs

_floor = jax.jit(kept_floor)
P = np.array([0.4, 0.3, 0.2, 0.1])


def floors(weights, top_k=0, top_p=1.0, min_p=0.0):
    b = len(weights)
    return np.asarray(
        _floor(
            jnp.asarray(weights, jnp.float32),
            jnp.full(b, top_k, jnp.int32),
            jnp.full(b, top_p, jnp.float32),
            jnp.full(b, min_p, jnp.float32),
        )
    )


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [
        ({}, 4),
        ({"top_k": 1}, 1),
        ({"top_k": 3}, 3),
        ({"top_k": 9}, 4),
        ({"top_p": 0.39}, 1),
        ({"top_p": 0.65}, 2),
        ({"top_p": 0.75}, 3),
        ({"top_k": 2, "top_p": 0.6}, 2),  # of the two that are left 4/7 is too little
        ({"top_k": 2, "top_p": 0.57}, 1),  # 4/7 is enough
        ({"min_p": 0.6}, 2),  # 0.6 x 0.4 = 0.24
        ({"min_p": 0.4, "top_k": 3}, 3),
        ({"min_p": 0.8, "top_k": 3}, 1),
    ],
)
def test_what_is_kept_of_four_tokens_by_hand(truncation, kept):
    weights = (P / P.max())[None, [2, 0, 3, 1]]  # in no order
    is_kept = weights.astype(np.float32) >= floors(weights, **truncation)[:, None]
    assert is_kept.sum() == kept
    assert set(weights[is_kept]) == set(np.sort(weights[0])[-kept:])


def sorted_kept(weights, top_k, top_p, min_p):
    """The definition: sort, cut, in float64."""
    order = np.argsort(-weights, kind="stable")
    w = weights[order].astype(np.float64)
    count = min(top_k, len(w)) if top_k else len(w)
    if top_p < 1:
        cumulative = np.cumsum(w[:count])
        count = 1 + int(np.argmax(cumulative >= top_p * cumulative[-1]))
    is_kept = np.zeros(len(w), bool)
    is_kept[order[:count]] = True
    return is_kept & (weights >= np.float32(min_p))


@pytest.mark.parametrize("vocab", [300, 20_000])
@pytest.mark.parametrize("spread", [0.5, 3.0])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(50, 1.0, 0.0), (1000, 1.0, 0.0), (0, 0.9, 0.0), (0, 0.999, 0.0), (40, 0.8, 0.02)],
)
def test_the_search_equals_a_sort(vocab, spread, top_k, top_p, min_p):
    """Both ways of a large vocabulary: the head of the distribution, and the search behind it."""
    logits = spread * np.random.default_rng(vocab).standard_normal((8, vocab))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
    got = weights >= floors(weights, top_k, top_p, min_p)[:, None]
    wanted = np.stack([sorted_kept(row, top_k, top_p, min_p) for row in weights])
    # float32 sums may put the edge of a nucleus one token or so off that of float64.
    assert np.abs(got.sum(1) - wanted.sum(1)).max() <= (0 if top_p == 1 else 1 + vocab // 1000)
    differs = np.where(got != wanted, weights, 0).sum(1) / weights.sum(1)
    assert differs.max() < 1e-5
    assert 0 < wanted.sum() <= min(top_k or vocab, vocab) * 8


def test_tokens_of_equal_probability_stay_together():
    weights = np.array([[1.0, 0.5, 0.5, 0.5, 0.1]])
    assert floors(weights, top_k=2)[0] == 0.5
    assert floors(weights, top_p=0.5)[0] == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": -1}, "self.top_k=-1 must be >= 0"),
        ({"top_p": 0.0}, "self.top_p=0.0 must be in"),
        ({"top_p": 1.5}, "self.top_p=1.5 must be in"),
        ({"min_p": 1.0}, "self.min_p=1.0 must be in"),
    ],
)
def test_impossible_truncations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Truncation(**fields)


def test_the_learner_keeps_the_drawn_token_even_beyond_the_edge():
    weights = jnp.asarray((P / P.max())[None], jnp.float32)
    kept = kept_weights(weights, jnp.asarray([3]), Truncation(top_k=2))
    np.testing.assert_allclose(kept, [[1.0, 0.75, 0.0, 0.25]], rtol=1e-6)


def test_learner_logprobs_and_entropy_of_the_truncated_distribution_by_hand():
    """Logits log p at temperature 1, top-k 3: 4/9, 3/9, 2/9, entropy 1.0609 nats."""
    head = jnp.eye(4, dtype=jnp.float32)
    hidden = jnp.tile(jnp.log(jnp.asarray(P, jnp.float32))[None, None], (1, 4, 1))
    tokens = jnp.asarray([[0, 0, 1, 2]])
    logprobs, entropy = token_logprobs(
        hidden, head, tokens, temperature=1.0, chunk=2, truncation=Truncation(top_k=3)
    )
    p = np.array([4, 3, 2]) / 9
    np.testing.assert_allclose(logprobs[0, 1:], np.log(p), atol=1e-6)
    np.testing.assert_allclose(entropy[0, 1:], -(p * np.log(p)).sum(), atol=1e-6)


def test_the_gradient_is_that_of_the_renormalised_softmax():
    """d log p_i / d logit = onehot - p over what is kept, 0 for what is cut off."""
    head = jnp.eye(4, dtype=jnp.float32)
    logits = jnp.log(jnp.asarray(P, jnp.float32))

    def logprob(x):
        hidden = jnp.tile(x[None, None], (1, 2, 1))
        tokens = jnp.asarray([[0, 1]])
        truncation = Truncation(top_p=0.85)
        return token_logprobs(
            hidden, head, tokens, temperature=1.0, chunk=1, truncation=truncation
        )[0][0, 1]

    p = np.array([4, 3, 2, 0]) / 9
    np.testing.assert_allclose(jax.grad(logprob)(logits), [0, 1, 0, 0] - p, atol=1e-6)
