"""Forms of one answer: bare values, lists behind a plus-minus, intervals behind inequalities.

Not covered: whether two of them are equal (`comparison`).
"""

import dataclasses
import itertools
from collections.abc import Sequence

from jaxtool.judges import exact
from jaxtool.judges.nodes import Node


def bare(node: Node) -> Node:
    """Without what does not change a value: brackets, a list of one, degrees, the name in `x = 5`."""
    while True:
        if (
            node.kind in ("bracket", "degree")
            or (node.kind == "seq" and len(node.args) == 1)
            or (node.kind == "set" and len(node.args) == 1)
            or (node.kind == "matrix" and len(node.args) == 1)
        ):
            node = dataclasses.replace(node.args[0], unit=node.args[0].unit or node.unit)
        elif node.kind == "neg" and node.args[0].kind in ("degree", "bracket"):
            node = dataclasses.replace(node, args=(bare(node.args[0]),))
        elif node.kind == "set" and not node.args:
            return Node("constant", value="empty")
        else:
            return node


def is_plain_number(node: Node) -> bool:
    """Whether it is a number, not a calculation: 5, -1/2, 1 1/4, 1 + 1/4, 1.5*10^3, 10^6."""
    node = bare(node)
    match node.kind:
        case "number":
            return True
        case "neg" | "percent":
            return node.args[0].kind != "neg" and is_plain_number(node.args[0])
        case "div":
            return all(_is_whole(side) for side in node.args)
        case "add":
            whole, part = node.args
            return _is_whole(whole) and part.kind == "div" and _is_proper(part)
        case "mul":
            return node.args[0].kind == "number" and _is_power_of_ten(node.args[1])
        case _:
            return _is_power_of_ten(node)


def _is_whole(node: Node) -> bool:
    if node.kind == "neg":
        node = node.args[0]
    return node.kind == "number" and node.literal.isdigit()


def _is_proper(node: Node) -> bool:
    over, under = node.args
    if not (_is_whole(over) and _is_whole(under)):
        return False
    values = exact.exact_value(over), exact.exact_value(under)
    return values[0] is not None and values[1] is not None and 0 < values[0] < values[1]


def _is_power_of_ten(node: Node) -> bool:
    return (
        node.kind == "pow"
        and node.args[0].kind == "number"
        and node.args[0].value == 10
        and _is_whole(bare(node.args[1]))
    )


def difference(node: Node) -> Node:
    """left - right, for `>` the other way round: then `<` and `<=` are all there is."""
    left, right = node.args if node.value not in (">", ">=") else reversed(node.args)
    return Node("add", (left, Node("neg", (right,))))


def turned(node: Node) -> str:
    return str(node.value).replace(">", "<")


def is_assignment(node: Node) -> bool:
    return len(node.args) == 2 and node.value == "=" and is_named(node)


def is_named(node: Node) -> bool:
    """Whether the first side is a name: a lone symbol, f(x), f(3), P(A), a segment AB."""
    name = node.args[0]
    if name.kind == "seq":  # (x, y) = (3, 4)
        return all(part.kind == "symbol" for part in name.args)
    if name.kind != "mul":
        return name.kind == "symbol"
    first, second = name.args
    if second.kind == "bracket":
        is_function = first.kind == "symbol" and first.value in ("f", "g", "h", "P", "F")
        return is_function or all(part.kind == "symbol" for part in (first, second.args[0]))
    return all(part.kind == "symbol" and str(part.value).isupper() for part in name.args)


def members(found: Node, expected: Node) -> Sequence[Node]:
    """What an answer lists, to be compared with a list or a set in any order."""
    if found.kind in ("list", "set"):
        return found.args
    if (
        found.kind == "chain"
        and found.value == "="
        and is_named(found)
        and found.args[1].kind == "set"
    ):
        return expanded(found.args[1]).args
    is_python = found.kind == "seq" and found.value in ("[]", "()")
    if is_python and (
        expected.kind == "list" or (found.value == "[]" and found.literal == "python")
    ):
        return found.args
    return (found,)


def expanded(node: Node) -> Node:
    """A plus-minus becomes the list of its two values, alone or inside a list."""
    if node.kind in ("list", "set"):
        members: list[Node] = []
        for member in node.args:
            inner = expanded(member)
            members += inner.args if inner is not member and inner.kind == "list" else [member]
        return dataclasses.replace(node, args=tuple(members))
    if node.kind == "chain" and is_assignment(node):
        inner = expanded(node.args[1])
        if inner is not node.args[1] and inner.kind == "list":
            sides = [dataclasses.replace(node, args=(node.args[0], side)) for side in inner.args]
            return Node("list", tuple(sides))
        return node
    if not any(part.kind in ("pm", "mp") for part in node.walk()) or node.kind in (
        "seq",
        "matrix",
        "chain",
    ):
        return node
    return Node("list", (_with_sign(node, 1), _with_sign(node, -1)))


def _with_sign(node: Node, sign: int) -> Node:
    args = tuple(_with_sign(arg, sign) for arg in node.args)
    if node.kind in ("pm", "mp"):
        is_minus = (node.kind == "pm") == (sign < 0)
        signed = Node("neg", (args[1],)) if is_minus else args[1]
        return signed if args[0].value == 0 else Node("add", (args[0], signed))
    return dataclasses.replace(node, args=args) if args else node


def infinity(node: Node) -> int:
    """1, -1, or 0 if it is not infinite."""
    if node.kind == "neg":
        return -infinity(bare(node.args[0]))
    return int(node.kind == "constant" and node.value == "oo")


def intervals(node: Node) -> list[Node] | None:
    """A set of reals as intervals; None: it is none. Inequalities name one symbol: -2 <= x < 7."""
    if node.kind == "seq":
        return [node] if len(node.args) == 2 else None
    if node.kind == "constant" and node.value == "R":
        return [_interval("(", _minus(_OO), _OO, ")")]
    if node.kind in ("union", "list"):
        is_union = node.kind == "union"
        parts = [
            _points(part) if is_union and part.kind in ("set", "number") else intervals(bare(part))
            for part in node.args
        ]
        known = [part for part in parts if part is not None]
        return list(itertools.chain(*known)) if len(known) == len(parts) else None
    if node.kind != "chain":
        return None
    if node.value == "in":
        return intervals(bare(node.args[1])) if is_named(node) else None
    return _inequality(node)


def _points(node: Node) -> list[Node]:
    """A finite set as intervals of one point each; Python's {3} is read as a number in a group."""
    return [_interval("[", member, member, "]") for member in node.args or (node,)]


def _inequality(node: Node) -> list[Node] | None:
    relations = str(node.value).split()
    sides = list(node.args)
    if len(sides) == 3 and sides[1].kind == "symbol":
        if all(r in (">", ">=") for r in relations):
            sides.reverse()
            relations = [r.replace(">", "<") for r in reversed(relations)]
        if not all(r in ("<", "<=") for r in relations):
            return None
        opening, closing = (
            "[" if relations[0] == "<=" else "(",
            "]" if relations[1] == "<=" else ")",
        )
        return [_interval(opening, sides[0], sides[2], closing)]
    if len(sides) != 2 or relations[0] in ("=", "in"):
        return None
    relation = relations[0]
    if sides[1].kind == "symbol" and sides[0].kind != "symbol":
        sides.reverse()
        relation = relation.translate(str.maketrans("<>", "><"))
    if sides[0].kind != "symbol" or exact.symbols_of(sides[1]):
        return None
    bound = sides[1]
    if relation == "!=":
        return [_interval("(", _minus(_OO), bound, ")"), _interval("(", bound, _OO, ")")]
    closed = "=" in relation
    if relation[0] == "<":
        return [_interval("(", _minus(_OO), bound, "]" if closed else ")")]
    return [_interval("[" if closed else "(", bound, _OO, ")")]


_OO = Node("constant", value="oo")


def _minus(node: Node) -> Node:
    return Node("neg", (node,))


def _interval(opening: str, low: Node, high: Node, closing: str) -> Node:
    return Node("seq", (low, high), opening + closing)
