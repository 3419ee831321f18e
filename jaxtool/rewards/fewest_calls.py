"""n of OTC-PO: with how few calls each problem was solved, kept over the whole run.

Covered: the evidence (`CallHistory`), a store of it by problem that is written to checkpoints, and
pure estimators of n from it. Because the store keeps evidence and not n, a run can be resumed or its
rewards recomputed with another estimator.
Not covered: when to update (`scoring`: before a group is scored). Every host scores all groups, so every
host holds the same evidence.

The paper takes the global minimum. It is noisy in one direction: one lucky answer with 0 calls fixes
n = 0 for ever. The other estimators are there for that.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

# Latest groups whose minimum is kept; the widest window that an estimator may ask for.
MAX_WINDOW_GROUPS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallHistory:
    """Calls (or costs, by `call_cost`) of the correct trajectories of one problem."""

    counts: Mapping[float, int] = dataclasses.field(default_factory=dict)  # calls -> trajectories
    group_minima: tuple[float, ...] = ()  # by group with a correct one, oldest first, latest 32

    def with_group(self, correct_calls: Sequence[float]) -> "CallHistory":
        """This history and one more group; unchanged where nobody in the group was correct.

        Args:
          correct_calls: calls of each correct trajectory of the group, in any order.
        """
        if not correct_calls:
            return self
        if min(correct_calls) < 0:
            raise ValueError(f"calls cannot be negative: {list(correct_calls)}")
        counts = dict(self.counts)
        for calls in map(float, correct_calls):
            counts[calls] = counts.get(calls, 0) + 1
        minima = (*self.group_minima, float(min(correct_calls)))[-MAX_WINDOW_GROUPS:]
        return CallHistory(counts=dict(sorted(counts.items())), group_minima=minima)


class FewestCalls(Protocol):
    """A pure estimator of n; None where there is not enough evidence."""

    def __call__(self, history: CallHistory, /) -> float | None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlobalMinimum:
    """Fewest calls of any correct trajectory so far: the paper's choice for OTC-GRPO."""

    def __call__(self, history: CallHistory, /) -> float | None:
        return min(history.counts, default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowMinimum:
    """Minimum over the latest groups that had a correct trajectory; groups=1: the local estimate."""

    groups: int = 8  # 1..32; a lucky answer is forgotten after this many groups

    def __post_init__(self) -> None:
        if not 1 <= self.groups <= MAX_WINDOW_GROUPS:
            raise ValueError(f"groups must be in 1..{MAX_WINDOW_GROUPS}: {self.groups=}")

    def __call__(self, history: CallHistory, /) -> float | None:
        return min(history.group_minima[-self.groups :], default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowerQuantile:
    """Smallest m such that at least a share q of all correct trajectories made m calls or fewer."""

    q: float = 0.1  # in (0, 1]; towards 0 it is the global minimum

    def __post_init__(self) -> None:
        if not 0 < self.q <= 1:
            raise ValueError(f"q must be in (0, 1]: {self.q=}")

    def __call__(self, history: CallHistory, /) -> float | None:
        # Rounded: 0.07 * 100 is 7.000000000000001 in floating point, and would ask for 8 of them.
        return _smallest_with(history, round(self.q * sum(history.counts.values()), 9))


@dataclasses.dataclass(frozen=True, kw_only=True)
class KSuccesses:
    """Smallest m such that at least k correct trajectories made m calls or fewer."""

    k: int = 2  # 1 is the global minimum

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be positive: {self.k=}")

    def __call__(self, history: CallHistory, /) -> float | None:
        return _smallest_with(history, self.k)


def _smallest_with(history: CallHistory, successes: float) -> float | None:
    total = 0
    for calls in sorted(history.counts):
        total += history.counts[calls]
        if total >= successes:
            return calls
    return None


class CallStore:
    """Call histories by problem_id. Mutable, owned by the run loop, saved with every checkpoint."""

    def __init__(self, histories: Mapping[str, CallHistory] | None = None) -> None:
        self._histories = dict(histories or {})

    def __len__(self) -> int:
        return len(self._histories)

    def history(self, problem_id: str) -> CallHistory:
        """What is known of a problem; an empty history if it was never solved."""
        return self._histories.get(problem_id, CallHistory())

    def update(self, problem_id: str, correct_calls: Sequence[float]) -> CallHistory:
        """Adds one group's correct trajectories and returns the history with them."""
        history = self.history(problem_id).with_group(correct_calls)
        if history.counts:
            self._histories[problem_id] = history
        return history

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state, the same for the same evidence whatever the order of problems."""
        return {
            problem_id: {
                "counts": [[calls, count] for calls, count in sorted(history.counts.items())],
                "group_minima": list(history.group_minima),
            }
            for problem_id, history in sorted(self._histories.items())
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "CallStore":
        """The store that `state_dict` described."""
        return cls(
            {
                problem_id: CallHistory(
                    counts={float(calls): int(count) for calls, count in entry["counts"]},
                    group_minima=tuple(float(calls) for calls in entry["group_minima"]),
                )
                for problem_id, entry in state.items()
            }
        )
