"""The parser of one item of an answer: recursive descent over its tokens.

Not covered: lists without brackets and units (`expressions`).
"""

import re
from fractions import Fraction

from jaxtool.judges.cursor import Cursor
from jaxtool.judges.lexer import (
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    PYTHON_CALLS,
    Token,
    Unreadable,
)
from jaxtool.judges.nodes import Node, constant, letters, matrix, number, of_python, signed

_MAX_DEPTH = 30

_RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", ":": "=",
    "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=",
    "\\lt": "<", "\\gt": ">", "\\ne": "!=", "\\neq": "!=", "\\in": "in", "\\approx": "=",
}  # fmt: skip
_TIMES = {"*", "\\cdot", "\\times", "\\ast"}
_OVER = {"/", "\\div"}
_SIGNS = {"+": "add", "-": "sub", "\\pm": "pm", "\\mp": "mp"}


class Parser(Cursor):
    """Reads one item; the methods follow the grammar from relations down to numbers and names."""

    def whole(self) -> Node:
        node = self._relation()
        if self._at < len(self._tokens):
            raise Unreadable(f"{self._tokens[self._at].value!r} where nothing was expected")
        return node

    def _relation(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("too deep")
        sides, relations = [self._union()], []
        while self._peek().kind != "end" and self._peek().value in _RELATIONS:
            relations.append(_RELATIONS[self._next().value])
            sides.append(self._union())
        self._depth -= 1
        return Node("chain", tuple(sides), " ".join(relations)) if relations else sides[0]

    def _union(self) -> Node:
        parts = [self._sum()]
        while self._take("\\cup"):
            parts.append(self._sum())
        return Node("union", tuple(parts)) if len(parts) > 1 else parts[0]

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("too deep")
        if self._peek().value in _SIGNS and self._peek().kind != "end":
            zero = Node("number", value=Fraction(0), literal="0")
            total = signed(zero, _SIGNS[self._next().value], self._term())
        else:
            total = self._term()
        while self._peek().value in _SIGNS:
            total = signed(total, _SIGNS[self._next().value], self._term())
        self._depth -= 1
        return total

    def _term(self) -> Node:
        product = self._factor()
        while True:
            before = self._tokens[self._at - 1]
            if (self._peek().kind == "sign" and self._peek().value in _TIMES) or self._take_times():
                self._take(*_TIMES)
                product = Node("mul", (product, self._factor()))
            elif self._take(*_OVER):
                product = Node("div", (product, self._factor()))
            elif self._starts_factor():
                product = self._beside(product, before)
            else:
                return product

    def _take_times(self) -> bool:
        return self._peek().kind == "command" and self._peek().value in _TIMES

    def _starts_factor(self) -> bool:
        token = self._peek()
        if token.kind in ("number", "name", "word"):
            return True
        if token.kind == "command":
            name = token.value[1:]
            return (
                name in FUNCTIONS
                or name in CONSTANTS
                or name in GREEK
                or name in ("frac", "{", "mathbb")
            )
        return token.kind == "sign" and token.value in ("(", "{")

    def _beside(self, product: Node, before: Token) -> Node:
        """Two factors side by side: a mixed number, or a product. Two numbers are neither."""
        token = self._peek()
        is_integer = product.kind == "number" and product.literal.isdigit()
        if is_integer and before.kind == "number":
            part = self._proper_fraction()
            if part is not None:
                return Node("add", (product, part))
        if token.kind == "number" and before.value != "!":
            raise Unreadable("two numbers side by side")
        return Node("mul", (product, self._power()))

    def _proper_fraction(self) -> Node | None:
        """A fraction of two whole numbers that is next, 3/4 or \\frac{3}{4}; None: something else is."""
        start = self._at
        if self._take("\\frac"):
            part = self._fraction()
        elif self._peek().kind == "number" and self._peek(1).value == "/":
            part = Node("div", (number(self._next().value), self._denominator()))
        else:
            return None
        over, under = part.args
        if all(side.kind == "number" and side.literal.isdigit() for side in part.args):
            assert isinstance(over.value, Fraction)
            assert isinstance(under.value, Fraction)
            if over.value < under.value and self._peek().value not in ("^", "!"):
                return part
        self._at = start
        return None

    def _denominator(self) -> Node:
        self._next()
        token = self._next()
        return number(token.value) if token.kind == "number" else Node("other")

    def _factor(self) -> Node:
        """A power behind one sign at most, as in 2*-3."""
        is_negative = self._take("-")
        if not is_negative:
            self._take("+")
        power = self._power()
        return Node("neg", (power,)) if is_negative else power

    def _power(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("too deep")
        base = self._primary()
        while True:
            if self._peek().value == "^" and self._peek().kind == "sign":
                self._next()
                if self._take("\\circ"):
                    base = Node("degree", (base,))
                    continue
                if self._peek().value == "{" and self._peek(1).value == "\\circ":
                    self._at += 2
                    self._expect("}")
                    base = Node("degree", (base,))
                    continue
                base = Node("pow", (base, self._factor()))
            elif self._take("!"):
                base = Node("call", (base,), "factorial")
            elif self._take("%"):
                base = Node("percent", (base,))
            else:
                self._depth -= 1
                return base

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "number":
            return self._numeral(token.value)
        if token.kind == "name":
            return self._name(token.value)
        if token.kind == "word":
            return letters(token.value)
        if token.kind == "command":
            return self._command(token.value)
        if token.value in ("(", "["):
            return self._sequence(token.value)
        if token.value == "{":
            return self._group()
        if token.value == "|":
            inner = self._sum()
            self._expect("|")
            return Node("call", (inner,), "abs")
        raise Unreadable(f"{token.value!r} at the wrong place" if token.value else "it breaks off")

    def _numeral(self, literal: str) -> Node:
        if self._peek().value != "_":
            return number(literal)
        self._next()
        base = self._subscript()
        if not (base.isdigit() and literal.isdigit()):
            raise Unreadable("a number with an index")
        return Node("numeral", value=f"{literal.lstrip('0') or '0'}_{base}")

    def _name(self, name: str) -> Node:
        if name in CONSTANTS:
            return constant(CONSTANTS[name])
        if name in PYTHON_CALLS:
            return self._python_call(name)
        if name in FUNCTIONS:
            return self._function(name, is_latex=False)
        if name in ("i", "e") and self._peek().value != "_":
            return constant(name)
        following = self._peek()
        if following.value == "_":
            self._next()
            name = f"{name}_{self._subscript()}"
        elif following.kind == "number" and not following.is_spaced and following.value.isdigit():
            name = f"{name}_{self._next().value}"
        return Node("symbol", value=name)

    def _command(self, command: str) -> Node:
        name = command[1:]
        if name in _COMMANDS:
            return _COMMANDS[name](self)
        if name in CONSTANTS:
            return constant(CONSTANTS[name])
        if name in FUNCTIONS:
            return self._function(name, is_latex=True)
        if name in _BARS:
            closing, function = _BARS[name]
            inner = self._sum()
            self._expect(closing)
            return Node("call", (inner,), function)
        if name in GREEK:
            index = "_" + self._subscript() if self._take("_") else ""
            return Node("symbol", value=name.removeprefix("var") + index)
        raise Unreadable(f"the command {command}")

    def _fraction(self) -> Node:
        return Node("div", (self._argument(), self._argument()))

    def _binomial(self) -> Node:
        return Node("call", (self._argument(), self._argument()), "binomial")

    def _set(self) -> Node:
        return Node("set", tuple(self._items("\\}")))

    def _ellipsis(self) -> Node:
        return Node("symbol", value="...")

    def _number_set(self) -> Node:
        if self._subscript() != "R":
            raise Unreadable("a set of numbers")
        return constant("R")

    def _argument(self) -> Node:
        """An argument of a LaTeX command: a group, or one digit, letter or command."""
        if self._take("{"):
            return self._group()
        token = self._peek()
        if token.kind == "number" and len(token.value) > 1 and token.value.isdigit():
            self._tokens = self._tokens.copy()
            self._tokens[self._at : self._at + 1] = [
                Token("number", token.value[0], token.is_spaced),
                Token("number", token.value[1:], False),
            ]
        return self._primary()

    def _root(self) -> Node:
        degree = None
        if self._take("["):
            degree = self._sum()
            self._expect("]")
        if self._peek().value == "(":
            self._next()
            inner = self._sequence("(")
        else:
            inner = self._argument()
        return Node("call", (inner, degree) if degree else (inner,), "root" if degree else "sqrt")

    def _function(self, name: str, *, is_latex: bool) -> Node:
        power = base = None
        if name == "log" and self._take("_"):
            base = self._argument()
        if self._peek().value == "^" and is_latex:
            self._next()
            power = self._argument()
        if self._peek().value in ("(", "{"):
            bracket = self._next().value
            args = tuple(self._items(")" if bracket == "(" else "}"))
        else:
            args = (self._bare_argument(),)
        name = {"comb": "binomial", "binom": "binomial", "ceil": "ceiling", "lg": "log10"}.get(
            name, name
        )
        if name == "log" and base is None and len(args) == 1:
            name = "log?" if is_latex else "log"
        elif base is not None:
            args = (*args, base)
        call = Node(
            "call", args, name.removeprefix("arc") if not name.startswith("arc") else "a" + name[3:]
        )
        if power is None:
            return call
        if power.kind != "number" or power.value == -1:
            raise Unreadable("a function with an index")
        return Node("pow", (call, power))

    def _bare_argument(self) -> Node:
        """Of a function without brackets: the factors beside each other, up to a sign or a function."""
        product = self._power()
        while self._starts_factor() and self._peek().kind != "word":
            name = self._peek().value.lstrip("\\")
            if name in FUNCTIONS and name != "sqrt":
                break
            product = Node("mul", (product, self._power()))
        return product

    def _items(self, closing: str) -> list[Node]:
        """Relations up to the closing bracket, which is taken."""
        items: list[Node] = []
        while not self._take(closing):
            items.append(self._relation())
            if not self._take(",", ";"):
                self._expect(closing)
                break
        return items

    def _sequence(self, opening: str) -> Node:
        items: list[Node] = []
        while not self._take(")", "]"):
            items.append(self._relation())
            if not self._take(",", ";") and self._peek().value not in (")", "]"):
                raise Unreadable("a bracket is not closed")
        closing = self._tokens[self._at - 1].value
        if len(items) == 1 and opening + closing == "()" and items[0].kind != "chain":
            return Node("bracket", tuple(items))
        return Node("seq", tuple(items), opening + closing)

    def _group(self) -> Node:
        """Behind `{`: a group of LaTeX, or a set or a mapping of Python."""
        items = self._items("}")
        if len(items) == 1:
            return items[0]
        return Node("set", tuple(items))

    def _matrix(self) -> Node:
        name = self._subscript()
        if name == "array" and self._peek().value == "{":
            self._subscript()
        if not re.fullmatch(r"[pbBvV]?matrix|smallmatrix|array", name) or name[0] in "vV":
            raise Unreadable(f"the environment {name}")
        rows: list[list[Node]] = [[]]
        while not self._take("\\end"):
            rows[-1].append(self._sum())
            if self._take("\\\\"):
                rows.append([])
            elif not self._take("&") and self._peek().value != "\\end":
                raise Unreadable("a matrix that breaks off")
        self._subscript()
        return matrix([row for row in rows if row])

    def _python_call(self, name: str) -> Node:
        self._expect("(")
        args = self._items(")")
        return of_python(name, args)


_COMMANDS = {
    "frac": Parser._fraction, "sqrt": Parser._root, "begin": Parser._matrix, "{": Parser._set,
    "binom": Parser._binomial, "dbinom": Parser._binomial, "tbinom": Parser._binomial,
    "ldots": Parser._ellipsis, "dots": Parser._ellipsis, "cdots": Parser._ellipsis,
    "mathbb": Parser._number_set,
}  # fmt: skip
# What closes a pair of bars, and its function.
_BARS = {
    "lfloor": ("\\rfloor", "floor"),
    "lceil": ("\\rceil", "ceiling"),
    "lvert": ("\\rvert", "abs"),
    "|": ("\\|", "abs"),
}
