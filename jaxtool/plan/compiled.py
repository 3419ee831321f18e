"""One program compiled for a slice: memory, work and time."""

import dataclasses
import re
import time

from jaxtool.plan import bundles
from jaxtool.plan.chips import GIB, Chip, Slice
from jaxtool.plan.flops import count_flops, kernel_calls
from jaxtool.plan.hlo import Collective, collectives, estimated_cycles
from jaxtool.plan.kernels import KernelPlan, PackedRow, plan_kernels
from jaxtool.plan.program import Program

# Of the peak, that matrix products reach. The compiler's own estimates miss most of them in programs whose
# collectives it overlaps. Large training runs report 44 to 65 % of the peak over whole steps, recomputation
# left out (MaxText, docs/reference/models/tiering.md: v6e 44 to 50 %, v5p 65 %).
PRODUCT_EFFICIENCY = 0.7
# Of one hop between neighbours: the small all-reduces of a decode step are bound by it.
HOP_S = 1e-6
_OUT_OF_MEMORY = re.compile(
    r"Used ([\d.]+)([KMGT]) of |Ran out of memory on HBM\D*\(([\d.]+)([KMGT])\) exceeds"
)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """Figures of one program, per device and run. Bytes, seconds, FLOPs."""

    name: str
    shape: str
    arguments: float = 0.0
    temporaries: float = 0.0
    outputs: float = 0.0  # those that do not take an argument's place
    other_resident: float = 0.0  # of resident arrays that are no argument of it
    flops: float = 0.0  # of matrix products outside kernels
    compiler_s: float | None = (
        None  # the compiler's estimate, collectives and kernels left out; None: unknown
    )
    # No program can be faster, kernels left out: FLOPs and least memory traffic at their peaks.
    roofline_s: float = 0.0
    products_s: float = 0.0  # FLOPs at what products reach of the peak
    kernels: tuple[KernelPlan, ...] = ()
    collectives: tuple[Collective, ...] = ()
    collectives_s: float = 0.0
    compile_s: float = 0.0  # on the machine that planned
    error: str | None = None  # why it does not compile

    @property
    def hbm(self) -> float:
        return self.arguments + self.temporaries + self.outputs + self.other_resident

    @property
    def time_s(self) -> float:
        """Assumes that kernels and collectives overlap with nothing; what XLA hides makes a run faster."""
        rest = max(self.compiler_s or 0.0, self.roofline_s, self.products_s)
        return rest + self.kernels_s + self.collectives_s

    @property
    def kernels_s(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels)


def compile_program(
    program: Program,
    resident: dict[str, float],
    tpu: Slice,
    *,
    product_efficiency: float = PRODUCT_EFFICIENCY,
    row: PackedRow | None = None,
) -> ProgramPlan:
    """Compiles for the slice. A program that does not fit comes back with `error`.

    Args:
      resident: bytes per device of what stays in memory, by name.
      product_efficiency: of the peak, what matrix products reach.
      row: of the learner, see `plan_kernels`.
    """
    started = time.monotonic()
    traced = program.trace()
    trips = program.while_trips
    flops = count_flops(traced.jaxpr, while_trips=trips) / program.num_devices
    calls = kernel_calls(traced.jaxpr, while_trips=trips)
    other_resident = sum(resident[name] for name in program.other_resident)
    plan = ProgramPlan(
        name=program.name, shape=program.shape, other_resident=other_resident, flops=flops
    )
    try:
        compiled = traced.lower().compile()
    except Exception as error:  # jax gives the compiler's errors no type of their own
        used = out_of_memory_bytes(str(error))
        if used is None:
            raise
        return dataclasses.replace(
            plan,
            temporaries=used,  # the message does not say which part is which
            error=f"needs {used / GIB:.1f} GiB alone",
            compile_s=time.monotonic() - started,
        )
    cycles = bundles.cycles_of(calls, tpu.host.name)
    memory = compiled.memory_analysis()
    text = compiled.as_text() or ""
    arrays, moved = program.moved
    found = tuple(collectives(text))
    if arrays:
        found += (Collective(kind="to hosts", count=arrays, sent_bytes=moved, hops=arrays),)
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    touched = program.touched_bytes
    if touched is None:
        touched = memory.argument_size_in_bytes + memory.output_size_in_bytes
    estimate = estimated_cycles(text)
    clock = tpu.chip.clock_hz
    return dataclasses.replace(
        plan,
        arguments=float(memory.argument_size_in_bytes),
        temporaries=float(memory.temp_size_in_bytes),
        outputs=float(outputs),
        compiler_s=estimate / clock if clock and estimate else None,
        roofline_s=roofline_s(flops, touched, tpu.chip),
        products_s=flops / tpu.chip.peak_flops / product_efficiency,
        kernels=plan_kernels(calls, cycles, program.over_cache, tpu.chip, row),
        collectives=found,
        collectives_s=collectives_s(found, tpu.chip),
        compile_s=time.monotonic() - started,
    )


def roofline_s(flops: float, touched_bytes: float, chip: Chip) -> float:
    """max(FLOPs / peak, bytes / bandwidth) (Williams et al., 2009, Roofline)."""
    return max(flops / chip.peak_flops, touched_bytes / chip.hbm_bytes_per_s)


def collectives_s(found: tuple[Collective, ...], chip: Chip) -> float:
    """Bytes over one torus axis, both directions, and `HOP_S` for every hop of a small message."""
    sent = sum(collective.sent_bytes for collective in found)
    return sent / chip.ici_bytes_per_s + HOP_S * sum(collective.hops for collective in found)


def out_of_memory_bytes(message: str) -> float | None:
    """The bytes that an out-of-memory error of the compiler names; None for any other error."""
    match = _OUT_OF_MEMORY.search(message)
    if match is None:
        return None
    number, unit = (part for part in match.groups() if part is not None)
    return float(number) * _UNITS[unit]
