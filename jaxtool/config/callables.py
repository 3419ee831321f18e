"""Functions and objects that a configuration chose: their names in messages, and how they are called.

Whoever takes a researcher's own function checks it here when the configuration is built, so that a
wrong signature is found before the first step and not by it. Not covered: what the function returns.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from jaxtool.config.syntax import BoundFunction


def callable_name(choice: Callable[..., Any]) -> str:
    """`module.name` of a function, or of the class of an object that is called."""
    if isinstance(choice, BoundFunction):
        return callable_name(choice.function)
    named = choice if inspect.isroutine(choice) or inspect.isclass(choice) else type(choice)
    return f"{named.__module__}.{named.__qualname__}"


def check_takes(choice: Callable[..., Any], arguments: Sequence[str], field: str) -> None:
    """Raises ValueError unless `choice` can be called with these arguments by position, and hashed.

    Args:
      choice: a function, a BoundFunction or an object with __call__.
      arguments: names of what it will be called with, for the message; in order.
      field: the field that holds it, such as "RlConfig.reward".
    """
    wanted = f"{field} is called as f({', '.join(arguments)})"
    if isinstance(choice, str):
        raise ValueError(f"{field}={choice!r} is a string; {wanted}: reference it as @module.f")
    if inspect.isclass(choice):
        raise ValueError(f"{wanted}, and {callable_name(choice)} is a class; write () behind it")
    try:
        hash(choice)
    except TypeError as error:
        raise ValueError(
            f"{field}={callable_name(choice)} cannot be compared ({error}); make it a frozen dataclass "
            "whose fields are numbers, strings and tuples"
        ) from None
    called = choice
    if isinstance(choice, BoundFunction):
        called = functools.partial(choice.function, **dict(choice.arguments))
    try:
        signature = inspect.signature(called)
    except ValueError:  # some builtins
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        shown = _without_types(signature)
        raise ValueError(
            f"{wanted}, and {callable_name(choice)}{shown} cannot be ({error}); "
            "give it these parameters, and defaults to all others"
        ) from None


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=plain, return_annotation=signature.empty)
