"""What an update leaves out changes nothing: zeros for an only block, logits of tokens without a loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import random_params
from test_grpo import MODEL, batch_of, gradients, setup_of

from jaxtool.learn import grpo, state
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import batch_logprobs, row_blocks, start_of_sum
from jaxtool.parallel.axis_rules import single_device


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def test_an_only_block_needs_no_zeros(params):
    """The share of a batch's only block is what zeros and the share add up to, by another program."""
    batch, setup = batch_of(), setup_of()
    assert start_of_sum(params, 1, setup.sharding) is None
    assert start_of_sum(params, 2, setup.sharding) is not None
    summed, _ = gradients(params, batch, setup)
    [block] = row_blocks(batch, 8, setup.sharding)
    count = np.float32(grpo.loss_count(batch, setup.grpo))
    alone, _ = grpo.grpo_block(None, params, PolicyView(), block, None, count, setup=setup)
    np.testing.assert_allclose(alone.loss, summed.loss, rtol=1e-6)
    for x, y in zip(jax.tree.leaves(alone.grads), jax.tree.leaves(summed.grads), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
        assert x.sharding == y.sharding  # or the optimizer's step would be another program


def test_of_a_large_vocabulary_only_policy_tokens_are_measured(monkeypatch):
    """Same log-probs and gradients as with the logits of all tokens; 0 off the mask."""
    model = dataclasses.replace(MODEL, vocab_size=1024)
    params = random_params(model)
    batch = jax.tree.map(jnp.asarray, batch_of())
    weights = jnp.where(batch.loss_mask, batch.advantages, 0.0)

    def measured(chunk):
        def total(params):
            found = batch_logprobs(
                params, batch, model=model, temperature=1.0, chunk=chunk, sharding=single_device()
            )
            return jnp.sum(weights * (found[0] + found[1])), found

        (_, found), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
        return found, grads

    some = [measured(4), measured(64)]
    monkeypatch.setattr(state, "_SPARSE_VOCABULARY", 2048)
    everything, wanted = measured(64)
    assert np.all(np.asarray(everything[0])[:, 1:] != 0)
    for found, grads in some:
        for x, y in zip(found, everything, strict=True):
            np.testing.assert_allclose(x, jnp.where(batch.loss_mask, y, 0.0), rtol=1e-4, atol=1e-5)
        for x, y in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
