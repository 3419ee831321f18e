"""Whether two formulas have one value. Nothing is decided by rounding to the precision of floats.

Two ways, each of bounded cost:
1. Formulas of numbers, symbols, + - * / and whole powers: both sides modulo three primes of 127 bits, each
   symbol a fixed residue. Different residues prove that they differ; equal ones would deceive with a chance
   under 2^-300. Powers with a million digits cost nothing: 2^70+1 over 2^71 is not 1 over 2^71.
2. With roots, pi, logarithms, sines: at four points (symbols become fixed numbers, of both signs), with as
   many digits as the sizes of all intermediate values span, and 256 bits beyond. The sides are equal if they
   agree to 128 bits below the smallest intermediate value. Nothing that is added is ever chopped.

Not covered: lists, relations, units (`comparison`); what is written (`expressions`).
"""

import functools
import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from mpmath.ctx_mp import MPContext

from jaxtool.judges.lexer import Unreadable
from jaxtool.judges.nodes import Node

# Drawn at random once. Mersenne primes would make 2^127 equal to 1.
_PRIMES = (
    113180632001902347190249878172869464731,
    169466884663314510550480017623412173761,
    97445695253273421191763045039723685039,
)
_MAX_FACTORIAL = 5000
_MAX_EXPONENT = 10**6  # of a numeric power
_MAX_SIZE_BITS = 20_000  # of an intermediate value in the second way
_MAX_EXACT_BITS = 20_000  # of a fraction
_MAX_NODES = 500
_MAX_WORK = 600.0  # functions at one point; one at 256 bits is 1 and takes some 50 microseconds
_FLOOR_BITS = 128
_POINTS = 4


class Undefined(Unreadable):
    """A division by zero, the logarithm of zero."""


class _NotModular(Exception):
    """A part of a formula has no residue: the second way decides."""


def symbols_of(node: Node) -> frozenset[str]:
    """The names of a formula's symbols."""
    return frozenset(str(part.value) for part in node.walk() if part.kind == "symbol")


def same_value(left: Node, right: Node) -> bool:
    """Whether two formulas have one value wherever both are defined.

    Raises:
      Unreadable: a side has no value, or one that costs too much.
    """
    _check_size(left, right)
    try:
        return all(_residue(left, p) == _residue(right, p) for p in _PRIMES)
    except _NotModular:
        return all(_agree(left, right, point) for point in range(_points(left, right)))


def same_up_to_a_factor(left: Node, right: Node, *, is_positive: bool) -> bool:
    """Whether left = c right with one real number c that is not zero, nor negative if that is asked."""
    _check_size(left, right)
    ratios = [_Numeric(point, 400).ratio(left, right) for point in range(_POINTS)]
    first = ratios[0]
    if first is None or first == 0 or abs(first.imag) > abs(first) * 2.0**-200:
        return False
    if is_positive and first.real < 0:
        return False
    return all(r is not None and abs(r - first) <= abs(first) * 2.0**-200 for r in ratios)


def close(left: Node, right: Node, relative: float) -> bool:
    """Whether two constants are equal up to a relative error, for decimals as Python prints them."""
    _check_size(left, right)
    numeric = _Numeric(0, 256)
    a, b = numeric.value(left), numeric.value(right)
    return bool(abs(a - b) <= relative * abs(b))


def real_value(node: Node) -> Any:
    """A real constant with 256 bits.

    Raises:
      Unreadable: it has symbols, or is not real.
    """
    _check_size(node)
    if symbols_of(node):
        raise Unreadable("a symbol where a number was expected")
    value = _Numeric(0, 256).value(node)
    if abs(value.imag) > abs(value) * 2.0**-200:
        raise Unreadable("not real")
    return value.real


def exact_value(node: Node) -> Fraction | None:
    """A constant of numbers and + - * / as a fraction; None if it is not one, or a very long one."""
    value = _exact_value(node)
    if (
        value is None
        or value.numerator.bit_length() + value.denominator.bit_length() > _MAX_EXACT_BITS
    ):
        return None
    return value


def _exact_value(node: Node) -> Fraction | None:
    match node.kind:
        case "number":
            assert isinstance(node.value, Fraction)
            return node.value
        case "neg" | "bracket":
            value = exact_value(node.args[0])
            return value if value is None or node.kind == "bracket" else -value
        case "add" | "mul" | "div":
            left, right = map(exact_value, node.args)
            if left is None or right is None or (node.kind == "div" and right == 0):
                return None
            return {"add": left.__add__, "mul": left.__mul__, "div": left.__truediv__}[node.kind](
                right
            )
        case "pow":
            base, exponent = map(exact_value, node.args)
            if base is None or exponent is None or exponent.denominator != 1:
                return None
            size = max(base.numerator.bit_length(), base.denominator.bit_length())
            if (base == 0 and exponent <= 0) or abs(exponent) * size > _MAX_EXACT_BITS:
                return None
            return base ** int(exponent)
        case _:
            return None


def _check_size(*nodes: Node) -> None:
    if sum(1 for node in nodes for _ in node.walk()) > _MAX_NODES:
        raise Unreadable("too long")


def _points(left: Node, right: Node) -> int:
    return _POINTS if symbols_of(left) | symbols_of(right) else 1


def _whole(node: Node, limit: int) -> int | None:
    """A whole number that a node is, up to a limit of size; None otherwise."""
    value = exact_value(node)
    if value is None or value.denominator != 1 or abs(value) > limit:
        return None
    return int(value)


def _hash_of(name: str, salt: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{salt} {name}".encode(), digest_size=15).digest())


def _residue(node: Node, prime: int) -> int:
    """The value modulo a prime.

    Raises:
      _NotModular: it has a part that is not a rational function.
      Undefined: a denominator is zero.
    """
    match node.kind:
        case "number":
            assert isinstance(node.value, Fraction)
            return node.value.numerator * _inverse(node.value.denominator, prime) % prime
        case "symbol":
            return _hash_of(str(node.value), str(prime)) % prime
        case "neg":
            return -_residue(node.args[0], prime) % prime
        case "bracket":
            return _residue(node.args[0], prime)
        case "add":
            return (_residue(node.args[0], prime) + _residue(node.args[1], prime)) % prime
        case "mul":
            return _residue(node.args[0], prime) * _residue(node.args[1], prime) % prime
        case "div":
            return (
                _residue(node.args[0], prime)
                * _inverse(_residue(node.args[1], prime), prime)
                % prime
            )
        case "pow":
            exponent = _whole(node.args[1], 10**1000)
            if exponent is None:
                raise _NotModular
            base = _residue(node.args[0], prime)
            if base == 0 and exponent <= 0:
                raise Undefined("zero to the power of zero or less")
            return pow(base, exponent, prime)
        case "call" if node.value in ("factorial", "binomial") and not symbols_of(node):
            return _counted(node) % prime
        case _:
            raise _NotModular


def _inverse(value: int, prime: int) -> int:
    if value % prime == 0:
        raise Undefined("a division by zero")
    return pow(value, -1, prime)


@functools.lru_cache(maxsize=64)
def _factorial(n: int) -> int:
    return math.factorial(n)


def _counted(node: Node) -> int:
    """A factorial or a binomial coefficient of whole numbers."""
    values = [_whole(arg, _MAX_FACTORIAL) for arg in node.args]
    if any(value is None or value < 0 for value in values):
        raise Unreadable(f"a {node.value} of no whole number up to {_MAX_FACTORIAL}")
    whole = [value for value in values if value is not None]
    if len(whole) != (1 if node.value == "factorial" else 2):
        raise Unreadable(f"{node.value} of {len(whole)} values")
    return _factorial(whole[0]) if node.value == "factorial" else math.comb(*whole)


def _agree(left: Node, right: Node, point: int) -> bool:
    """The second way of the module, at one point."""
    first = _Numeric(point, 256)
    first.value(left)
    first.value(right)
    numeric = _Numeric(point, 256 + first.largest - first.smallest)
    difference = abs(numeric.value(left) - numeric.value(right))
    return bool(difference <= numeric.context.ldexp(1, first.smallest - _FLOOR_BITS))


class _Numeric:
    """Values of formulas at one point, with a number of bits; keeps the sizes that it met."""

    def __init__(self, point: int, bits: int) -> None:
        if bits > _MAX_SIZE_BITS:
            raise Unreadable("numbers too far apart")
        self.context = MPContext()
        self.context.prec = bits
        self._point = point
        self.largest, self.smallest = 1, 0  # sizes as powers of two, of all values met
        self._work = 0.0

    def ratio(self, left: Node, right: Node) -> Any:
        """left / right here; None where right vanishes."""
        under = self.value(right)
        return None if under == 0 else self.value(left) / under

    def value(self, node: Node) -> Any:
        """The value as a complex number of mpmath.

        Raises:
          Unreadable: there is none, or it is too large.
        """
        try:
            value = self.context.mpc(self._value(node))
        except (ZeroDivisionError, ValueError, OverflowError) as error:
            raise Undefined(str(error) or type(error).__name__) from error
        if value != 0:
            if not self.context.isfinite(value):
                raise Undefined("an infinite value")
            size = int(self.context.mag(value))
            if abs(size) > _MAX_SIZE_BITS:
                raise Unreadable("a number too large")
            self.largest, self.smallest = max(self.largest, size), min(self.smallest, size)
        return value

    def _value(self, node: Node) -> Any:
        context = self.context
        match node.kind:
            case "number":
                assert isinstance(node.value, Fraction)
                return context.mpf(node.value.numerator) / node.value.denominator
            case "symbol":
                return self._symbol(str(node.value))
            case "constant":
                return self._constant(str(node.value))
            case "call":
                return self._call(node)
            case "pow":
                return self._power(node)
            case "neg":
                return -self.value(node.args[0])
            case "bracket":
                return self.value(node.args[0])
            case "degree":
                return self.value(node.args[0]) * context.pi / 180
            case "add":
                return self.value(node.args[0]) + self.value(node.args[1])
            case "mul":
                return self.value(node.args[0]) * self.value(node.args[1])
            case "div":
                return self.value(node.args[0]) / self.value(node.args[1])
            case _:
                raise Unreadable(f"a {node.kind} inside a formula")

    def _spend(self, work: float) -> None:
        self._work += work * max(1.0, self.context.prec / 256) ** 1.5
        if self._work > _MAX_WORK:
            raise Unreadable("it costs too much")

    def _symbol(self, name: str) -> Any:
        """A fixed number of 120 bits: between 1/2 and 2 at two points, negative at the others."""
        share = self.context.ldexp(_hash_of(name, f"point {self._point // 2}"), -120)
        size = self.context.mpf("0.5") + share * 3 / 2
        is_negative = self._point % 2 and (self._point == 1 or _hash_of(name, "sign") % 2)
        return -size if is_negative else size

    def _constant(self, name: str) -> Any:
        match name:
            case "pi":
                return self.context.pi + 0
            case "e":
                return self.context.e + 0
            case "i":
                return self.context.mpc(0, 1)
            case _:
                raise Unreadable(f"{name} inside a formula")

    def _power(self, node: Node) -> Any:
        base = self.value(node.args[0])
        exponent = self.value(node.args[1])
        if base == 0:
            if exponent.real <= 0:
                raise Undefined("zero to the power of zero or less")
            return self.context.mpf(0)
        if abs(exponent) > _MAX_EXPONENT:
            raise Unreadable("an exponent too large")
        if abs(exponent) * (abs(self.context.mag(base)) + 1) > _MAX_SIZE_BITS:
            raise Unreadable("a power too large")
        whole = _whole(node.args[1], _MAX_EXPONENT)
        self._spend(1.0)
        return base**whole if whole is not None else base**exponent

    def _call(self, node: Node) -> Any:
        name, context = str(node.value), self.context
        if name in ("factorial", "binomial") and not symbols_of(node):
            return context.mpf(_counted(node))
        args = [self.value(arg) for arg in node.args]
        self._spend(1.0)
        if name == "factorial" and len(args) == 1:  # of symbols: as the gamma function
            return self._factorial(args[0])
        if name == "binomial" and len(args) == 2:
            n, k = args
            return self._factorial(n) / (self._factorial(k) * self._factorial(n - k))
        if name == "log?":  # to a base that is not said: a constant of its own
            return context.log(_not_zero(args[0])) / (
                context.mpf(2) + self._symbol("the base of log")
            )
        if name == "log" and len(args) == 2:
            return context.log(_not_zero(args[0])) / context.log(_not_zero(args[1]))
        if name == "root" and len(args) == 2:
            return self._root(args[0], node.args[1])
        function = self._functions().get(name)
        if function is None or len(args) != 1:
            raise Unreadable(f"the function {name} of {len(args)} values")
        return function(args[0])

    def _factorial(self, x: Any) -> Any:
        if abs(x) > 1000 or self.context.prec > 1024:
            raise Unreadable("a factorial that costs too much")
        self._spend(20.0)
        return self.context.gamma(x + 1)

    def _root(self, inner: Any, degree: Node) -> Any:
        n = _whole(degree, 1000)
        if n is None or n < 1:
            raise Unreadable("a root of no whole degree")
        if n % 2 and inner.imag == 0 and inner.real < 0:  # the real root
            return -self.context.root(-inner.real, n)
        return self.context.root(inner, n) if inner != 0 else inner

    def _functions(self) -> dict[str, Callable[[Any], Any]]:
        c = self.context
        return {
            "sin": c.sin, "cos": c.cos, "tan": c.tan, "cot": c.cot, "sec": c.sec, "csc": c.csc,
            "asin": c.asin, "acos": c.acos, "atan": c.atan, "sinh": c.sinh, "cosh": c.cosh, "tanh": c.tanh,
            "sqrt": c.sqrt, "abs": abs, "exp": self._exp, "cbrt": lambda x: self._root(x, _THREE),
            "ln": lambda x: c.log(_not_zero(x)), "log": lambda x: c.log(_not_zero(x)),
            "log10": lambda x: c.log(_not_zero(x)) / c.log(10),
            "floor": self._floor, "ceiling": lambda x: -self._floor(-x),
        }  # fmt: skip

    def _exp(self, x: Any) -> Any:
        if abs(x) > _MAX_SIZE_BITS / 2:
            raise Unreadable("a power too large")
        return self.context.exp(x)

    def _floor(self, x: Any) -> Any:
        if x.imag != 0:
            raise Unreadable("the floor of a number that is not real")
        nearest = self.context.nint(x.real)
        if x.real != nearest and abs(x.real - nearest) < self.context.ldexp(1, -100):
            raise Unreadable("the floor of a number too close to a whole one")
        return self.context.floor(x.real)


_THREE = Node("number", value=Fraction(3), literal="3")


def _not_zero(x: Any) -> Any:
    if x == 0:
        raise Undefined("the logarithm of zero")
    return x
