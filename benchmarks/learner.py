"""Speed and memory of the policy update against its peers, and how long a run takes to begin.

  python benchmarks/learner.py [--quick] [--json PATH] [--torch-python PY] [--tunix-python PY]
      [--part updates|shared|memory|start] [--shape small] [--dtype float32] [--start-shape Qwen2.5-0.5B]
  python benchmarks/learner.py --part updates --case Qwen2.5-1.5B,bfloat16,1,16384 --peak-tflops 989

Peers: transformers under torch and google-tunix's Qwen2, each with the same loss and optimizer, in its
own interpreter (the current one where it can import them; a peer that is missing is named as missing).
At the small shape rounds of all take turns, and then each library runs by itself (`takes_turns` in the rows of
`updates`): in each pause a virtual machine may take back memory that lies idle, and the next update pays for it.
At 0.5B one ends before the next begins, since three do not fit into 24 GiB. Medians are compared. Data transfer is
not part of it.

--json writes {"summary", "updates", "shared", "memory", "start", "machine"}. `summary`:
  ratio_small_float32            tokens/s of ours over the better peer's, 16 rows of 320 tokens, in turns
  ratio_small_float32_alone      the same, each library by itself
  ratio_05b_float32              the same at Qwen2.5-0.5B's shape, 2 rows of 256 tokens
  ratio_05b_torch_bfloat16       ours in bfloat16 over torch with parameters in bfloat16, 0.5B
  shared_prompts_ratio           seconds of an update of 16 samples of 60 tokens to one prompt of 250, SmolLM2's
                                 shape: with a copy of the prompt for each, over one copy for all
  loss_memory_ratio              temporary memory of the loss with all logits at once over ours:
                                 16 384 tokens, 151 936 words, by the compiler's account
  update_memory_ratio            the same of one whole gradient block at Qwen2.5-0.5B's shape
  first_step_s, restore_gb_per_s of a new process at --start-shape (in the summary where that part ran)
`--shape` and `--dtype` leave cases out. Values are null where a peer is missing or takes more than three
minutes for a round; `updates` then has `ratios_at_least`. It has one row for each shape, size and dtype,
with `bound_tokens_per_s`: of a learner that takes no time but for products which no one can leave out, at
the rate of the feed-forward's product in this run; `share_of_bound` of ours and `bound_ratios`, the bound
over each peer's tokens/s: what ours could reach at most; `tflops_per_s` of those products in ours, and
`utilization` (MFU) of --peak-tflops, the device's figure, where it is given. A --case is
shape,dtype,rows,tokens, in place of the table's.
`shared` has both ways' `rows` and `update_s`, and what their first update measured (benchmarks/learner_shared.py).
The start part keeps three float32 copies of the parameters and a checkpoint of that size in a temporary
folder. With `--start-option adapter` it reads a bfloat16 model from a Hugging Face directory that it writes
there and trains an adapter, with `--start-option no-decoder` it leaves the decoder (a second copy) out.
"""

import argparse
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # run as a file, its own folder would stand there

from benchmarks.learner_updates import Case, cases, updates  # noqa: E402
from benchmarks.peers import (  # noqa: E402
    SHAPES,
    START_SHAPES,
    add_peer_flags,
    find_peers,
    machine,
    parse_case,
)
from jaxtool.cli import entry  # noqa: E402

_LONG = 16_384


def memory() -> dict[str, Any]:
    """Bytes of temporaries that the compiler allots: the loss alone, and one gradient block."""
    import jax
    import jax.numpy as jnp

    from benchmarks.learner_setup import make_batch, make_setup
    from jaxtool.learn.grpo import grpo_block
    from jaxtool.learn.policy_view import PolicyView
    from jaxtool.learn.state import Gradients
    from jaxtool.model.token_logprobs import token_logprobs
    from jaxtool.model.transformer import init_params

    shape = SHAPES["Qwen2.5-0.5B"]
    d, v = shape["d_model"], shape["vocab_size"]
    out: dict[str, Any] = {}

    def naive(hidden: jax.Array, head: jax.Array, tokens: jax.Array) -> jax.Array:
        logprobs = jax.nn.log_softmax(hidden[:, :-1] @ head)  # [B, T, V] at once
        return -jnp.mean(jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1))

    def ours(hidden: jax.Array, head: jax.Array, tokens: jax.Array) -> jax.Array:
        return -jnp.mean(token_logprobs(hidden, head, tokens, temperature=1.0, chunk=512)[0][:, 1:])

    def temporaries(jitted: Any, *arguments: Any, **static: Any) -> int:
        return jitted.lower(*arguments, **static).compile().memory_analysis().temp_size_in_bytes

    arguments = (
        jax.ShapeDtypeStruct((1, _LONG, d), jnp.float32),
        jax.ShapeDtypeStruct((d, v), jnp.float32),
        jax.ShapeDtypeStruct((1, _LONG), jnp.int32),
    )
    for name, loss in (("naive", naive), ("ours", ours)):
        out[f"loss_{name}_bytes"] = temporaries(jax.jit(jax.grad(loss, argnums=(0, 1))), *arguments)
    for name, chunk in (("naive", _LONG), ("ours", 512)):
        # The rest of the block as a long row is learned: attention in blocks, layers computed again.
        setup = make_setup(shape, "float32", 1, chunk, remat="block", attention_block=512)
        params = jax.eval_shape(functools.partial(init_params, setup.model), jax.random.key(0))
        total = Gradients(loss=jax.ShapeDtypeStruct((), jnp.float32), grads=params)  # pyright: ignore
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), make_batch(v, 1, _LONG)
        )
        count = jax.ShapeDtypeStruct((), jnp.float32)
        out[f"update_{name}_bytes"] = temporaries(
            grpo_block, total, params, PolicyView(), batch, None, count, setup=setup
        )
    for part in ("loss", "update"):
        ratio = out[f"{part}_naive_bytes"] / out[f"{part}_ours_bytes"]
        out[f"{part}_memory_ratio"] = ratio
        print(
            f"memory of the {part}: all logits at once {out[f'{part}_naive_bytes'] / 2**30:.2f} GiB, "
            f"ours {out[f'{part}_ours_bytes'] / 2**30:.2f} GiB, {ratio:.1f} x less",
            flush=True,
        )
    return out


def shared(is_quick: bool) -> dict[str, Any]:
    """Updates with and without a shared prompt, in turns."""
    from benchmarks.learner_shared import SharedCase, shared_prompts

    found = shared_prompts(SharedCase(rounds=3 if is_quick else 5))
    apart, together = (found["update_s"][way] for way in ("apart", "shared"))
    text = f"a copy of the prompt for each sample {apart:.1f} s, one for all {together:.1f} s"
    print(f"{found['shape']}: {text}, {found['ratio']:.2f} x", flush=True)
    return found


def start(shape: str, options: list[str]) -> dict[str, Any]:
    """Figures of a process that begins, and of one that resumes; weights come from the disk, not from its cache."""
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        out: dict[str, Any] = {"shape": shape, "options": options}
        if "adapter" in options:
            from benchmarks.learner_start import write_random_weights

            # XLA's CPU compiler slices a bfloat16 stack as float32 and takes that out of the loop over layers:
            # twice the model in addition to the model. Other compilers do not.
            flag = "--xla_disable_hlo_passes=while-loop-invariant-code-motion"
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}"
            out["weights_bytes"] = write_random_weights(pathlib.Path(folder), shape)
        for turn in ("first", "resumed"):
            for file in pathlib.Path(folder).rglob("*.safetensors"):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            command = [sys.executable, "-m", "benchmarks.learner_start", folder, shape, *options]
            started = time.time()
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, env=environment
            )
            if done.returncode:
                raise RuntimeError(f"the {turn} process failed:\n{done.stderr[-2000:]}")
            record = json.loads(done.stdout.splitlines()[-1])
            record["first_step_s"] = record.pop("ready_at") - started
            out[turn] = record
            shown = "  ".join(f"{key} {value:.3g}" for key, value in record.items())
            print(f"start at {shape}, {turn} process: {shown}", flush=True)
        return out


def summary(record: dict[str, Any]) -> dict[str, Any]:
    def ratio(shape: str, dtype: str, *names: str, in_turns: bool = False) -> float | None:
        for row in record["updates"]:
            if (row["shape"], row["dtype"], row["takes_turns"]) == (shape, dtype, in_turns):
                found = [row["ratios"][name] for name in names if name in row["ratios"]]
                return min(found, default=math.nan) if found else None
        return None

    peers = ("transformers", "tunix")
    out = {
        "ratio_small_float32": ratio("small", "float32", *peers, in_turns=True),
        "ratio_small_float32_alone": ratio("small", "float32", *peers),
        "ratio_05b_float32": ratio("Qwen2.5-0.5B", "float32", *peers),
        "ratio_05b_torch_bfloat16": ratio(
            "Qwen2.5-0.5B", "bfloat16", "transformers, parameters too", "transformers"
        ),
        "shared_prompts_ratio": record["shared"]["ratio"],
        "loss_memory_ratio": record["memory"]["loss_memory_ratio"],
        "update_memory_ratio": record["memory"]["update_memory_ratio"],
    }
    return out | {
        "first_step_s": record["start"]["first"]["first_step_s"],
        "restore_gb_per_s": record["start"]["resumed"]["restore_gb_per_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, torch in bfloat16 without autocast"
    )
    entry.add_json_flag(parser, "write all figures here")
    add_peer_flags(parser)
    parser.add_argument(
        "--part", choices=("updates", "shared", "memory", "start"), help="only this part"
    )
    parser.add_argument("--shape", choices=("small", "Qwen2.5-0.5B"), help="of updates: only this")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of updates: only this")
    parser.add_argument("--case", action="append", help="of --part updates, in place of its cases")
    parser.add_argument("--peak-tflops", type=float, help="of the device, for the utilization")
    parser.add_argument("--start-shape", choices=sorted(START_SHAPES), default="Qwen2.5-0.5B")
    parser.add_argument(
        "--start-option", action="append", default=[], choices=("adapter", "no-decoder")
    )
    arguments = parser.parse_args()
    record: dict[str, Any] = {}
    versions: dict[str, str] = {}
    if arguments.part in (None, "memory"):
        record["memory"] = memory()
    if arguments.part in (None, "updates"):
        pythons = find_peers(arguments.torch_python, arguments.tunix_python)
        chosen = [
            case
            for case in cases(arguments.quick)
            if arguments.shape in (None, case.shape) and arguments.dtype in (None, case.dtype)
        ]
        if arguments.case:
            parsed = [parse_case(text, ("rows", "tokens")) for text in arguments.case]
            chosen = [Case(shape, dtype, *numbers, rounds=3) for shape, dtype, numbers in parsed]
        record["updates"], versions = updates(
            chosen, arguments.quick, pythons, arguments.peak_tflops
        )
    if arguments.part in (None, "shared"):
        record["shared"] = shared(arguments.quick)
    if arguments.part in (None, "start"):
        record["start"] = start(arguments.start_shape, arguments.start_option)
    record["machine"] = machine(versions)
    if not arguments.part:
        record["summary"] = summary(record)
        print(json.dumps(record["summary"], indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    entry.prepare()
    main()
