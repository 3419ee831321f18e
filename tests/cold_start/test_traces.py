"""Demonstrations read as segments: what a rollout would read, and by stricter rules for stray tags."""

import pytest
from helpers.demonstration_rows import program, solution

from jaxtool.cold_start.traces import (
    Fault,
    Segment,
    check_renderer,
    holds_outputs_in_text,
    messages_of,
    read_trace,
)
from jaxtool.core.calls import Call
from jaxtool.renderers.conversations import Turn
from jaxtool.renderers.renderer import load_renderer
from jaxtool.tools.code_tool import PYTHON_SPEC

RETOOL = load_renderer("retool").with_tools((PYTHON_SPEC,))
END = "<answer>\\boxed{42}</answer>"


def turns_of(*texts: str) -> list[Turn]:
    """An assistant's turn, a tool's, an assistant's, ..."""
    return [
        Turn(role="tool" if i % 2 else "assistant", text=text, key=f"messages[{i + 1}]")
        for i, text in enumerate(texts)
    ]


def trace_of(*texts: str, renderer=RETOOL):
    return read_trace(turns_of(*texts), renderer)


def test_a_text_is_cut_at_its_calls():
    trace = trace_of(f"First.\n{program('print(6 * 7)', '42')}So.\n{END} \n")
    assert trace.segments == (
        Segment(
            text="First.\n<code>\n```python\nprint(6 * 7)\n```\n</code>",
            call=Call.python("print(6 * 7)"),
            output="42",
        ),
        Segment(text=f"So.\n{END}"),
    )


def test_what_is_written_is_what_a_rollout_would_hold():
    """However the author spaced it: the renderer's own blanks around an output."""
    text = f"<code>print(1)</code> <interpreter>1</interpreter>   Then\n{END}"
    written = messages_of(trace_of(text), RETOOL)
    assert written == [
        {
            "role": "assistant",
            "content": f"<code>print(1)</code>\n<interpreter>\n1\n</interpreter>\n\nThen\n{END}",
        }
    ]
    again = trace_of(written[0]["content"])
    assert messages_of(again, RETOOL) == written


def test_outputs_keep_their_indent():
    trace = trace_of(program("print(a)", "  1 2\n  3 4") + END)
    assert trace.segments[0].output == "  1 2\n  3 4"


def test_an_output_may_stand_in_a_turn_of_its_own():
    call = "<code>\nprint(6 * 7)\n</code>\n"
    for output in ("42", "<interpreter>\n42\n</interpreter>"):
        trace = trace_of(call, output, END)
        assert [segment.output for segment in trace.segments] == ["42", ""]
        assert trace.calls == [Call.python("print(6 * 7)")]


def test_calls_by_name_are_turns():
    hermes = load_renderer("hermes").with_tools((PYTHON_SPEC,))
    call = '<tool_call>{"name": "python", "arguments": {"code": "print(6 * 7)"}}</tool_call>'
    trace = trace_of(call, "42", "So \\boxed{42}", renderer=hermes)
    assert trace.calls == [Call.python("print(6 * 7)")]
    assert messages_of(trace, hermes) == [
        {"role": "assistant", "content": call},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "So \\boxed{42}"},
    ]
    assert not holds_outputs_in_text(hermes)
    with pytest.raises(Fault) as fault:
        trace_of(call * 2, "42", "So \\boxed{42}", renderer=hermes)
    assert fault.value.reason == "several_calls"


def test_fenced_programs_are_read():
    torl = load_renderer("torl").with_tools((PYTHON_SPEC,))
    text = "So\n```python\nprint(6 * 7)\n```\n```output\n42\n```\nIt is \\boxed{42}."
    trace = trace_of(text, renderer=torl)
    assert trace.calls == [Call.python("print(6 * 7)")]
    assert trace.segments[0].output == "42"
    assert messages_of(trace, torl)[0]["content"] == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"<code>print(1)</code> and on.{END}", "call_without_output"),
        (f"<code>print(1)</code>{END}", "call_without_output"),
        (f"<interpreter>1</interpreter>{END}", "stray_tag"),
        (f"{program('print(1)', '1')}<interpreter>2</interpreter>{END}", "stray_tag"),
        (f"Now <code>print(1){END}", "stray_tag"),
        (f"</code>{END}", "invalid_call"),
        (f"<code></code><interpreter>1</interpreter>{END}", "invalid_call"),
        (f"{END} and {END}", "stray_tag"),
        (f"{END}<code>print(1)</code>", "stray_tag"),
        (f"<answer>{END}", "stray_tag"),
        ("No end \\boxed{42}", "no_answer"),
        ("<answer></answer>", "no_answer"),
        ("<answer>\\boxed{4</answer>", "no_answer"),
        ("</answer>\\boxed{4}<answer>", "no_answer"),
        (f"{program('print(', '1')}{END}", "no_program"),
        (f"{program('def f(:', '1')}{END}", "no_program"),
        (f"{program('x = 0777', '1')}{END}", "no_program"),
        (f"{program('9' * 6000, '1')}{END}", "no_program"),
        (f"{program('(' * 500, '1')}{END}", "no_program"),
        (f"{program('x = 1 #' + 'a' * 40_000, '1')}{END}", "no_program"),
        (f"<code>print('<code>')</code><interpreter>x</interpreter>{END}", "stray_tag"),
        (program("print(1)", "1") * 300 + END, "too_many_calls"),
    ],
)
def test_rows_that_teach_a_wrong_form_fall_out(text, reason):
    with pytest.raises(Fault) as fault:
        trace_of(text)
    assert fault.value.reason == reason
    assert "\n" not in str(fault.value)


def test_text_behind_the_answer_is_dropped_as_sft_drops_it():
    assert trace_of(f"{END}\nI hope this helps!").final_text == END


def test_turns_that_do_not_fit():
    with pytest.raises(Fault, match="answered by a tool and holds no call"):
        trace_of("no call", "42", END)
    with pytest.raises(Fault) as fault:
        read_trace([*turns_of(END), Turn(role="user", text="And?", key="messages[2]")], RETOOL)
    assert fault.value.reason == "user_turn"


def test_odd_escapes_in_a_program_are_its_own_business():
    assert trace_of(program("print('\\d')", "x") + END).calls


def test_a_renderer_without_python_is_refused():
    for name in ("arithmetic_text", "otc_search"):
        with pytest.raises(ValueError, match="calls no python: name one that does"):
            check_renderer(load_renderer(name))


def test_the_worked_example_of_retool_has_one_call():
    assert len(trace_of(solution(6, 7)).calls) == 1
