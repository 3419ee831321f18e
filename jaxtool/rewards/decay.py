"""Shapes of the tool coefficient: how fast it falls with the calls that were not needed.

Covered: OTC-PO's cosine and two other shapes that its reviewers asked about. All are 1 at m = 0 and ½
at m = c, so c means the same in each. m may be a cost and need not be whole.
Not covered: the sine around n (`otc.r_tool_grpo`).
"""

import math
from typing import Literal

from jaxtool.rewards.otc import r_tool_ppo

Decay = Literal["cosine", "linear", "exponential"]


def linear(m: float, c: float) -> float:
    """max(0, 1 - m / 2c): ½ at m = c, 0 from 2c on."""
    _check(m, c)
    return max(0.0, 1.0 - m / (2.0 * c))


def exponential(m: float, c: float) -> float:
    """2^(-m/c): ½ at m = c; every further call costs the same share, so it never reaches 0."""
    _check(m, c)
    return math.exp2(-m / c)


def decayed(m: float, c: float, decay: Decay) -> float:
    """The coefficient of m calls by the shape called `decay`; "cosine" is OTC-PO, equation 5."""
    if decay == "cosine":
        return r_tool_ppo(m, c)
    return linear(m, c) if decay == "linear" else exponential(m, c)


def check_decay(decay: str) -> None:
    """Raises ValueError for a shape that does not exist."""
    if decay not in ("cosine", "linear", "exponential"):
        raise ValueError(f"{decay=} must be 'cosine', 'linear' or 'exponential'")


def _check(m: float, c: float) -> None:
    if m < 0 or c <= 0:
        raise ValueError(f"need m >= 0 and c > 0: {m=} {c=}")
