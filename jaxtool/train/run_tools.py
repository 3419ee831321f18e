"""The tools of a run: which there are, whether renderer and prices go with them, and how they are opened.

What can be refused is refused before weights are read: a function that is no tool, two tools of one name, a
tool that the renderer cannot call, a price for a tool that there is not, a wrong known answer.
"""

import contextlib
import dataclasses
from asyncio import Runner
from collections.abc import Iterator, Sequence

from jaxtool.core.calls import PYTHON, Call
from jaxtool.core.types import Problem, ToolStatus, ToolUnavailable
from jaxtool.renderers.renderer import Renderer, load_renderer
from jaxtool.tools.base import CodeRunner, Preflighted, Tool, ToolSource
from jaxtool.tools.function import Function
from jaxtool.tools.menu import Menu, check_names
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train.rl_config import RlConfig

_SHOWN_CHARS = 200


def tool_sources(config: RlConfig, renderer: Renderer) -> tuple[ToolSource, ...]:
    """`RlConfig.tools`; None stands for the sandbox's Python where the renderer calls it."""
    if config.tools is None:
        calls = () if renderer.tool is None else renderer.tool.tools
        return (PythonSandbox(),) if PYTHON in calls else ()
    if config.tools and renderer.tool is None:
        names = ", ".join(source.spec.name for source in config.tools)
        raise ValueError(
            f"RlConfig.tools holds {names}, and the renderer {renderer.name!r} calls no tool: leave "
            "tools out, or use a renderer with a [tool] table"
        )
    return config.tools


def load_renderer_of(config: RlConfig) -> Renderer:
    """The run's renderer with the run's tools.

    Raises:
      ValueError: something is no tool, or tools, renderer and prices do not go together.
    """
    renderer = load_renderer(config.renderer)
    specs = [source.spec for source in tool_sources(config, renderer)]
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


def with_functions(config: RlConfig, calls: Sequence[str]) -> RlConfig:
    """The run with these functions as further tools, each "module:function"; none: as it is."""
    if not calls:
        return config
    sources = tool_sources(config, load_renderer(config.renderer))
    functions = tuple(Function(call=call) for call in calls)
    return dataclasses.replace(config, tools=(*sources, *functions))


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
    name = source.spec.name
    sessions = menu.sessions(Problem(problem_id="preflight", question="", answer=""), "preflight")
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
    await sessions.close()
