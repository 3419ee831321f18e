"""Hermes and Qwen: <tool_call> around a JSON object with `name` and `arguments`.

    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>

Covered: several calls in a turn, text around them, thoughts, tags inside JSON strings. Strict where a
server would guess: the closing tag must stand behind the object, JSON must be JSON.
"""

import json

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.formats.signatures import Signatures, invalid, read_json
from jaxtool.formats.thoughts import Scan

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def read_calls(turn: str, signatures: Signatures) -> tuple[Call | InvalidCall, ...]:
    """All calls of a finished turn, in order."""
    scan, found = Scan(turn, OPEN), []
    while (at := scan.next_call()) is not None:
        found = [] if scan.restarted else found
        call, scan.at = _call(turn, at, signatures)
        found.append(call)
    return () if scan.restarted else tuple(found)


def write_call(call: Call) -> str:
    """As the chat templates of Qwen write it."""
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return f'{OPEN}\n{{"name": {json.dumps(call.tool)}, "arguments": {arguments}}}\n{CLOSE}'


def _call(turn: str, at: int, signatures: Signatures) -> tuple[Call | InvalidCall, int]:
    start = at + len(turn[at:]) - len(turn[at:].lstrip())
    try:
        value, end = read_json(turn, start)
    except ValueError as error:
        close = turn.find(CLOSE, at)
        if close < 0:
            return invalid(f"the call is cut off: it has no {CLOSE}"), len(turn)
        return invalid(f"the call is no JSON: {error}"), close + len(CLOSE)
    rest = turn[end:].lstrip()
    if not rest.startswith(CLOSE):
        close = turn.find(CLOSE, end)
        stop = close + len(CLOSE) if close >= 0 else len(turn)
        reason = (
            f"the call is cut off: it has no {CLOSE}"
            if close < 0
            else f"between the JSON object and {CLOSE} stands {turn[end:close].strip()[:40]!r}"
        )
        return invalid(reason, _name(value)), stop
    return _of_object(value, signatures), len(turn) - len(rest) + len(CLOSE)


def _of_object(value: object, signatures: Signatures) -> Call | InvalidCall:
    if not isinstance(value, dict) or "name" not in value or "arguments" not in value:
        return invalid('a call is an object with "name" and "arguments"', _name(value))
    return signatures.call(value["name"], value["arguments"])


def _name(value: object) -> object:
    return value.get("name", "") if isinstance(value, dict) else ""
