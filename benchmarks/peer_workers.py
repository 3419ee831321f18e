"""What the peers' workers share: the policies of the peers, and the loop that answers rounds.

Imports nothing of jaxtool, and a peer only where it is asked for: workers run in the peer's environment.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Round = Callable[[int, int], tuple[float, int]]


def transformers_model(shape: dict[str, Any]) -> Any:
    """A random Qwen2 of transformers, float32 on the CPU."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["d_model"],
        intermediate_size=shape["d_ff"],
        num_hidden_layers=shape["num_layers"],
        num_attention_heads=shape["num_heads"],
        num_key_value_heads=shape["num_kv_heads"],
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    return transformers.Qwen2ForCausalLM(config)


def tunix_model(shape: dict[str, Any], dtype: str, param_dtype: str) -> Any:
    """A random Qwen2 of google-tunix."""
    import jax.numpy as jnp
    from flax import nnx
    from tunix.models.qwen2 import model as qwen2

    config = qwen2.ModelConfig(
        num_layers=shape["num_layers"],
        vocab_size=shape["vocab_size"],
        embed_dim=shape["d_model"],
        hidden_dim=shape["d_ff"],
        num_heads=shape["num_heads"],
        head_dim=shape["head_dim"],
        num_kv_heads=shape["num_kv_heads"],
        rope_theta=10_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
    )
    return qwen2.Qwen2(config, rngs=nnx.Rngs(params=0))


def serve(makers: Mapping[str, Callable[..., tuple[str, Round]]]) -> None:
    """Builds the peer that the arguments name, then answers a round for each line of the input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    peer, options = sys.argv[1], json.loads(sys.argv[2])
    versions, one = makers[peer](**options)
    answers.write(f"ready {versions}\n")
    for line in sys.stdin:
        seconds, tokens = one(*map(int, line.split()))
        answers.write(f"seconds {seconds} tokens {tokens}\n")
