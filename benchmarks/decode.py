"""Speed of the decoder beside its peers, and of its tool pauses beside what others do.

  python benchmarks/decode.py [--quick] [--json PATH] [--torch-python PY] [--tunix-python PY]

Peers: transformers' `generate` (torch) and google-tunix's vanilla Sampler, each in its own interpreter
(the current one where it can import them; a peer that is missing is named as missing). Rounds of all
are interleaved on the same machine, medians are compared. Every time includes the prompts' prefill.
Not measured: other serving engines, several devices.

--json writes {"summary", "plain", "tools", "overheads", "machine"}. `summary`:
  ratio_to_best_peer         tokens/s of ours over the best peer's at the small shape: the least of all
                             batches and dtypes; null without peers. ratios_to_best_peer has each.
  ratio_to_lockstep          seconds of lock-step decoding with re-prefill over ours, tool workload
  ratio_to_lockstep_kept     the same with the cache kept
  ratio_to_reprefill         seconds of slots with re-prefill over ours
  reprefilled_tokens         by ours, in the tool workload: 0
  useful_slot_steps_fraction until the queue was empty
  identical_fraction         trajectories equal to ours to the last token, the least of all ways: other
                             shapes round differently, and a random policy over 4096 tokens has a
                             border between two tokens near every uniform number
  pause_resume_ms, window_over_single_steps, programs, compile_s, late_programs
`plain` has one row for each shape, dtype and batch with tokens_per_s of each way and floor_fraction:
the time that the bytes of weights and live cache take at this machine's copy speed over ours.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # run as a file, its own folder would stand there

from experiments import launch  # noqa: E402

SMALL = {
    "vocab_size": 4096,
    "d_model": 256,
    "d_ff": 1024,
    "num_layers": 6,
    "num_heads": 8,
    "num_kv_heads": 2,
    "head_dim": 32,
}
QWEN = {
    "vocab_size": 151_936,
    "d_model": 896,
    "d_ff": 4864,
    "num_layers": 24,
    "num_heads": 14,
    "num_kv_heads": 2,
    "head_dim": 64,
}
SMOLLM = {
    "vocab_size": 49_152,
    "d_model": 576,
    "d_ff": 1536,
    "num_layers": 30,
    "num_heads": 9,
    "num_kv_heads": 3,
    "head_dim": 64,
}
SHAPES = {"small": SMALL, "SmolLM2-135M": SMOLLM, "Qwen2.5-0.5B": QWEN}


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
            new = 64 if is_quick or batch == 256 else 128
            found.append(Case("small", dtype, batch, 32, new, 3 if is_quick else 7))
    for shape in ("SmolLM2-135M", "Qwen2.5-0.5B"):
        for dtype in dtypes:
            if is_quick:
                found.append(Case(shape, dtype, 16, 8, 16, 2))
                continue
            found += [Case(shape, dtype, batch, 32, 32, 3) for batch in (16, 64)]
    return found


class Peer:
    """A worker process that answers one round at a time."""

    def __init__(self, name: str, python: str, case: Case):
        options = {"shape": SHAPES[case.shape], "dtype": case.dtype, "new": case.new}
        command = [python, str(ROOT / "benchmarks" / "decode_peers.py"), name, json.dumps(options)]
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions = self._answer().removeprefix("ready ")

    def round(self, case: Case) -> float:
        """Tokens per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case.batch} {case.prompt}\n")
        self._process.stdin.flush()
        _, seconds, _, tokens = self._answer().split()
        return int(tokens) / float(seconds)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{self.name} died with status {self._process.wait()}")
        return line


class Ours:
    """The engine at one shape: prompts in, windows until every row is at its limit."""

    def __init__(self, case: Case):
        import jax

        from jaxtool.decode.config import EngineConfig
        from jaxtool.model.config import ModelConfig
        from jaxtool.model.transformer import init_params
        from jaxtool.parallel.axis_rules import single_device

        model = ModelConfig(**SHAPES[case.shape], has_qkv_bias=True, compute_dtype=case.dtype)
        config = EngineConfig(
            slots=case.batch,
            max_tokens=case.prompt + case.new,
            window_steps=32,
            min_view=case.prompt + case.new,
            prefill_rows=min(case.batch, 16),
            min_prompt_bucket=case.prompt,
        )
        self.engine, self.setup = make_engine(model, config, single_device())
        self.engine.load(jax.jit(init_params, static_argnums=0)(model, jax.random.key(0)))

    def round(self, case: Case) -> float:
        """Tokens per second."""
        from jaxtool.core import rng
        from jaxtool.decode.engine import Placement

        engine, vocab = self.engine, self.engine.model.vocab_size
        prompts = [
            [3 + (7 * i + 13 * j) % (vocab - 3) for j in range(case.prompt)]
            for i in range(case.batch)
        ]
        started = time.perf_counter()
        placements = [
            Placement(
                slot=engine.take_slot(),
                prompt=prompt,
                row_key=rng.row_key(0, i),
                limit=case.prompt + case.new,
            )
            for i, prompt in enumerate(engine.prefill(prompts))
        ]
        engine.place(placements)
        made = 0
        while engine.is_any_running:
            made += int(engine.fetch(engine.dispatch_window()).is_sampled.sum())
        seconds = time.perf_counter() - started
        for placement in placements:
            engine.release(placement.slot)
        if made != case.batch * case.new:
            raise RuntimeError(f"{made} tokens in place of {case.batch} x {case.new}")
        return made / seconds

    def floor_s(self, case: Case, bytes_per_s: float) -> float:
        """Seconds that weights and live cache take to be read for each step, at copy speed."""
        import jax

        from jaxtool.model.kv_cache import cache_bytes

        weights = sum(x.nbytes for x in jax.tree.leaves(self.engine._params))
        mean_length = case.prompt + case.new // 2
        live = cache_bytes(self.engine.model, case.batch, mean_length)
        return case.new * (weights + live) / bytes_per_s


def make_engine(model: Any, config: Any, sharding: Any, stops: Any = ()) -> tuple[Any, None]:
    """A DecodeEngine without parameters whose rows stop at `stops` only."""
    import numpy as np

    from jaxtool.decode.engine import DecodeEngine

    is_stop = np.zeros(model.vocab_size, bool)
    is_stop[list(stops)] = True
    return DecodeEngine(model=model, config=config, sharding=sharding, is_stop=is_stop), None


def copy_bytes_per_s() -> float:
    """Bytes read and written per second by the best of nine copies of an array beyond any cache."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones(2**27, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    times = []
    for _ in range(9):
        started = time.perf_counter()
        jax.block_until_ready(copy(x))
        times.append(time.perf_counter() - started)
    return 2 * x.nbytes / min(times)


@contextlib.contextmanager
def peers_of(case: Case, pythons: dict[str, str]) -> Iterator[list[Peer]]:
    peers: list[Peer] = []
    try:
        for name, python in pythons.items():
            peers.append(Peer(name, python, case))
        yield peers
    finally:
        for peer in peers:
            peer.close()


def plain(
    is_quick: bool, pythons: dict[str, str], bytes_per_s: float
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row per case; versions of the peers."""
    rows: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for case in cases(is_quick):
        with peers_of(case, pythons) as peers:
            ours = Ours(case)
            ways = {"jaxtool": ours.round} | {peer.name: peer.round for peer in peers}
            for way in ways.values():
                way(case)  # compiles, warms up
            seen: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(case.rounds):
                for name, way in ways.items():
                    seen[name].append(way(case))
            versions |= {peer.name: peer.versions for peer in peers}
        speed = {name: statistics.median(values) for name, values in seen.items()}
        best = max((speed[name] for name in speed if name != "jaxtool"), default=None)
        seconds = case.batch * case.new / speed["jaxtool"]
        row = dataclasses.asdict(case) | {
            "tokens_per_s": speed,
            "rounds_tokens_per_s": seen,
            "ratio_to_best_peer": speed["jaxtool"] / best if best else None,
            "floor_fraction": ours.floor_s(case, bytes_per_s) / seconds,
        }
        rows.append(row)
        shown = "  ".join(f"{name} {value:.0f}" for name, value in speed.items())
        ratio = f"{row['ratio_to_best_peer']:.2f} x" if best else "no peer"
        print(
            f"{case.shape} {case.dtype} batch {case.batch}: {shown} tokens/s, {ratio}, "
            f"{row['floor_fraction']:.0%} of the bandwidth floor",
            flush=True,
        )
    return rows, versions


def summary(rows: list[dict[str, Any]], tools: Any, overheads: Any) -> dict[str, Any]:
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
        **tools["summary"],
        **overheads,
    }


def machine(versions: dict[str, str], bytes_per_s: float) -> dict[str, Any]:
    import jax

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "peers": versions,
        "copy_gb_per_s": bytes_per_s / 1e9,
        "load": os.getloadavg(),
        "commit": commit.stdout.strip(),
    }


def find_peers(arguments: argparse.Namespace) -> dict[str, str]:
    """Peer name -> interpreter that has it."""
    found = {}
    for name, module, python in (
        ("transformers", "torch, transformers", arguments.torch_python),
        ("tunix", "tunix", arguments.tunix_python),
    ):
        probe = subprocess.run([python, "-c", f"import {module}"], capture_output=True)
        if probe.returncode == 0:
            found[name] = python
        else:
            print(f"peer missing: {name} ({python} cannot import {module})", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="within 20 minutes on two cores")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures here")
    parser.add_argument("--torch-python", default=sys.executable, help="has torch, transformers")
    parser.add_argument("--tunix-python", default=sys.executable, help="has google-tunix")
    parser.add_argument(
        "--part", choices=("plain", "tools", "overheads"), help="only this part; no summary"
    )
    arguments = parser.parse_args()
    from benchmarks import decode_tools

    bytes_per_s = copy_bytes_per_s()
    record: dict[str, Any] = {}
    versions: dict[str, str] = {}
    if arguments.part in (None, "overheads"):
        record["overheads"] = decode_tools.overheads(SMALL)
    if arguments.part in (None, "tools"):
        record["tools"] = decode_tools.tools(SMALL, arguments.quick)
    if arguments.part in (None, "plain"):
        pythons = find_peers(arguments)
        record["plain"], versions = plain(arguments.quick, pythons, bytes_per_s)
    record["machine"] = machine(versions, bytes_per_s)
    if not arguments.part:
        record["summary"] = summary(record["plain"], record["tools"], record["overheads"])
        print(json.dumps(record["summary"], indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    launch.prepare()
    main()
