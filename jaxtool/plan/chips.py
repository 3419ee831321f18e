"""TPU slices by name, and what their chips can do.

Covered: v4, v5e, v5p, v6e and tpu7x; names of topologies ("v5p:4x4x8") and of Cloud TPU accelerator
types ("v5p-128", which counts cores on v4 and v5p and chips on v5e and v6e). Not covered: several
slices over a data-centre network, other accelerators.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtool.core.libtpu_flags import libtpu_flags

GIB = 1 << 30
# Of a host in a slice of several: the VM types of multi-host slices (same pages as the peaks below), and
# how libtpu numbers the processes of such a slice.
CHIPS_PER_HOST = 4
# Where messages of libtpu's start go, one file a user.
LIBTPU_LOG = Path(tempfile.gettempdir()) / f"jaxtool_libtpu_{os.getuid()}.log"

_loaded: list[str] = []  # the generation whose flags libtpu has read


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One device as jax sees it: a chip, or half of one where each core is a device.

    Peaks: Google Cloud's documentation, pages docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}.
    `hbm_gib` is what the compiler lets a program use, from its own out-of-memory message (libtpu 0.0.50).
    `clock_hz` turns the compiler's cycle estimates into time: the clock at which the matrix units reach
    the peak (v5e: 4 units x 128 x 128 x 2 x 1.5 GHz = 197 TFLOP/s); v6e by the ratio of its estimates
    for a copy to v5e's. None where no figure is known.
    """

    name: str
    hbm_gib: float
    peak_flops: float  # bfloat16, per second
    hbm_bytes_per_s: float
    ici_bytes_per_s: float  # along one axis of the torus, both directions
    clock_hz: float | None
    devices_per_chip: int = 1
    cores_per_device: int = 1  # that share a kernel's grid
    counts_cores: bool = False  # in the accelerator type: v5p-128 has 64 chips
    single_host_chips: int = CHIPS_PER_HOST  # of the largest slice that is one host


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            hbm_gib=15.25,
            peak_flops=275e12 / 2,
            hbm_bytes_per_s=1228e9 / 2,
            ici_bytes_per_s=100e9,
            clock_hz=1.05e9,
            devices_per_chip=2,
            counts_cores=True,
        ),
        Chip(
            name="v5e",
            hbm_gib=15.75,
            peak_flops=197e12,
            hbm_bytes_per_s=819e9,
            ici_bytes_per_s=100e9,
            clock_hz=1.5e9,
            single_host_chips=8,  # ct5lp-hightpu-8t
        ),
        Chip(
            name="v5p",
            hbm_gib=95.73,
            peak_flops=459e12,
            hbm_bytes_per_s=2765e9,
            ici_bytes_per_s=200e9,
            clock_hz=1.75e9,
            cores_per_device=2,
            counts_cores=True,
        ),
        Chip(
            name="v6e",
            hbm_gib=31.24,
            peak_flops=918e12,
            hbm_bytes_per_s=1640e9,
            ici_bytes_per_s=200e9,
            clock_hz=1.75e9,
            single_host_chips=8,  # ct6e-standard-8t
        ),
        Chip(
            name="tpu7x",
            hbm_gib=94.74,
            peak_flops=2307e12 / 2,
            hbm_bytes_per_s=7380e9 / 2,
            ici_bytes_per_s=200e9,
            clock_hz=None,
            devices_per_chip=2,
            counts_cores=True,
        ),
    )
}

# Slices that are cubes or flat grids by default, by their number of chips (same documentation).
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_DEEP = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
    512: "8x8x8",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A TPU slice."""

    chip: Chip
    shape: str  # "4x4x8"

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{self.shape}"

    @property
    def num_chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def num_devices(self) -> int:
        return self.num_chips * self.chip.devices_per_chip

    @property
    def num_hosts(self) -> int:
        """Processes of a run, each with devices of its own to decode on."""
        is_single = self.num_chips <= self.chip.single_host_chips
        return 1 if is_single else self.num_chips // CHIPS_PER_HOST

    @property
    def host(self) -> "Slice":
        """What one host has, as a slice: four chips of several hosts stand in a square."""
        square = "2x2" if self.shape.count("x") == 1 else "2x2x1"
        return self if self.num_hosts == 1 else Slice(chip=self.chip, shape=square)


def parse_slice(text: str) -> Slice:
    """The slice called "v5p:4x4x8" or "v5p-256".

    Raises:
      ValueError: no such generation, shape or accelerator type; says what there is.
    """
    match = re.fullmatch(r"(\w+)(?::(\d+(?:x\d+)+)|-(\d+))", text.strip().lower())
    generation = {"v5litepod": "v5e", "v5lite": "v5e"}.get(match[1], match[1]) if match else ""
    if match is None or generation not in CHIPS:
        raise ValueError(
            f"unknown topology {text!r}: write GENERATION:SHAPE such as v5p:4x4x8 or v6e:8x8, or an "
            f"accelerator type such as v5p-128; generations: {', '.join(CHIPS)}"
        )
    chip = CHIPS[generation]
    is_flat = generation in ("v5e", "v6e")
    if match[2]:
        rank = 2 if is_flat else 3
        if match[2].count("x") + 1 != rank:
            raise ValueError(f"topology {text!r}: a {generation} slice has {rank} dimensions")
        return Slice(chip=chip, shape=match[2])
    count = int(match[3]) // (2 if chip.counts_cores else 1)
    shapes = _FLAT if is_flat else _DEEP
    if count not in shapes:
        factor = 2 if chip.counts_cores else 1
        known = ", ".join(f"{generation}-{n * factor}" for n in shapes)
        raise ValueError(f"unknown accelerator type {text!r}: {generation} has {known}")
    return Slice(chip=chip, shape=shapes[count])


def slice_devices(tpu: Slice) -> list[Any]:
    """Devices that programs can be compiled for, though none of them is here.

    Raises:
      RuntimeError: libtpu or flatbuffers is not installed.
      ValueError: libtpu knows no such slice.
    """
    missing = [name for name in ("libtpu", "flatbuffers") if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"{' and '.join(missing)} not installed: planning needs the TPU compiler, which runs on a CPU, and "
            "flatbuffers, by which kernels are handed to it alone: pip install 'libtpu>=0.0.50' flatbuffers "
            "(for Linux on x86-64; Python 3.12 for jax 0.12)"
        )
    # Without it libtpu waits for the metadata server of a TPU machine.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Its lock file keeps two processes off one TPU; here there is none.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # The run's own flags: those of the TPU that is planned for. libtpu reads them once.
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    if not _loaded:
        os.environ["LIBTPU_INIT_ARGS"] = libtpu_flags(given, tpu.chip.name)
        _loaded.append(tpu.chip.name)
    from jax.experimental import topologies

    try:
        with _stderr_to_file():
            described = topologies.get_topology_desc(platform="tpu", topology_name=tpu.name)
    except Exception as error:  # jax gives libtpu's errors no type of their own
        reason = str(error).splitlines()[0]
        raise ValueError(f"libtpu knows no topology {tpu.name!r}: {reason}") from error
    return list(described.devices)


@contextlib.contextmanager
def _stderr_to_file() -> Iterator[None]:
    """libtpu says at its start, in a dozen lines, that this is no TPU machine: into `LIBTPU_LOG` with that."""
    sys.stderr.flush()
    terminal = os.dup(2)
    log = os.open(LIBTPU_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.dup2(log, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(log)
        os.close(terminal)
