"""The mathematical comparison: whether an answer says what a reference says. No process, no sympy.

The rules, with examples, are on docs/judging.md. Covered: numbers, words, choices, formulas, lists, sets,
tuples, intervals, inequalities, matrices, equations, units. Not covered: integrals, sums, limits and all
else that `expressions` cannot read; of these `compare` says that it does not know, or that they are wrong.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

from jaxtool.judges import exact, latex_clean, words
from jaxtool.judges.decimals import is_float, nearly_same, percent_readings, rounds_to
from jaxtool.judges.expressions import read
from jaxtool.judges.lexer import Unreadable
from jaxtool.judges.nodes import Node
from jaxtool.judges.structure import (
    bare,
    difference,
    expanded,
    infinity,
    intervals,
    is_assignment,
    is_named,
    is_plain_number,
    members,
    turned,
)

MAX_LENGTH = 1000  # characters of an answer; MATH's longest reference has 60
ROUNDED = "a rounded reference"
# As Python prints it, with a blank behind each comma: [1, 2] lists, [1,2] is an interval.
_PYTHON_LIST = re.compile(r"\[(?:[^\[\],]|, )*\]")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What a comparison says."""

    is_equal: bool | None  # None: it cannot tell, a computer algebra system may
    how: str


def compare(answer: str, reference: str, *, rounded_references: bool = True) -> Finding:
    """Whether the answer says what the reference says.

    Args:
      answer: untrusted; of any length.
      reference: from the data set.
      rounded_references: whether a reference of six digits or more may be a rounded one.
    """
    if len(answer) > MAX_LENGTH:
        return Finding(False, "too long")
    if not latex_clean.is_balanced(answer):
        return Finding(False, "unbalanced braces")
    cleaned, wanted = latex_clean.clean(answer), _cleaned_reference(reference)
    if not cleaned:
        return Finding(False, "no answer")
    if (letter := words.choice_of(wanted)) and words.is_chosen(cleaned, letter):
        return Finding(True, "the choice")
    expected = _read_reference(wanted)
    if words.is_clock(wanted) or (isinstance(expected, str) and _are_words(wanted)):
        return Finding(words.normal(cleaned) == words.normal(wanted), "words")
    if isinstance(expected, str):
        if cleaned.replace(" ", "") == wanted.replace(" ", ""):
            return Finding(True, "the same text")
        return Finding(None, f"the reference cannot be read: {expected}")
    return _against(cleaned, expected, rounded_references)


@functools.lru_cache(maxsize=4096)
def _cleaned_reference(reference: str) -> str:
    return latex_clean.clean(reference)


@functools.lru_cache(maxsize=4096)
def _read_reference(wanted: str) -> Node | str:
    """What a cleaned reference says, or why it cannot be read."""
    if words.only_letters(wanted):
        return "letters"
    try:
        return read(wanted)
    except Unreadable as error:
        return str(error)


def _are_words(wanted: str) -> bool:
    return words.only_letters(wanted) or words.are_words(wanted)


def _against(cleaned: str, expected: Node, rounded_references: bool) -> Finding:
    is_plain = is_plain_number(bare(expected))
    if words.is_clock(cleaned):
        return Finding(False, "a time or a ratio")
    cleaned = words.NUMERALS.get(words.plain(cleaned).lower(), cleaned) if is_plain else cleaned
    try:
        found = _read_answer(cleaned, expected, is_plain)
    except Unreadable as error:
        return Finding(False, f"unreadable: {error}")
    found = _with_names_of(found, expected)
    comparing = _Comparing(rounded_references)
    try:
        is_equal = comparing.same(found, expected)
    except Unreadable as error:
        return Finding(False, f"no value: {error}")
    return Finding(is_equal, comparing.how)


def _read_answer(cleaned: str, expected: Node, is_plain: bool) -> Node:
    """The answer, read in the way that fits the reference: is a comma a list's, a thousand's, a decimal's?"""
    if is_plain and re.fullmatch(r"[-+]?\d+,\d{1,2}|[-+]?\d+,\d{4,}", cleaned):
        value = exact.exact_value(bare(expected))
        if value is not None and value.denominator != 1:
            return read(cleaned.replace(",", "."))
    found = read(cleaned, takes_letters=is_plain)
    if found.kind == "seq" and found.value == "[]" and _PYTHON_LIST.fullmatch(cleaned):
        return dataclasses.replace(found, literal="python")
    if expected.kind in ("list", "set") and found.kind == "number" and "," in cleaned:
        return read(cleaned, has_thousands=False)
    return found


def _with_names_of(found: Node, expected: Node) -> Node:
    """sympy's E and I are e and i, unless the reference has symbols of these names."""
    renamed = {"E": "e", "I": "i"}.keys() - exact.symbols_of(expected)

    def walk(node: Node) -> Node:
        if node.kind == "symbol" and node.value in renamed:
            return Node("constant", value=str(node.value).lower())
        return dataclasses.replace(node, args=tuple(map(walk, node.args))) if node.args else node

    return walk(found) if renamed & exact.symbols_of(found) else found


def _may_name_the_same(found: Node, expected: Node) -> bool:
    """Whether two sets, of which one may name its variable, name one variable."""
    names = exact.symbols_of(found), exact.symbols_of(expected)
    return not all(names) or names[0] == names[1]


class _Comparing:
    """One comparison: an answer's node against a reference's. `how` says what decided."""

    def __init__(self, rounded_references: bool) -> None:
        self._rounded_references = rounded_references
        self.how = "formulas"

    def same(self, found: Node, expected: Node) -> bool:
        """Whether they say the same.

        Raises:
          Unreadable: a part has no value, or costs too much.
        """
        if found.unit and expected.unit and found.unit != expected.unit:
            self.how = f"another unit: {found.unit}, not {expected.unit}"
            return False
        found, expected = expanded(bare(found)), expanded(bare(expected))
        for of_kind in (self._as_set, self._as_relation, self._as_sequence):
            verdict = of_kind(found, expected)
            if verdict is not None:
                return verdict
        return self._same_scalar(found, expected)

    # Sets, lists, unions ---------------------------------------------------------------------------

    def _as_set(self, found: Node, expected: Node) -> bool | None:
        """Where the order does not count. None: neither is such a thing."""
        left, right = intervals(found), intervals(expected)
        is_ray = any(
            node.kind in ("union", "chain") or node.value == "R" for node in (found, expected)
        )
        if left is not None and right is not None and is_ray:
            if not _may_name_the_same(found, expected):
                return False
            self.how = "intervals"
            return self._matched(left, right)
        if expected.kind == "chain" and expected.value == "in":
            return self.same(found, expected.args[1])
        if found.kind == "chain" and found.value == "in":
            return is_named(found) and self.same(found.args[1], expected)
        if expected.kind not in ("list", "set"):
            return False if found.kind in ("list", "set") else None
        self.how = "lists"
        return self._matched(members(found, expected), expected.args)

    def _matched(self, found: Sequence[Node], expected: Sequence[Node]) -> bool:
        """Whether each has its partner, in any order; members said twice count once."""
        if len(found) > 2 * len(expected) + 2:
            return False
        if any(node.value == "..." for node in (*found, *expected)):
            return self._all_same(found, expected)
        rest = list(expected)
        for node in found:
            partner = next((other for other in rest if self._quietly_same(node, other)), None)
            if partner is None:
                if not any(self._quietly_same(node, other) for other in expected):
                    return False
                continue
            rest.remove(partner)
        return all(any(self._quietly_same(node, other) for node in found) for other in rest)

    def _quietly_same(self, found: Node, expected: Node) -> bool:
        try:
            return self.same(found, expected)
        except Unreadable:
            return False

    def _all_same(self, found: Sequence[Node], expected: Sequence[Node]) -> bool:
        return len(found) == len(expected) and all(map(self.same, found, expected))

    # Equations and inequalities --------------------------------------------------------------------

    def _as_relation(self, found: Node, expected: Node) -> bool | None:
        if expected.kind == "chain" and found.kind == "chain":
            return self._same_relation(found, expected)
        if expected.kind == "chain":
            return is_assignment(expected) and self.same(found, expected.args[-1])
        if found.kind == "chain":
            return self._answers(found, expected)
        return None

    def _answers(self, found: Node, expected: Node) -> bool:
        """x = 5, or 2 + 3 = 5, for 5: each side must agree with each, but for a name in front."""
        if set(str(found.value).split()) != {"="}:
            return False
        sides = found.args[1:] if is_named(found) else found.args
        self.how = "a chain of equalities"
        return all(
            exact.same_value(bare(side), bare(sides[-1])) for side in sides[:-1]
        ) and self.same(sides[-1], expected)

    def _same_relation(self, found: Node, expected: Node) -> bool:
        self.how = "equations"
        if is_assignment(found) and is_assignment(expected):
            both_named = found.args[0] == expected.args[0]
            is_constant = not exact.symbols_of(expected.args[-1])
            if both_named or is_constant:
                return both_named and self.same(found.args[-1], expected.args[-1])
        if len(found.args) != 2 or len(expected.args) != 2:
            return found.value == expected.value and self._all_same(found.args, expected.args)
        if exact.symbols_of(found) != exact.symbols_of(expected):
            return False
        (left, right), (relation, wanted) = (
            map(difference, (found, expected)),
            map(turned, (found, expected)),
        )
        if relation != wanted:
            return False
        return exact.same_up_to_a_factor(left, right, is_positive=relation not in ("=", "!="))

    # Tuples, intervals, matrices -------------------------------------------------------------------

    def _as_sequence(self, found: Node, expected: Node) -> bool | None:
        kinds = {"seq", "matrix"}
        if found.kind not in kinds and expected.kind not in kinds:
            return None
        self.how = "sequences"
        if found.kind == expected.kind:
            is_vector = found.kind == "seq" and len(found.args) != 2 and found.value in ("()", "[]")
            same_shape = found.value == expected.value or (
                is_vector and expected.value in ("()", "[]")
            )
            return same_shape and self._all_same(found.args, expected.args)
        matrix, other = (found, expected) if found.kind == "matrix" else (expected, found)
        if other.kind != "seq" or other.value not in ("()", "[]"):
            return False
        if "1" in str(matrix.value).split("x"):
            cells = [bare(cell) for cell in other.args] if expected is matrix else other.args
            pair = (matrix.args, cells) if found is matrix else (cells, matrix.args)
            return self._all_same(*pair)
        rows = [node.args for node in other.args if node.kind == "seq"]
        shape = f"{len(other.args)}x{len(rows[0]) if rows else 0}"
        if (
            len(rows) != len(other.args)
            or len({len(row) for row in rows}) != 1
            or shape != matrix.value
        ):
            return False
        flat = [cell for row in rows for cell in row]
        return self._all_same(*((matrix.args, flat) if found is matrix else (flat, matrix.args)))

    # Values ----------------------------------------------------------------------------------------

    def _same_scalar(self, found: Node, expected: Node) -> bool:
        if expected.kind == "numeral" or found.kind == "numeral":
            return self._same_numeral(found, expected)
        infinite = infinity(found), infinity(expected)
        if any(infinite):
            return infinite[0] == infinite[1]
        if found.kind == "constant" and expected.kind == "constant":
            return found.value == expected.value
        is_plain = is_plain_number(expected)
        if is_plain and not is_plain_number(found):
            self.how = "a calculation, or no number, where a number is asked"
            return False
        self.how = "numbers" if is_plain else "formulas"
        readings = percent_readings(found, expected)
        return any(self._same_number(a, b) for a, b in readings)

    def _same_numeral(self, found: Node, expected: Node) -> bool:
        """Numbers in a base: the digits and the base; a base that is not said is the reference's."""
        self.how = "a number in a base"
        if expected.kind != "numeral":
            digits, _, base = str(found.value).partition("_")
            return base == "10" and self.same(read(digits), expected)
        if found.kind == "numeral":
            return found.value == expected.value
        return (
            found.kind == "number"
            and found.literal.lstrip("0") == str(expected.value).partition("_")[0]
        )

    def _same_number(self, found: Node, expected: Node) -> bool:
        if exact.same_value(found, expected):
            return True
        if exact.symbols_of(found) or exact.symbols_of(expected):
            return False
        if any(is_float(part) for part in found.walk()) and nearly_same(found, expected):
            self.how = "a float as Python prints it"
            return True
        if self._rounded_references and rounds_to(found, expected):
            self.how = ROUNDED
            return True
        return False
