"""What an answer is made of once it is read: nodes, and what Python's constructors become.

Not covered: reading (`expressions`), values (`exact`).
"""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

from jaxtool.judges.lexer import SHORT_WORDS, Unreadable

_MAX_DIGITS = 1000
_MAX_EXPONENT = 2000
_INTERVALS = {"": "[]", "Ropen": "[)", "Lopen": "(]", "open": "()"}
_OF_TWO = {
    "Add": "add",
    "Mul": "mul",
    "Pow": "pow",
    "Fraction": "div",
    "Rational": "div",
    "Eq": "chain",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A part of an answer. `kind` says which, `args` are its parts, `value` what is not a part."""

    kind: str
    args: tuple["Node", ...] = ()
    value: str | Fraction = ""
    literal: str = ""  # of a number, as it was written
    unit: str = ""  # behind it; not looked at, unless both sides have one

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        pending: list[Node] = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.args)


def number(literal: str) -> Node:
    """A number literal, exactly.

    Raises:
      Unreadable: more digits, or a larger exponent, than an answer has.
    """
    mantissa, _, exponent = literal.lower().partition("e")
    if len(mantissa) > _MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > _MAX_EXPONENT:
        raise Unreadable("a number too long")
    return Node(
        "number", value=Fraction(mantissa) * Fraction(10) ** int(exponent or 0), literal=literal
    )


def constant(name: str) -> Node:
    """A number with a name, a set with a name: pi, oo, R."""
    if name == "?":
        raise Unreadable("an undefined value")
    return Node("constant", value=name)


def matrix(rows: list[list[Node]]) -> Node:
    """A matrix; its value is its shape.

    Raises:
      Unreadable: rows of different lengths, or none.
    """
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise Unreadable("a matrix with rows of different lengths")
    return Node(
        "matrix", tuple(cell for row in rows for cell in row), f"{len(rows)}x{widths.pop()}"
    )


def of_python(name: str, args: list[Node]) -> Node:
    """What a Python object prints as its constructor's call.

    Raises:
      Unreadable: such a call is not known.
    """
    if len(args) == 1:
        return _of_one(name, args[0])
    two = tuple(args)
    if name in ("set", "frozenset", "FiniteSet"):
        return Node("set", two)
    if name in ("Tuple", "Point"):
        return Node("seq", two, "()")
    if name == "Union":
        return Node("union", two)
    if len(args) == 2 and name in _OF_TWO:
        kind = _OF_TWO[name]
        return Node(kind, two, "=" if kind == "chain" else "")
    if len(args) == 2 and name.startswith("Interval"):
        opening, closing = _INTERVALS[name.removeprefix("Interval")]
        opening = "(" if args[0].kind == "neg" and args[0].args[0].value == "oo" else opening
        return Node("seq", two, opening + (")" if args[1].value == "oo" else closing))
    raise Unreadable(f"{name} of {len(args)} values")


def _of_one(name: str, arg: Node) -> Node:
    inner = arg.args if arg.kind in ("seq", "set") else (arg,)
    if name in ("set", "frozenset", "FiniteSet"):
        return Node("set", inner)
    if name in ("Tuple", "Point"):
        return Node("seq", inner, "()")
    if name == "Abs":
        return Node("call", (arg,), "abs")
    if name.endswith("Matrix") and arg.kind == "seq":
        is_nested = all(row.kind == "seq" for row in inner)
        return matrix([list(row.args) if is_nested else [row] for row in inner])
    if name == "array" and arg.kind == "seq":
        return dataclasses.replace(arg, literal="python")
    return arg  # a type round one value


def signed(left: Node, kind: str, right: Node) -> Node:
    """left + right, - right (kind "sub") or ± right; a zero that only carries the sign is dropped."""
    if left.kind == "number" and left.value == 0 and left.literal == "0" and kind in ("add", "sub"):
        return right if kind == "add" else Node("neg", (right,))
    return (
        Node("add", (left, Node("neg", (right,)))) if kind == "sub" else Node(kind, (left, right))
    )


def letters(word: str) -> Node:
    """A product of letters, where the letters can be one: `xy`, `AB`; a word is none."""
    is_short = len(word) <= 3 and word.isascii() and (word.islower() or word.isupper())
    if not is_short or word.lower() in SHORT_WORDS:
        raise Unreadable("words")
    product = _letter(word[0])
    for character in word[1:]:
        product = Node("mul", (product, _letter(character)))
    return product


def _letter(character: str) -> Node:
    return constant(character) if character in ("i", "e") else Node("symbol", value=character)
