"""Worker of benchmarks/decode.py: one peer's plain sampling, in the peer's own environment.

`PYTHON decode_peers.py transformers|tunix '{"shape": {...}, "dtype": "float32", "new": 64}'` builds the
policy with random weights, prints a line "ready VERSIONS", and answers each line "BATCH PROMPT" on its
input with "seconds X tokens N". Imports nothing of jaxtool, so that it runs where jaxtool is not.
"""

import time
from typing import Any

from peer_workers import Round, serve, transformers_model, tunix_model


def transformers_round(shape: dict[str, Any], dtype: str, new: int) -> tuple[str, Round]:
    """`generate` of a Qwen2 policy at temperature 1 over the whole vocabulary."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers_model(shape).to(device, getattr(torch, dtype)).eval()

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
    from tunix.generate import sampler as tunix_sampler

    model = tunix_model(shape, dtype, dtype)

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


if __name__ == "__main__":
    serve({"transformers": transformers_round, "tunix": tunix_round})
