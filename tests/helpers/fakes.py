"""Tools without a server, for tests of what uses tools. They run no code.

Each counts its calls in `calls`. None of them is a sandbox.
"""

import ast
import asyncio
import operator
import random
from collections.abc import Mapping

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.base import CodeRunner

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


class ScriptedTool:
    """Answers from a table of code to result; anything else is a NameError."""

    def __init__(self, results: Mapping[str, ToolResult]):
        self._results = results
        self.calls: list[str] = []

    async def execute(self, code: str) -> ToolResult:
        self.calls.append(code)
        unknown = ToolResult(
            status=ToolStatus.ERROR, stderr="NameError: not in the script", error_type="NameError"
        )
        return self._results.get(code, unknown)

    async def close(self) -> None:
        return None


class SlowTool:
    """Another tool behind a seeded random wait of up to `max_latency_s`."""

    def __init__(self, inner: CodeRunner, *, seed: int, max_latency_s: float):
        self._inner = inner
        self._random = random.Random(seed)
        self._max_latency_s = max_latency_s

    async def execute(self, code: str) -> ToolResult:
        await asyncio.sleep(self._random.random() * self._max_latency_s)
        return await self._inner.execute(code)

    async def close(self) -> None:
        await self._inner.close()


class FailingTool:
    """Raises ToolUnavailable for the first `failures` calls, then passes on to `inner`."""

    def __init__(self, inner: CodeRunner, *, failures: int):
        self._inner = inner
        self.failures_left = failures

    async def execute(self, code: str) -> ToolResult:
        if self.failures_left > 0:
            self.failures_left -= 1
            raise ToolUnavailable("sandbox at fake: UNAVAILABLE: scripted failure")
        return await self._inner.execute(code)

    async def close(self) -> None:
        await self._inner.close()


class ArithmeticTool:
    """Understands `print(<expr>)`, or a bare `<expr>`, of integers and + - * / // %."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def execute(self, code: str) -> ToolResult:
        self.calls.append(code)
        try:
            return _evaluate(code)
        except ZeroDivisionError as error:
            return _failure(error, str(error))
        except SyntaxError as error:
            return _failure(error, "invalid syntax")
        except ValueError as error:
            return _failure(error, str(error))

    async def close(self) -> None:
        return None


def _failure(error: Exception, message: str) -> ToolResult:
    kind = type(error).__name__
    return ToolResult(status=ToolStatus.ERROR, stderr=f"{kind}: {message}\n", error_type=kind)


def _evaluate(code: str) -> ToolResult:
    body = ast.parse(code).body
    if len(body) != 1 or not isinstance(body[0], ast.Expr):
        raise ValueError("this fake knows print(<expr>) and <expr> only")
    node = body[0].value
    if isinstance(node, ast.Call):
        is_print = isinstance(node.func, ast.Name) and node.func.id == "print"
        if not is_print or len(node.args) != 1 or node.keywords:
            raise ValueError("this fake knows print of one argument only")
        return ToolResult(status=ToolStatus.OK, stdout=f"{_value(node.args[0])}\n")
    return ToolResult(status=ToolStatus.OK, last_value=repr(_value(node)))


def _value(node: ast.expr) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("this fake knows integers and + - * / // % only")
