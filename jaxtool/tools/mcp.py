"""The tools of an MCP server in a menu: any server, over stdio or streamable HTTP.

  files/mcp.Mcp.command = "python my_server.py"          # started and ended by the run
  docs/mcp.Mcp.url = "http://10.0.0.5:8000/mcp"          # running

Or `--mcp "python my_server.py"` on the command line. The server is asked for its tools when the run is checked,
and each joins the menu under its own name, with its own schema, deadline, price and figures. What its calls can
come to stands in `mcp_calls`. Needs the extra `mcp`.

Not covered: prompts, resources, sampling and elicitation of the protocol, and its old transport HTTP+SSE.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from jaxtool.core.calls import ToolSpec
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem, ToolResult
from jaxtool.formats.signatures import Signatures
from jaxtool.tools.base import CodeRunner
from jaxtool.tools.mcp_endpoint import McpEndpoint, Pairs, split_command
from jaxtool.tools.mcp_listing import Offered, chosen

if TYPE_CHECKING:  # it needs the extra
    from jaxtool.tools.mcp_calls import McpCalls


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mcp:
    """A server. A run file has one in a scope of its own for each of its servers."""

    command: str | tuple[str, ...] = ""  # as a shell splits it, or its words; the run starts it
    env: Pairs = ()  # variables of the command beside HOME, PATH and the like; "${NAME}" is ours
    cwd: str = ""  # directory of the command; "": the run's
    url: str = ""  # of a running server, in place of a command
    headers: Pairs = ()  # of each request, such as ("Authorization", "Bearer ${TOKEN}")
    only: tuple[str, ...] = ()  # the server's names of the tools to take; (): all
    prefix: str = ""  # before each name, where names of two servers clash
    # "trajectory": a connection, and with a command a process, for each; needed where the server remembers.
    shares: Literal["run", "trajectory"] = "run"
    start_timeout_s: float = 60.0  # until the server has answered the first greeting
    deadline_s: float = 30.0  # of a call, from when the server gets it
    deadlines: tuple[tuple[str, float], ...] = ()  # of tools that need another, by menu name
    max_concurrency: int = 16  # calls of a tool at a time
    max_result_chars: int = 16384  # longer results are cut there
    max_observation_tokens: int | None = None  # head kept; None: the renderer's max_output_chars
    # Asked before a run: the tool's menu name, arguments, and the text that must come of them.
    known_answers: tuple[tuple[str, Mapping[str, Any], str], ...] = ()

    def __post_init__(self) -> None:
        check_range(self, "start_timeout_s", "deadline_s", above=0)
        check_range(self, "max_concurrency", "max_result_chars", least=1)
        if self.max_observation_tokens is not None:
            check_range(self, "max_observation_tokens", least=1)
        if self.shares not in ("run", "trajectory"):
            raise ValueError(f"{self.shares=} must be 'run' or 'trajectory'")
        for name, deadline_s in self.deadlines:
            if not deadline_s > 0:
                raise ValueError(f"Mcp.deadlines: {name!r} has {deadline_s}, which must be > 0")
        self.endpoint.check()

    @classmethod
    def of(cls, text: str) -> "Mcp":
        """Of a command line: a URL, or else a command."""
        is_url = text.startswith(("http://", "https://"))
        return cls(url=text) if is_url else cls(command=text)

    @property
    def endpoint(self) -> McpEndpoint:
        return McpEndpoint(
            command=split_command(self.command),
            env=self.env,
            cwd=self.cwd,
            url=self.url,
            headers=self.headers,
            start_timeout_s=self.start_timeout_s,
        )

    def sources(self) -> tuple["McpToolSource", ...]:
        """One for each tool, in the server's order. Those of one call of this share their connections.

        Raises:
          ValueError: there is no server, or its tools are no menu; one line.
        """
        by_trajectory = self.shares == "trajectory"
        menu = chosen(
            _listed(self.endpoint, by_trajectory and bool(self.url)),
            self.only,
            self.prefix,
            self.endpoint.title,
        )
        for what, name in (
            *(("deadlines", name) for name, _ in self.deadlines),
            *(("known_answers", name) for name, _, _ in self.known_answers),
        ):
            if name not in menu:
                raise ValueError(f"Mcp.{what}: there is no tool {name!r}, only {', '.join(menu)}")
        calls = _library().McpCalls(
            self.endpoint,
            wanted=menu,
            by_trajectory=by_trajectory,
            max_chars=self.max_result_chars,
        )
        return tuple(McpToolSource(self, name, one, calls) for name, one in menu.items())


class McpToolSource:
    """One tool of a server, as a run has it."""

    uses_sandbox = False

    def __init__(self, config: Mcp, name: str, tool: Offered, calls: "McpCalls"):
        """Raises ValueError, in one line, for a schema that no call can be checked against."""
        self.spec = ToolSpec(
            name=name,
            description=tool.description,
            parameters=tool.parameters,
            # The calls have deadlines of their own, beyond which a server may have to start.
            deadline_s=math.inf,
            max_concurrency=config.max_concurrency,
            max_observation_tokens=config.max_observation_tokens,
        )
        try:
            Signatures([self.spec])
        except ValueError as error:
            raise ValueError(f"{config.endpoint.title}: {error}") from None
        self._config = config
        self._tool = tool
        self._calls = calls

    def known_answers(self) -> list[tuple[Mapping[str, Any], str]]:
        """Arguments and the text that must come of them."""
        return [
            (arguments, text)
            for name, arguments, text in self._config.known_answers
            if name == self.spec.name
        ]

    def open(self, runner: CodeRunner | None = None) -> "McpTool":
        del runner
        deadlines = dict(self._config.deadlines)
        deadline_s = deadlines.get(self.spec.name, self._config.deadline_s)
        return McpTool(self.spec, self._tool.name, deadline_s, self._calls)


class McpTool:
    """An open tool of a server."""

    def __init__(self, spec: ToolSpec, name: str, deadline_s: float, calls: "McpCalls"):
        self.spec = spec
        self._name = name  # the server's
        self._deadline_s = deadline_s
        self._calls = calls
        self._retries_taken = calls.retries(name)
        calls.retain()

    async def preflight(self) -> None:
        """Raises ToolUnavailable if the server is gone, or has other tools than the prompts say."""
        await self._calls.start()

    async def open(self, problem: Problem, key: str) -> "_McpSession":
        del problem
        return _McpSession(self, key)

    async def call(self, arguments: Mapping[str, Any], trajectory: str) -> ToolResult:
        return await self._calls.call(self._name, arguments, self._deadline_s, trajectory)

    def take_retries(self) -> int:
        """Calls of this tool that were made again, since the last time."""
        before, self._retries_taken = self._retries_taken, self._calls.retries(self._name)
        return self._retries_taken - before

    async def leave(self, trajectory: str) -> None:
        await self._calls.leave(trajectory)

    async def close(self) -> None:
        await self._calls.release()


class _McpSession:
    def __init__(self, tool: McpTool, trajectory: str):
        self._tool = tool
        self._trajectory = trajectory

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return await self._tool.call(arguments, self._trajectory)

    async def close(self) -> None:
        await self._tool.leave(self._trajectory)


@functools.lru_cache
def _listed(endpoint: McpEndpoint, needs_session: bool) -> tuple[Offered, ...]:
    """The server's tools, asked once by this process: prompts, dry run and run have the same."""
    return tuple(_library().listed_tools(endpoint, needs_session=needs_session))


def _library() -> types.ModuleType:
    """`mcp_calls`, which needs the package. Raises ValueError without it."""
    try:
        from jaxtool.tools import mcp_calls
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("jaxtool"):
            raise
        raise ValueError(
            f"Mcp needs the package mcp: pip install 'jaxtool[mcp]' ({error})"
        ) from None
    return mcp_calls
