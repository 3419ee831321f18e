"""Progress: plain lines without a terminal, a bar with the figures on one."""

import io

import pytest
from rich.console import Console

from jaxtool.core.durations import format_duration
from jaxtool.rundir import progress


def console(is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=120)


def text_of(output: Console) -> str:
    assert isinstance(output.file, io.StringIO)
    return output.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_without_a_terminal_a_line_is_printed_every_few_steps_and_at_the_end():
    output = console(is_terminal=False)
    with progress.ProgressDisplay("grpo", 10, line_every_steps=4, console=output) as display:
        for step in range(1, 11):
            display.update(step, {"reward": 0.123456, "calls": "[1]"})
    lines = text_of(output).splitlines()
    assert [line.split()[1] for line in lines] == ["4/10", "8/10", "10/10"]
    assert lines[0].startswith("grpo  4/10  40%  elapsed 0:00  left 0:00")
    assert lines[0].endswith("reward 0.123  calls [1]")


def test_without_a_terminal_time_alone_prints_a_line_and_a_break_prints_the_last_step():
    output = console(is_terminal=False)
    with progress.ProgressDisplay("sft", 100, line_every_s=0.0, console=output) as display:
        display.update(1)
    assert [line.split()[1] for line in text_of(output).splitlines()] == ["1/100"]
    output = console(is_terminal=False)
    with progress.ProgressDisplay("sft", 100, console=output) as display:
        display.update(7)
    assert [line.split()[1] for line in text_of(output).splitlines()] == ["7/100"]


def test_a_resumed_loop_estimates_from_its_own_steps(monkeypatch):
    clock = iter([0.0, 50.0, 50.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    output = console(is_terminal=False)
    display = progress.ProgressDisplay("grpo", 100, initial=90, console=output)
    display.update(95)
    assert "95/100  95%  elapsed 0:50  left 0:50" in text_of(output)


def test_a_terminal_shows_a_bar_with_the_figures():
    output = console(is_terminal=True)
    with progress.ProgressDisplay("grpo", 10, initial=2, console=output) as display:
        display.update(5, {"reward": 0.5})
    text = text_of(output)
    assert "grpo" in text
    assert "5/10" in text
    assert "reward 0.5" in text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_note_is_a_line_of_its_own_under_the_loops_name(is_terminal):
    output = console(is_terminal)
    with progress.ProgressDisplay("grpo", 10, console=output) as display:
        display.note("step 3/10  [rollouts]  answers 1/8")
    assert "grpo  step 3/10  [rollouts]  answers 1/8\n" in text_of(output).replace("\r", "")
