"""What the calls of each tool came to: how many, how long, which failed and how."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass
class CallFigures:
    """Of one tool, since they were last taken."""

    latencies_s: list[float] = dataclasses.field(
        default_factory=list
    )  # of calls that were answered
    errors: int = 0  # of these, how many ended in an error of the call's own
    deadlines: int = 0  # of these, how many reached a limit of time
    unavailable: int = 0  # calls that masked their trajectory
    invalid: int = 0  # calls of the tool's name that could not be made
    retries: int | None = None  # calls made again, of a tool that counts them


def call_metrics(each: Sequence[Mapping[str, CallFigures]]) -> dict[str, float]:
    """Metrics of the figures of all hosts, by tool; no latency where nothing was called."""
    metrics: dict[str, float] = {}
    for tool in dict.fromkeys(name for figures in each for name in figures):
        parts = [figures[tool] for figures in each if tool in figures]
        latencies = sorted(latency for part in parts for latency in part.latencies_s)
        metrics |= {
            f"tools/calls_count/{tool}": float(len(latencies)),
            f"tools/errors_count/{tool}": float(sum(part.errors for part in parts)),
            f"tools/deadlines_count/{tool}": float(sum(part.deadlines for part in parts)),
            f"tools/unavailable_count/{tool}": float(sum(part.unavailable for part in parts)),
            f"tools/invalid_count/{tool}": float(sum(part.invalid for part in parts)),
        }
        retries = [part.retries for part in parts if part.retries is not None]
        if retries:
            metrics[f"tools/retried_count/{tool}"] = float(sum(retries))
        if latencies:
            metrics[f"timing/call_p50_s/{tool}"] = _at(latencies, 0.5)
            metrics[f"timing/call_p95_s/{tool}"] = _at(latencies, 0.95)
    return metrics


def _at(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def fresh(names: Sequence[str]) -> dict[str, CallFigures]:
    """Nothing yet, of each tool."""
    return {name: CallFigures() for name in names}
