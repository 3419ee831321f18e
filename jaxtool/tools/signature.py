"""A tool's schema out of a Python function: names and types of its parameters, its docstring.

  def convert(value: float, unit: Literal["km", "mi"] = "km") -> str:
      '''Converts a distance.

      Args:
        value: The distance.
      '''

has the parameters {"value": {"type": "number", "description": "The distance."}, "unit": {"enum": ["km", "mi"],
"default": "km"}}, of which `value` is required. Parameters that the policy does not write are named in
`GIVEN`. Types: str, int, float, bool, None, Any, list, dict, Literal, Optional and other unions, each with
Annotated[..., "description"]. Anything else is refused by name.
"""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jaxtool.core.types import Problem

PROBLEM = "problem"  # if its type is Problem: the question that the trajectory answers
KEY = "trajectory_key"  # str that names the trajectory: the same in every run with the same seed
STATE = "trajectory_state"  # dict that lasts from call to call of one trajectory
GIVEN = (PROBLEM, KEY, STATE)
_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def parameters_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """JSON schema of the arguments that the policy writes.

    Args:
      name: of the function, for messages.

    Raises:
      ValueError: a parameter cannot be written as JSON by its name; one line.
    """
    hints = _hints(function, name)
    described = described_in(function)[1]
    properties, required = {}, []
    for parameter in _signature(function, name).parameters.values():
        where = f"{name}: parameter {parameter.name!r}"
        _check_kind(parameter, where)
        if is_given(parameter.name, hints.get(parameter.name)):
            continue
        if parameter.annotation is parameter.empty:
            raise ValueError(f"{where} has no type: write {parameter.name}: str, int, float, ...")
        schema = _schema(hints[parameter.name], where)
        if parameter.name in described and "description" not in schema:
            schema["description"] = described[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            schema["default"] = _json(parameter.default, f"{where} has the default")
        properties[parameter.name] = schema
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def given_to(function: Callable[..., Any], name: str) -> tuple[str, ...]:
    """Those of `GIVEN` that the function takes."""
    hints = _hints(function, name)
    return tuple(p for p in _signature(function, name).parameters if is_given(p, hints.get(p)))


def is_given(parameter: str, hint: Any) -> bool:
    """Whether a parameter comes from the run. A `problem` of another type than Problem is the policy's."""
    return parameter in (KEY, STATE) or (parameter == PROBLEM and hint is Problem)


def described_in(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function (its first paragraph), and of each argument."""
    text = inspect.getdoc(function) or ""
    head = re.split(
        r"\n\s*\n|\n(?=(?:Args|Arguments|Parameters):|:param )", text.strip(), maxsplit=1
    )[0]
    described = {
        match[1]: _one_line(match[2])
        for match in re.finditer(
            r"^:param (?:\w+ )?(\w+): *(.*(?:\n[ \t]+.*)*)", text, re.MULTILINE
        )
    }
    section = re.search(
        r"^(?:Args|Arguments|Parameters):\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE
    )
    if section is not None:
        body = inspect.cleandoc("\n" + section[1])
        for match in re.finditer(
            r"^\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*(?:\n[ \t]+.*)*)", body, re.MULTILINE
        ):
            described[match[1]] = _one_line(match[2])
    return _one_line(head), described


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} has no signature ({error}): wrap it in a function of yours"
        ) from None


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception as error:  # whatever the evaluation of a user's annotation raises
        raise ValueError(
            f"{name}: a type cannot be read ({type(error).__name__}: {error})"
        ) from None


def _check_kind(parameter: inspect.Parameter, where: str) -> None:
    refused = {
        parameter.VAR_POSITIONAL: f"is *{parameter.name}",
        parameter.VAR_KEYWORD: f"is **{parameter.name}",
        parameter.POSITIONAL_ONLY: "can be given by position only",
    }
    if parameter.kind in refused:
        raise ValueError(
            f"{where} {refused[parameter.kind]}: arguments come by name, each with a type"
        )


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        texts = [extra for extra in arguments[1:] if isinstance(extra, str)]
        return _schema(arguments[0], where) | ({"description": texts[0]} if texts else {})
    if hint is Any:
        return {}
    if hint in _SIMPLE or hint is None:
        return {"type": _SIMPLE[type(None) if hint is None else hint]}
    if origin is Literal:
        return {"enum": [_json(value, f"{where} has the choice") for value in arguments]}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(argument, where) for argument in arguments]}
    if hint is list or origin is list:
        return {"type": "array"} | ({"items": _schema(arguments[0], where)} if arguments else {})
    if hint is dict or origin is dict:
        if arguments and arguments[0] is not str:
            raise ValueError(f"{where} is {hint}: the keys of JSON objects are str")
        values = {"additionalProperties": _schema(arguments[1], where)} if arguments else {}
        return {"type": "object"} | values
    shown = getattr(hint, "__name__", None) or str(hint)
    raise ValueError(
        f"{where} has the type {shown}, which is none of JSON's: use str, int, float, bool, list, dict, "
        "Literal or Optional"
    )


def _json(value: Any, what: str) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(
            f"{what} {value!r:.80}, which is no JSON: use None, a number or a text"
        ) from None
    return value
