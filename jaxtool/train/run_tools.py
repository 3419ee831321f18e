"""The tools of a run: which there are, whether renderer and prices go with them, and how they are opened.

What can be refused is refused before weights are read: a function that is no tool, two tools of one name, a
tool that the renderer cannot call, a price for a tool that there is not, a wrong known answer.
"""

import contextlib
import dataclasses
from asyncio import Runner
from collections.abc import Iterator, Sequence

import jax

from jaxtool.core.calls import PYTHON, Call
from jaxtool.core.types import Problem, ToolStatus, ToolUnavailable
from jaxtool.renderers.renderer import Renderer, load_renderer
from jaxtool.tools.base import CodeRunner, Preflighted, Tool, ToolServer, ToolSource
from jaxtool.tools.function import Function
from jaxtool.tools.mcp import Mcp
from jaxtool.tools.menu import Menu, Sessions, check_names
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.tools.search import Search
from jaxtool.tools.session_places import SessionNeeds
from jaxtool.train.rl_config import RlConfig

_SHOWN_CHARS = 200
_NO_STATE = "starts from nothing"  # as retool.toml says it


def tool_sources(config: RlConfig, renderer: Renderer) -> tuple[ToolSource, ...]:
    """One for each tool of `RlConfig.tools`; None stands for the sandbox's Python where the renderer calls it."""
    if config.tools is None:
        calls = () if renderer.tool is None else renderer.tool.tools
        return (PythonSandbox(),) if PYTHON in calls else ()
    sources = each_tool(config.tools)
    if sources and renderer.tool is None:
        names = ", ".join(source.spec.name for source in sources)
        raise ValueError(
            f"RlConfig.tools holds {names}, and the renderer {renderer.name!r} calls no tool: leave "
            "tools out, or use a renderer with a [tool] table"
        )
    return sources


def each_tool(tools: Sequence[ToolSource | ToolServer]) -> tuple[ToolSource, ...]:
    """With a server's tools in the place of the server. Raises what `ToolServer.sources` does."""
    sources: list[ToolSource] = []
    for tool in tools:
        sources.extend(tool.sources() if isinstance(tool, ToolServer) else [tool])
    return tuple(sources)


def session_needs(config: RlConfig, sources: Sequence[ToolSource]) -> SessionNeeds | None:
    """What interpreters of trajectories ask of the servers: a session for each row in flight; None: there are none.

    With `decode_rows = 0` as many rows as fit, which nobody knows yet: the most that it takes.
    """
    engine = config.engine
    setting = "cache_rows" if engine.cache_rows else "decode_rows"
    if not engine.num_cache_rows:
        setting = "most_decode_rows"
    for source in sources:
        if isinstance(source, PythonSandbox) and source.state == "trajectory":
            return SessionNeeds(
                sessions=getattr(engine, setting),
                setting=f"EngineConfig.{setting}",
                hosts=jax.process_count(),
                idle_s=source.session_idle_s,
                has_checkpoints=source.has_checkpoints,
            )
    return None


def searched_at(sources: Sequence[ToolSource], addresses: Sequence[str]) -> tuple[ToolSource, ...]:
    """The tools, in which running servers stand in place of those that a search names or would start.

    Args:
      addresses: of servers with the same corpus; empty: the tools stay as they are.

    Raises:
      ValueError: none of them searches.
    """
    if not addresses:
        return tuple(sources)
    if not any(isinstance(source, Search) for source in sources):
        raise ValueError(
            f"search servers at {', '.join(addresses)}: no tool of the run searches; leave them out, or add "
            "search.Search to RlConfig.tools"
        )
    return tuple(
        dataclasses.replace(source, addresses=tuple(addresses), corpus="")
        if isinstance(source, Search)
        else source
        for source in sources
    )


def load_renderer_of(config: RlConfig) -> Renderer:
    """The run's renderer with the run's tools.

    Raises:
      ValueError: something is no tool, or tools, renderer and prices do not go together.
    """
    renderer = load_renderer(config.renderer)
    sources = tool_sources(config, renderer)
    _check_prompt_of_state(renderer, sources)
    specs = [source.spec for source in sources]
    check_names(specs)
    names = [spec.name for spec in specs]
    for setting in ("per_tool", "per_tool_token"):
        for name, _ in getattr(config.call_cost, setting):
            if name not in names:
                raise ValueError(
                    f"CallCost.{setting}: there is no tool {name!r}; the run's tools are "
                    f"{', '.join(names) or 'none'}"
                )
    return renderer.with_tools(specs)


def with_functions(config: RlConfig, calls: Sequence[str], servers: Sequence[str] = ()) -> RlConfig:
    """The run with these as further tools; none: as it is.

    Args:
      calls: functions, each "module:function".
      servers: MCP servers, each a command or a URL.
    """
    if not calls and not servers:
        return config
    tools = config.tools
    if tools is None:
        tools = tool_sources(config, load_renderer(config.renderer))
    further = (*(Function(call=call) for call in calls), *map(Mcp.of, servers))
    return dataclasses.replace(config, tools=(*tools, *further))


@contextlib.contextmanager
def open_menu(
    sources: Sequence[ToolSource], programs: CodeRunner | None, runner: Runner
) -> Iterator[Menu]:
    """The tools, whose preflights and known answers were right; they are closed with the block.

    Args:
      programs: runs those of the code tool; the caller closes it.

    Raises:
      PreflightError: a tool cannot be reached, or answers wrongly.
    """
    tools: list[Tool] = []
    menu = Menu()
    try:
        for source in sources:
            tools.append(source.open(programs))
        menu = Menu(tools)
        for tool in tools:
            if isinstance(tool, Preflighted):
                runner.run(_preflight(tool, tool.spec.name))
        for source in sources:
            runner.run(_ask_known_answers(menu, source))
        menu.take_figures()  # of the run alone
        yield menu
    finally:
        # Where one could not be opened, those before it are closed all the same.
        runner.run((menu if menu.specs else Menu(tools)).close())


async def _preflight(tool: Preflighted, name: str) -> None:
    try:
        await tool.preflight()
    except ToolUnavailable as error:
        raise PreflightError(f"tool {name!r}: ToolUnavailable: {error}") from error


async def _ask_known_answers(menu: Menu, source: ToolSource) -> None:
    problem = Problem(problem_id="preflight", question="", answer="")
    sessions = menu.sessions(problem, "preflight")
    try:
        await _ask(menu, source, sessions)
    finally:
        await sessions.close()


async def _ask(menu: Menu, source: ToolSource, sessions: Sessions) -> None:
    name = source.spec.name
    for arguments, expected in source.known_answers():
        asked = f"tool {name!r}: known answer of {dict(arguments)!r:.{_SHOWN_CHARS}}"
        call = menu.checked(Call(tool=name, arguments=arguments))
        if not isinstance(call, Call):
            raise PreflightError(f"{asked}: {call.reason}")
        try:
            result = await sessions.call(call)
        except ToolUnavailable as error:
            raise PreflightError(f"{asked}: ToolUnavailable: {error}") from error
        is_right = result.status is ToolStatus.OK and result.stdout == expected
        if not is_right:
            got = result.stdout if result.status is ToolStatus.OK else result.stderr
            raise PreflightError(
                f"{asked}: expected {expected!r:.{_SHOWN_CHARS}}, got {got!r:.{_SHOWN_CHARS}}"
            )


def _check_prompt_of_state(renderer: Renderer, sources: Sequence[ToolSource]) -> None:
    """Raises ValueError if the prompt denies the state that the code tool has."""
    for source in sources:
        has_state = isinstance(source, PythonSandbox) and source.state == "trajectory"
        if has_state and any(_NO_STATE in content for _, content in renderer.messages):
            raise ValueError(
                f"PythonSandbox.state='trajectory', and renderer {renderer.name!r} tells the policy that a program "
                f"{_NO_STATE!r}: set RlConfig.renderer = 'retool_session', or write the message otherwise"
            )
