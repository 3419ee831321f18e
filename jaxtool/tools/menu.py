"""The tools of a run by name, and the sessions that a trajectory opens with them. Knows no renderer."""

import asyncio
from collections.abc import Sequence

from jaxtool.core.calls import Call, ToolSpec
from jaxtool.core.types import Problem, ToolResult
from jaxtool.tools.base import CodeRunner, Tool, ToolSession
from jaxtool.tools.code_tool import CodeTool

_CLOSE_TIMEOUT_S = 10.0


class Menu:
    """The tools that a policy may call."""

    def __init__(self, tools: Sequence[Tool] = ()):
        self._tools = {tool.spec.name: tool for tool in tools}
        if len(self._tools) < len(tools):
            names = [tool.spec.name for tool in tools]
            raise ValueError(f"two tools of one name: {names}; rename one")

    @classmethod
    def of_code(cls, runner: CodeRunner | None) -> "Menu":
        """The code tool alone; without a runner, no tool."""
        return cls([] if runner is None else [CodeTool(runner)])

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self._tools.values())

    def sessions(self, problem: Problem, key: str) -> "Sessions":
        """Those of one trajectory; none is open yet."""
        return Sessions(self._tools, problem, key)


class Sessions:
    """What one trajectory calls. A tool's session opens at its first call."""

    def __init__(self, tools: dict[str, Tool], problem: Problem, key: str):
        self._tools = tools
        self._problem = problem
        self._key = key
        self._open: dict[str, ToolSession] = {}

    @property
    def is_any_open(self) -> bool:
        return bool(self._open)

    async def call(self, call: Call) -> ToolResult:
        """What came of a call. Raises ToolUnavailable for trouble that is not the call's."""
        session = self._open.get(call.tool)
        if session is None:
            session = await self._tools[call.tool].open(self._problem, self._key)
            self._open[call.tool] = session
        return await session.call(call.arguments)

    async def close(self) -> None:
        """Ends what is open. Never raises and never hangs: a session that cannot be closed is left."""
        sessions, self._open = list(self._open.values()), {}
        await asyncio.gather(*(_closed(session) for session in sessions), return_exceptions=True)


async def _closed(session: ToolSession) -> None:
    async with asyncio.timeout(_CLOSE_TIMEOUT_S):
        await session.close()
