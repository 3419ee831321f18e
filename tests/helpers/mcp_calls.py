"""Calls to the tools of MCP servers, as a run makes them."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.core.types import Problem, ToolResult, ToolUnavailable
from jaxtool.tools.mcp import Mcp
from jaxtool.tools.menu import Menu

PROBLEM = Problem(problem_id="p", question="q", answer="a")
OURS = (sys.executable, str(Path(__file__).with_name("mcp_server.py")))
_BAD = str(Path(__file__).with_name("bad_mcp_server.py"))
Answer = ToolResult | InvalidCall | ToolUnavailable


def bad(mode: str, log: Path, **settings: Any) -> Mcp:
    """The server that does what it should not, and writes down what it is told."""
    return Mcp(command=(sys.executable, "-I", "-S", _BAD, mode, str(log)), **settings)


def menu_of(*servers: Mcp) -> Menu:
    return Menu([source.open() for server in servers for source in server.sources()])


async def answered(menu: Menu, tool: str, arguments: dict[str, Any], key: str = "t") -> Answer:
    """What one call of a trajectory comes to, which goes on."""
    return await _answered(menu, menu.sessions(PROBLEM, key), tool, arguments)


async def _answered(menu: Menu, sessions: Any, tool: str, arguments: dict[str, Any]) -> Answer:
    call = menu.checked(Call(tool=tool, arguments=arguments))
    if isinstance(call, InvalidCall):
        return call
    try:
        return await sessions.call(call)
    except ToolUnavailable as error:
        return error


def answers(
    server: Mcp, *calls: tuple[str, dict[str, Any]], trajectories: int = 1
) -> list[list[Answer]]:
    """By trajectory: what its calls come to, one after the other; trajectories are open at once."""

    async def made() -> list[list[Answer]]:
        menu = menu_of(server)
        try:
            each = [menu.sessions(PROBLEM, number) for number in range(trajectories)]
            out = [[await _answered(menu, one, *call) for call in calls] for one in each]
            await asyncio.gather(*(one.close() for one in each))
            return out
        finally:
            await menu.close()

    return asyncio.run(made())


def acts(server: Mcp, *hows: str) -> list[Answer]:
    """What one trajectory of the bad server's `act` gets."""
    return answers(server, *(("act", {"how": how}) for how in hows))[0]


def lines(log: Path) -> Sequence[str]:
    return log.read_text().splitlines()
