"""The learner and the batch that benchmarks/learner.py and benchmarks/learner_start.py measure.

And how quick that update could be at most: all of its products, and nothing else, at this machine's rate.
"""

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.state import TrainState, make_state
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_axes, param_shapes
from jaxtool.model.transformer import init_params
from jaxtool.parallel.axis_rules import single_device


def make_setup(
    shape: dict[str, int], dtype: str, rows: int, chunk: int, **model: Any
) -> LearnerSetup:
    """A LearnerSetup that does what the peers do."""
    return LearnerSetup(
        model=ModelConfig(**shape, has_qkv_bias=True, compute_dtype=dtype, **model),  # pyright: ignore
        grpo=GrpoConfig(micro_batch_rows=rows, lm_head_chunk=chunk, old_policy="sampler"),
        optimizer=OptimizerConfig(learning_rate=1e-6),
        sharding=single_device(),
        temperature=1.0,
        num_trajectories=rows,
    )


def random_state(setup: LearnerSetup) -> TrainState:
    """Laid out as a run's is, and as a restored one: others are another type of argument, a second program."""
    layout = setup.sharding.tree(param_axes(param_shapes(setup.model)))
    init = jax.jit(init_params, static_argnums=0, out_shardings=layout)
    params = init(setup.model, jax.random.key(0))
    return make_state(params, setup.optimizer, setup.sharding)


def make_batch(vocab: int, rows: int, length: int) -> TrainBatch:
    """One trajectory a row; the policy wrote the second half."""
    mask = np.broadcast_to(np.arange(length) >= length // 2, (rows, length))
    columns = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    numbers = np.broadcast_to(np.arange(rows, dtype=np.int32)[:, None], (rows, length))
    advantages = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    return TrainBatch(
        tokens=np.random.default_rng(0).integers(3, vocab, (rows, length), np.int32),
        positions=columns,
        segment_ids=np.ones_like(numbers),
        trajectory_ids=numbers,
        loss_mask=mask,
        behaviour_logprobs=np.where(mask, np.float32(-8), np.float32(0)),
        advantages=np.where(mask, advantages, np.float32(0)),
    )


def update_flops(shape: Mapping[str, int], rows: int, length: int) -> float:
    """FLOPs of the products that a learner cannot leave out of one update of `make_batch`.

    Forward and twice as much backward; later keys not looked at; the logits of the policy's half alone.
    """
    d, f, h = shape["d_model"], shape["d_ff"], shape["head_dim"]
    heads, kv_heads = shape["num_heads"], shape["num_kv_heads"]
    kernels = d * h * (2 * heads + 2 * kv_heads) + 3 * d * f
    keys = (length + 1) / 2  # of a token's query, on average
    layer = 2 * kernels + 4 * heads * h * keys
    head = 2 * d * shape["vocab_size"] / 2
    return 3 * rows * length * (shape["num_layers"] * layer + head)


def product_flops_per_s(shape: Mapping[str, int], dtype: str, tokens: int) -> float:
    """FLOPs a second of the feed-forward's product, alone, on all cores: the best of five rounds of ten."""
    x = jnp.ones((tokens, shape["d_model"]), dtype)
    kernel = jnp.ones((shape["d_model"], shape["d_ff"]), dtype)
    product = jax.jit(lambda x, y: jnp.dot(x, y, preferred_element_type=jnp.float32))
    product(x, kernel).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(10):
            product(x, kernel).block_until_ready()
        seconds.append((time.perf_counter() - started) / 10)
    return 2 * tokens * kernel.size / min(seconds)
