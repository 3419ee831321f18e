"""Says at once when tools stop working or stop being used. Counts only; the run loop decides when to ask.

A broken sandbox must abort the run instead of turning into reward noise, and a policy that has quietly
stopped calling its tool must be seen.
"""

import collections
import dataclasses


class TooManyFailures(RuntimeError):
    """The tool's infrastructure fails too often for the run to mean anything."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolHealthConfig:
    """When to speak up."""

    max_failure_rate: float = 0.05  # of trajectories lost to infrastructure, over the window
    window: int = 512  # trajectories; a short outage of one server passes
    min_trajectories: int = 64  # below that a rate says nothing
    quiet_steps: int = 5  # steps without a single tool call before a warning

    def __post_init__(self) -> None:
        if not 0 <= self.max_failure_rate <= 1:
            raise ValueError(f"{self.max_failure_rate=} must be in [0, 1]")
        if not 1 <= self.min_trajectories <= self.window:
            raise ValueError(f"{self.min_trajectories=} must be in [1, {self.window=}]")
        if self.quiet_steps < 1:
            raise ValueError(f"{self.quiet_steps=} must be at least 1")


class ToolHealth:
    """Feed it each step's trajectories; it raises or returns a warning."""

    def __init__(self, config: ToolHealthConfig):
        self._config = config
        self._lost: collections.deque[bool] = collections.deque(maxlen=config.window)
        self._quiet = 0

    @property
    def failure_rate(self) -> float:
        return sum(self._lost) / len(self._lost) if self._lost else 0.0

    def observe(self, *, lost: int, trajectories: int, tool_calls: int) -> str:
        """One step: `lost` of `trajectories` were masked. A warning, or an empty string.

        Raises TooManyFailures above the configured rate.
        """
        if not 0 <= lost <= trajectories:
            raise ValueError(f"{lost=} must be in [0, {trajectories=}]")
        self._lost.extend([True] * lost + [False] * (trajectories - lost))
        enough = len(self._lost) >= self._config.min_trajectories
        if enough and self.failure_rate > self._config.max_failure_rate:
            raise TooManyFailures(
                f"{sum(self._lost)} of the last {len(self._lost)} trajectories were lost to the "
                f"tool's infrastructure ({self.failure_rate:.1%}, allowed "
                f"{self._config.max_failure_rate:.1%}): look at the sandbox servers' logs"
            )
        self._quiet = 0 if tool_calls else self._quiet + 1
        if self._quiet and self._quiet % self._config.quiet_steps == 0:
            return f"no tool calls for {self._quiet} steps"
        return ""
