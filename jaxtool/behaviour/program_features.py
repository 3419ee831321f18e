"""What a program's syntax tree holds, as a set of short words that rules ask for.

  import:sympy    a module is imported; of a.b.c also a and a.b
  call:solve      something of this name is called, as `solve(...)` or `sympy.solve(...)`
  has:...         one of `HAS`, below

Programs are untrusted and only parsed, never run. A program that is too long, too deeply nested or no Python has no
features (None). The length bounds the time: 20,000 characters take 40 ms at most, mostly below 1 ms.
"""

import ast
import functools
import warnings
from collections.abc import Iterator

MAX_CHARS = 20_000
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_UNUSED = (*_DEFINITIONS, ast.Import, ast.ImportFrom)
_REDUCTIONS = frozenset(("all", "any", "isclose", "allclose"))
# What `has:` may say.
HAS = {
    "has:only_definitions": "imports and definitions, of which nothing is used",
    "has:assertion": "an assert statement",
    "has:shown_comparison": "a comparison, all() or any() that is printed or stands as the last expression",
    "has:decided_equality": "an if on == or != outside of functions and loops",
    "has:chosen_extremum": "max() or min() over a comprehension, or with a key",
    "has:loop": "a loop or a comprehension",
    "has:conditional_loop": "a loop with a condition in it, or a comprehension that filters",
    "has:recursion": "a function that calls itself",
    "has:arithmetic": "an operator between two values",
    "has:output": "a print or a last expression",
}


@functools.lru_cache(maxsize=4096)
def features(program: str) -> frozenset[str] | None:
    """The features of a program; None where it is no Python of bounded size."""
    tree = parsed(program)
    if tree is None:
        return None
    found: set[str] = set()
    for node in ast.walk(tree):
        found.update(_of_node(node))
    body = [node for node in tree.body if not _is_docstring(node)]
    if body and all(isinstance(node, _UNUSED) for node in body):
        found.add("has:only_definitions")
    if any(isinstance(node, ast.If) and _is_equality(node.test) for node in body):
        found.add("has:decided_equality")
    if body and isinstance(body[-1], ast.Expr):
        found.add("has:output")
        if _is_comparison(body[-1].value):
            found.add("has:shown_comparison")
    return frozenset(found)


def parsed(program: str) -> ast.Module | None:
    """Its syntax tree; None where it is no Python, or too long or too deep to be read."""
    if len(program) > MAX_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the policy's escapes
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _of_node(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imported(node)
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Assert):
        yield "has:assertion"
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        yield "has:arithmetic"
    elif isinstance(node, (*_LOOPS, *_COMPREHENSIONS)):
        yield "has:loop"
        if _chooses(node):
            yield "has:conditional_loop"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _calls_itself(node):
        yield "has:recursion"


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """`import a.b` and `from a.b import c` import a and a.b."""
    is_from = isinstance(node, ast.ImportFrom)
    for name in [node.module or ""] if is_from else [alias.name for alias in node.names]:
        parts = name.split(".")
        for size in range(1, len(parts) + 1):
            yield f"import:{'.'.join(parts[:size])}"


def _of_call(call: ast.Call) -> Iterator[str]:
    yield f"call:{_called(call)}"
    if _called(call) == "print":
        yield "has:output"
        if any(_is_comparison(argument) for argument in call.args):
            yield "has:shown_comparison"
    elif _called(call) in ("max", "min"):
        over = any(isinstance(argument, _COMPREHENSIONS) for argument in call.args)
        if over or any(keyword.arg == "key" for keyword in call.keywords):
            yield "has:chosen_extremum"


def _chooses(loop: ast.AST) -> bool:
    """Whether a loop holds a condition, or a comprehension filters."""
    if isinstance(loop, _COMPREHENSIONS):
        return any(generator.ifs for generator in loop.generators)
    return any(isinstance(inner, ast.If | ast.IfExp) for inner in ast.walk(loop))


def _called(call: ast.Call) -> str:
    """The last name of what is called; "" of a call of something without a name."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_comparison(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):  # print(f"equal: {a == b}")
        values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return any(isinstance(value, ast.Compare) for value in values)
    if isinstance(node, ast.Compare):
        return True
    return isinstance(node, ast.Call) and _called(node) in _REDUCTIONS


def _is_equality(node: ast.expr) -> bool:
    """Whether it is == or != of anything but `__name__`."""
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq):
        return False
    return not (isinstance(node.left, ast.Name) and node.left.id == "__name__")


def _calls_itself(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    inner = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return any(isinstance(c.func, ast.Name) and c.func.id == function.name for c in inner)


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
