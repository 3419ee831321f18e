"""What the compiler says of one program, and a directory that keeps it for the next plan.

Most of a plan's time is the compiler's, and most plans are made again after a change of a few programs. A program is
known again by its lowered text, the slice, libtpu's flags and the versions of jax and libtpu; whatever differs in these
is compiled.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.files import write_text
from jaxtool.learn.compile_options import Options
from jaxtool.plan import bundles
from jaxtool.plan.bundles import StepCycles
from jaxtool.plan.chips import Slice
from jaxtool.plan.flops import KernelCall
from jaxtool.plan.hlo import Collective, collectives, estimated_cycles
from jaxtool.plan.schedule import Step, schedule

_FORMAT = 3  # of the files; another one is not read
_OUT_OF_MEMORY = re.compile(
    r"Used ([\d.]+)([KMGT]) of |Ran out of memory on HBM\D*\(([\d.]+)([KMGT])\) exceeds"
)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Of one program, per device. Bytes and cycles."""

    arguments: int = 0
    temporaries: int = 0
    outputs: int = 0  # those too that take an argument's place
    replaced: int = 0  # of `outputs`: those that do
    cycles: float = 0.0  # the compiler's estimate, kernels and collectives left out
    collectives: tuple[Collective, ...] = ()
    schedule: list[Step] = dataclasses.field(default_factory=list)
    kernels: dict[str, StepCycles] = dataclasses.field(default_factory=dict)
    needed: float | None = None  # by a program that does not fit; the rest is not known then
    compile_s: float = 0.0  # on the machine that compiled


def facts_of(
    lowered: Any,
    calls: Sequence[KernelCall],
    num_devices: int,
    tpu: Slice,
    kept: Path | None,
    options: Options = (),
) -> Facts:
    """Compiles a program, or reads what an earlier plan kept of the same one.

    Args:
      lowered: a jax.stages.Lowered.
      calls: its kernels, which are timed alone.
      num_devices: that it runs on.
      kept: a directory of files that `facts_of` wrote; None: nothing is kept.
      options: that its jit has; the lowered text does not tell them.
    """
    if kept is None:
        return _compiled(lowered, calls, tpu)
    path = kept / f"{_key(lowered, num_devices, tpu, options)}.json"
    known = _read(path)
    if known is None:
        known = _compiled(lowered, calls, tpu)
        write_text(path, json.dumps({"format": _FORMAT, **dataclasses.asdict(known)}) + "\n")
    return known


def out_of_memory_bytes(message: str) -> float | None:
    """The bytes that an out-of-memory error of the compiler names; None for any other error."""
    match = _OUT_OF_MEMORY.search(message)
    if match is None:
        return None
    number, unit = (part for part in match.groups() if part is not None)
    return float(number) * _UNITS[unit]


def compiler_versions() -> dict[str, str]:
    """Of jax and libtpu, where they are installed."""
    found = {}
    for name in ("jax", "libtpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _compiled(lowered: Any, calls: Sequence[KernelCall], tpu: Slice) -> Facts:
    started = time.monotonic()
    try:
        compiled = lowered.compile()
    except Exception as error:  # jax gives the compiler's errors no type of their own
        used = out_of_memory_bytes(str(error))
        if used is None:
            raise
        return Facts(needed=used, compile_s=time.monotonic() - started)
    kernels = bundles.cycles_of(calls, tpu.host.name)
    memory, text = compiled.memory_analysis(), compiled.as_text() or ""
    return Facts(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        replaced=memory.alias_size_in_bytes,
        cycles=estimated_cycles(text),
        collectives=tuple(collectives(text)),
        schedule=schedule(text, [call.name for call in calls]),
        kernels=kernels,
        compile_s=time.monotonic() - started,
    )


def _key(lowered: Any, num_devices: int, tpu: Slice, options: Options) -> str:
    """Of the program's text, where it runs and who compiles it."""
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    told = [tpu.name, num_devices, compiler_versions(), flags, *([options] if options else [])]
    digest = hashlib.sha256(json.dumps(told).encode())
    digest.update(lowered.as_text().encode())
    return digest.hexdigest()[:32]


def _read(path: Path) -> Facts | None:
    """None where there is no file, or one that another version or a broken write left."""
    try:
        record = json.loads(path.read_text())
        if record.pop("format") != _FORMAT:
            return None
        found = [Collective(**one) for one in record.pop("collectives")]
        kernels = {name: StepCycles(*cycles) for name, cycles in record.pop("kernels").items()}
        return Facts(collectives=tuple(found), kernels=kernels, **record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
