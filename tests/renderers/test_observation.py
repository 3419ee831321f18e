"""What an observation says of a failed program: type, whole message, what was printed before."""

import contextlib
import dataclasses
import io
import sys

import pytest

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.renderers.renderer import Renderer, load_renderer, observation_text
from sandbox_server.inside import runner

RETOOL = load_renderer("retool")


def with_tool(**changes) -> Renderer:
    assert RETOOL.tool is not None
    tool = dataclasses.replace(RETOOL.tool, observation="{output}", **changes)
    return dataclasses.replace(RETOOL, tool=tool)


def failed(program: str) -> ToolResult:
    """What the sandbox reports of a program, without the sandbox."""
    errors, main = io.StringIO(), sys.modules["__main__"]
    try:
        with contextlib.redirect_stderr(errors):
            report = runner.run(program, runner.make_module(), "<code>", True)
    finally:
        sys.modules["__main__"] = main
    kind = str(report["type"])
    return ToolResult(status=ToolStatus.ERROR, stderr=errors.getvalue(), error_type=kind)


PROGRAMS = [
    ("1 / 0", "ZeroDivisionError: division by zero"),
    (
        "raise ValueError('two\\n  lines\\n\\nand a third')",
        "ValueError: two\n  lines\n\nand a third",
    ),
    ("raise KeyError", "KeyError"),
    ("assert 1 == 2, 'no\\nand no'", "AssertionError: no\nand no"),
    (
        "e = ValueError('x')\ne.add_note('a\\nb')\ne.add_note('c')\nraise e",
        "ValueError: x\na\nb\nc",
    ),
    ("1 = = 2", "SyntaxError: cannot assign to literal"),
    (
        "import json\njson.loads('')",
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    ),
    ("def f():\n    class Q(Exception): pass\n    raise Q('q\\nr')\nf()", "f.<locals>.Q: q\nr"),
    (
        "try:\n    1 / 0\nexcept Exception as e:\n    raise RuntimeError('RuntimeError: a\\nb') from e",
        "RuntimeError: RuntimeError: a\nb",
    ),
    (
        "raise ExceptionGroup('many', [ValueError('a\\nb'), ExceptionGroup('in', [KeyError('k')])])",
        "ExceptionGroup: many (2 sub-exceptions)\n  ValueError: a\n  b\n"
        "  ExceptionGroup: in (1 sub-exception)\n    KeyError: 'k'",
    ),
    (
        "try:\n    1 / 0\nexcept* ZeroDivisionError:\n    raise",
        "ExceptionGroup:  (1 sub-exception)\n  ZeroDivisionError: division by zero",
    ),
    (
        "class G(ExceptionGroup): pass\ng = G('mine', [OSError(2, 'no')])\ng.add_note('n')\nraise g",
        "G: mine (1 sub-exception)\nn\n  FileNotFoundError: [Errno 2] no",
    ),
    (
        "import sys\nprint('w', file=sys.stderr)\nint('x')",
        "ValueError: invalid literal for int() with base 10: 'x'",
    ),
    ("import sys\nsys.exit('bye\\nbye')", "SystemExit: bye\nbye"),
    ("import sys\nsys.exit(3)", "SystemExit"),
    (
        "import traceback\ntry:\n    1 / 0\nexcept Exception:\n    raise OSError('\\n' + traceback.format_exc())",
        "OSError: \nTraceback (most recent call last):\n",
    ),
]


@pytest.mark.parametrize(("program", "shown"), PROGRAMS)
def test_an_error_keeps_its_type_and_all_of_its_message(program, shown):
    text = observation_text(failed(program), with_tool())
    assert text == shown or (shown.endswith("\n") and text.startswith(shown))


@pytest.mark.parametrize(("program", "shown"), PROGRAMS)
def test_the_whole_traceback_has_them_too(program, shown):
    result = failed(program)
    text = observation_text(result, with_tool(error_style="traceback", max_output_chars=2000))
    text = text.replace("&lt;", "<")  # <code> is a tag
    assert result.stderr.rstrip("\n") in text
    assert result.error_type in text
    assert shown.split("\n")[0] in text


@pytest.mark.parametrize("style", ["last_line", "traceback"])
@pytest.mark.parametrize("status", [status for status in ToolStatus if status is not ToolStatus.OK])
def test_what_was_printed_before_the_failure_is_shown_before_the_error(status, style):
    result = ToolResult(
        status=status, stdout="x = 4\n", stderr="OSError: b\n", error_type="OSError"
    )
    alone = observation_text(dataclasses.replace(result, stdout=""), with_tool(error_style=style))
    assert observation_text(result, with_tool(error_style=style)) == f"x = 4\n{alone}"


def test_the_budget_keeps_the_error_first():
    """24 characters: 13 of the error, a newline, and 10 of the output, half of them its end."""
    result = ToolResult(
        status=ToolStatus.ERROR,
        stdout="0123456789abcdef\n",
        stderr="ValueError: 9",
        error_type="ValueError",
    )
    assert (
        observation_text(result, with_tool(max_output_chars=24)) == "01234...bcdef\nValueError: 9"
    )
    assert (
        observation_text(result, with_tool(max_output_chars=30))
        == "0123456789abcdef\nValueError: 9"
    )
    assert observation_text(result, with_tool(max_output_chars=14)) == "ValueError: 9"
    assert observation_text(result, with_tool(max_output_chars=8)) == "Valu...r: 9"


@pytest.mark.parametrize(
    ("stderr", "kind", "shown"),
    [
        ("", "KeyError", "KeyError"),
        ("", "", "Error"),
        ("cut off\nboom", "MyError", "MyError: boom"),
        (
            'Traceback (most recent call last):\n  File "<code>", line 1\nOSError: a\nb\n',
            "",
            "OSError: a\nb",
        ),
    ],
)
def test_errors_of_which_less_is_known(stderr, kind, shown):
    result = ToolResult(status=ToolStatus.ERROR, stderr=stderr, error_type=kind)
    assert observation_text(result, with_tool()) == shown


def test_tags_of_any_form_are_defused():
    changed = dataclasses.replace(
        with_tool(code_open="```python", code_close="```"), answer_close=""
    )
    result = ToolResult(status=ToolStatus.OK, stdout="```python\n1\n```\n")
    shown = observation_text(result, changed)
    assert "```" not in shown
    assert shown.replace(" ", "").count("```") == 2


@pytest.mark.parametrize(
    ("status", "stdout", "value", "limit", "shown"),
    [
        (ToolStatus.OK, "", "", 99, "Gone."),
        (ToolStatus.OK, "seen\n", "7", 99, "seen\n7\nGone."),
        (ToolStatus.OK, "x" * 50, "", 15, "xxxxx...xxxx\nGone."),
        (ToolStatus.CPU_LIMIT, "seen\n", "", 99, "seen\nTimeoutError: the CPU time limit was reached\nGone."),
        (ToolStatus.MEMORY_LIMIT, "x" * 50, "", 21, "xx...x\nMemoryError\nGone."),
    ],
)  # fmt: skip
def test_what_a_tool_notes_of_its_state_is_read_whole_behind_all_else(
    status, stdout, value, limit, shown
):
    result = ToolResult(status=status, stdout=stdout, last_value=value, note="Gone.")
    assert observation_text(result, with_tool(max_output_chars=limit)) == shown
