"""ReAct (2210.03629): lines of thoughts, an action, its input; the policy stops where it would observe.

    Thought: I need the weather.
    Action: weather
    Action Input: {"city": "Oslo"}
    Observation:

The input is a JSON object, or bare text for a tool with one text argument. `Final Answer:` ends the work.
"""

import json
import re

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.formats.signatures import Signatures, invalid, read_json

STOP = "Observation:"
_ACTION = re.compile(r"^[ \t]*Action:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_INPUT = re.compile(r"^[ \t]*Action Input:", re.MULTILINE)
_ANSWER = re.compile(r"^[ \t]*Final Answer:", re.MULTILINE)


def read_calls(text: str, signatures: Signatures) -> tuple[Call | InvalidCall, ...]:
    """The last action of what the policy wrote up to an observation; nothing behind a final answer."""
    actions = list(_ACTION.finditer(text))
    last_action = actions[-1].start() if actions else -1
    answers = [found.start() for found in _ANSWER.finditer(text)]
    if answers and answers[-1] > last_action:
        return ()
    if not actions:
        return (invalid("no line 'Action:' stands before the observation"),)
    name = actions[-1][1]
    given = _INPUT.search(text, actions[-1].end())
    if given is None:
        return (invalid("no line 'Action Input:' stands behind the action", name),)
    if name not in signatures.specs:
        return (signatures.call(name, {}),)
    return (_with_input(name, text[given.end() :].strip(), signatures),)


def write_call(call: Call) -> str:
    """An action with its input as JSON."""
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return f"Action: {call.tool}\nAction Input: {arguments}\n{STOP}"


def _with_input(name: str, text: str, signatures: Signatures) -> Call | InvalidCall:
    only = signatures.only_text_argument(name)
    try:
        value, end = read_json(text)
    except ValueError as error:
        if only is None or text.startswith("{"):
            return invalid(f"the input is no JSON: {error}", name)
        return signatures.call(name, {only: text})
    if isinstance(value, dict) and not text[end:].strip():
        return signatures.call(name, value)
    if only is not None:  # "Oslo", 42, or words that begin like JSON
        is_text = isinstance(value, str) and not text[end:].strip()
        return signatures.call(name, {only: value if is_text else text})
    return invalid(f"the input of {name} must be a JSON object, got {text[:40]!r}", name)
