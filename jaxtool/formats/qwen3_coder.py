"""Qwen3-Coder: a call in XML form, each argument as plain text between its tags.

    <tool_call>
    <function=weather>
    <parameter=city>
    Oslo
    </parameter>
    </function>
    </tool_call>

The schema says what a text means: a string stays as it is, any other type is read as JSON. A text may
hold </parameter>; it ends at the one that a parameter or the function's end follows.
"""

import json
import re

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.formats.signatures import Signatures, invalid, read_json, takes_text
from jaxtool.formats.thoughts import Scan

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION = re.compile(r"\s*<function=([^>\n]*)>\s*")
_PARAMETER = re.compile(
    r"<parameter=([^>\n]*)>(.*?)</parameter>\s*(?=<parameter=|</function>)", re.DOTALL
)
_END = re.compile(rf"</function>\s*{CLOSE}")


def read_calls(turn: str, signatures: Signatures) -> tuple[Call | InvalidCall, ...]:
    """All calls of a finished turn, in order."""
    scan, found = Scan(turn, OPEN), []
    while (at := scan.next_call()) is not None:
        found = [] if scan.restarted else found
        call, scan.at = _call(turn, at, signatures)
        found.append(call)
    return () if scan.restarted else tuple(found)


def write_call(call: Call) -> str:
    """As the chat template of Qwen3-Coder writes it."""
    parameters = "".join(
        f"<parameter={name}>\n{_text(value)}\n</parameter>\n"
        for name, value in call.arguments.items()
    )
    return f"{OPEN}\n<function={call.tool}>\n{parameters}</function>\n{CLOSE}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _call(turn: str, at: int, signatures: Signatures) -> tuple[Call | InvalidCall, int]:
    close = turn.find(CLOSE, at)
    past = close + len(CLOSE) if close >= 0 else len(turn)
    function = _FUNCTION.match(turn, at)
    if function is None:
        reason = "<function=NAME> must follow <tool_call>" if close >= 0 else _cut_off(CLOSE)
        return invalid(reason), past
    name, at = function[1].strip(), function.end()
    texts: dict[str, str] = {}
    while parameter := _PARAMETER.match(turn, at):
        key, at = parameter[1].strip(), parameter.end()
        if key in texts:
            return invalid(f"the call has the parameter {key[:40]!r} twice", name), past
        texts[key] = parameter[2]
    end = _END.match(turn, at)
    if end is None:
        wanted = "</parameter>" if turn.startswith("<parameter=", at) else "</function>"
        is_cut = close < 0 and turn.find(wanted, at) < 0
        reason = _cut_off(wanted) if is_cut else f"{wanted} is not where it belongs"
        return invalid(reason, name), past
    return signatures.call(name, _values(name, texts, signatures)), end.end()


def _cut_off(tag: str) -> str:
    return f"the call is cut off: it has no {tag}"


def _values(name: str, texts: dict[str, str], signatures: Signatures) -> dict[str, object]:
    spec = signatures.specs.get(name)
    schemas = spec.parameters.get("properties", {}) if spec else {}
    return {key: _value(text, schemas.get(key, {})) for key, text in texts.items()}


def _value(text: str, schema: dict[str, object]) -> object:
    """The text without the line ends of its tags; as JSON where the schema has no place for text."""
    text = text.removeprefix("\n").removesuffix("\n")
    if takes_text(schema):
        return text
    try:
        value, end = read_json(text.strip())
    except ValueError:
        return text  # and so of a type that the schema refuses
    return text if text.strip()[end:] else value
