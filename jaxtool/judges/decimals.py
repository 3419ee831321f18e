"""Numbers with a point: floats as Python prints them, rounded references, percent signs.

Not covered: exact equality (`exact`).
"""

from fractions import Fraction

from jaxtool.judges import exact
from jaxtool.judges.nodes import Node

_FLOAT_DIGITS = 15  # a decimal with as many significant digits is a float as Python prints it
_FLOAT_TOLERANCE = 1e-9
_ZERO_TOLERANCE = 1e-12


def percent_readings(found: Node, expected: Node) -> list[tuple[Node, Node]]:
    """Percent signs are units, but for a reference between 0 and 1: there 10 % is 0.1."""
    a, b = _without_percent(found), _without_percent(expected)
    if (a is found) == (b is expected):
        return [(a, b)]
    hundred = Node("number", value=Fraction(100), literal="100")
    if b is not expected:  # 28 and 0.28 for 28 %
        return [(a, b), (a, Node("div", (b, hundred)))]
    value = exact.exact_value(expected)
    if value is not None and 0 < abs(value) < 1:
        return [(Node("div", (a, hundred)), b)]
    return [(a, b)]


def _without_percent(node: Node) -> Node:
    if node.kind == "percent":
        return node.args[0]
    if node.kind == "neg" and node.args[0].kind == "percent":
        return Node("neg", (node.args[0].args[0],))
    return node


def _significant(literal: str) -> int:
    return len(literal.lower().partition("e")[0].replace(".", "").lstrip("0"))


def is_float(node: Node) -> bool:
    """Whether a number is written as Python prints a float that is not a short decimal."""
    literal = node.literal.lower()
    if node.kind != "number" or not ("." in literal or "e" in literal):
        return False
    return _FLOAT_DIGITS <= _significant(literal) <= 17


def nearly_same(found: Node, expected: Node) -> bool:
    value = exact.exact_value(found)
    wanted = exact.exact_value(expected)
    if wanted == 0:
        return value is not None and abs(value) <= Fraction(_ZERO_TOLERANCE)
    if (
        wanted is not None
        and wanted.denominator == 1
        and value is not None
        and abs(value - wanted) > 1e-3
    ):
        return False
    return exact.close(found, expected, _FLOAT_TOLERANCE)


def rounds_to(found: Node, expected: Node) -> bool:
    """Whether a reference of six digits or more, five behind the point, is the answer rounded to them."""
    literal, sign = (expected.literal, 1)
    if expected.kind == "neg":
        literal, sign = expected.args[0].literal, -1
    places = len(literal.partition(".")[2])
    if not literal.replace(".", "").isdigit() or places < 5 or _significant(literal) < 6:
        return False
    value = exact.exact_value(found)
    if value is None:
        return False
    scaled = abs(value) * 10**places
    return value * sign > 0 and abs(scaled - Fraction(literal) * 10**places) * 2 <= 1
