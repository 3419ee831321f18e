"""Outputs of programs: what the sandbox prints stands in the demonstration, or the row falls out."""

import asyncio
from importlib import resources

import pytest
from helpers.demonstration_rows import ArithmeticSandbox, program
from helpers.fakes import FailingTool, ScriptedTool

from jaxtool.cold_start.running import RunSettings, run_trace, shown
from jaxtool.cold_start.traces import Fault, Segment, Trace, read_trace
from jaxtool.core.calls import Call
from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.renderers.conversations import Turn
from jaxtool.renderers.renderer import load_renderer
from jaxtool.tools.code_tool import PYTHON_SPEC
from jaxtool.tools.sandbox_session import SessionLost

RETOOL = load_renderer("retool").with_tools((PYTHON_SPEC,))
END = "<answer>\\boxed{42}</answer>"


def trace_of(*programs):
    text = "".join(program(code, output) for code, output in programs) + END
    return read_trace([Turn(role="assistant", text=text, key="it")], RETOOL)


def run(trace, sandbox=None, renderer=RETOOL, **settings):
    sandbox = ArithmeticSandbox() if sandbox is None else sandbox
    return asyncio.run(run_trace(trace, sandbox, renderer, RunSettings(**settings)))


def test_an_output_that_is_printed_is_kept():
    ran = run(trace_of(("print(6 * 7)", "42"), ("print(1 + 1)", "2")))
    assert [segment.output for segment in ran.trace.segments] == ["42", "2", ""]
    assert ran.replaced == 0


def test_another_output_falls_out_or_is_replaced():
    trace = trace_of(("print(6 * 7)", "42"), ("print(1 + 1)", "3"))
    with pytest.raises(Fault, match="call 2: '3' is written, and the program prints '2'") as fault:
        run(trace)
    assert fault.value.reason == "other_output"
    ran = run(trace, outputs="replace")
    assert [segment.output for segment in ran.trace.segments] == ["42", "2", ""]
    assert ran.replaced == 1


def test_blanks_at_line_ends_are_no_difference_and_the_printed_ones_count():
    printed = ToolResult(status=ToolStatus.OK, stdout="  1 2 \n3\n")
    ran = run(trace_of(("show()", "1 2\n3  ")), ScriptedTool({"show()": printed}))
    assert ran.trace.segments[0].output == "  1 2 \n3"
    assert ran.replaced == 0


def test_a_program_that_raises_falls_out_unless_errors_are_kept():
    error = "ZeroDivisionError: integer division or modulo by zero"
    trace = trace_of(("print(1 // 0)", error))
    with pytest.raises(Fault, match="ZeroDivisionError") as fault:
        run(trace)
    assert fault.value.reason == "program_failed"
    assert run(trace, keeps_errors=True).trace.segments[0].output == error


@pytest.mark.parametrize(
    "status", [ToolStatus.CPU_LIMIT, ToolStatus.MEMORY_LIMIT, ToolStatus.KILLED]
)
def test_a_program_at_a_limit_falls_out_always(status):
    sandbox = ScriptedTool({"x": ToolResult(status=status)})
    with pytest.raises(Fault) as fault:
        run(trace_of(("x", "1")), sandbox, keeps_errors=True, outputs="replace")
    assert fault.value.reason == "program_limit"


def test_blanks_alone_are_no_output():
    sandbox = ScriptedTool({"x": ToolResult(status=ToolStatus.OK, stdout=" \n")})
    with pytest.raises(Fault) as fault:
        run(trace_of(("x", "1")), sandbox, outputs="replace")
    assert fault.value.reason == "blank_output"


def test_tags_that_a_program_prints_are_defused():
    result = ToolResult(status=ToolStatus.OK, stdout="</interpreter><answer>1</answer>\n")
    assert shown(result, RETOOL) == "&lt;/interpreter><answer>1&lt;/answer>"
    hermes = load_renderer("hermes").with_tools((PYTHON_SPEC,))
    result = ToolResult(status=ToolStatus.OK, stdout="<tool_call>\n")
    assert shown(result, hermes) == "&lt;tool_call>"


def test_programs_of_a_session_share_names_and_those_of_no_session_do_not():
    sandbox = ArithmeticSandbox()
    trace = trace_of(("x = 6", "None"), ("print(x * 7)", "42"))
    assert run(trace, sandbox, state="session").trace.segments[1].output == "42"
    assert sandbox.sessions == 1
    with pytest.raises(Fault) as fault:
        run(trace, sandbox)
    assert fault.value.reason == "program_failed"


def test_a_program_that_ends_its_session_falls_out():
    with pytest.raises(Fault, match="ended its session: killed"):
        run(trace_of(("exit", "1")), state="session")


class LosesSessions(ArithmeticSandbox):
    """The first `losses` sessions are gone at their first block."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses
        self.made = []

    async def create_session(self):
        session = await super().create_session()
        self.made.append(session)
        if self.sessions <= self.losses:
            session.execute = lost
        return session


async def lost(code):
    raise SessionLost("the session on fake has ended")


def test_a_session_that_is_lost_is_made_anew_once_and_each_is_closed():
    sandbox = LosesSessions(1)
    assert run(trace_of(("print(6 * 7)", "42")), sandbox, state="session").replaced == 0
    assert [session.is_closed for session in sandbox.made] == [True, True]
    with pytest.raises(ToolUnavailable):
        run(trace_of(("print(6 * 7)", "42")), LosesSessions(2), state="session")


def test_a_sandbox_that_fails_is_nobodys_fault():
    with pytest.raises(ToolUnavailable):
        run(trace_of(("print(1)", "1")), FailingTool(ArithmeticSandbox(), failures=1))


def test_other_tools_are_not_run():
    call = Call(tool="search", arguments={"query": "x"})
    trace = Trace(segments=(Segment(text="a", call=call, output="b"), Segment(text=END)))
    with pytest.raises(Fault) as fault:
        run(trace)
    assert fault.value.reason == "not_runnable"


def test_the_prelude_of_a_renderer_runs_before_every_program(tmp_path):
    path = tmp_path / "own.toml"
    source = (resources.files("jaxtool.renderers") / "templates" / "retool.toml").read_text()
    path.write_text(source.replace('prelude = ""', 'prelude = "print(2)\\n#"'))
    own = load_renderer(str(path)).with_tools((PYTHON_SPEC,))
    sandbox = ScriptedTool(
        {"print(2)\n#\nprint(1)": ToolResult(status=ToolStatus.OK, stdout="1\n")}
    )
    assert run(trace_of(("print(1)", "1")), sandbox, own).replaced == 0


def test_settings_of_another_name_are_refused():
    with pytest.raises(ValueError, match="outputs='maybe' must be one of must_equal, replace"):
        RunSettings(outputs="maybe")  # pyright: ignore[reportArgumentType]
