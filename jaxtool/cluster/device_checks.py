"""What jax sees on this host: asked in a process of its own, which can hang or take the device without harm.

Not covered: AMD GPUs, several slices.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxtool.cluster.findings import Finding

Platform = Literal["cpu", "tpu", "gpu"]
EXTRA: dict[Platform, str] = {"cpu": "cpu", "tpu": "tpu", "gpu": "cuda"}  # of pip install
_FILES: dict[Platform, tuple[str, ...]] = {
    "gpu": ("nvidia[0-9]*",),
    "tpu": ("accel[0-9]*", "vfio/[0-9]*"),
}
_SUM = 128.0**3  # of a product of two matrices of ones, 128 x 128
_ASK = """
import json, jax, jax.numpy as jnp
devices = jax.local_devices()
ones = jnp.ones((128, 128))
memory = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
print("FOUND", json.dumps({
    "platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices),
    "memory": memory[0], "sum": float((ones @ ones).sum()),
}))
"""
_LAST_CHARS = 200


def expected_platform(
    devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ
) -> Platform:
    """What the device files promise; "cpu" where JAX_PLATFORMS says so."""
    if environment.get("JAX_PLATFORMS") == "cpu":
        return "cpu"
    for platform, patterns in _FILES.items():
        if any(any(devices.glob(pattern)) for pattern in patterns):
            return platform
    return "cpu"


def check_devices(
    expected: Platform,
    *,
    timeout_s: float = 25.0,
    command: Sequence[str] = (sys.executable, "-c", _ASK),
) -> Finding:
    """jax starts, sees what the device files promise, and multiplies two matrices right.

    Args:
      expected: what `expected_platform` says.
      timeout_s: after which jax counts as hanging.
      command: prints FOUND and {"platform", "kind", "count", "memory": bytes of one or null, "sum"}.
    """
    install = f"pip install -e '.[{EXTRA[expected]}]'"
    # The process must not take a GPU's whole memory from a run.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what it starts ends with it
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Finding(
                name="devices",
                status="fail",
                text=f"jax did not start in {timeout_s:g} s",
                remedy="end what holds the device (sudo lsof /dev/accel* /dev/vfio/*); on a pod, run this on all "
                "hosts at once",
            )
    lines = [line for line in output.splitlines() if line.startswith("FOUND ")]
    if process.returncode or not lines:
        said = " ".join(output.split())[-_LAST_CHARS:]
        text = f"jax does not start: {said or f'exit status {process.returncode}'}"
        return Finding(name="devices", status="fail", text=text, remedy=install)
    found = json.loads(lines[-1].removeprefix("FOUND "))
    memory = f" of {found['memory'] / 2**30:.1f} GiB" if found["memory"] else ""
    text = f"{found['count']} x {found['kind']}{memory}"
    seen = "gpu" if found["platform"] in ("gpu", "cuda") else found["platform"]
    if seen != expected:
        text = f"/dev has a {expected}, and jax sees {text}"
        return Finding(name="devices", status="fail", text=text, remedy=install)
    if found["sum"] != _SUM:
        text += f": a product of matrices sums to {found['sum']}, not {_SUM}"
        remedy = "restart the host; where it stays, the device is broken: take another"
        return Finding(name="devices", status="fail", text=text, remedy=remedy)
    return Finding(name="devices", status="ok", text=text)
