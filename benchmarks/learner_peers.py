"""Worker of benchmarks/learner.py: one peer's policy update, in the peer's own environment.

`PYTHON learner_peers.py transformers|tunix '{"shape": {...}, "dtype": "float32"}'` builds the policy with
random weights, prints "ready VERSIONS", and answers each line "ROWS LENGTH" with "seconds X tokens N" of
one update: clipped policy loss averaged over the second half of each row, gradients clipped by their
norm, AdamW. dtype is that of the computation; "pure_bfloat16" (torch) holds the parameters in it as well.
Imports nothing of jaxtool, so that it runs where jaxtool is not.
"""

import time
from typing import Any

from peer_workers import Round, serve, transformers_model, tunix_model

_LOW, _HIGH, _LEARNING_RATE = 0.8, 1.28, 1e-6


def transformers_round(shape: dict[str, Any], dtype: str) -> tuple[str, Round]:
    """Qwen2 by transformers under torch; bfloat16 is autocast over float32 parameters."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kept = torch.bfloat16 if dtype == "pure_bfloat16" else torch.float32
    model = transformers_model(shape).to(device, kept).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95))

    def one(rows: int, length: int) -> tuple[float, int]:
        ids = torch.randint(3, shape["vocab_size"], (rows, length), device=device)
        old = torch.full((rows, length - 1), -8.0, device=device)
        mask = torch.arange(1, length, device=device) >= length // 2
        advantages = torch.linspace(-1, 1, rows, device=device)[:, None]
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            scores = model(ids, use_cache=False).logits[:, :-1]
        scores = scores.float()
        chosen = scores.gather(-1, ids[:, 1:, None])[..., 0] - scores.logsumexp(-1)
        ratio = torch.exp((chosen - old).clamp(-20, 0))
        clipped = torch.minimum(ratio * advantages, ratio.clamp(_LOW, _HIGH) * advantages)
        loss = -(clipped * mask).sum() / (rows * mask.sum())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, ids.numel()

    return f"transformers {transformers.__version__}, torch {torch.__version__}, {device}", one


def tunix_round(shape: dict[str, Any], dtype: str) -> tuple[str, Round]:
    """Tunix's Qwen2 and log-probs in a step that is jitted as its trainer's."""
    import importlib.metadata

    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx
    from tunix.rl import common

    model = tunix_model(shape, dtype, "float32")
    rule = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(_LEARNING_RATE, 0.9, 0.95, weight_decay=0.0)
    )
    optimizer = nnx.Optimizer(model, rule, wrt=nnx.Param)

    def loss_of(model: Any, ids: jax.Array, old: jax.Array, advantages: jax.Array) -> jax.Array:
        length = ids.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None]
        positions = jnp.broadcast_to(jnp.arange(length), ids.shape)
        scores, _ = model(
            ids, positions, None, jnp.broadcast_to(causal, (len(ids), *causal.shape[1:]))
        )
        chosen = common.selective_log_softmax(scores[:, :-1], ids[:, 1:])
        ratio = jnp.exp(jnp.clip(chosen - old, -20, 0))
        clipped = jnp.minimum(ratio * advantages, jnp.clip(ratio, _LOW, _HIGH) * advantages)
        mask = jnp.arange(1, length) >= length // 2
        return -jnp.sum(clipped * mask) / (len(ids) * jnp.sum(mask))

    def step(model: Any, optimizer: Any, *batch: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(loss_of)(model, *batch)
        optimizer.update(model, grads)
        return loss

    jitted = nnx.cached_partial(nnx.jit(step, donate_argnames=("optimizer",)), model, optimizer)

    def one(rows: int, length: int) -> tuple[float, int]:
        ids = jax.random.randint(jax.random.key(0), (rows, length), 3, shape["vocab_size"])
        old = jnp.full((rows, length - 1), -8.0)
        advantages = jnp.linspace(-1, 1, rows)[:, None]
        started = time.perf_counter()
        jitted(ids, old, advantages).block_until_ready()
        jax.block_until_ready(nnx.state(optimizer))
        return time.perf_counter() - started, ids.size

    version = importlib.metadata.version("google-tunix")
    return f"google-tunix {version}, jax {jax.__version__}, {jax.default_backend()}", one


if __name__ == "__main__":
    serve({"transformers": transformers_round, "tunix": tunix_round})
