"""The code tool: any runner of programs as a Tool with one argument, `code`.

Each program starts from nothing, or with `SessionRules` in the interpreter of its trajectory.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxtool.core.calls import CODE, PYTHON, ToolSpec
from jaxtool.core.types import Problem, ToolResult
from jaxtool.tools.base import CodeRunner, CountsEarlier, SharedSession, ToolSession
from jaxtool.tools.code_sessions import SessionRunner
from jaxtool.tools.interpreter import Interpreter, SessionRules

PYTHON_SPEC = ToolSpec(
    name=PYTHON,
    description="Runs a Python program and returns what it prints. Each program starts from nothing.",
    parameters={
        "type": "object",
        "properties": {CODE: {"type": "string", "description": "The program."}},
        "required": [CODE],
        "additionalProperties": False,
    },
    # The client of the sandbox ends what takes too long, tries again, and has a queue of its own.
    deadline_s=math.inf,
    max_concurrency=1 << 20,
)


class CodeTool:
    """A Tool; the caller closes the runner."""

    def __init__(
        self,
        runner: CodeRunner,
        spec: ToolSpec = PYTHON_SPEC,
        rules: SessionRules | None = None,
    ):
        """Args:
        rules: of the interpreters of trajectories; None: there are none.

        Raises:
          ValueError: there are rules, and the runner has no sessions.
        """
        self.spec = spec
        self._runner = runner
        self._shared = SharedSession(self._call)
        self._interpreters: tuple[SessionRunner, SessionRules] | None = None
        if rules is not None:
            if not isinstance(runner, SessionRunner):
                raise ValueError(
                    f"state over a trajectory needs a runner with sessions, and {type(runner).__name__} "
                    "has none"
                )
            self._interpreters = runner, rules

    async def open(self, problem: Problem, key: str) -> ToolSession:
        """Opens no session at the server yet: the first program does."""
        del problem
        if self._interpreters is None:
            return self._shared
        return Interpreter(*self._interpreters, key)

    def count_earlier(self, programs: int) -> None:
        """Programs of one trajectory that an earlier process of the run had run, in one session if there are any."""
        if self._interpreters is not None:
            self._interpreters[0].session_counts.opened += 1
        elif isinstance(self._runner, CountsEarlier):
            self._runner.count_earlier(programs)

    async def close(self) -> None:
        return None

    async def _call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return await self._runner.execute(arguments[CODE])
