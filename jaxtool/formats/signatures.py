"""Checks a call's name and arguments against the tools of a run; what fails has a reason to read.

Covered: JSON as RFC 8259 has it, each name once in an object, text that UTF-8 can hold, schemas of
draft 2020-12 (by `jsonschema`). Not covered: how a call is written (`hermes` and the others).
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema
import jsonschema.protocols
import jsonschema.validators
import referencing
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from jaxtool.core.calls import Call, InvalidCall, ToolSpec

LONGEST_REASON = 240  # characters


class _NoJson(ValueError):
    """Something that Python's reader of JSON takes and RFC 8259 does not."""


def _is_integer(_checker: object, value: object) -> bool:
    """7.0 is none, though JSON Schema takes it for one: range(7.0) is an error."""
    return isinstance(value, int) and not isinstance(value, bool)


_VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


class Signatures:
    """Names and schemas of the tools of a run."""

    def __init__(self, specs: Sequence[ToolSpec] | None = ()):
        """Raises ValueError for two tools of one name, or a schema that is none.

        Args:
          specs: None: the tools are not known, and any name with any arguments is a call.
        """
        self._knows_tools = specs is not None
        specs = specs or ()
        self.specs = {spec.name: spec for spec in specs}
        if len(self.specs) < len(specs):
            names = [spec.name for spec in specs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two tools are called {twice!r}: give one of them another name")
        for spec in specs:
            _check_schema(spec)

    @functools.cached_property
    def _validators(self) -> dict[str, jsonschema.protocols.Validator]:
        # An empty registry: a schema must not make us load another one from somewhere.
        return {
            name: _VALIDATOR(dict(spec.parameters), registry=referencing.Registry())
            for name, spec in self.specs.items()
        }

    def call(self, name: object, arguments: object) -> Call | InvalidCall:
        """The call, if there is such a tool and it takes these arguments."""
        if not isinstance(name, str) or not name.strip():
            return invalid(f"the call names no tool: there are {self._names}")
        if self._knows_tools and name not in self.specs:
            return invalid(f"there is no tool {name!r}: there are {self._names}", name)
        if not isinstance(arguments, dict):
            return invalid(f"the arguments of {name} must be an object, got {arguments!r}", name)
        if not self._knows_tools:
            return Call(tool=name, arguments=arguments)
        # `relevance` prefers what stands at the top: a missing argument before a wrong one.
        error = best_match(self._validators[name].iter_errors(arguments))
        if error is not None:
            return invalid(_reason(name, error), name)
        return Call(tool=name, arguments=arguments)

    def only_text_argument(self, name: str) -> str | None:
        """The argument that a bare text is for: the one that is required and may be text, or the only one."""
        schema = self.specs[name].parameters
        properties = schema.get("properties", {})
        required = [key for key in schema.get("required", ()) if key in properties]
        wanted = required if required else list(properties)
        return wanted[0] if len(wanted) == 1 and takes_text(properties[wanted[0]]) else None

    @property
    def _names(self) -> str:
        return ", ".join(self.specs) or "none"


def invalid(reason: str, tool: object = "") -> InvalidCall:
    """A reason of one line and of bounded length, whatever the policy wrote."""
    line = " ".join(reason.split())
    if len(line) > LONGEST_REASON:
        line = line[: LONGEST_REASON - 3] + "..."
    return InvalidCall(reason=line, tool=tool[:64] if isinstance(tool, str) else "")


def read_json(text: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `at`, and the index behind it.

    Raises:
      ValueError: there is none; a short reason.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except json.JSONDecodeError as error:
        said = _MENDED.get(error.msg, error.msg.removesuffix(" at"))
        raise ValueError(f"{said} at character {error.pos - at + 1}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half of a surrogate pair, which is no character") from error
    except ValueError as error:  # of a number: 1e999, or more digits than Python reads
        raise (
            error if isinstance(error, _NoJson) else ValueError("a number is too large")
        ) from error
    return value, end


def takes_text(schema: Mapping[str, Any] | bool) -> bool:
    """Whether a JSON schema lets a string through, as far as its types say."""
    if isinstance(schema, bool):
        return schema
    if "enum" in schema or "const" in schema:
        return any(isinstance(v, str) for v in schema.get("enum", [schema.get("const")]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return any(takes_text(choice) for choice in schema[key])
    kind = schema.get("type", "string")
    return "string" in (kind if isinstance(kind, list) else [kind])


def _check_schema(spec: ToolSpec) -> None:
    schema = spec.parameters
    try:
        json.dumps(schema)
        jsonschema.Draft202012Validator.check_schema(schema)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the schema of tool {spec.name!r} is no JSON: {error}") from error
    except SchemaError as error:
        raise ValueError(
            f"the schema of tool {spec.name!r} is no JSON schema: {error.message}"
        ) from error
    if schema.get("type") != "object":
        raise ValueError(
            f"the schema of tool {spec.name!r} has type={schema.get('type')!r}: its arguments are an "
            "object, so write 'object'"
        )
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise ValueError(
                f"the schema of tool {spec.name!r} refers to {reference!r}, outside of itself: "
                "write what it refers to under $defs"
            )


def _references(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [r for part in value.values() for r in _references(part)]
    if isinstance(value, list | tuple):
        return [r for part in value for r in _references(part)]
    return []


def _reason(name: str, error: ValidationError) -> str:
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    where = where.removeprefix(".")
    if error.validator == "required" and isinstance(error.instance, dict):
        wanted: Any = error.validator_value  # typed as perhaps unset
        missing = next(key for key in wanted if key not in error.instance)
        return f"{name} needs the argument {'.'.join(filter(None, (where, missing)))!r}"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
        extra = next((key for key in error.instance if key not in known), "")
        return f"{name} takes no argument {extra!r}: it takes {', '.join(known) or 'none'}"
    if error.validator == "type":
        kinds: Any = error.validator_value
        kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
        return f"the argument {where!r} of {name} must be of type {kind}, got {error.instance!r}"
    return f"the argument {where!r} of {name} is not allowed: {error.message}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise _NoJson(f"it has {key[:40]!r} twice")
        out[key] = value
    return out


def _no_constant(name: str) -> Any:
    raise _NoJson(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
_MENDED = {"Invalid control character at": "a line end or tab inside a string: write \\n or \\t,"}
