"""Says at once when tools stop working. Counts only; the run loop decides when to ask.

A broken sandbox must abort the run instead of turning into reward noise. The loop asks before it updates the policy.
A policy that stops calling its tool is seen by `jaxtool.rundir.health`.

Too many are lost when the share is above `max_failure_rate`. Of few trajectories a share says little, so
there the losses must also be rare by chance: at a true rate of `max_failure_rate`, so many or more would
come in less than 5 of 100 cases. With the rate 0.05 these are 2 of 4, 3 of 16, 5 of 32; one alone never is.
"""

import collections
import dataclasses
import math

RARE = 0.05  # probability below which losses are no accident


class TooManyFailures(RuntimeError):
    """The tool's infrastructure fails too often for the run to mean anything."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolHealthConfig:
    """When to speak up."""

    max_failure_rate: float = 0.05  # of trajectories lost to infrastructure
    window: int = 512  # latest trajectories that decide whether the run ends
    min_trajectories: int = 64  # from here on the share alone decides, below it chance as well
    # Each server runs two programs with known answers every so many steps, before the update; 0: never.
    known_answers_every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.max_failure_rate <= 1:
            raise ValueError(f"{self.max_failure_rate=} must be in [0, 1]")
        if not 1 <= self.min_trajectories <= self.window:
            raise ValueError(f"{self.min_trajectories=} must be in [1, {self.window=}]")
        if self.known_answers_every < 0:
            raise ValueError(f"{self.known_answers_every=} must be >= 0")

    def is_too_many(self, lost: int, trajectories: int) -> bool:
        """Whether `lost` of `trajectories` are more than `max_failure_rate` lets pass."""
        if lost <= self.max_failure_rate * trajectories:
            return False
        if trajectories >= self.min_trajectories:
            return True
        return chance_of(lost, trajectories, self.max_failure_rate) < RARE


def chance_of(lost: int, trajectories: int, rate: float) -> float:
    """P(X >= lost) for X ~ Binomial(trajectories, rate)."""
    return math.fsum(
        math.comb(trajectories, k) * rate**k * (1 - rate) ** (trajectories - k)
        for k in range(lost, trajectories + 1)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepHealth:
    """What a step's trajectories say of the tools."""

    may_learn: bool = (
        True  # False: the step's own trajectories lost too many, and those left are biased
    )
    warnings: tuple[str, ...] = ()


class ToolHealth:
    """Feed it each step's trajectories before the update; it raises, or says what is the matter."""

    def __init__(self, config: ToolHealthConfig):
        self.config = config
        self._lost: collections.deque[bool] = collections.deque(maxlen=config.window)

    @property
    def failure_rate(self) -> float:
        return sum(self._lost) / len(self._lost) if self._lost else 0.0

    def observe(self, *, lost: int, trajectories: int, reason: str = "") -> StepHealth:
        """One step: `lost` of `trajectories` were masked.

        Args:
          reason: of the last one, if it is known.

        Raises:
          TooManyFailures: of the latest trajectories too many were lost.
        """
        if not 0 <= lost <= trajectories:
            raise ValueError(f"{lost=} must be in [0, {trajectories=}]")
        why = f"the last by {reason}" if reason else "look at the sandbox servers' logs"
        self._lost.extend([True] * lost + [False] * (trajectories - lost))
        if self.config.is_too_many(sum(self._lost), len(self._lost)):
            raise TooManyFailures(
                f"{sum(self._lost)} of the last {len(self._lost)} trajectories were lost to the "
                f"tool's infrastructure ({self.failure_rate:.1%}, allowed "
                f"{self.config.max_failure_rate:.1%}): {why}"
            )
        warnings = []
        may_learn = not self.config.is_too_many(lost, trajectories)
        if not may_learn:
            warnings.append(
                f"{lost} of {trajectories} trajectories were lost to the tool's infrastructure: "
                "nothing is learned from this step" + (f"; {why}" if reason else "")
            )
        return StepHealth(may_learn=may_learn, warnings=tuple(warnings))
