"""Programs that a judge has run by a tool, all at a time. Knows no judge."""

import asyncio
from asyncio import Runner
from collections.abc import Sequence

from jaxtool.core.types import ToolResult, ToolUnavailable
from jaxtool.judges.base import RunPrograms
from jaxtool.tools.base import CodeRunner


def programs_in(tool: CodeRunner, runner: Runner) -> RunPrograms:
    """A function that runs programs by `tool` and waits; None where the tool was not available.

    Args:
      runner: the tool's; its loop may run in another thread, as it does while rollouts overlap updates.
    """

    def run(programs: Sequence[str]) -> list[ToolResult | None]:
        work = _run_all(tool, programs)
        loop = runner.get_loop()
        if loop.is_running():
            return asyncio.run_coroutine_threadsafe(work, loop).result()
        return runner.run(work)

    return run


async def _run_all(tool: CodeRunner, programs: Sequence[str]) -> list[ToolResult | None]:
    async def one(program: str) -> ToolResult | None:
        try:
            return await tool.execute(program)
        except ToolUnavailable:
            return None

    return list(await asyncio.gather(*(one(program) for program in programs)))
