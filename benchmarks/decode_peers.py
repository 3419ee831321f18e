"""Worker of benchmarks/decode.py: one peer's plain sampling, in the peer's own environment.

`PYTHON decode_peers.py transformers|tunix '{"shape": {...}, "dtype": "float32", "new": 64}'` builds the
policy with random weights, prints a line "ready VERSIONS", and answers each line "BATCH PROMPT" on its
input with "seconds X tokens N". Imports nothing of jaxtool, so that it runs where jaxtool is not.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Round = Callable[[int, int], tuple[float, int]]


def transformers_round(shape: dict[str, Any], dtype: str, new: int) -> tuple[str, Round]:
    """`generate` of a Qwen2 policy at temperature 1 over the whole vocabulary."""
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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.Qwen2ForCausalLM(config).to(device, getattr(torch, dtype)).eval()

    def one(batch: int, prompt: int) -> tuple[float, int]:
        ids = torch.randint(3, shape["vocab_size"], (batch, prompt), device=device)
        started = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                min_new_tokens=new,
                max_new_tokens=new,
                eos_token_id=None,
                pad_token_id=0,
            )
            made = out[:, prompt:].cpu()
        return time.perf_counter() - started, made.numel()

    return f"transformers {transformers.__version__}, torch {torch.__version__}, {device}", one


def tunix_round(shape: dict[str, Any], dtype: str, new: int) -> tuple[str, Round]:
    """Tunix's vanilla `Sampler` at temperature 1 with the log-probs that RL needs."""
    import importlib.metadata

    import jax
    import jax.numpy as jnp
    from flax import nnx
    from tunix.generate import sampler as tunix_sampler
    from tunix.models.qwen2 import model as qwen2

    kind = jnp.dtype(dtype)
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
        dtype=kind,
        param_dtype=kind,
    )
    model = qwen2.Qwen2(config, rngs=nnx.Rngs(params=0))

    class Numbers:
        """Text of numbers: token ids are written down."""

        def encode(self, text: str, **_: object) -> list[int]:
            return [int(word) for word in text.split()]

        def decode(self, ids: list[int], **_: object) -> str:
            return str(len(ids))

        def bos_id(self) -> int:
            return 1

        def eos_id(self) -> int:
            return -1  # no token: every row runs to its end

        def pad_id(self) -> int:
            return 0

    samplers: dict[int, Any] = {}

    def one(batch: int, prompt: int) -> tuple[float, int]:
        if prompt not in samplers:
            cache = tunix_sampler.CacheConfig(
                cache_size=prompt + new + 8,
                num_layers=shape["num_layers"],
                num_kv_heads=shape["num_kv_heads"],
                head_dim=shape["head_dim"],
            )
            samplers[prompt] = tunix_sampler.Sampler(model, Numbers(), cache)
        texts = [
            " ".join(
                str(3 + (7 * i + 13 * j) % (shape["vocab_size"] - 3)) for j in range(prompt - 1)
            )
            for i in range(batch)
        ]
        started = time.perf_counter()
        out = samplers[prompt](
            texts,
            max_generation_steps=new,
            max_prompt_length=prompt,
            temperature=1.0,
            top_p=1.0,
            seed=0,
            return_logprobs=True,
            eos_tokens=[-1],
        )
        made = sum(len(tokens) for tokens in out.tokens)
        return time.perf_counter() - started, made

    version = importlib.metadata.version("google-tunix")
    return f"google-tunix {version}, jax {jax.__version__}, {jax.default_backend()}", one


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    peer, options = sys.argv[1], json.loads(sys.argv[2])
    make = {"transformers": transformers_round, "tunix": tunix_round}[peer]
    versions, one = make(**options)
    answers.write(f"ready {versions}\n")
    for line in sys.stdin:
        batch, prompt = map(int, line.split())
        seconds, tokens = one(batch, prompt)
        answers.write(f"seconds {seconds} tokens {tokens}\n")


if __name__ == "__main__":
    main()
