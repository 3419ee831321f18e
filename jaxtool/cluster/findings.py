"""What a look at a host found: one line each, with what to do about it. Checks that raise are findings as well."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from jaxtool.core.files import one_line

Status = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check saw."""

    name: str  # of the check
    status: Status  # "warn": a run starts, and is slower or weaker than it could be
    text: str  # one line
    remedy: str = ""  # what to do; empty where all is right

    def __post_init__(self) -> None:
        if (self.status == "ok") == bool(self.remedy):
            raise ValueError(f"{self}: a finding has a remedy where it is not ok, and only there")

    def __str__(self) -> str:
        line = f"{self.status:<4} {self.name:<11} {self.text}"
        return f"{line} -> {self.remedy}" if self.remedy else line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """A named function that looks at one thing."""

    name: str
    look: Callable[[], Finding]
    remedy: str  # where it raises


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """The findings in the checks' order; all checks run at once, so together they take as long as the slowest."""
    with ThreadPoolExecutor(max_workers=max(1, len(checks))) as pool:
        yield from pool.map(_found, checks)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """{"is_ok", "failed": names, "warned": names, "findings": [{"name", "status", "text", "remedy"}]}."""
    return {
        "is_ok": all(one.status != "fail" for one in findings),
        "failed": [one.name for one in findings if one.status == "fail"],
        "warned": [one.name for one in findings if one.status == "warn"],
        "findings": [dataclasses.asdict(one) for one in findings],
    }


def _found(check: Check) -> Finding:
    try:
        return check.look()
    except Exception as error:  # whatever it is, it is what the host lacks
        text = f"{type(error).__name__}: {one_line(error)}"
        return Finding(name=check.name, status="fail", text=text, remedy=check.remedy)
