"""The tool rewards of OTC-PO (arXiv 2504.14870 v2), equations 5, 6 and 7, and nothing else.

m: tool calls of the trajectory; n: fewest calls with which the problem was solved; c: smoothing,
the paper's tool limit (3 for code, 4 for search).

About the left branch (m < n): by equation 6 a correct trajectory with fewer calls than n is
*penalised*, down to 0 at m = 0. It cannot happen if n is the minimum over all correct trajectories
and was lowered by the current group *before* it is scored; `scoring.score_groups` does that. With other
estimators of n it can, and `outcome.OtcGrpoReward` then scores such a trajectory as one with n calls.

Deviation from equation 7: only a positive base reward is scaled. The paper's base reward is 0 or 1;
with ReTool's -1 the printed product would make a wrong answer *less* bad the more calls it made.
"""

import math


def r_tool_ppo(m: float, c: float) -> float:
    """cos(mπ / (2m + c)): 1 at m = 0, ½ at m = c, towards 0 with more. OTC-PO, equation 5."""
    _check(m, 0, c)
    return math.cos(m * math.pi / (2 * m + c))


def f(m: float, n: float) -> float:
    """0 if m = n = 0; m if n = 0; 2nm / (m + n) otherwise. OTC-PO, equation 6, first line."""
    _check(m, n, 1)
    if m == 0 and n == 0:
        return 0.0
    if n == 0:
        return float(m)
    return 2 * n * m / (m + n)


def r_tool_grpo(m: float, n: float, c: float) -> float:
    """1 if f = n = 0; cos(mπ / (2m + c)) if n = 0; sin(f(m,n)π / 2n) otherwise. OTC-PO, equation 6.

    The sine is sin(πm / (m + n)): 1 at m = n, lower on both sides.
    """
    _check(m, n, c)
    mapped = f(m, n)
    if mapped == n == 0:
        return 1.0
    if n == 0:
        return r_tool_ppo(m, c)
    return math.sin(mapped * math.pi / (2 * n))


def scaled_reward(base: float, tool_coefficient: float, *, alpha: float) -> float:
    """α ⋅ r_tool ⋅ r_φ where r_φ > 0, r_φ elsewhere. OTC-PO, equation 7 (see the deviation above)."""
    return alpha * tool_coefficient * base if base > 0 else base


def _check(m: float, n: float, c: float) -> None:
    if m < 0 or n < 0 or c <= 0:
        raise ValueError(f"need m >= 0, n >= 0 and c > 0: {m=} {n=} {c=}")
