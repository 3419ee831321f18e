"""What is measured of the behaviour of policies: one alone, one against another, one with and without tools."""

import dataclasses

from jaxtool.behaviour.offloading import Offloading
from jaxtool.behaviour.two_runs import BehaviourShares

Values = dict[str, float | None]  # measures by name, None where one is undefined


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One policy asked in one way. Parts are None where there is nothing of their kind, or too many answers are lost."""

    policy: str
    way: str  # "greedy" or "sampled"; where more is varied a condition's name, as "sampled_calls_4"
    answers: int  # judged
    lost: int
    response_tokens: float | None = None
    policy_tokens: float | None = None
    calls: Values | None = None  # where they stand, and how many of those written were run
    code: Values | None = None
    purposes: dict[str, float] | None = None  # shares of programs
    searches: Values | None = None
    need: dict[str, float] | None = None  # only where every level's need is known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Against:
    """One policy against the first, asked in the same way."""

    policy: str
    first: str
    way: str
    found: BehaviourShares


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offloaded:
    """One policy with tools, probed without any."""

    policy: str
    way: str  # with tools
    found: Offloading
