"""The code tool: any runner of programs as a Tool with one argument, `code`."""

import math
from collections.abc import Mapping
from typing import Any

from jaxtool.core.calls import CODE, PYTHON, ToolSpec
from jaxtool.core.types import Problem, ToolResult
from jaxtool.tools.base import CodeRunner, SharedSession

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
    """A stateless Tool; the caller closes the runner."""

    def __init__(self, runner: CodeRunner, spec: ToolSpec = PYTHON_SPEC):
        self.spec = spec
        self._runner = runner
        self._session = SharedSession(self._call)

    async def open(self, problem: Problem, key: str) -> SharedSession:
        del problem, key
        return self._session

    async def close(self) -> None:
        return None

    async def _call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return await self._runner.execute(arguments[CODE])
