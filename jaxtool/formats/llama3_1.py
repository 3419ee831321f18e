"""Llama 3.1: a turn that is one JSON object with `name` and `parameters`, or code behind <|python_tag|>.

    {"name": "weather", "parameters": {"city": "Oslo"}}
    <|python_tag|>print(6 * 7)
    <|python_tag|>search.call(query="Oslo")

The whole turn is the call: one that begins otherwise is an answer. The model ends a call with <|eom_id|>
or <|eot_id|>. <|python_tag|> is a control token that counts as text (`jaxtool.data.token_bytes`). Several
objects may stand in a turn, with a semicolon between them (Llama 3.2).
"""

import ast
import json

from jaxtool.core.calls import CODE, PYTHON, Call, InvalidCall
from jaxtool.formats.signatures import Signatures, invalid, read_json
from jaxtool.formats.thoughts import without_thoughts

TAG = "<|python_tag|>"


def read_calls(turn: str, signatures: Signatures) -> tuple[Call | InvalidCall, ...]:
    """All calls of a finished turn, in order."""
    text = turn.strip()
    if not text.startswith(("{", TAG)):
        text = without_thoughts(text).strip()
    if text.startswith(TAG):
        return _behind_tag(text.removeprefix(TAG).strip(), signatures)
    return _objects(text, signatures) if text.startswith("{") else ()


def write_call(call: Call) -> str:
    """As the chat template of Llama 3.1 writes it."""
    if call.tool == PYTHON and set(call.arguments) == {CODE}:
        return f"{TAG}{call.arguments[CODE]}"
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return f'{{"name": {json.dumps(call.tool)}, "parameters": {arguments}}}'


def _behind_tag(text: str, signatures: Signatures) -> tuple[Call | InvalidCall, ...]:
    if text.startswith('{"name"'):
        return _objects(text, signatures)
    name, _, rest = text.partition(".call(")
    if rest and name in signatures.specs:
        return (_keywords(name, text, signatures),)
    return (signatures.call(PYTHON, {CODE: text}) if text else invalid("no code to run", PYTHON),)


def _keywords(name: str, text: str, signatures: Signatures) -> Call | InvalidCall:
    """`search.call(query="Oslo")`: names and literals, nothing is run."""
    try:
        parsed = ast.parse(text, mode="eval").body
        assert isinstance(parsed, ast.Call)
        assert not parsed.args
        arguments = {str(k.arg): ast.literal_eval(k.value) for k in parsed.keywords if k.arg}
        arguments, _ = read_json(json.dumps(arguments))
    except (AssertionError, SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return invalid(f'write {name}.call(argument="value"), with names and plain values', name)
    return signatures.call(name, arguments)


def _objects(text: str, signatures: Signatures) -> tuple[Call | InvalidCall, ...]:
    found: list[Call | InvalidCall] = []
    at = 0
    while True:
        try:
            value, at = read_json(text, at)
        except ValueError as error:
            if not found and '"name"' not in text:
                return ()  # an answer that begins with a brace: {1, 2}
            return (*found, invalid(f"the call is no JSON: {error}"))
        if not isinstance(value, dict) or not {"name", "parameters"} <= value.keys():
            if not found and not (isinstance(value, dict) and "name" in value):
                return ()
            return (*found, invalid('a call is an object with "name" and "parameters"'))
        found.append(signatures.call(value["name"], value["parameters"]))
        rest = text[at:].lstrip()
        if not rest:
            return tuple(found)
        if not rest.startswith(";"):
            return (*found[:-1], invalid(f"behind the call stands {rest[:40]!r}", value["name"]))
        at = len(text) - len(rest[1:].lstrip())
