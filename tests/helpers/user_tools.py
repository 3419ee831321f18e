"""Functions as users write them: fine ones, and ones that do what no tool should."""

import asyncio
import os
import time
from typing import Annotated, Any, Literal, Optional

from jaxtool.core.types import Problem, ToolUnavailable


def convert(value: float, unit: Literal["km", "mi"] = "km") -> str:
    """Converts a distance from kilometres or miles
    into the other.

    More that is not for the prompt.

    Args:
      value: The distance,
        in its unit.
      unit (str): What it is measured in.

    Returns:
      The other distance.
    """
    factor = 1 / 1.609344 if unit == "km" else 1.609344
    return f"{value * factor:.3f}"


convert.known_answers = (({"value": 1.609344}, "1.000"), ({"value": 1, "unit": "mi"}, "1.609"))


def length(text: str) -> int:
    """Counts characters."""
    return len(text)


async def square(x: int) -> int:
    """Squares a number."""
    await asyncio.sleep(0)
    return x * x


def everything(
    text: Annotated[str, "A text."],
    numbers: list[int],
    weights: dict[str, float],
    maybe: Optional[int] = None,  # noqa: UP045
    other: str | list[str] = "x",
    anything: Any = None,
    *,
    is_so: bool = True,
) -> dict[str, Any]:
    """Gives back what it got.

    :param numbers: Some numbers.
    """
    return {"text": text, "numbers": numbers, "weights": weights, "maybe": maybe, "is_so": is_so}


def asks(problem: Problem, trajectory_key: str, trajectory_state: dict, part: str) -> str:
    """A hint."""
    trajectory_state[part] = trajectory_state.get(part, 0) + 1
    return f"{problem.question} {trajectory_key} {part} {trajectory_state[part]}"


def hint(problem: Problem, trajectory_key: str) -> str:
    return f"{problem.question} {problem.references} {trajectory_key}"


def of_text(problem: str) -> str:
    return problem


class Lookup:
    def __call__(self, word: str) -> str:
        return word.upper()


lookup = Lookup()

# What no tool should do.


def untyped(x) -> str:
    return x


def starred(*numbers: int) -> int:
    return sum(numbers)


def keyworded(**numbers: int) -> int:
    return len(numbers)


def positional(x: int, /) -> int:
    return x


def odd_default(x: object = object()) -> str:
    return str(x)


def bad_default(x: float = float("nan")) -> str:
    return str(x)


def odd_type(x: complex) -> str:
    return str(x)


def odd_keys(x: dict[int, str]) -> str:
    return str(x)


def unknown_type(x: "Missing") -> str:  # noqa: F821
    return str(x)


def yields(x: int):
    yield x


def badly_known(x: int) -> str:
    return str(x)


badly_known.known_answers = (({"x": 1}, 1),)


def wrongly_known(x: int) -> str:
    return str(x)


wrongly_known.known_answers = (({"x": 1}, "2"),)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


class Nasty(BaseException):
    pass


def misbehave(how: str) -> Any:  # noqa: C901
    """Does what it is told."""
    if how == "raise":
        raise ValueError("two\nlines")
    if how == "odd":
        raise Odd
    if how == "base":
        raise Nasty("base")
    if how == "exit":
        exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "cancel":
        raise asyncio.CancelledError
    if how == "stop":
        raise StopIteration
    if how == "unavailable":
        raise ToolUnavailable("the index is down")
    if how == "hang":
        time.sleep(3)
    if how == "long":
        return "x" * 50_000_000
    if how == "surrogate":
        return "a\ud800b"
    if how == "generator":
        return (x for x in iter(int, 1))
    if how == "object":
        return object()
    if how == "bytes":
        return b"raw"
    if how == "nothing":
        return None
    if how == "recursive":
        inner: list[Any] = []
        inner.append(inner)
        return inner
    return how


async def misbehave_async(how: str) -> Any:
    """Does what it is told, in a loop."""
    if how == "swallow":
        for _ in range(3):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue
    return misbehave(how)


def crash(how: str) -> str:
    """Ends its process, or says something."""
    if how == "exit":
        os._exit(7)
    if how == "hang":
        time.sleep(60)
    print("to standard output")
    return how
