"""What the rollout needs of a tool, and what runs programs. Implementations are in this package."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtool.core.calls import ToolSpec
from jaxtool.core.types import Problem, ToolResult


class CodeRunner(Protocol):
    """Runs programs: a sandbox. Used from one asyncio loop."""

    async def execute(self, code: str) -> ToolResult:
        """What happened. Raises ToolUnavailable for trouble that is not the program's."""
        ...

    async def close(self) -> None: ...


class ToolSession(Protocol):
    """A tool as one trajectory calls it, one call at a time."""

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        """What came of it. Raises ToolUnavailable for trouble that is not the call's.

        Args:
          arguments: JSON values that fit the tool's schema.
        """
        ...

    async def close(self) -> None: ...


class Tool(Protocol):
    """What a policy may call, by name. Used from one asyncio loop."""

    @property
    def spec(self) -> ToolSpec: ...

    async def open(self, problem: Problem, key: str) -> ToolSession:
        """The session of one trajectory. It is opened at its first call and closed with it.

        Args:
          key: names the trajectory: the same in every run with the same seed, unlike all others.
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Preflighted(Protocol):
    """A tool that can tell before a run whether what it rests on works."""

    async def preflight(self) -> None:
        """Raises PreflightError, or ToolUnavailable for what cannot be reached."""
        ...


class ToolSource(Protocol):
    """A tool as a run file has it: a frozen dataclass, from which a run opens a Tool."""

    @property
    def spec(self) -> ToolSpec:
        """Known before anything is opened. Raises ValueError, in one line, if there is no such tool."""
        ...

    @property
    def uses_sandbox(self) -> bool:
        """Whether `open` needs a runner of programs."""
        ...

    def known_answers(self) -> Sequence[tuple[Mapping[str, Any], str]]:
        """Arguments and the text that must come of them, asked before a run; empty: nothing is asked."""
        ...

    def open(self, runner: CodeRunner | None) -> Tool: ...


@runtime_checkable
class ToolServer(Protocol):
    """Several tools behind one thing, as a run file has it. Each is a ToolSource and goes its own way from there."""

    def sources(self) -> Sequence[ToolSource]:
        """One for each tool, in the order of the menu. Those of one call of this share what they open.

        Raises:
          ValueError: there are no such tools; a RuntimeError where they cannot be reached. One line each.
        """
        ...


@runtime_checkable
class Retrying(Protocol):
    """A tool that makes calls again where its infrastructure failed."""

    def take_retries(self) -> int:
        """How many, since the last time."""
        ...


@runtime_checkable
class CountsEarlier(Protocol):
    """A runner that counts over all processes of a run."""

    def count_earlier(self, programs: int) -> None:
        """An earlier process had them run; their results are read back."""
        ...


class SharedSession:
    """The session of a tool without state: all trajectories have it, and closing it ends nothing."""

    def __init__(self, call: Callable[[Mapping[str, Any]], Awaitable[ToolResult]]):
        self._call = call

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return await self._call(arguments)

    async def close(self) -> None:
        return None
