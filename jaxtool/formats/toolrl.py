"""ToolRL (2504.13958): one <tool_call> with a JSON object a line, with `name` and `parameters`.

<think> ... </think>
<tool_call>
{"name": "weather", "parameters": {"city": "Oslo"}}
{"name": "weather", "parameters": {"city": "Rome"}}
</tool_call>
"""

import json
from collections.abc import Sequence

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.formats.signatures import Signatures, invalid, read_json
from jaxtool.formats.thoughts import Scan

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def read_calls(turn: str, signatures: Signatures) -> tuple[Call | InvalidCall, ...]:
    """All calls of a finished turn, in order."""
    scan, found = Scan(turn, OPEN), []
    while (at := scan.next_call()) is not None:
        found = [] if scan.restarted else found
        calls, scan.at = _lines(turn, at, signatures)
        found += calls
    return () if scan.restarted else tuple(found)


def write_calls(calls: Sequence[Call]) -> str:
    """All calls of a turn in one tag."""
    lines = [
        f'{{"name": {json.dumps(call.tool)}, "parameters": '
        f"{json.dumps(dict(call.arguments), ensure_ascii=False)}}}"
        for call in calls
    ]
    return "\n".join([OPEN, *lines, CLOSE])


def write_call(call: Call) -> str:
    """A turn's only call."""
    return write_calls([call])


def _lines(turn: str, at: int, signatures: Signatures) -> tuple[list[Call | InvalidCall], int]:
    found: list[Call | InvalidCall] = []
    while True:
        at += len(turn[at:]) - len(turn[at:].lstrip())
        if turn.startswith(CLOSE, at):
            return found or [invalid("the call is empty")], at + len(CLOSE)
        close = turn.find(CLOSE, at)
        if close < 0:
            return [*found, invalid(f"the call is cut off: it has no {CLOSE}")], len(turn)
        try:
            value, at = read_json(turn, at)
        except ValueError as error:
            return [*found, invalid(f"the call is no JSON: {error}")], close + len(CLOSE)
        if isinstance(value, dict) and {"name", "parameters"} <= value.keys():
            found.append(signatures.call(value["name"], value["parameters"]))
        else:
            found.append(invalid('a call is an object with "name" and "parameters"'))
