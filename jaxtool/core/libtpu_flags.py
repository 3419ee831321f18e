"""Flags of the TPU compiler, which libtpu reads from LIBTPU_INIT_ARGS when it is loaded."""

from pathlib import Path

# By itself the compiler multiplies part by part while the parts of a sharded weight arrive. Every part adds to float32
# sums of all tokens, 16 times over 1 GB a product where 16 devices share a weight of a 32B policy. A gradient of its
# layers takes 2.7 times as long by the compiler's cycles (docs/plans.md). With it weights are gathered before.
_WINDOWED = ("xla_jf_spmd_threshold_for_windowed_einsum_mib", 100_000_000)
# Of the 128 MiB of on-chip memory of a v6e, what one operation may take; MaxText's runs on v6e have 96 MiB. With more
# than the compiler's own 32 MiB the tiles of products are larger: a gradient block of a 32B policy takes an eighth
# less, a step of decoding a twentieth less by its cycles (docs/plans.md). The learner's programs have more
# (`jaxtool.learn.compile_options`). On v5e decoding takes longer with it.
_TILES = (("xla_tpu_scoped_vmem_limit_kib", 65_536),)
# Gathers and scatters on the SparseCores of a v6e, beside the products of the core: seven tenths of what a gradient
# block of a 32B policy sends is hidden by that (docs/plans.md). All-reduces stay: a step of decoding waits for its
# small ones in any case.
_BESIDE = (
    ("xla_tpu_enable_sparse_core_collective_offload_all_gather", True),
    ("xla_tpu_enable_sparse_core_collective_offload_reduce_scatter", True),
    ("xla_tpu_enable_async_collective_fusion_fuse_all_gather", False),
    ("xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter", False),
    ("xla_tpu_use_tc_device_shape_on_sc", True),
    ("xla_sc_disable_megacore_partitioning", True),
    ("xla_enable_async_all_gather", True),
)
_OF = {"v6e": (*_TILES, *_BESIDE)}
_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"
_GENERATIONS = {
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "tpu7x",
}


def libtpu_flags(given: str, generation: str | None) -> str:
    """LIBTPU_INIT_ARGS: what the caller gives, and of ours what it does not name.

    Args:
      generation: of the TPU, a name of `jaxtool.plan.chips.CHIPS`; None: no TPU.
    """
    # On a v6e machine a plan for another TPU starts with ours for a v6e: they go, flags of the caller's own stay.
    added = {_text(flag) for flags in ((_WINDOWED,), *_OF.values()) for flag in flags}
    kept = [flag for flag in given.split() if flag not in added]
    ours = [_WINDOWED, *_OF.get(generation or "", ())]
    return " ".join([*kept, *(_text(flag) for flag in ours if flag[0] not in " ".join(kept))])


def _text(flag: tuple[str, int]) -> str:
    name, value = flag
    return f"--{name}={str(value).lower()}"


def tpu_generation(devices: Path = _PCI) -> str | None:
    """Of this machine, by the numbers that its TPUs have on the PCI bus; None without one that is known."""
    for vendor in sorted(devices.glob("*/vendor")):
        if vendor.read_text().strip() == _GOOGLE:
            number = (vendor.parent / "device").read_text().strip()
            if number in _GENERATIONS:
                return _GENERATIONS[number]
    return None
