"""Cycles of a Pallas kernel's grid step, from the instructions that the TPU compiler writes down.

A bundle is what a core issues in one cycle. libtpu prints the bundles of everything that it compiles where
it is started with `_FLAGS`, so kernels are compiled once more, alone, in a process of their own. Stalls are
not in them: the cycles are a lower bound. Covered: libtpu 0.0.52. Not covered: kernels with loops inside a
grid step, whose rounds the bundles do not say.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import export

from jaxtool.plan.flops import KernelCall

_FLAGS = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles"
_BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+)\s+(?:(LB|LH|LE|PB|PF|CT)\s*)?:\s*(>*)")
_BRANCH = re.compile(r"sbr\.rel \([^)]*\) target = \$region(\d+)")
_REGION = re.compile(r"Start(?:/End empty)? region (\d+)")
_DELAY = 5  # bundles of a branch that are issued whether it is taken or not
_DEADLINE_S = 1800


class StepCycles(NamedTuple):
    """Of one step of a kernel's grid."""

    active: int  # the first and the last work of a row included
    skipped: int  # where everything that can be left out is


def step_cycles(text: str) -> StepCycles | None:
    """Cycles from the bundles of a kernel; None where they do not say.

    The loop over the grid is the text between its first bundle (LB) and its last one marked ">". A skipped
    step takes every branch forward: each leaves out what lies between it and its target.
    """
    addresses: list[int] = []
    starts: dict[str, int] = {}
    branches: list[tuple[int, str]] = []
    address, bodies, in_loop = 0, 0, False
    for line in text.splitlines():
        bundle = _BUNDLE.match(line)
        if bundle:
            address, in_loop = int(bundle[1], 16), bool(bundle[3])
            bodies += bundle[2] == "LB"
            if len(bundle[3]) > 1:
                return None
            if in_loop:
                addresses.append(address)
        for region in _REGION.findall(line):
            starts.setdefault(region, address)
        if in_loop:
            branches += [(address, target) for target in _BRANCH.findall(line)]
    if bodies != 1 or not addresses:
        return None
    active = max(addresses) - min(addresses) + 1
    skipped, reached = active, min(addresses)
    for source, target in branches:
        end = min(starts.get(target, 0), max(addresses))
        if source >= reached and end > source + _DELAY:
            skipped -= end - source - _DELAY
            reached = end
    return StepCycles(active, skipped)


def cycles_of(calls: Sequence[KernelCall], topology: str) -> dict[str, StepCycles]:
    """Cycles of a grid step of each kernel, by its name; without those that the compiler does not show.

    Args:
      topology: "v6e:2x2", see `chips.Slice.name`.
    """
    if not calls:
        return {}
    with tempfile.TemporaryDirectory(prefix="jaxtool_kernels_") as name:
        folder = Path(name)
        for call in calls:
            (folder / f"{call.name}.kernel").write_bytes(_exported(call))
        environment = os.environ | {
            "LIBTPU_INIT_ARGS": f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {_FLAGS.format(folder)}",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_SKIP_MDS_QUERY": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",
        }
        ended = subprocess.run(
            [sys.executable, "-m", "jaxtool.plan.bundles", name, topology],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
        )
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["nothing was said"])[-1]
            raise RuntimeError(f"the kernels of a plan did not compile alone: {last}")
        found = {}
        for call in calls:
            cycles = [
                step_cycles(path.read_text())
                for path in sorted(folder.glob(f"*-{call.name}.*-final_bundles.txt"))
                if "schedule-analysis" not in path.name
            ]
            if cycles and cycles[0] is not None:
                found[call.name] = cycles[0]
        return found


def _exported(call: KernelCall) -> bytes:
    """The kernel alone as a program for a TPU, shapes of one device."""
    equation = call.equation
    arguments = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars]

    def run(*arrays: Any) -> Any:
        return equation.primitive.bind(*arrays, **equation.params)

    run.__name__ = call.name  # by which libtpu calls its files
    return bytes(export.export(jax.jit(run), platforms=["tpu"])(*arguments).serialize())


def _compile(folder: Path, topology: str) -> None:
    """Compiles every exported kernel of a folder for one device of a slice."""
    from jax.experimental import topologies

    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    on = jax.sharding.SingleDeviceSharding(described.devices[0])
    for path in sorted(folder.glob("*.kernel")):
        kernel = export.deserialize(bytearray(path.read_bytes()))
        arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on) for x in kernel.in_avals]
        jax.jit(kernel.call).lower(*arguments).compile()


if __name__ == "__main__":
    _compile(Path(sys.argv[1]), sys.argv[2])
