"""Where the seconds of a collection went. Knows no engine."""

import dataclasses
import statistics


@dataclasses.dataclass(kw_only=True)
class CollectTimes:
    """Seconds of one collection; `tool_wait` is time in which no row could decode."""

    total_s: float = 0.0
    decode_s: float = 0.0
    tool_wait_s: float = 0.0
    prefill_s: float = 0.0
    # Of the row-steps until no row waited for a cache row or a decode row; of all where none ever did.
    useful_fraction: float = 0.0
    # From the start until each group was complete, in the order of `Collector.group_order`.
    groups_s: list[float] = dataclasses.field(default_factory=list)

    @property
    def half_of_groups_s(self) -> float:
        """After which half of the groups were complete: far from all of them, the rest are stragglers."""
        return statistics.median_low(self.groups_s) if self.groups_s else 0.0
