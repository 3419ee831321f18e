"""Do arguments fit a tool's JSON schema? The keywords that tools use; others are not checked.

Covered: type, properties, required, additionalProperties, items, enum, const, anyOf, oneOf.
"""

from collections.abc import Mapping
from typing import Any

_SHOWN_CHARS = 60
_TYPES = {
    "string": str,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def mismatch(value: Any, schema: Any, name: str = "") -> str:
    """What is wrong, in a few words that a policy may read; empty if the value fits.

    mismatch({"n": "7"}, {"properties": {"n": {"type": "integer"}}})  ->  "n must be an integer, got '7'"
    """
    if not isinstance(schema, Mapping):
        return "" if schema is not False else f"{name or 'it'} is not allowed"
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        found = [mismatch(value, choice, name) for choice in choices]
        return "" if "" in found else found[0]
    for allowed in ([schema["const"]] if "const" in schema else None, schema.get("enum")):
        # 1 == True and 1 == 1.0 in Python: types are compared as well.
        if allowed is not None and not any(type(a) is type(value) and a == value for a in allowed):
            listed = ", ".join(map(_shown, allowed))
            return f"{name or 'it'} must be one of {listed}, got {_shown(value)}"
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        wanted = " or ".join(f"an {kind}" if kind[0] in "aio" else f"a {kind}" for kind in kinds)
        return f"{name or 'it'} must be {wanted}, got {_shown(value)}"
    if isinstance(value, Mapping):
        return _of_object(value, schema, name)
    if isinstance(value, list) and "items" in schema:
        found = (mismatch(v, schema["items"], f"{name}[{i}]") for i, v in enumerate(value))
        return next((text for text in found if text), "")
    return ""


def _of_object(value: Mapping[str, Any], schema: Mapping[str, Any], name: str) -> str:
    prefix = f"{name}." if name else ""
    properties = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            return f"the argument {prefix}{key} is missing"
    rest = schema.get("additionalProperties", True)
    for key, part in value.items():
        if key not in properties and rest is False:
            known = ", ".join(properties) or "none"
            return f"there is no argument {_shown(prefix + key)}; the arguments are {known}"
        found = mismatch(part, properties.get(key, rest), f"{prefix}{key}")
        if found:
            return found
    return ""


def _is(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):  # 7.0 is no integer: range(7.0) is an error
        allowed = int if kind == "integer" else int | float
        return isinstance(value, allowed) and not isinstance(value, bool)
    return kind not in _TYPES or isinstance(value, _TYPES[kind])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
