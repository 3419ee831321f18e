"""Calls and tools of a row as OpenAI writes them, and calls as the text in which a renderer's policy writes them.

    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]}

Arguments may be a JSON object or its text, and a call may stand without its `function`. A call that the tools do not
have, or that would be read as another one, is refused by file, line and key. So are several calls in a turn: a
rollout makes one, and the others would have no result. Not covered: tokens (`ledgers`).
"""

import json
from collections.abc import Mapping
from typing import Any

from jaxtool.core.calls import Call, InvalidCall, ToolSpec
from jaxtool.core.json_lines import check_unicode
from jaxtool.formats.signatures import Signatures, read_json
from jaxtool.renderers.renderer import Renderer

_SHOWN_CHARS = 40


def call_of(value: object, key: str, where: str) -> tuple[Call, str]:
    """The one call of `tool_calls`, and its id, "" where it has none.

    Raises:
      ValueError: it is no list of one call.
    """
    if not isinstance(value, list) or len(value) != 1:
        number = f"{len(value)} calls" if isinstance(value, list) else f"{value!r:.{_SHOWN_CHARS}}"
        raise ValueError(
            f"{where}: {key} holds {number}; a list of one call is read, since a rollout makes one call a "
            "turn: write a turn for each, with its result behind it"
        )
    key = f"{key}[0]"
    entry = _object(value[0], key, where)
    inner = _object(entry["function"], f"{key}.function", where) if "function" in entry else entry
    name, arguments = inner.get("name"), inner.get("arguments", {})
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"{where}: {key} has {name!r:.{_SHOWN_CHARS}} for a name; a text is needed"
        )
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"{key}: arguments", where)
    arguments = _object(arguments, f"{key}: arguments", where)
    check_unicode(json.dumps(arguments, ensure_ascii=False), key, where)
    return Call(tool=name, arguments=arguments), str(entry.get("id") or "")


def tools_of(value: object, where: str) -> tuple[ToolSpec, ...]:
    """The tools of a row: its key `tools`, a list or the JSON text of one; () without any.

    Raises:
      ValueError: it is something else, or a schema is none.
    """
    if isinstance(value, str):
        value = _parsed(value, "tools", where) if value.strip() else []
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(
            f"{where}: tools is {value!r:.{_SHOWN_CHARS}}; a list of functions is needed"
        )
    specs = tuple(_spec(entry, f"tools[{i}]", where) for i, entry in enumerate(value))
    try:
        Signatures(specs)
    except ValueError as error:
        raise ValueError(f"{where}: tools: {error}") from error
    return specs


def written(text: str, call: Call, renderer: Renderer, where: str) -> str:
    """A turn's text with its call behind it, as the renderer's policy would write both.

    Args:
      renderer: with the tools of the row or of the run, where they are known: then the call is checked.
      where: file, line and key, for messages.

    Raises:
      ValueError: the renderer cannot write the call, or would read another one.
    """
    form = renderer.tool
    if form is None:
        raise ValueError(
            f"{where}: the renderer {renderer.name!r} has no tool: use one that calls tools, such as hermes"
        )
    checked = Signatures(renderer.tools or None).call(call.tool, dict(call.arguments))
    if isinstance(checked, InvalidCall):
        raise ValueError(f"{where}: {checked.reason}")
    try:
        told = form.write_call(call)
        text = form.joined(text.rstrip(), told)
    except ValueError as error:
        raise ValueError(
            f"{where}: the renderer {renderer.name!r} cannot write it: {error}"
        ) from error
    # By name and without tools nothing says what a text means: 3, or "3".
    if renderer.tools or form.form is None:
        _check_is_read(text, call, renderer, where)
    return text


def _check_is_read(text: str, call: Call, renderer: Renderer, where: str) -> None:
    reader = renderer.reader()
    reader.feed(text.encode("utf-8", "replace"))
    stop = reader.next_stop(is_end=True)
    found = None if stop is None else stop.call
    if isinstance(found, Call) and _stripped(found) == _stripped(call):
        return
    said = found.reason if isinstance(found, InvalidCall) else f"{found!r:.160}"
    raise ValueError(
        f"{where}: the renderer {renderer.name!r} would read another call ({said}): its markup stands in the "
        "text or in an argument, or a type is not the schema's"
    )


def _stripped(call: Call) -> tuple[str, dict[str, Any]]:
    """Blanks at the ends of a text do not count: tags do not keep them."""
    values = {
        name: value.strip() if isinstance(value, str) else value
        for name, value in call.arguments.items()
    }
    return call.tool, values


def _spec(entry: object, key: str, where: str) -> ToolSpec:
    found = _object(entry, key, where)
    inner = _object(found["function"], f"{key}.function", where) if "function" in found else found
    name, description = inner.get("name"), inner.get("description") or ""
    if not isinstance(name, str) or not name.strip() or not isinstance(description, str):
        raise ValueError(f"{where}: {key} needs a text as name, and as description if it has one")
    parameters = inner.get("parameters") or {"type": "object", "properties": {}}
    return ToolSpec(
        name=name,
        description=description,
        parameters=_object(parameters, f"{key}.parameters", where),
    )


def _parsed(text: str, key: str, where: str) -> object:
    try:
        value, end = read_json(text.strip())
        if text.strip()[end:]:
            raise ValueError(f"behind it stands {text.strip()[end:][:_SHOWN_CHARS]!r}")
    except ValueError as error:
        raise ValueError(f"{where}: {key} is no JSON: {error}") from error
    return value


def _object(value: object, key: str, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {key} is {value!r:.{_SHOWN_CHARS}}; an object is needed")
    return dict(value)
