"""A `Reading` on the screen: who wrote what, control tokens framed, calls and the answer below."""

import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.core.types import Verdict
from jaxtool.data.tokenizer import Tokenizer, written_bytes
from jaxtool.renderers.renderer import Renderer
from jaxtool.rollout.reading import ReadCall, Reading, Run
from jaxtool.rollout.token_text import CONTROL_STYLE, STYLES, TokenText, framed


def print_reading(
    reading: Reading,
    renderer: Renderer,
    tokenizer: Tokenizer,
    *,
    verdict: Verdict | None,
    has_response: bool,
    shows_tokens: bool,
) -> None:
    """Prints it; without a response the prompt alone."""
    console = Console(highlight=False, soft_wrap=True)
    tools = ", ".join(spec.name for spec in renderer.tools) or "none"
    console.print(f"[bold]renderer[/] {escape(renderer.name)}   [bold]tools[/] {escape(tools)}")
    for run in reading.runs:
        name, count = run.origin.name.lower(), len(run.ids)
        console.print(f"\n[bold]{name}[/], {count} {'token' if count == 1 else 'tokens'}")
        console.print(_table(run, tokenizer) if shows_tokens else _text(run, tokenizer))
    if not has_response:
        return
    console.print()
    for number, read in enumerate(reading.calls, start=1):
        _print_call(console, number, read)
    console.print(f"[bold]ends with[/] {_END[reading.end]}")
    if reading.left_over:
        console.print(f"[yellow]not read[/] {escape(repr(reading.left_over))}")
    answer = "none" if reading.answer is None else repr(reading.answer)
    console.print(f"[bold]answer[/] {escape(answer)}")
    if verdict is not None:
        word = "[green]right[/]" if verdict.is_correct else "[red]wrong[/]"
        console.print(f"[bold]verdict[/] {word}, {verdict.score:g}: {escape(verdict.how)}")


_END = {
    "answer": "the closing answer tag",
    "end token": "the end token",
    "open": "neither answer tag nor end token: a policy would go on",
}


def _print_call(console: Console, number: int, read: ReadCall) -> None:
    match read.call:
        case Call(tool=tool, arguments=arguments):
            text = json.dumps(dict(arguments), ensure_ascii=False)
            console.print(f"[bold]call {number}[/] {escape(tool)} {escape(text)}")
        case InvalidCall(reason=reason):
            console.print(f"[bold]call {number}[/] [red]invalid[/]: {escape(reason)}")
        case None:
            console.print(f"[bold]call {number}[/] [red]nothing to run[/]: it gets no observation")
    if read.unread:
        console.print(f"  [yellow]{read.unread} more in this turn, not made[/]")
    if read.call is not None:
        console.print(f"  reads {escape(repr(read.observation))}")


def _text(run: Run, tokenizer: Tokenizer) -> Text:
    writer = TokenText(tokenizer)
    return writer.take(run.ids, run.origin) + writer.end()


def _table(run: Run, tokenizer: Tokenizer) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("", "id", "text"):
        table.add_column(name, justify="left" if name == "text" else "right")
    for number, token_id in enumerate(run.ids):
        control = tokenizer.control_tokens.get(token_id)
        raw = written_bytes(tokenizer, token_id)
        text = (
            Text(repr(raw.decode("utf-8", "backslashreplace")), STYLES[run.origin])
            if control is None
            else Text(framed(control), CONTROL_STYLE)
        )
        table.add_row(str(number), str(token_id), text)
    return table
