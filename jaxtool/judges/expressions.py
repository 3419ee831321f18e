"""Reads an answer: a small grammar of numbers, formulas, lists, intervals, matrices and relations.

It reads LaTeX and what Python and sympy print. Everything else is `Unreadable`: a guess would accept
wrong answers. Not covered: what is equal to what (`comparison`), values (`exact`).

    12 cm          number 12, unit cm
    x = 1, 2       list of (x = 1) and 2
    [2, 5)         seq "[" ")" of 2 and 5
    1 1/4          sum of 1 and 1/4
"""

import dataclasses

from jaxtool.judges.lexer import Token, Unreadable, split_items, tokens_of
from jaxtool.judges.nodes import Node
from jaxtool.judges.parser import Parser
from jaxtool.judges.units import is_label_word, split_unit

_ABOUT = ("\\approx", "\\sim", "about", "approximately", "approx", "roughly")
_MAX_NODE_DEPTH = 120  # a sum of n terms is as deep; what reads it is recursive


def read(text: str, *, has_thousands: bool = True, takes_letters: bool = False) -> Node:
    """The answer in a cleaned text.

    Args:
      has_thousands: whether 1,234 outside brackets is one number.
      takes_letters: whether the m of `12 m` is a unit.

    Raises:
      Unreadable: it is not in the grammar, or too long or nested.
    """
    items = [
        _read_item(tokens, takes_letters)
        for tokens in split_items(tokens_of(text, has_thousands=has_thousands))
    ]
    if not items:
        raise Unreadable("empty")
    return items[0] if len(items) == 1 else Node("list", tuple(items))


def _read_item(tokens: list[Token], takes_letters: bool) -> Node:
    tokens, unit = split_unit(_without_label(tokens), takes_letters=takes_letters)
    node = Parser(tokens).whole()
    if _depth(node) > _MAX_NODE_DEPTH:
        raise Unreadable("too long")
    if unit == "percent":
        return Node("percent", (node,))
    return dataclasses.replace(node, unit=unit) if unit else node


def _without_label(tokens: list[Token]) -> list[Token]:
    """Without `about` and the sign for it, and without a label in words: `Total: 12`, `Area = 12`."""
    at = 0
    while (
        at < len(tokens) and tokens[at].kind in ("word", "text") and is_label_word(tokens[at].value)
    ):
        at += 1
    is_closed = at > 0 and tokens[at - 1].value.endswith((":", "="))
    if at and (is_closed or (at < len(tokens) and tokens[at].value in (":", "="))):
        tokens = tokens[at + (not is_closed) :]
    while tokens and tokens[0].value.lower() in _ABOUT:
        tokens = tokens[1:]
    return tokens


def _depth(node: Node) -> int:
    level, depth = [node], 0
    while level:
        level = [arg for node in level for arg in node.args]
        depth += 1
    return depth
