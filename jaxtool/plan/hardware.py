"""Machines by name: a CPU, GPU boxes, TPU slices. What shapes are planned for where the machine is not at hand.

TPU memory is what the compiler lets a program use (`chips`). GPU memory is nine tenths of what the maker says, which
`XLA_PYTHON_CLIENT_MEM_FRACTION=0.9` gives to a run; without it XLA takes 75 %. A CPU is this machine.
"""

import os
import re

from jaxtool.plan.chips import CHIPS, GIB, parse_slice
from jaxtool.train.run_memory import Hardware

GPU_SHARE = 0.9  # of a GPU's memory that a run is given
GPU_FRACTION = f"XLA_PYTHON_CLIENT_MEM_FRACTION={GPU_SHARE}"
CPU_SHARE = 0.5  # of this machine's memory: others work on it too
# GiB, from the makers' data sheets.
_GPUS = {"a100-40g": 40, "a100-80g": 80, "h100": 80, "h200": 141}
_MOST_GPUS = 8  # of one machine
_TPU = re.compile(rf"(?:{'|'.join(CHIPS)}|v5litepod|v5lite)[-:].+")


def hardware_named(name: str) -> Hardware:
    """`cpu`, `a100-80g`, `h100-8` (eight of them), `v5e-16` and other TPU slices as `experiments.plan` takes them.

    Raises:
      ValueError: there is no such machine; says what there is.
    """
    text = name.strip().lower()
    if text == "cpu":
        return _this_cpu()
    gpu = re.fullmatch(rf"({'|'.join(_GPUS)})(?:-(\d+))?", text)
    if gpu is not None:
        return _gpus(text, gpu[1], int(gpu[2] or 1))
    if _TPU.fullmatch(text):
        tpu = parse_slice(text)
        return Hardware(
            name=text,
            kind="tpu",
            hosts=tpu.num_hosts,
            devices=tpu.num_devices // tpu.num_hosts,
            device_bytes=int(tpu.chip.hbm_gib * GIB),
            about=f"{tpu.chip.hbm_gib} GiB that the TPU compiler lets a program use",
        )
    raise ValueError(
        f"unknown hardware {name!r}: there are cpu, {', '.join(_GPUS)}, several GPUs of one machine as h100-8, "
        "and TPU slices as v5e-16, v6e-64, v5p-128"
    )


def _this_cpu() -> Hardware:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Hardware(
        name="cpu",
        kind="cpu",
        hosts=1,
        devices=1,
        device_bytes=int(CPU_SHARE * size),
        about=f"half of this machine's {size / GIB:.1f} GiB",
    )


def _gpus(name: str, kind: str, count: int) -> Hardware:
    if not 1 <= count <= _MOST_GPUS or count & (count - 1):
        raise ValueError(f"hardware {name!r}: one machine has 1, 2, 4 or 8 GPUs")
    return Hardware(
        name=name,
        kind="gpu",
        hosts=1,
        devices=count,
        device_bytes=int(GPU_SHARE * _GPUS[kind] * GIB),
        about=f"{GPU_SHARE:.0%} of {_GPUS[kind]} GiB, with {GPU_FRACTION}",
    )
