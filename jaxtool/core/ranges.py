"""The range of a setting, checked where it is built: in one line, with its name as gin writes it."""

import math
from typing import Any


def check_range(
    config: Any,
    *names: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    may_be_infinite: bool = False,
) -> None:
    """Raises ValueError unless these fields are finite numbers in the range; None and () pass.

    Args:
      config: a dataclass; a field may hold a tuple of numbers.
      least: the smallest value.
      above: what a value must be larger than.
      most: the largest value.
      below: what a value must be smaller than.
      may_be_infinite: infinity is a value, for "no bound"; NaN never is.
    """
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is None:
                continue
            is_finite = math.isfinite(number) or (may_be_infinite and not math.isnan(number))
            is_inside = (
                (least is None or number >= least)
                and (above is None or number > above)
                and (most is None or number <= most)
                and (below is None or number < below)
            )
            if not is_finite or not is_inside:
                bounds = {">=": least, ">": above, "<=": most, "<": below}
                wanted = [
                    f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None
                ]
                wanted += [] if is_finite else ["a number" if may_be_infinite else "finite"]
                raise ValueError(
                    f"{type(config).__name__}.{name} must be {' and '.join(wanted)}, got {value}"
                )
