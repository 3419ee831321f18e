"""Which server gets the next call: the less busy of two drawn at random, sick ones left out.

Counts and clocks only; no network. Random order needs no seed: results do not depend on it.
"""

import dataclasses
import random
import time
from collections.abc import Callable, Sequence

_FIRST_EJECTION_S = 0.5
_LONGEST_EJECTION_S = 30.0


@dataclasses.dataclass(kw_only=True)
class Endpoint:
    """State of one server as this client sees it."""

    address: str
    in_flight: int = 0
    failures_in_a_row: int = 0
    ejected_until: float = 0.0


class Balancer:
    """Power of two choices on in-flight counts, with ejection and re-admission."""

    def __init__(
        self,
        addresses: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        *,
        what: str = "sandbox",
    ) -> None:
        """Args: what names the servers in errors."""
        if not addresses:
            raise ValueError(f"at least one {what} address is needed, e.g. 127.0.0.1:50051")
        if len(set(addresses)) != len(addresses):
            raise ValueError(f"{what} addresses repeat: {list(addresses)}")
        self._endpoints = [Endpoint(address=address) for address in addresses]
        self._clock = clock
        self._random = random.Random(0)

    def choose(
        self, avoid: Endpoint | None = None, load: Callable[[Endpoint], float] | None = None
    ) -> Endpoint:
        """Endpoint for the next call; `avoid` is taken only if it is the only one.

        Args:
          load: of an endpoint, where calls in flight do not tell it: the least of all is taken.
        """
        now = self._clock()
        others = [e for e in self._endpoints if e is not avoid] or self._endpoints
        healthy = [e for e in others if e.ejected_until <= now]
        if not healthy:
            # All are sick: the one whose turn comes first is tried, so that a cluster recovers.
            return min(others, key=lambda e: e.ejected_until)
        if len(healthy) == 1:
            return healthy[0]
        if load is not None:
            return min(healthy, key=load)
        first, second = self._random.sample(healthy, 2)
        return first if first.in_flight <= second.in_flight else second

    def succeeded(self, endpoint: Endpoint) -> None:
        endpoint.failures_in_a_row = 0
        endpoint.ejected_until = 0.0

    def failed(self, endpoint: Endpoint) -> None:
        """Leaves the endpoint out for a while, longer each time it fails again."""
        pause_s = min(_FIRST_EJECTION_S * 2**endpoint.failures_in_a_row, _LONGEST_EJECTION_S)
        endpoint.failures_in_a_row += 1
        endpoint.ejected_until = self._clock() + pause_s

    @property
    def has_several(self) -> bool:
        return len(self._endpoints) > 1

    @property
    def num_ejected(self) -> int:
        now = self._clock()
        return sum(endpoint.ejected_until > now for endpoint in self._endpoints)
