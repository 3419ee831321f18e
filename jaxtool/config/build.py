"""Builds the target of a configuration from its bindings, and says what nothing read.

The meaning of a binding is gin's: a call in scope a/b sees the bindings of the scopes "", "a" and
"a/b", the longest winning; a reference without a scope keeps the reader's; `%NAME` is evaluated at
each use. In contrast to gin, each value is checked and converted to its parameter's type before
the call, and nothing is kept for later calls: `@function` with bindings becomes a BoundFunction.

Overlays may replace what the run file says, and not what another overlay says: two overlays that set
one thing to two values are refused, and so is an overlay whose bindings another one made void.
"""

import difflib
import enum
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxtool.config import types
from jaxtool.config.syntax import (
    Binding,
    BoundFunction,
    ConfigError,
    MacroUse,
    OldNames,
    Place,
    Reference,
    nested_uses,
)

REQUIRED_MACRO = "gin.REQUIRED"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _Missing(enum.Enum):
    REQUIRED = "a value that the run must set"


def suggestion(name: str, choices: Iterable[str]) -> str:
    """`; did you mean X?` for the closest choice, or nothing."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


@functools.cache
def parameters_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters that can be bound, by name; none where Python knows no signature."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # some builtins
        return {}
    return {p.name: p for p in parameters if p.kind not in _VARIADIC}


def check_parameter(binding: Binding, old_names: OldNames) -> None:
    """Raises ConfigError if the configurable has no such parameter."""
    assert binding.target is not None
    names = list(parameters_of(binding.target))
    if binding.parameter not in names:
        old_names.refuse(binding.place, f"{binding.target.__name__}.{binding.parameter}")
        hint = suggestion(binding.parameter, names) or f"; it has {', '.join(names) or 'none'}"
        raise ConfigError(
            f"{binding.place}: {binding.name} has no parameter {binding.parameter}{hint}"
        )


class Builder:
    """One evaluation of a list of bindings; keeps which bindings were read."""

    def __init__(self, bindings: Sequence[Binding], old_names: OldNames):
        self._old_names = old_names
        self._by_key: dict[Any, Binding] = {}
        self._overridden: list[Binding] = []
        self._decided = {binding.key for binding in bindings if binding.place.param}
        for binding in bindings:
            earlier = self._by_key.get(binding.key)
            if earlier is not None:
                if binding.key not in self._decided:
                    _check_overlays_agree(earlier, binding)
                self._overridden.append(earlier)
            self._by_key[binding.key] = binding
        self._read: set[Any] = set()
        self._scopes_opened: set[tuple[str, ...]] = {()}
        self._macros_open: list[str] = []
        # What each built object was built from. Holding the object keeps its id its own.
        self._origins: dict[int, tuple[Any, dict[str, Binding]]] = {}

    def build(self, target: Callable[..., Any], name: str, place: Place) -> Any:
        """Calls a class, binds a function. `place` is named where no binding can be."""
        is_class = inspect.isclass(target)
        return self._apply(target, name, (), place, is_call=is_class, must_be_complete=True)

    def origin(self, built: Any, parameter: str) -> str:
        """Where a parameter of a built object was set, with the macro that it reads; "" by default."""
        known, winners = self._origins.get(id(built), (built, {}))
        assert known is built
        binding = winners.get(parameter)
        if binding is None:
            return ""
        macros = [use.name for use in nested_uses(binding.value) if isinstance(use, MacroUse)]
        places = [f"{name} of {self._by_key[(), name, ''].place}" for name in macros]
        return f"{binding.place}" + (f" ({', '.join(places)})" if places else "")

    def check_all_read(self) -> None:
        """Raises ConfigError on a binding that had no effect on what was built."""
        of_run = self._reachable_from(self._overridden)
        of_overlays = self._reachable_from([b for b in self._overridden if b.key in self._decided])
        unread = [
            binding
            for key, binding in self._by_key.items()
            if key not in self._read
            and (binding.place.param or key not in (of_overlays if binding.layer else of_run))
        ]
        if unread:
            others = ", ".join(str(b.place) for b in unread[1:])
            more = f" (and {len(unread) - 1} more: {others})" if others else ""
            reason = self._why_unread(unread[0]) + self._what_replaced_its_reader(unread[0])
            raise ConfigError(f"{unread[0].place}: {reason}{more}")

    def _what_replaced_its_reader(self, unread: Binding) -> str:
        """`; A.x of FILE:LINE replaced what read it`, or nothing."""
        for binding in self._overridden:
            if unread.key in self._reachable_from([binding]):
                winner = self._by_key[binding.key]
                return f"; {winner} of {winner.place} replaced what read it"
        return ""

    def _evaluate(self, value: Any, scope: tuple[str, ...], place: Place) -> Any:
        if isinstance(value, MacroUse):
            return self._evaluate_macro(value.name, place)
        if isinstance(value, Reference):
            inner = value.scope or scope
            return self._apply(
                value.target, value.name, inner, place, value.is_call, must_be_complete=False
            )
        if isinstance(value, dict):
            return {
                self._evaluate(k, scope, place): self._evaluate(v, scope, place)
                for k, v in value.items()
            }
        if isinstance(value, list | tuple):
            return type(value)(self._evaluate(item, scope, place) for item in value)
        return value

    def _evaluate_macro(self, name: str, place: Place) -> Any:
        if name == REQUIRED_MACRO:
            return _Missing.REQUIRED
        binding = self._by_key.get(((), name, ""))
        if binding is None:
            macros = [key[1] for key in self._by_key if isinstance(key[1], str)]
            hint = suggestion(name, macros) or f"; add a line {name} = ..."
            raise ConfigError(f"{place}: macro %{name} is not defined{hint}")
        if name in self._macros_open:
            raise ConfigError(f"{binding.place}: macro %{name} is defined by itself")
        self._read.add(binding.key)
        self._macros_open.append(name)
        value = self._evaluate(binding.value, (name,), binding.place)
        self._macros_open.pop()
        if value is _Missing.REQUIRED:
            raise ConfigError(
                f"{binding.place}: {name} is REQUIRED; set it in the run file or pass "
                f"--gin_param '{name} = ...'"
            )
        return value

    def _apply(
        self,
        target: Callable[..., Any],
        name: str,
        scope: tuple[str, ...],
        place: Place,
        is_call: bool,
        must_be_complete: bool,
    ) -> Any:
        self._scopes_opened |= {scope[:depth] for depth in range(len(scope) + 1)}
        winners = self._winners(target, scope)
        hints = _type_hints(target, name, place)
        arguments = {
            parameter: self._argument(binding, scope, hints.get(parameter, Any))
            for parameter, binding in winners.items()
        }
        if is_call or must_be_complete:
            _check_complete(target, name, arguments, place, winners)
        if not is_call:
            bound = tuple(sorted(arguments.items()))
            if not bound and not must_be_complete:
                return target
            return self._remembered(BoundFunction(target, bound), winners)
        try:
            return self._remembered(target(**arguments), winners)
        except (TypeError, ValueError, ArithmeticError, LookupError, OSError) as error:
            where, *others = self._places_of_error(str(error), winners) or [place]
            line = " ".join(str(error).split())
            also = f" (see also {', '.join(map(str, others))})" if others else ""
            raise ConfigError(f"{where}: {name} refuses its values: {line}{also}") from error

    def _places_of_error(self, message: str, winners: dict[str, Binding]) -> list[Place]:
        """Where the settings were bound that the message of a refusal names.

        `x=` names a parameter of what refuses, `Class.x` a parameter of any class. Without either the
        first parameter counts whose name is a word of the message.
        """
        names = set(re.findall(r"(?:self\.)?(\w+)=", message))
        paths = set(re.findall(r"\b[A-Za-z_]\w*\.\w+", message))
        named = [binding for parameter, binding in winners.items() if parameter in names]
        named += [
            binding
            for binding in self._by_key.values()
            if binding.target is not None
            and f"{binding.target.__qualname__}.{binding.parameter}" in paths
        ]
        if not named:
            words = set(re.findall(r"\w+", message))
            named = [binding for parameter, binding in winners.items() if parameter in words][:1]
        return list(dict.fromkeys(binding.place for binding in named))

    def _remembered(self, built: Any, winners: dict[str, Binding]) -> Any:
        self._origins[id(built)] = (built, winners)
        return built

    def _winners(self, target: Any, scope: tuple[str, ...]) -> dict[str, Binding]:
        """The binding of each parameter that a call of `target` in `scope` reads."""
        prefixes = [scope[:depth] for depth in range(len(scope) + 1)]
        winners: dict[str, Binding] = {}
        for (bound_scope, bound_target, parameter), binding in self._by_key.items():
            if isinstance(bound_target, str) or bound_target != target:
                continue
            if bound_scope in prefixes:
                previous = winners.get(parameter)
                if previous is None or len(previous.scope) < len(bound_scope):
                    winners[parameter] = binding
        return winners

    def _argument(self, binding: Binding, scope: tuple[str, ...], hint: Any) -> Any:
        self._read.add(binding.key)
        value = self._evaluate(binding.value, scope, binding.place)
        if value is _Missing.REQUIRED:
            raise ConfigError(
                f"{binding.place}: {binding} is REQUIRED; set it in the run file or pass "
                f"--gin_param '{binding} = ...'"
            )
        try:
            return types.coerce(value, hint)
        except TypeError as error:
            if binding.target is not None:
                written = f"{binding.target.__name__}.{binding.parameter} = {value!r}"
                self._old_names.refuse(binding.place, written)
            source = ""
            if isinstance(binding.value, MacroUse):
                macro = self._by_key[((), binding.value.name, "")]
                source = f" (%{macro.name} of {macro.place})"
            raise ConfigError(f"{binding.place}: {binding}{source}: {error}") from None

    def _reachable_from(self, overridden: Sequence[Binding]) -> set[Any]:
        """Keys that only overridden bindings would have read.

        A run that swaps one part of a file that it includes for another must not have to repeat
        that file without the part's bindings; gin has no way to take a binding back. The bindings
        of an overlay are there to act: only a parameter of the command line may make them void.
        """
        waiting = [use for binding in overridden for use in nested_uses(binding.value)]
        excused: set[Any] = set()
        while waiting:
            use = waiting.pop()
            wanted = use.name if isinstance(use, MacroUse) else use.target
            for key, binding in self._by_key.items():
                if key[1] == wanted and key not in excused:
                    excused.add(key)
                    waiting.extend(nested_uses(binding.value))
        return excused

    def _why_unread(self, binding: Binding) -> str:
        if binding.target is None:
            used = [
                use.name
                for other in self._by_key.values()
                for use in nested_uses(other.value)
                if isinstance(use, MacroUse)
            ]
            hint = suggestion(binding.name, used) or f"; use %{binding.name} or delete the line"
            return f"nothing reads the macro {binding.name}{hint}"
        if binding.scope not in self._scopes_opened:
            scope = "/".join(binding.scope)
            opened = ["/".join(s) for s in self._scopes_opened if s]
            hint = suggestion(scope, opened) or "; delete the binding or reference the scope"
            return f"nothing reads {binding}: no reference opens the scope {scope}{hint}"
        if any(key[1] == binding.target for key in self._read):
            return f"nothing reads {binding}: every use of {binding.name} has its own value for it"
        return (
            f"nothing reads {binding}: {binding.name} is not part of what is built; "
            f"reference it as @{binding.name} or delete the binding"
        )


@functools.cache
def _hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    if inspect.isclass(target):
        return {**typing.get_type_hints(target.__init__), **typing.get_type_hints(target)}
    return typing.get_type_hints(target)


def _type_hints(target: Callable[..., Any], name: str, place: Place) -> dict[str, Any]:
    try:
        return _hints_of(target)
    except NameError as error:
        raise ConfigError(
            f"{place}: the types of {name} cannot be read ({error}); import them at run time"
        ) from error
    except TypeError:  # a callable object without annotations of its own
        return {}


def _check_overlays_agree(earlier: Binding, later: Binding) -> None:
    """Raises ConfigError if an overlay replaces what another overlay set to another value."""
    if 0 < earlier.layer < later.layer and earlier.value != later.value:
        raise ConfigError(
            f"{later.place}: {later} = {_written(later.value)} would replace "
            f"{_written(earlier.value)} of {earlier.place}; leave out one of the two overlays, or say "
            f"which value it is with --gin_param '{later} = ...'"
        )


def _written(value: Any) -> str:
    """A value about as it stands in its file."""
    if isinstance(value, Reference):
        name = "/".join([*value.scope, value.name])
        return f"@{name}{'()' if value.is_call else ''}"
    if isinstance(value, MacroUse):
        return f"%{value.name}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_written, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _check_complete(
    target: Callable[..., Any],
    name: str,
    arguments: dict[str, Any],
    place: Place,
    winners: dict[str, Binding],
) -> None:
    for parameter, description in parameters_of(target).items():
        if parameter not in arguments and description.default is inspect.Parameter.empty:
            first = next((b.place for b in winners.values() if not b.place.param), place)
            raise ConfigError(
                f"{first}: {name}.{parameter} has no default and nothing binds it; "
                f"add {name}.{parameter} = ... or pass --gin_param '{name}.{parameter} = ...'"
            )
