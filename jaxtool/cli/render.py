"""Shows a prompt with its tokens, and how a response is read: how a person writes a renderer.

  python -m experiments.render --renderer hermes --tokenizer DIR --tools my_tools:convert \
      --question "How far is it in miles?" --response response.txt --answer 26.2

--tokenizer is a directory of Hugging Face's, a .gguf file, a SentencePiece .model, or `smollm2`, `arithmetic` or `facts`.
--tools are functions, MODULE:FUNCTION, and --mcp names servers of tools; `python`, the code tool, is there where the
renderer calls it. --spec FILE reads
tools as JSON instead, [{"name", "description", "parameters": JSON schema}]. The response holds what the policy writes;
observations are put behind its calls: --result TEXT, or with --run what the tools say, in the sandbox or in this process.

--json PATH writes {"renderer", "tools": [names], "tokens": [{"id", "text", "origin": "prompt", "policy" or "tool",
"is_control"}], "calls": [{"tool", "arguments" or "invalid": reason, "observation", "unread"}], "end": "answer",
"end token" or "open", "final_text", "answer": text or null, "verdict": null or {"is_correct", "score", "how"},
"left_over"}.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtool.cli import entry

if TYPE_CHECKING:  # imported where they are used: prepare() comes first
    from jaxtool.core.types import Problem, Verdict
    from jaxtool.data.tokenizer import Tokenizer
    from jaxtool.renderers.renderer import Renderer
    from jaxtool.rollout.reading import Reading
    from jaxtool.tools.base import ToolSource


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--renderer", required=True, help="name of a template, or a .toml file")
    parser.add_argument("--tokenizer", required=True, help="see above")
    parser.add_argument(
        "--tools", nargs="+", action="extend", default=[], metavar="MODULE:FUNCTION"
    )
    entry.add_mcp_flag(parser)
    parser.add_argument("--spec", type=entry.input_path, help="tools as JSON, in place of --tools")
    parser.add_argument("--question", default="What is 6 * 7?")
    parser.add_argument(
        "--response", type=entry.input_path, help="what the policy writes; - reads standard input"
    )
    parser.add_argument(
        "--result", default="(a result)", help="what every call says, without --run"
    )
    parser.add_argument("--run", action="store_true", help="make the calls")
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running server"
    )
    parser.add_argument("--answer", help="the reference: judges the response")
    parser.add_argument("--judge", default="math", help="see experiments.judge, or calls")
    parser.add_argument("--tokens", action="store_true", help="a line for each token")
    entry.add_json_flag(parser, "write all of it here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    from jaxtool.core.files import write_text
    from jaxtool.core.types import Problem
    from jaxtool.renderers.renderer import load_renderer
    from jaxtool.renderers.tool_checks import check_tools
    from jaxtool.rollout.reading_report import print_reading

    renderer = load_renderer(arguments.renderer)
    tokenizer = load_tokenizer(arguments.tokenizer)
    sources = tool_sources(arguments, renderer)
    renderer = renderer.with_tools([source.spec for source in sources])
    check_tools(renderer, tokenizer)
    response = read_text(arguments.response)
    problem = Problem(
        problem_id="render", question=arguments.question, answer=arguments.answer or ""
    )
    reading = read(arguments, response or "", problem, renderer, tokenizer, sources)
    verdict = judged(arguments, reading, problem) if response is not None else None
    print_reading(
        reading,
        renderer,
        tokenizer,
        verdict=verdict,
        has_response=response is not None,
        shows_tokens=arguments.tokens,
    )
    if arguments.json:
        record = as_json(reading, renderer, tokenizer, verdict)
        write_text(arguments.json, json.dumps(record, indent=1, ensure_ascii=False))


def load_tokenizer(text: str) -> "Tokenizer":
    """Raises ValueError or FileNotFoundError if there is none."""
    from jaxtool.train import sources

    if text == "arithmetic":
        return sources.ArithmeticTokenizer().load()
    if text == "facts":
        return sources.FactsTokenizer().load()
    if text == "smollm2" or text.endswith(".gguf"):
        return sources.GgufTokenizer(path=None if text == "smollm2" else text).load()
    if text.endswith(".model"):
        return sources.SentencePieceModel(path=text).load()
    return sources.HfTokenizerDirectory(path=text).load()


def tool_sources(arguments: argparse.Namespace, renderer: "Renderer") -> "Sequence[ToolSource]":
    """The tools of the command line, and Python where the renderer calls it and nothing else is named."""
    from jaxtool.core.calls import PYTHON
    from jaxtool.tools.spec_file import read_spec_file

    is_named = bool(arguments.tools or arguments.mcp)
    if arguments.spec is not None and (is_named or arguments.run):
        raise ValueError(
            "--spec describes tools and cannot run them: leave out --tools, --mcp and --run"
        )
    if renderer.tool is None:
        if is_named or arguments.spec:
            raise ValueError(
                f"the renderer {renderer.name!r} has no [tool] table: leave the tools out"
            )
        return ()
    if arguments.spec is not None:
        return read_spec_file(arguments.spec)
    from jaxtool.tools.function import Function
    from jaxtool.tools.mcp import Mcp
    from jaxtool.tools.python_sandbox import PythonSandbox
    from jaxtool.train.run_tools import each_tool

    functions = [Function(call=call) for call in arguments.tools if call != PYTHON]
    by_tags = renderer.tool.form is None
    has_python = PYTHON in renderer.tool.tools and (by_tags or not is_named)
    python = [PythonSandbox()] * (has_python or PYTHON in arguments.tools)
    return each_tool((*python, *functions, *map(Mcp.of, arguments.mcp)))


def read_text(path: Path | None) -> str | None:
    if path is None:
        return None
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from error


def read(
    arguments: argparse.Namespace,
    response: str,
    problem: "Problem",
    renderer: "Renderer",
    tokenizer: "Tokenizer",
    sources: "Sequence[ToolSource]",
) -> "Reading":
    """Reads the response; with --run its calls are made."""
    from jaxtool.core.types import ToolResult, ToolStatus
    from jaxtool.judges.case_files import open_sandbox
    from jaxtool.rollout.reading import read_response
    from jaxtool.tools.menu import Menu

    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        if not arguments.run:

            async def placeholder(call: Any) -> ToolResult:
                del call
                return ToolResult(status=ToolStatus.OK, stdout=arguments.result)

            reading = read_response(response, problem, renderer, tokenizer, placeholder)
            return runner.run(reading)
        client = None
        if any(source.uses_sandbox for source in sources):
            client = open_sandbox(stack, runner, tuple(arguments.sandbox))
        menu = Menu([source.open(client) for source in sources])
        stack.callback(lambda: runner.run(menu.close()))
        sessions = menu.sessions(problem, "render")
        stack.callback(lambda: runner.run(sessions.close()))

        async def made(call: Any) -> ToolResult:
            return await sessions.call(renderer.to_run(call))

        return runner.run(read_response(response, problem, renderer, tokenizer, made))


def judged(
    arguments: argparse.Namespace, reading: "Reading", problem: "Problem"
) -> "Verdict | None":
    if arguments.answer is None:
        return None
    from jaxtool.judges.base import Case
    from jaxtool.judges.case_files import judge_named

    judge = judge_named(arguments.judge)
    unfit = judge.unfit(problem)
    if unfit is not None:
        raise ValueError(
            f"--answer {arguments.answer!r}: references that {unfit}, by {arguments.judge}"
        )
    with judge.open(None) as opened:
        case = Case(problem=problem, answer=reading.answer, response=reading.final_text)
        return opened.judge([case])[0]


def as_json(
    reading: "Reading", renderer: "Renderer", tokenizer: "Tokenizer", verdict: "Verdict | None"
) -> dict[str, Any]:
    return {
        "renderer": renderer.name,
        "tools": [spec.name for spec in renderer.tools],
        "tokens": [token for run in reading.runs for token in run.as_json(tokenizer)],
        "calls": [call.as_json() for call in reading.calls],
        "end": reading.end,
        "final_text": reading.final_text,
        "answer": reading.answer,
        "verdict": None
        if verdict is None
        else {"is_correct": verdict.is_correct, "score": verdict.score, "how": verdict.how},
        "left_over": reading.left_over,
    }


if __name__ == "__main__":
    entry.run(main)
