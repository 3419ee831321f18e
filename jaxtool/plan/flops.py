"""Floating-point operations of a traced program: matrix products only, loops followed."""

import math
from typing import Any


def count_flops(jaxpr: Any, *, while_trips: int = 1) -> float:
    """2 x multiply-adds of every matrix product, recomputation by remat included.

    A kernel that states its cost counts with it; of a `cond` the most expensive branch counts.

    Args:
      jaxpr: a Jaxpr or ClosedJaxpr.
      while_trips: rounds of a `while` loop, whose number a trace does not know.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "pallas_call":
            total += _kernel_flops(params, while_trips)
        elif name == "shard_map":  # its shapes are those of one device
            inner = count_flops(params["jaxpr"], while_trips=while_trips)
            total += params["mesh"].size * inner
        elif name == "scan":
            total += params["length"] * count_flops(params["jaxpr"], while_trips=while_trips)
        elif name == "while":
            total += while_trips * count_flops(params["body_jaxpr"], while_trips=while_trips)
        elif name == "cond":
            costs = (count_flops(branch, while_trips=while_trips) for branch in params["branches"])
            total += max(costs, default=0.0)
        else:
            total += sum(
                count_flops(inner, while_trips=while_trips)
                for value in params.values()
                for inner in (value if isinstance(value, tuple | list) else (value,))
                if hasattr(inner, "eqns")
            )
    return total


def _dot_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _kernel_flops(params: dict[str, Any], while_trips: int) -> float:
    cost = params.get("cost_estimate")
    if cost is not None:
        return float(cost.flops)
    rounds = math.prod(size for size in params["grid_mapping"].grid if isinstance(size, int))
    return rounds * count_flops(params["jaxpr"], while_trips=while_trips)
