"""What stands on either side of a comparison: `[NAME=]RUN:POLICY`, of one seed or, with commas, of several.

A RUN is the work directory of an evaluation. Without a policy all of its policies are meant, one side each. Sides must
have been asked under the same settings; what differs is named, and only `may_differ` lets it pass. Not covered: the
answers (`policy_comparison`).
"""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from jaxtool.rundir.answer_files import (
    GREEDY,
    Condition,
    EvaluationSettings,
    read_settings,
    split_name,
)

# What decides an answer besides the weights and the question. Sampling acts on sampled answers alone.
_SAMPLING = ("temperature", "top_p")
SETTINGS = ("renderer", "judge", "tools", "max_response_tokens", *_SAMPLING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One policy of one evaluation."""

    workdir: str
    policy: str
    settings: EvaluationSettings

    def __str__(self) -> str:
        return f"{self.workdir}:{self.policy}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """A variant: one policy, or one of each seed."""

    name: str
    seeds: tuple[Source, ...]


def parse_sides(texts: Sequence[str]) -> list[Side]:
    """The sides that a command names, in its order.

    Raises:
      FileNotFoundError: a directory holds no evaluation.
      ValueError: a policy is not in it, two sides have one name, there is one side only, or sides have other numbers of
        seeds; one line.
    """
    sides = [side for text in texts for side in _sides(text)]
    named = [side.name for side in sides]
    sides = [
        dataclasses.replace(side, name=str(side.seeds[0]))
        if named.count(side.name) > 1 and side.name == side.seeds[0].policy
        else side
        for side in sides
    ]
    names = [side.name for side in sides]
    said = [seed for side in sides for seed in map(str, side.seeds)]
    if twice := next((seed for seed in said if said.count(seed) > 1), None):
        raise ValueError(f"{twice} is named twice: leave one out")
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two sides are called {double!r}: name them, as NAME={sides[0].seeds[0]}")
    if len(sides) < 2:
        raise ValueError(f"{names[0]} alone cannot be compared: name a second policy")
    counts = {side.name: len(side.seeds) for side in sides}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ValueError(f"seeds are compared one by one, so each side needs as many: {each}")
    return sides


def shared_conditions(sides: Sequence[Side]) -> tuple[list[Condition], list[str]]:
    """Conditions that every side was asked under, in the order of the first, and a line about each other one.

    Raises:
      ValueError: there is none in common; names what each has.
    """
    sources = [source for side in sides for source in side.seeds]
    shared = [
        condition
        for condition in sources[0].settings.conditions
        if all(condition in source.settings.conditions for source in sources)
    ]
    if not shared:
        each = "; ".join(f"{s} {', '.join(c.name for c in s.settings.conditions)}" for s in sources)
        raise ValueError(f"no condition is common to all sides: {each}")
    alone = dict.fromkeys(
        f"{source}: {condition.name} is compared with nothing, others were not asked so"
        for source in sources
        for condition in source.settings.conditions
        if condition not in shared
    )
    return shared, list(alone)


def check_settings(
    sides: Sequence[Side], conditions: Sequence[Condition], may_differ: Collection[str] = ()
) -> list[str]:
    """What differs between sides and may, a line each.

    Raises:
      ValueError: something else differs, or `may_differ` names what is no setting; one line.
    """
    if unknown := sorted(set(may_differ) - set(SETTINGS)):
        raise ValueError(f"--may_differ {unknown[0]}: write one of {', '.join(SETTINGS)}")
    first, *others = [source for side in sides for source in side.seeds]
    is_sampled = any(condition.sampling != GREEDY for condition in conditions)
    found: dict[str, None] = {}
    for other in others:
        for name in SETTINGS:
            ours, theirs = _setting(first, name), _setting(other, name)
            if ours == theirs or (name in _SAMPLING and not is_sampled):
                continue
            text = f"{name} is {_shown(ours)} in {first} and {_shown(theirs)} in {other}"
            if name not in may_differ:
                raise ValueError(
                    f"these answers are not under the same condition: {text}; --may_differ {name} compares them "
                    "all the same and says so"
                )
            found[text] = None
    return list(found)


def _setting(source: Source, name: str) -> Any:
    return getattr(source.settings, name)


def _shown(value: Any) -> str:
    return "+".join(value) or "none" if isinstance(value, tuple) else str(value)


def _sides(text: str) -> list[Side]:
    name, is_named, rest = text.partition("=")
    if not is_named or "/" in name or not name:  # a path may hold an equals sign
        name, rest = "", text
    found = [_sources(part) for part in rest.split(",")]
    if len(found) == 1 and not name:
        return [Side(name=source.policy, seeds=(source,)) for source in found[0]]
    several = [
        part for part, sources in zip(rest.split(","), found, strict=True) if len(sources) > 1
    ]
    if several:
        policies = ", ".join(source.policy for source in _sources(several[0]))
        raise ValueError(
            f"{several[0]} has several policies: name one of {policies}, as {several[0]}:POLICY"
        )
    seeds = tuple(sources[0] for sources in found)
    return [Side(name=name or seeds[0].policy, seeds=seeds)]


def _sources(text: str) -> list[Source]:
    workdir, policy = split_name(text)
    settings = read_settings(workdir)
    if policy is not None and policy not in settings.policies:
        known = ", ".join(settings.policies)
        raise ValueError(f"the evaluation {workdir} has no policy {policy!r}: it has {known}")
    names = list(settings.policies) if policy is None else [policy]
    workdir = str(Path(workdir))
    return [Source(workdir=workdir, policy=name, settings=settings) for name in names]
