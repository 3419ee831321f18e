"""Shapes of the tool coefficient: how fast it falls with the calls that were not needed.

Covered: OTC-PO's cosine and two other shapes that its reviewers asked about. Each takes the calls m,
the fewest calls n that were enough (0 where n plays no part, as in OTC-PPO) and the smoothing c. All are
1 at m = n, and with n = 0 they are ½ at m = c, so c means the same in each. m may be a cost and need not
be whole. A function of one's own with these arguments is a decay as well.
"""

import math
from typing import Protocol

from jaxtool.rewards.otc import r_tool_grpo

ARGUMENTS = ("m", "n", "c")


class Decay(Protocol):
    """The coefficient in [0, 1] of a correct answer with m >= n calls. Functions or frozen dataclasses."""

    def __call__(self, m: float, n: float, c: float, /) -> float: ...


def cosine(m: float, n: float, c: float) -> float:
    """OTC-PO (2504.14870), equation 6; with n = 0 it is equation 5, cos(mπ / (2m + c))."""
    return r_tool_grpo(m, n, c)


def linear(m: float, n: float, c: float) -> float:
    """max(0, 1 - (m - n) / 2c): ½ at m - n = c, 0 from 2c on."""
    _check(m, n, c)
    return max(0.0, 1.0 - (m - n) / (2.0 * c))


def exponential(m: float, n: float, c: float) -> float:
    """2^(-(m - n)/c): ½ at m - n = c; every further call costs the same share, so it never reaches 0."""
    _check(m, n, c)
    return math.exp2(-(m - n) / c)


def _check(m: float, n: float, c: float) -> None:
    if not m >= n >= 0 or c <= 0:
        raise ValueError(f"need m >= n >= 0 and c > 0: {m=} {n=} {c=}")
