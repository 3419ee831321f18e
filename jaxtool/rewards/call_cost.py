"""What tool use costs: m of the OTC equations, by call, by tool and by token. OTC-PO counts calls."""

import dataclasses
import math

from jaxtool.core.ranges import check_range
from jaxtool.core.types import ToolCall, Trajectory

# Costs are rounded to it, so that the store of n keeps few different ones.
COST_RESOLUTION = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallCost:
    """Cost of a trajectory: a sum over its calls that got an observation. Defaults: number of calls."""

    per_call: float = 1.0
    per_tool: tuple[tuple[str, float], ...] = ()  # (tool's name, call_cost) in place of per_call
    per_code_token: float = 0.0  # tokens that the policy wrote since the last observation
    per_observation_token: float = 0.0
    # (tool's name, cost of a token) of its calls and of what it says, in place of the two above
    per_tool_token: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        check_range(self, "per_call", "per_code_token", "per_observation_token", least=0)
        _check_prices("CallCost.per_tool", self.per_tool)
        _check_prices("CallCost.per_tool_token", self.per_tool_token)

    @property
    def counts_calls(self) -> bool:
        """Whether m is the number of calls: every call costs 1 and no token costs anything."""
        of_calls = {self.per_call, *(price for _, price in self.per_tool)}
        of_tokens = (price for _, price in self.per_tool_token)
        tokens = {self.per_code_token, self.per_observation_token, *of_tokens}
        return of_calls == {1} and tokens == {0}

    def cost(self, trajectory: Trajectory) -> float:
        """m = Σ over calls of their cost + tokens ⋅ cost of a token, rounded to 0.01."""
        total = sum(self._of(call) for call in trajectory.tool_calls)
        return round(total / COST_RESOLUTION) * COST_RESOLUTION if total % 1 else float(total)

    def cost_by_tool(self, trajectory: Trajectory) -> dict[str, float]:
        """What each tool that was called takes of m, not rounded; together they are m up to its rounding."""
        found: dict[str, float] = {}
        for call in trajectory.tool_calls:
            found[call.tool] = found.get(call.tool, 0.0) + self._of(call)
        return found

    def _of(self, call: ToolCall) -> float:
        written, told = call.stop - call.start, call.observation_stop - call.stop
        price = dict(self.per_tool).get(call.tool, self.per_call)
        of_token = dict(self.per_tool_token).get(call.tool)
        if of_token is not None:
            return price + of_token * (written + told)
        return price + self.per_code_token * written + self.per_observation_token * told


def _check_prices(name: str, prices: tuple[tuple[str, float], ...]) -> None:
    names = [tool for tool, _ in prices]
    for tool, price in prices:
        if not 0 <= price < math.inf:
            raise ValueError(f"{name}: {tool!r} must cost >= 0 and finite, got {price}")
        if names.count(tool) > 1:
            raise ValueError(f"{name}: {tool!r} has two prices: give it one")
