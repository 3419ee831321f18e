"""What the rollout needs of a tool. Implementations are in this package."""

from typing import Protocol

from jaxtool.core.types import ToolResult


class Tool(Protocol):
    """Executes code written by the policy. Used from one asyncio loop."""

    @property
    def name(self) -> str: ...

    async def execute(self, code: str) -> ToolResult:
        """What happened. Raises ToolUnavailable for trouble that is not the program's."""
        ...

    async def close(self) -> None: ...
