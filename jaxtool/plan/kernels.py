"""How long Pallas kernels take: the cycles of a grid step, and how many steps a call has.

XLA's estimates leave kernels out. A grid step that does its work and one that skips it are counted apart.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jaxtool.model.cache_kernel import piece_of
from jaxtool.model.pallas_attention import KERNEL, blocks_of, part_of_page
from jaxtool.plan.bundles import StepCycles
from jaxtool.plan.chips import Chip
from jaxtool.plan.flops import KernelCall


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelSteps:
    """One call of a kernel on one device."""

    active: float
    skipped: float = 0.0
    read_bytes: float = 0.0  # of HBM


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelPlan:
    """A kernel in one run of a program, per device."""

    name: str
    calls: int
    steps: KernelSteps
    cycles: StepCycles | None  # None: the compiler did not show its code, or the clock is not known
    seconds: float  # of all calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedRow:
    """The trajectories of a learner's row, lengths as shares of it."""

    count: float  # of them, on average
    mean: float
    square: float  # the mean of the squares

    def busy_blocks(self, blocks: float) -> float:
        """Pairs of a query block and a key block of a row that have a trajectory, or the padding, in common.

        One of l blocks that begins anywhere touches (l + 1) (l + 2) / 2 pairs on or below the diagonal. An
        example: 2 of 4 blocks each in a row of 9 give 2 x 15 pairs, and the padding of 1 block 3 more, of 45.
        """
        rest = blocks * max(0.0, 1 - self.count * self.mean)
        of_one = (self.square * blocks**2 + 3 * self.mean * blocks + 2) / 2
        return self.count * of_one + ((rest + 1) * (rest + 2) / 2 if rest > 0 else 0.0)


def plan_kernels(
    calls: Sequence[KernelCall],
    cycles: Mapping[str, StepCycles],
    over_cache: KernelSteps | None,
    chip: Chip,
    row: PackedRow | None = None,
) -> tuple[KernelPlan, ...]:
    """Kernels of a program with their time: the longer of their cycles and their reads.

    Args:
      over_cache: of attention over the cache, whose grid depends on the lengths of rows.
      row: of the learner; None: one trajectory fills it.
    """
    plans = []
    for call in calls:
        steps = over_cache if call.name == KERNEL else causal_steps(call.grid, row)
        assert steps is not None, call.name
        of_step = cycles.get(call.name) if chip.clock_hz else None
        work = kernel_s(steps, of_step, chip)
        plans.append(
            KernelPlan(
                name=call.name,
                calls=call.count,
                steps=steps,
                cycles=of_step,
                seconds=call.count * work,
            )
        )
    return tuple(plans)


def kernel_s(steps: KernelSteps, cycles: StepCycles | None, chip: Chip) -> float:
    """Seconds of one call: the longer of cycles / clock, shared by the cores, and bytes / bandwidth."""
    work = 0.0
    if cycles is not None and chip.clock_hz:
        total = steps.active * cycles.active + steps.skipped * cycles.skipped
        work = total / chip.clock_hz / chip.cores_per_device
    return max(work, steps.read_bytes / chip.hbm_bytes_per_s)


def causal_steps(grid: tuple[int | None, ...], row: PackedRow | None = None) -> KernelSteps:
    """Of splash attention: of n x n blocks of queries and keys, n (n + 1) / 2 are on or below the diagonal.

    The last two axes of its grid are those blocks, in either order. Where queries are sharded they are a
    part of them, which has this share on every device if the split is balanced (`jaxtool.parallel.zigzag`).
    Of these only those work that have a trajectory of the row in common.
    """
    sizes = [size for size in grid if size is not None]
    total, (rows, columns) = math.prod(sizes), sizes[-2:]
    most = max(rows, columns)
    share = (most + 1) / (2 * most)
    if row is not None:
        share = min(share, row.busy_blocks(most) / most**2)
    active = total * share
    return KernelSteps(active=active, skipped=total - active)


def cache_steps(
    *,
    rows: float,
    columns: int,
    start: float,
    positions: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    value_bytes: int,
    scale_bytes: int,
    is_anywhere: bool,
    page: int | None = None,
) -> KernelSteps:
    """Attention of `columns` new tokens of each row over a cache that holds `start` tokens of it.

    Rows and heads are those of a device. The walk is cut in two parts of equal length, as far as whole rows
    allow: on average it ends with half a row's steps that are skipped.

    Args:
      start: the mean over rows.
      positions: of the cache.
      group: query heads of a key head.
      value_bytes: of one number.
      scale_bytes: of what scales a token's numbers.
      is_anywhere: rows end at any place of a block, not all at `start`.
      page: positions of a page; None: the cache has none.

    An example: 24 rows of 5632 tokens in blocks of 2048 read 5632 / 2048 + 1/2 = 3.25 blocks each where they
    end anywhere: 78 steps, and 1.6 skipped ones. In pages of 2048 int8 codes it copies 1024 / 2 positions less of each
    row.
    """
    held = positions if page is None else page
    query_block, block = blocks_of(columns * group, held, kv_heads * head_dim * value_bytes)
    block = block if page is None else part_of_page(page, block)
    per_row = -(-columns * group // query_block)
    seen = 0.0
    for number in range(per_row):
        last = min(columns * group, (number + 1) * query_block) - 1
        at = min(start + last // group, positions - 1)
        seen += at / block + 0.5 if is_anywhere else at // block + 1
    active = rows * seen
    # Of a row's last page the kernel copies scales whole, keys and values in pieces up to the token.
    piece = piece_of(block, page is not None and columns == 1 and scale_bytes > 0)
    saved = rows * (block - piece) / 2 if is_anywhere else 0.0
    heads = 2 * kv_heads
    read = heads * (
        (active * block - saved) * head_dim * value_bytes + active * block * scale_bytes
    )
    return KernelSteps(active=active, skipped=seen / per_row / 2, read_bytes=read)
