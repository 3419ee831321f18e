"""One program compiled for a slice: memory, work and time."""

import dataclasses
from pathlib import Path

from jaxtool.plan.chips import GIB, Chip, Slice
from jaxtool.plan.facts import facts_of
from jaxtool.plan.flops import count_flops, kernel_calls
from jaxtool.plan.hlo import Collective
from jaxtool.plan.kernels import KernelPlan, PackedRow, plan_kernels
from jaxtool.plan.program import Program
from jaxtool.plan.schedule import link_s, waits_s

# Of the peak, that matrix products reach. The compiler's own estimates miss most of them in programs whose
# collectives it overlaps. Large training runs report 44 to 65 % of the peak over whole steps, recomputation
# left out (MaxText, docs/reference/models/tiering.md: v6e 44 to 50 %, v5p 65 %).
PRODUCT_EFFICIENCY = 0.7


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
    # Of these, seconds in which the core does nothing else; None: all of them.
    waits_s: float | None = None
    compile_s: float = 0.0  # on the machine that compiled it
    error: str | None = None  # why it does not compile

    @property
    def hbm(self) -> float:
        return self.arguments + self.temporaries + self.outputs + self.other_resident

    @property
    def time_s(self) -> float:
        """Kernels overlap with nothing, collectives with what the schedule says (`jaxtool.plan.schedule`)."""
        rest = max(self.compiler_s or 0.0, self.roofline_s, self.products_s)
        return rest + self.kernels_s + self.exposed_s

    @property
    def exposed_s(self) -> float:
        """Seconds of collectives that nothing hides."""
        return self.collectives_s if self.waits_s is None else self.waits_s

    @property
    def kernels_s(self) -> float:
        return sum(kernel.seconds for kernel in self.kernels)


def compile_program(
    program: Program,
    resident: dict[str, float],
    tpu: Slice,
    *,
    product_efficiency: float = PRODUCT_EFFICIENCY,
    kept: Path | None = None,
    row: PackedRow | None = None,
) -> ProgramPlan:
    """Compiles for the slice. A program that does not fit comes back with `error`.

    Args:
      resident: bytes per device of what stays in memory, by name.
      product_efficiency: of the peak, what matrix products reach.
      kept: see `facts_of`.
      row: of the learner, see `plan_kernels`.
    """
    traced = program.trace()
    trips = program.while_trips
    flops = count_flops(traced.jaxpr, while_trips=trips) / program.num_devices
    calls = kernel_calls(traced.jaxpr, while_trips=trips)
    other_resident = sum(resident[name] for name in program.other_resident)
    facts = facts_of(traced.lower(), calls, program.num_devices, tpu, kept, program.options)
    plan = ProgramPlan(
        name=program.name,
        shape=program.shape,
        other_resident=other_resident,
        flops=flops,
        compile_s=facts.compile_s,
    )
    if facts.needed is not None:
        return dataclasses.replace(
            plan,
            temporaries=facts.needed,  # the message does not say which part is which
            error=f"needs {facts.needed / GIB:.1f} GiB alone",
        )
    arrays, moved = program.moved
    found = facts.collectives
    if arrays:
        found += (Collective(kind="to hosts", count=arrays, sent_bytes=moved, hops=arrays),)
    touched = program.touched_bytes
    if touched is None:
        touched = facts.arguments + facts.outputs
    clock = tpu.chip.clock_hz
    kernels = plan_kernels(calls, facts.kernels, program.over_cache, tpu.chip, row)
    waits = waits_s(facts.schedule, {k.name: k.seconds / k.calls for k in kernels}, tpu.chip)
    # Without a clock nothing is known of what the core does meanwhile.
    waits = waits + link_s(moved, arrays, tpu.chip) if clock else None
    return dataclasses.replace(
        plan,
        arguments=float(facts.arguments),
        temporaries=float(facts.temporaries),
        outputs=float(facts.outputs - facts.replaced),
        compiler_s=facts.cycles / clock if clock and facts.cycles else None,
        roofline_s=roofline_s(flops, touched, tpu.chip),
        products_s=flops / tpu.chip.peak_flops / product_efficiency,
        kernels=kernels,
        collectives=found,
        collectives_s=collectives_s(found, tpu.chip),
        waits_s=waits,
    )


def roofline_s(flops: float, touched_bytes: float, chip: Chip) -> float:
    """max(FLOPs / peak, bytes / bandwidth) (Williams et al., 2009, Roofline)."""
    return max(flops / chip.peak_flops, touched_bytes / chip.hbm_bytes_per_s)


def collectives_s(found: tuple[Collective, ...], chip: Chip) -> float:
    """One after the other."""
    return sum(link_s(one.sent_bytes, one.hops, chip) for one in found)
