"""Checks a configured value against a type hint and converts what converts without doubt.

Conversions: int to float, list to tuple, string to enum member (by value, then by name), string
to Path. Everything else must already have its type; a bool is no int and 8.0 is no int either.
"""

import collections.abc
import enum
import inspect
import pathlib
import types
import typing
from collections.abc import Callable
from typing import Any

# What a list or tuple of a configuration becomes, by the container that the field asks for.
_SEQUENCES: dict[Any, Callable[[list[Any]], Any]] = {
    tuple: tuple,
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: tuple,
    collections.abc.Collection: tuple,
    collections.abc.Iterable: tuple,
    collections.abc.Set: frozenset,
}
_PROTOCOL = " (a protocol)"  # behind its name in messages
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def type_name(hint: Any) -> str:
    """A type hint as people write it."""
    if hint is None or hint is type(None):
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__qualname__
    return str(hint).replace("typing.", "").replace("collections.abc.", "")


def coerce(value: Any, hint: Any) -> Any:
    """`value` as a value of type `hint`.

    In -> out: (3, float) -> 3.0; ([1, 2], tuple[int, ...]) -> (1, 2); ("cosine", Schedule) ->
    Schedule.COSINE; (8.0, int) -> TypeError "expected int, got 8.0 (float); write 8".
    A worked example of nesting: ([["a", 1]], tuple[tuple[str, float], ...]) descends through step 4
    twice (container, item), reaches step 6 with (1, float) and returns (("a", 1.0),).

    Raises:
      TypeError: says what was expected, what came and, where it is clear, what to write.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    # 1. Hints that promise nothing take anything.
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return value
    # 2. Wrappers around another hint: look through them.
    if origin is typing.Annotated:
        return coerce(value, args[0])
    if isinstance(hint, typing.NewType):
        return coerce(value, hint.__supertype__)
    # 3. Choices. A union prefers the member that takes the value unchanged: with int | float, 3 stays an int.
    if origin is typing.Union or origin is types.UnionType:
        return _coerce_union(value, hint, args)
    if origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise _mismatch(value, " or ".join(repr(choice) for choice in args))
    # 4. Containers: each item on its own, and an error names the item.
    if (origin or hint) in _SEQUENCES:
        return _coerce_sequence(value, hint, origin or hint, args)
    if (origin or hint) in _MAPPINGS:
        return _coerce_mapping(value, hint, args)
    # 5. Things that are called or built later are checked for what they are, not for what they take.
    if origin is collections.abc.Callable or hint is collections.abc.Callable:
        return _checked(value, callable(value), hint)
    if origin is type:
        is_subclass = inspect.isclass(value) and (args[0] is Any or issubclass(value, args[0]))
        return _checked(value, is_subclass, hint)
    # 6. What is left is a class or None: the only place where int becomes float and text an enum or a path.
    return _coerce_plain(value, origin or hint)


def _mismatch(value: Any, expected: str) -> TypeError:
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    remedy = ""
    if isinstance(value, float) and expected.split(" | ")[0] == "int" and value.is_integer():
        remedy = f"; write {int(value)}"
    elif isinstance(value, str) and expected.split(" | ")[0] in ("int", "float", "bool"):
        remedy = "; write it without quotes"
    elif isinstance(value, str) and expected.endswith(_PROTOCOL):
        remedy = "; reference a function as @module.name or an object as @module.Class(), unquoted"
    elif isinstance(value, type) and (
        value.__qualname__ == expected or expected.endswith(_PROTOCOL)
    ):
        remedy = "; write () behind the reference to build one"
    return TypeError(f"expected {expected}, got {shown} ({type_name(type(value))}){remedy}")


def _checked(value: Any, is_right: bool, hint: Any) -> Any:
    if not is_right:
        raise _mismatch(value, type_name(hint))
    return value


def _coerce_union(value: Any, hint: Any, choices: tuple[Any, ...]) -> Any:
    converted = []
    for choice in choices:
        try:
            result = coerce(value, choice)
        except TypeError:
            continue
        if result == value and type(result) is type(value):
            return result
        converted.append(result)
    if not converted:
        raise _mismatch(value, type_name(hint))
    return converted[0]


def _coerce_sequence(value: Any, hint: Any, container: Any, args: tuple[Any, ...]) -> Any:
    if isinstance(value, set | frozenset):
        _checked(value, issubclass(container, collections.abc.Set | set), hint)
    else:
        _checked(value, isinstance(value, list | tuple), hint)
    items = list(value)
    if container is tuple and args and args[-1] is not Ellipsis:
        if len(items) != len(args):
            raise TypeError(f"expected {len(args)} values ({type_name(hint)}), got {len(items)}")
        hints = list(args)
    else:
        hints = [args[0] if args else Any] * len(items)
    pairs = enumerate(zip(items, hints, strict=True))
    coerced = [_coerce_item(item, item_hint, f"item {i}") for i, (item, item_hint) in pairs]
    return _SEQUENCES[container](coerced)


def _coerce_mapping(value: Any, hint: Any, args: tuple[Any, ...]) -> Any:
    _checked(value, isinstance(value, dict), hint)
    key_hint, value_hint = args or (Any, Any)
    return {
        _coerce_item(key, key_hint, f"key {key!r}"): _coerce_item(item, value_hint, f"key {key!r}")
        for key, item in value.items()
    }


def _coerce_item(item: Any, hint: Any, where: str) -> Any:
    try:
        return coerce(item, hint)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from None


def _coerce_plain(value: Any, hint: Any) -> Any:
    """`hint` is a class or None."""
    if hint is None or hint is type(None):
        return _checked(value, value is None, hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int:
        return _checked(value, isinstance(value, int) and not isinstance(value, bool), hint)
    if not isinstance(hint, type):
        raise TypeError(f"fields of type {type_name(hint)} cannot be configured")
    if issubclass(hint, enum.Enum):
        return _coerce_enum(value, hint)
    if issubclass(hint, pathlib.PurePath) and isinstance(value, str):
        return hint(value)
    if typing.is_typeddict(hint):
        return _checked(value, isinstance(value, dict), hint)
    if _is_protocol(hint):
        missing = [name for name in _protocol_members(hint) if not hasattr(value, name)]
        if isinstance(value, type) or missing:
            raise _mismatch(value, f"{hint.__qualname__}{_PROTOCOL}")
        return value
    return _checked(value, isinstance(value, hint), hint)


def _coerce_enum(value: Any, members: type[enum.Enum]) -> enum.Enum:
    if isinstance(value, members):
        return value
    if isinstance(value, str):
        for member in members:
            if member.value == value:
                return member
        if value in members.__members__:
            return members[value]
    choices = [m.value if isinstance(m.value, str) else m.name for m in members]
    raise _mismatch(value, f"{members.__qualname__}, one of {', '.join(map(repr, choices))}")


def _is_protocol(hint: type) -> bool:
    return typing.Protocol in hint.__bases__


def _protocol_members(protocol: type) -> list[str]:
    """Names that a value must have: methods, properties, annotated fields, and __call__."""
    names: set[str] = set()
    for base in protocol.__mro__:
        if _is_protocol(base):
            names |= set(inspect.get_annotations(base))
            names |= {n for n in vars(base) if not n.startswith("_") or n == "__call__"}
    return sorted(names)
