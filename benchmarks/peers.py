"""What the benchmarks that compare with other systems share: their workers, and what machine it was.

A worker is a script that takes a peer's name and JSON options, prints "ready VERSIONS" and answers each
line on its input with "seconds X tokens N". It runs in the peer's own environment.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import selectors
import subprocess
import sys
import time
from typing import Any, Self

from jaxtool.cli import entry

ROOT = pathlib.Path(__file__).resolve().parents[1]
_MODULES = {"transformers": "torch, transformers", "tunix": "tunix"}

SMALL = {
    "vocab_size": 4096,
    "d_model": 256,
    "d_ff": 1024,
    "num_layers": 6,
    "num_heads": 8,
    "num_kv_heads": 2,
    "head_dim": 32,
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
QWEN = {
    "vocab_size": 151_936,
    "d_model": 896,
    "d_ff": 4864,
    "num_layers": 24,
    "num_heads": 14,
    "num_kv_heads": 2,
    "head_dim": 64,
}
QWEN_1_5B = {
    "vocab_size": 151_936,
    "d_model": 1536,
    "d_ff": 8960,
    "num_layers": 28,
    "num_heads": 12,
    "num_kv_heads": 2,
    "head_dim": 128,
}
QWEN_7B = {
    "vocab_size": 152_064,
    "d_model": 3584,
    "d_ff": 18_944,
    "num_layers": 28,
    "num_heads": 28,
    "num_kv_heads": 4,
    "head_dim": 128,
}
SHAPES = {"small": SMALL, "SmolLM2-135M": SMOLLM, "Qwen2.5-0.5B": QWEN}
# With those that only one process at a time holds on a small machine.
START_SHAPES = SHAPES | {"Qwen2.5-1.5B": QWEN_1_5B, "Qwen2.5-7B": QWEN_7B}


def _without_our_allocator() -> dict[str, str]:
    """The environment, but for the allocator that our own entry points give themselves."""
    ours = ("GLIBC_TUNABLES", entry.allocator())
    return {name: value for name, value in os.environ.items() if (name, value) != ours}


class Peer:
    """A worker process that answers one round at a time."""

    def __init__(self, name: str, python: str, script: str, options: dict[str, Any]):
        """`script` is in the folder of this file."""
        self.name = name
        self._process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / script), name, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_without_our_allocator(),
        )
        self.versions = self._answer().removeprefix("ready ")

    def tokens_per_s(self, *question: object, limit_s: float | None = None) -> float:
        """One round; the question is what the worker reads on its line.

        Raises:
          TimeoutError: no answer within `limit_s` (None: any time will do); the worker is ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, question)) + "\n")
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(limit_s):
                self._process.kill()
                raise TimeoutError(f"{self.name}: no answer within {limit_s:.0f} s")
        _, seconds, _, tokens = self._answer().split()
        return int(tokens) / float(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{self.name} died with status {self._process.wait()}")
        return line


def find_peers(torch_python: str, tunix_python: str) -> dict[str, str]:
    """Peer name -> interpreter that has it; says which are missing."""
    found = {}
    for name, python in (("transformers", torch_python), ("tunix", tunix_python)):
        probe = subprocess.run([python, "-c", f"import {_MODULES[name]}"], capture_output=True)
        if probe.returncode == 0:
            found[name] = python
        else:
            print(f"peer missing: {name} ({python} cannot import {_MODULES[name]})", flush=True)
    return found


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


def machine(versions: dict[str, str]) -> dict[str, Any]:
    """Where and with what a benchmark ran; `versions` are the peers'."""
    import jax

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "peers": versions,
        "load": os.getloadavg(),
        "commit": commit.stdout.strip(),
    }


def parse_case(text: str, numbers: tuple[str, ...]) -> tuple[str, str, list[int]]:
    """Shape, dtype and so many numbers of a --case flag.

    Raises:
      ValueError: naming a text that is none.
    """
    shape, _, rest = text.partition(",")
    dtype, *found = rest.split(",")
    if (
        shape not in START_SHAPES
        or dtype not in ("float32", "bfloat16")
        or len(found) != len(numbers)
        or not all(number.isdigit() for number in found)
    ):
        raise ValueError(
            f"--case {text!r} must be shape,dtype,{','.join(numbers)} with float32 or bfloat16 and a "
            f"shape of {', '.join(START_SHAPES)}"
        )
    return shape, dtype, [int(number) for number in found]


def _processor() -> str:
    """The model's name where Linux tells it."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def add_peer_flags(parser: Any) -> None:
    parser.add_argument("--torch-python", default=sys.executable, help="has torch, transformers")
    parser.add_argument("--tunix-python", default=sys.executable, help="has google-tunix")
