"""Bytes of optimizer state by optimizer, and how far 8-bit moments lead Adam's updates off.

Bytes are those of the real state's shapes (nothing is allocated), for Qwen2.5-7B. Errors: Adam on
synthetic gradients, N(mean, 1) times a scale of each parameter, log-normal with a spread of sigma, in
blocks of 64; after 300 updates the RMS error of the last update and of their sum, over their RMS.
The update's memory is that of the compiled program on this machine, for a model of 34 million parameters.
Covered: our power code, other powers, and the dynamic tree of 2110.02861 (its unsigned form, whose
exponents are those of bitsandbytes). Not covered: a model's curve; time.

Run: python -m benchmarks.optimizer_state --json out.json   (a minute)
"""

import argparse
import dataclasses
import functools
import json
import platform
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.cli import entry
from jaxtool.learn.adam8bit import dequantize_blocks, quantize_blocks
from jaxtool.learn.optimizer import (
    Adafactor,
    AdamW,
    AdamW8bit,
    Muon,
    OptimizerConfig,
    UpdateRule,
)
from jaxtool.learn.state import Gradients, apply_gradients, make_state
from jaxtool.model.config import ModelConfig, tiny
from jaxtool.model.lora import LoraConfig, adapter_shapes
from jaxtool.model.param_axes import param_shapes
from jaxtool.parallel.axis_rules import single_device

QWEN_7B = ModelConfig(
    vocab_size=152064,
    d_model=3584,
    d_ff=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    ties_embeddings=False,
    has_qkv_bias=True,
)
RULES = {"adamw": AdamW(), "adam8bit": AdamW8bit(), "adafactor": Adafactor(), "muon": Muon()}
ROWS, BLOCK, UPDATES, B1 = 64, 64, 300, 0.9
Code = Callable[[np.ndarray], np.ndarray]


def state_bytes(rule: UpdateRule, trained: Any) -> int:
    return tree_bytes(jax.eval_shape(OptimizerConfig(rule=rule).optimizer().init, trained))


def tree_bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def memory() -> dict[str, dict[str, float]]:
    """GB of what an update changes and reads, by what is trained and how."""
    params = param_shapes(QWEN_7B)
    rows = {name: (params, state_bytes(rule, params)) for name, rule in RULES.items()}
    adapter = adapter_shapes(QWEN_7B, LoraConfig(rank=16))
    rows["adamw, LoRA rank 16"] = adapter, state_bytes(AdamW(), adapter)
    return {
        name: {"trained_gb": tree_bytes(trained) / 1e9, "state_gb": state / 1e9}
        for name, (trained, state) in rows.items()
    }


def update_memory() -> dict[str, dict[str, float]]:
    """MB of the program that updates a small model: its arguments, and what it makes meanwhile."""
    model = dataclasses.replace(
        tiny(256), d_model=512, d_ff=2048, num_layers=8, num_heads=8, num_kv_heads=8, head_dim=64
    )
    params, sharding = param_shapes(model), single_device()
    gradients = Gradients(loss=jnp.float32(0), grads=params)
    found = {}
    for name in ("adamw", "adam8bit", "adafactor"):
        config = OptimizerConfig(rule=RULES[name])
        state = jax.eval_shape(
            functools.partial(make_state, config=config, sharding=sharding), params
        )
        lowered = apply_gradients.lower(state, gradients, config=config, sharding=sharding)
        memory = lowered.compile().memory_analysis()
        assert memory is not None
        found[name] = {
            "arguments_mb": memory.argument_size_in_bytes / 1e6,
            "temporaries_mb": memory.temp_size_in_bytes / 1e6,
        }
    return found


def power(p: int, most: float, least: float = 0.0) -> Code:
    """sign(x) s (c / most)^p, c = max(least, round(most (|x| / s)^(1/p))) where x is not 0."""

    def code(x: np.ndarray) -> np.ndarray:
        scale = np.abs(x).max(-1, keepdims=True) + 1e-38
        c = np.round(most * (np.abs(x) / scale) ** (1 / p))
        return np.sign(x) * (np.maximum(c, least) / most) ** p * scale

    return code


def dynamic_tree(*, is_signed: bool) -> Code:
    """Decades of evenly spaced values, the largest decade with the most of them; 256 in all."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1, 2 ** (decade + (0 if is_signed else 1)) + 1)
        means = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        values += [*means, *(-means if is_signed else [])]
    table = np.sort(values)
    edges = (table[1:] + table[:-1]) / 2

    def code(x: np.ndarray) -> np.ndarray:
        scale = np.abs(x).max(-1, keepdims=True) + 1e-38
        return table[np.searchsorted(edges, x / scale)] * scale

    return code


def ours(*, is_signed: bool) -> Code:
    code = jax.jit(lambda x: dequantize_blocks(quantize_blocks(x, is_signed=is_signed)))
    return lambda x: np.asarray(code(jnp.asarray(x, jnp.float32)), np.float64)


CODES: dict[str, tuple[Code, Code]] = {
    "ours: powers 3 and 6": (ours(is_signed=True), ours(is_signed=False)),
    "powers 2 and 4": (power(2, 127), power(4, 255, 1)),
    "powers 1 and 2": (power(1, 127), power(2, 255, 1)),
    "dynamic tree": (dynamic_tree(is_signed=True), dynamic_tree(is_signed=False)),
}


def errors(sigma: float, b2: float) -> dict[str, dict[str, float]]:
    """By code: RMS errors of the last update and of the sum of all."""
    numbers = np.random.default_rng(0)
    scale = np.exp(sigma * numbers.standard_normal((ROWS, BLOCK)))
    mean = 0.3 * numbers.standard_normal((ROWS, BLOCK))
    codes: dict[str, tuple[Code, Code]] = {"exact": (lambda x: x, lambda x: x), **CODES}
    moments = {name: (np.zeros_like(scale), np.zeros_like(scale)) for name in codes}
    last, total = {}, dict.fromkeys(codes, np.zeros_like(scale))
    for step in range(1, UPDATES + 1):
        g = scale * (numbers.standard_normal(scale.shape) + mean)
        for name, (code_m, code_v) in codes.items():
            m, v = moments[name]
            m, v = B1 * m + (1 - B1) * g, b2 * v + (1 - b2) * g * g
            last[name] = (m / (1 - B1**step)) / (np.sqrt(v / (1 - b2**step)) + 1e-8)
            total[name] = total[name] + last[name]
            moments[name] = code_m(m), code_v(v)

    def error(of: dict[str, np.ndarray], name: str) -> float:
        return float(np.sqrt(np.mean((of[name] - of["exact"]) ** 2) / np.mean(of["exact"] ** 2)))

    return {name: {"last": error(last, name), "sum": error(total, name)} for name in CODES}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_json_flag(parser, "write the figures here as well")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"python": platform.python_version(), "memory": memory(), "errors": []}
    print("Qwen2.5-7B                 trained      optimizer state")
    for name, row in result["memory"].items():
        print(f"  {name:22} {row['trained_gb']:8.2f} GB  {row['state_gb']:8.2f} GB")
    result["update"] = update_memory()
    for name, row in result["update"].items():
        taken, made = row["arguments_mb"], row["temporaries_mb"]
        print(f"  update by {name:12} {taken:8.0f} MB of arguments, {made:8.0f} MB made meanwhile")
    for sigma in (0.5, 1.5):
        for b2 in (0.95, 0.999):
            found = errors(sigma, b2)
            result["errors"].append({"sigma": sigma, "b2": b2, "codes": found})
            print(f"sigma {sigma}, b2 {b2}: error of the last update, of the sum of {UPDATES}")
            for name, row in found.items():
                print(f"  {name:22} {row['last']:8.3f}     {row['sum']:8.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
