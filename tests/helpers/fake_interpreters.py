"""Interpreters without a server, for tests of what uses sessions. They run no code.

A program is `name = number`, which sets a name, or a name, whose number is its value. Other words stand for what may
happen: "clock" prints another number each time, "endless" breaks a limit, "evict" has its session ended behind it,
"too much" both.
"""

import asyncio
import itertools

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.code_sessions import BlockResult, SessionCounts, SessionLost

OK = ToolStatus.OK


class FakeSession:
    def __init__(self, runner: "FakeRunner", name: str, has_checkpoints: bool):
        self.is_lost = False
        self.name = name
        self.has_checkpoints = has_checkpoints
        self.programs: list[str] = []
        self._runner = runner
        self._names: dict[str, str] = {}

    async def execute(self, code: str) -> BlockResult:
        runner = self._runner
        await asyncio.sleep(runner.latency_s)
        if self.is_lost or runner.losses_left.pop(code, 0):
            self.is_lost = True
            raise SessionLost("the session broke: the session's process broke the protocol")
        self.programs.append(code)
        if code in ("endless", "too much"):
            is_evicted = code == "too much" and not runner.has_room
            self.is_lost = is_evicted or not self.has_checkpoints
            result = ToolResult(status=ToolStatus.CPU_LIMIT, stdout=f"{next(runner.clock)}\n")
            return BlockResult(
                result=result,
                is_rolled_back=self.has_checkpoints,
                is_lost=self.is_lost,
                is_evicted=is_evicted,
            )
        if code == "clock":
            return BlockResult(result=ToolResult(status=OK, stdout=f"{next(runner.clock)}\n"))
        name, _, value = code.partition(" = ")
        if value:
            self._names[name] = value
            return BlockResult(result=ToolResult(status=OK))
        if code == "evict":
            self.is_lost = True
            return BlockResult(
                result=ToolResult(status=OK, last_value="1"), is_lost=True, is_evicted=True
            )
        if code in self._names:
            return BlockResult(result=ToolResult(status=OK, last_value=self._names[code]))
        error = ToolResult(status=ToolStatus.ERROR, stderr="NameError\n", error_type="NameError")
        return BlockResult(result=error)

    async def close(self) -> None:
        self.is_lost = True
        await asyncio.sleep(0)
        self._runner.open.discard(self)


class FakeRunner:
    """A CodeRunner and a SessionRunner.

    Attributes:
      losses_left: by program: its next run loses the session.
      open: sessions that nobody has closed.
      made: all sessions, in order.
    """

    def __init__(self, losses: tuple[str, ...] = (), latency_s: float = 0.0, opening_s: float = 0):
        self.session_counts = SessionCounts()
        self.losses_left = dict.fromkeys(losses, 1)
        self.latency_s = latency_s
        self.opening_s = opening_s
        self.is_down = False
        self.has_room = False  # the first time
        self.clock = itertools.count()
        self.open: set[FakeSession] = set()
        self.made: list[FakeSession] = []

    async def create_session(
        self, *, name: str = "", has_checkpoints: bool = True, idle_s: float = 0.0
    ) -> FakeSession:
        del idle_s
        await asyncio.sleep(self.opening_s)
        if self.is_down:
            raise ToolUnavailable("sandbox at fake: UNAVAILABLE")
        session = FakeSession(self, name, has_checkpoints)
        self.open.add(session)
        self.has_room = bool(self.made)
        self.made.append(session)
        self.session_counts.opened += 1
        return session

    async def execute(self, code: str) -> ToolResult:
        raise AssertionError(f"{code!r} ran without a session")

    async def close(self) -> None:
        return None
