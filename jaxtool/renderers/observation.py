"""What a policy reads of an execution: output, or the error and what was printed before it.

Budget: `max_output_chars` characters, and "..." where some are left out. The error and the tool's own note are
kept whole first, and what the program printed gets the rest. Half of what is kept is the head, half the tail: 200 + 200
with ReTool's 400.

Covered: errors whose message has several lines or notes, chained errors, exception groups, exits. Not
covered: what a program wrote to its error stream before it failed is shown in style "traceback" only.
"""

import re
from collections.abc import Sequence

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.renderers.tool_format import ToolFormat

_STATUS_TEXT = {
    ToolStatus.CPU_LIMIT: "TimeoutError: the CPU time limit was reached",
    ToolStatus.WALL_LIMIT: "TimeoutError: the wall clock limit was reached",
    ToolStatus.MEMORY_LIMIT: "MemoryError",
    ToolStatus.OUTPUT_LIMIT: "RuntimeError: too much output",
    ToolStatus.KILLED: "RuntimeError: the program was killed",
}
_HEADER = "Traceback (most recent call last):"
_GROUP_LINE = re.compile(r"( *)(\||\+)(.*)")
_OUTER_MARGIN = "  | "  # of the outermost group of a traceback


def shown_output(result: ToolResult, tool: ToolFormat) -> str:
    """The text that stands for {output}, within the budget."""
    limit = tool.max_output_chars
    printed = result.stdout.rstrip("\n")
    if result.status is ToolStatus.OK:
        printed = "\n".join(part for part in (printed, result.last_value) if part)
        kept = result.note
    else:
        error = _STATUS_TEXT.get(result.status) or _error(result, tool)
        kept = "\n".join(part for part in (error, result.note) if part)
    if not kept:
        return _shorten(printed or tool.empty_output, limit)
    room = limit - len(kept) - 1
    if not printed or room < 1:
        return _shorten(kept, limit)
    return f"{_shorten(printed, room)}\n{kept}"


def defused(output: str, tags: Sequence[str]) -> str:
    """`output` without the renderer's tags, so that no policy mistakes them for its own."""
    for tag in tags:
        written = "&lt;" + tag[1:] if tag.startswith("<") else f"{tag[:1]} {tag[1:]}"
        output = output.replace(tag, written) if tag else output
    return output


def _error(result: ToolResult, tool: ToolFormat) -> str:
    stderr, kind = result.stderr.rstrip("\n"), result.error_type
    text = stderr if tool.error_style == "traceback" else last_exception(stderr, kind)
    if not text:
        return kind or "Error"
    return text if not kind or kind in text else f"{kind}: {text}"


def last_exception(stderr: str, kind: str) -> str:
    """Type and message of the exception that ended a program, all lines and notes of it, no frames.

        Traceback (most recent call last):
          File "<code>", line 1, in <module>
        ValueError: two          ->  ValueError: two
        lines                        lines

    Args:
      kind: name of its type; "" where it is unknown.
    """
    lines = stderr.split("\n")
    name = re.escape(kind) if kind else r"[A-Z]\w*"
    first = re.compile(rf"(?:[\w.<>]+\.)?{name}(?::|$)")
    outer, inner = [], []
    for at, line in enumerate(lines):
        is_group = line.startswith(_OUTER_MARGIN)
        text = line.removeprefix(_OUTER_MARGIN)
        if not first.match(text):
            continue
        before = lines[at - 1].removeprefix(_OUTER_MARGIN) if at else ""
        if before.startswith("  ") or before == _HEADER or (kind and not at):
            (inner if is_group else outer).append(at)
    if outer:
        return "\n".join(lines[outer[-1] :])
    if inner:
        return "\n".join(_without_frames(lines[inner[-1] :]))
    # A program that exits prints its message and no traceback; of another error the last line is known.
    return stderr if kind == "SystemExit" else lines[-1]


def _without_frames(lines: Sequence[str]) -> list[str]:
    """A group and its exceptions, each indented below its group."""
    kept, in_frames = [], False
    for line in lines:
        found = _GROUP_LINE.fullmatch(line)
        if found is None:
            kept.append(line)
            continue
        margin, mark, text = found[1], found[2], found[3].removeprefix(" ")
        if mark == "+":
            in_frames = False
        elif text.endswith(_HEADER):
            in_frames = True
        elif not (in_frames and text.startswith("  ")):
            in_frames = False
            kept.append(" " * (len(margin) - 2) + text)
    return kept


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = limit // 2
    return text[: limit - tail] + "..." + (text[-tail:] if tail else "")
