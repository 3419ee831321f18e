"""What a traced program does: floating-point operations of its matrix products, and calls of kernels.

Loops are followed. Kernels are left out of the operations: they are timed by their own code (`bundles`).
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelCall:
    """A Pallas kernel in a program."""

    name: str
    grid: tuple[int | None, ...]  # None: a size that is known at run time only
    count: int  # calls of it in one run, on each device
    equation: Any = dataclasses.field(
        default=None, repr=False, compare=False
    )  # of the trace: the first call


def count_flops(jaxpr: Any, *, while_trips: int = 1) -> float:
    """2 x multiply-adds of every matrix product, recomputation by remat included.

    Kernels count nothing; of a `cond` the most expensive branch counts.

    Args:
      jaxpr: a Jaxpr or ClosedJaxpr.
      while_trips: rounds of a `while` loop, whose number a trace does not know.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += _dot_flops(equation)
            continue
        inner = [
            times * count_flops(part, while_trips=while_trips)
            for part, times in _inner(equation, while_trips)
        ]
        if equation.primitive.name == "shard_map":  # its shapes are those of one device
            inner = [equation.params["mesh"].size * flops for flops in inner]
        is_choice = equation.primitive.name == "cond"
        total += max(inner, default=0.0) if is_choice else sum(inner)
    return total


def kernel_calls(jaxpr: Any, *, while_trips: int = 1) -> list[KernelCall]:
    """Every kernel with its calls, those of one name and grid together."""
    found: dict[tuple[str, tuple[int | None, ...]], KernelCall] = {}

    def visit(part: Any, times: int) -> None:
        for equation in part.eqns:
            if equation.primitive.name == "pallas_call":
                sizes = equation.params["grid_mapping"].grid
                grid = tuple(size if isinstance(size, int) else None for size in sizes)
                name = equation.params["name"]
                call = KernelCall(name=name, grid=grid, count=0, equation=equation)
                call = found.get((name, grid), call)
                found[name, grid] = dataclasses.replace(call, count=call.count + times)
            for inner, rounds in _inner(equation, while_trips):
                visit(inner, times * rounds)

    visit(jaxpr, 1)
    return list(found.values())


def _inner(equation: Any, while_trips: int) -> Iterator[tuple[Any, int]]:
    """Programs inside an equation, with how often each runs."""
    name, params = equation.primitive.name, equation.params
    if name == "pallas_call":
        return
    if name == "while":
        yield params["body_jaxpr"], while_trips
        return
    times = params["length"] if name == "scan" else 1
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(part, "eqns"):
                yield part, times


def _dot_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
