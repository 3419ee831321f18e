"""TPU slices as gcloud names them: accelerator type and runtime version.

Sources: docs.cloud.google.com/tpu/docs/runtimes (software versions by generation) and the types of
`jaxtool.plan.chips`. Not covered: several slices, Ironwood (tpu7x), which only GKE has.
"""

import dataclasses

from jaxtool.plan.chips import Slice, parse_slice

_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuType:
    """A slice that can be asked for."""

    accelerator: str  # "v5litepod-8", "v6e-64"
    runtime: str  # what is installed on its hosts
    slice: Slice


def tpu_type(text: str) -> TpuType:
    """The slice called "v6e-64", "v5p-128", "v5e-8" or "v5litepod-8".

    Raises:
      ValueError: no such type; says what there is.
    """
    found = parse_slice(text)
    generation = found.chip.name
    if ":" in text:
        raise ValueError(
            f"--type {text}: gcloud takes accelerator types, such as v6e-64 or v5p-128"
        )
    if generation not in _RUNTIMES:
        raise ValueError(
            f"--type {text}: {generation} is to be had on GKE only: docs/pods.md shows xpk"
        )
    count = text.strip().rpartition("-")[2]
    family = "v5litepod" if generation == "v5e" else generation
    return TpuType(accelerator=f"{family}-{count}", runtime=_RUNTIMES[generation], slice=found)
