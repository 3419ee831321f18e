"""What the learner's own forms of its parts save: gradients' seconds of the plain form over ours.

  python -m benchmarks.learner_parts [--json PATH]     (two minutes; not tested: accelerators)

attention  `attention` over whole rows against `row_attention`, whose spans leave out later keys
weight     a kernel's gradient by autodiff, (dy' x)', against `float_product`'s, x' dy
loss       log-probs with logits computed again in chunks of 64 tokens against one chunk, logits kept
wanted     log-probs of all tokens against those of the second half of each row, as a mask asks for them
layers     a kernel of all layers sliced layer by layer: autodiff's sum of padded arrays against one stack

Each at the small shape (16 rows of 320 tokens) and Qwen2.5-0.5B's (2 rows of 256; its loss over 32 768
words), float32, five rounds of both in turns, medians. --json writes {"ratios": {part: {shape: ratio}},
"seconds": {part: {shape: {"plain", "ours"}}}, "machine"}.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import QWEN, SMALL, machine
from jaxtool.cli import entry
from jaxtool.model.attention import attention, segment_mask
from jaxtool.model.blockwise_attention import row_attention
from jaxtool.model.float_product import float_product
from jaxtool.model.token_logprobs import token_logprobs
from jaxtool.model.transformer import unstack_layers

SIZES = {"small": (SMALL, 16, 320), "Qwen2.5-0.5B": (QWEN | {"vocab_size": 32_768}, 2, 256)}
ROUNDS = 5
Part = tuple[Callable[..., Any], Callable[..., Any], tuple[jax.Array, ...]]


def attention_part(shape: dict[str, int], rows: int, length: int) -> Part:
    keys = jax.random.split(jax.random.key(0), 3)
    heads = (shape["num_heads"], shape["num_kv_heads"], shape["num_kv_heads"])
    arguments = tuple(
        jax.random.normal(key, (rows, length, count, shape["head_dim"]))
        for key, count in zip(keys, heads, strict=True)
    )
    places = (
        jnp.ones((rows, length), jnp.int32),
        jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (rows, length)),
    )

    def gradient(attend: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.grad(lambda *qkv: jnp.sum(attend(*qkv) ** 2), argnums=(0, 1, 2))

    plain = gradient(lambda q, k, v: attention(q, k, v, segment_mask(*places)))
    return (
        plain,
        gradient(lambda q, k, v: row_attention(q, k, v, *places, attention_block=None)),
        arguments,
    )


def weight_part(shape: dict[str, int], rows: int, length: int) -> Part:
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (rows, length, shape["d_model"]))
    dy = jax.random.normal(keys[1], (rows, length, shape["d_ff"]))
    w = jax.random.normal(keys[2], (shape["d_model"], shape["d_ff"]))

    def gradient(product: Callable[..., jax.Array]) -> Callable[..., Any]:
        return lambda x, w, dy: jax.vjp(lambda w: product(x, w, 1), w)[1](dy)

    return gradient(jnp.tensordot), gradient(float_product), (x, w, dy)


def loss_part(shape: dict[str, int], rows: int, length: int) -> Part:
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (rows, length, shape["d_model"]))
    table = jax.random.normal(keys[1], (shape["vocab_size"], shape["d_model"]))
    tokens = jax.random.randint(keys[2], (rows, length), 0, shape["vocab_size"])

    def gradient(chunk: int) -> Callable[..., Any]:
        def total(hidden: jax.Array, table: jax.Array, tokens: jax.Array) -> jax.Array:
            logprobs, _ = token_logprobs(
                hidden, table, tokens, temperature=1.0, chunk=chunk, is_table=True
            )
            return jnp.sum(logprobs)

        return jax.grad(total, argnums=(0, 1))

    return gradient(64), gradient(length), (hidden, table, tokens)


def wanted_part(shape: dict[str, int], rows: int, length: int) -> Part:
    _, _, arguments = loss_part(shape, rows, length)
    mask = jnp.broadcast_to(jnp.arange(length) >= length // 2, (rows, length))

    def gradient(wanted: jax.Array | None) -> Callable[..., Any]:
        def total(hidden: jax.Array, table: jax.Array, tokens: jax.Array) -> jax.Array:
            logprobs, _ = token_logprobs(
                hidden,
                table,
                tokens,
                temperature=1.0,
                chunk=length,
                is_table=True,
                wanted=wanted,
            )
            return jnp.sum(jnp.where(mask, logprobs, 0.0))

        return jax.grad(total, argnums=(0, 1))

    return gradient(None), gradient(mask), arguments


def layers_part(shape: dict[str, int], rows: int, length: int) -> Part:
    """The gate's kernel, as many times as there are layers; a few rows, so that slices are what counts."""
    del rows, length
    sizes = (shape["num_layers"], shape["d_model"], shape["d_ff"])
    kernel = jax.random.normal(jax.random.key(0), sizes)
    x = jax.random.normal(jax.random.key(1), (16, shape["d_model"]))

    def gradient(slices: Callable[[jax.Array], Any]) -> Callable[..., Any]:
        def total(kernel: jax.Array, x: jax.Array) -> jax.Array:
            return sum((jnp.sum((x @ one) ** 2) for one in slices(kernel)), jnp.float32(0))

        return jax.grad(total)

    def plain(kernel: jax.Array) -> list[jax.Array]:
        return [kernel[i] for i in range(sizes[0])]

    def ours(kernel: jax.Array) -> list[jax.Array]:
        return [
            layer["kernel"] for layer in unstack_layers({"layers": {"kernel": kernel}})["layers"]
        ]

    return gradient(plain), gradient(ours), (kernel, x)


PARTS = {
    "attention": attention_part,
    "weight": weight_part,
    "loss": loss_part,
    "wanted": wanted_part,
    "layers": layers_part,
}


def measure(part: Part) -> dict[str, float]:
    """Medians of the plain form and of ours."""
    plain, ours, arguments = part
    ways = {"plain": jax.jit(plain), "ours": jax.jit(ours)}
    calls = {name: functools.partial(way, *arguments) for name, way in ways.items()}
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())  # compiles
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            seen[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_json_flag(parser, "write all figures here")
    arguments = parser.parse_args()
    seconds: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    for name, make in PARTS.items():
        seconds[name] = {size: measure(make(*values)) for size, values in SIZES.items()}
        ratios[name] = {size: x["plain"] / x["ours"] for size, x in seconds[name].items()}
        for size, x in seconds[name].items():
            print(
                f"{name:10s} {size:14s} plain {x['plain'] * 1e3:7.1f} ms  ours {x['ours'] * 1e3:7.1f} ms"
                f"  {ratios[name][size]:.2f} x",
                flush=True,
            )
    if arguments.json:
        record = {"ratios": ratios, "seconds": seconds, "machine": machine({})}
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
