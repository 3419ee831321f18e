"""Asks a tool a set of questions with known answers before a run may start.

A sandbox that is missing, has no sympy, echoes nothing or lets programs out turns into reward
noise that looks like training. Knows no server: any CodeRunner can be asked.
"""

import asyncio
import dataclasses
import time

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.base import CodeRunner

_SHOWN_CHARS = 200


class PreflightError(RuntimeError):
    """The tool is not fit for a run; the message is one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snippet:
    """A program and what must come of it; None asks nothing."""

    name: str
    code: str
    status: ToolStatus = ToolStatus.OK
    busy_status: ToolStatus | None = None  # as good: of a machine too busy to give it its CPU time
    stdout: str | None = None
    last_value: str | None = None
    error_type: str | None = None
    stderr_has: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """All snippets were answered as expected."""

    num_snippets: int
    seconds: float


_ERROR = ToolStatus.ERROR
SNIPPETS = (
    Snippet(name="print", code="print(1 + 1)", stdout="2\n", last_value=""),
    Snippet(name="echo", code="6 * 7", stdout="", last_value="42"),
    Snippet(name="echo after statements", code="x = 3\nx ** 4", last_value="81"),
    Snippet(name="no echo of None", code="[].append(1)", stdout="", last_value=""),
    Snippet(name="no echo of assignment", code="y = 5", stdout="", last_value=""),
    Snippet(name="echo of string", code="'a' + 'b'", last_value="'ab'"),
    Snippet(name="big integers", code="print(2 ** 200)", stdout=f"{2**200}\n"),
    Snippet(name="multi-line string", code='s = """a\n  b"""\nprint(s)', stdout="a\n  b\n"),
    Snippet(
        name="function and loop",
        code="def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\nprint([f(i) for i in range(9)])",
        stdout="[0, 1, 1, 2, 3, 5, 8, 13, 21]\n",
    ),
    Snippet(name="unicode", code="print('π ≈ 3, 数学')", stdout="π ≈ 3, 数学\n"),
    Snippet(
        name="imports",
        code="import math, fractions, itertools, collections, re, json, decimal, statistics, datetime\n"
        "print(math.comb(10, 3), fractions.Fraction(6, 8))",
        stdout="120 3/4\n",
    ),
    Snippet(
        name="numpy", code="import numpy as np\nprint(np.arange(5).sum(), np.eye(2).tolist())",
        stdout="10 [[1.0, 0.0], [0.0, 1.0]]\n",
    ),
    Snippet(
        name="numpy solve",
        code="import numpy as np\nnp.linalg.solve([[2, 1], [1, 3]], [3, 5]).round(6).tolist()",
        last_value="[0.8, 1.4]",
    ),
    Snippet(
        name="sympy solve",
        code="from sympy import *\nx = symbols('x')\nprint(solve(x**2 - 5*x + 6, x))",
        stdout="[2, 3]\n",
    ),
    Snippet(
        name="sympy integral",
        code="import sympy as sp\nx = sp.symbols('x')\nsp.integrate(sp.exp(-x**2), (x, -sp.oo, sp.oo))",
        last_value="sqrt(pi)",
    ),
    Snippet(
        name="scipy",
        code="from scipy.optimize import brentq\nround(brentq(lambda t: t**2 - 2, 0, 2), 6)",
        last_value="1.414214",
    ),
    Snippet(
        name="error", code="1 / 0", status=_ERROR, error_type="ZeroDivisionError",
        stderr_has="ZeroDivisionError: division by zero",
    ),
    Snippet(
        name="error after print", code="print('before')\nundefined_name", status=_ERROR,
        stdout="before\n", error_type="NameError", stderr_has="line 2",
    ),
    Snippet(name="syntax error", code="def f(:", status=_ERROR, error_type="SyntaxError"),
    Snippet(
        name="missing module", code="import no_such_module", status=_ERROR,
        error_type="ModuleNotFoundError",
    ),
    Snippet(name="exit", code="import sys\nprint('x')\nsys.exit(0)", stdout="x\n"),
    Snippet(
        name="recursion", code="def f():\n    return f()\nf()", status=_ERROR,
        error_type="RecursionError",
    ),
    Snippet(
        name="no network",
        code="import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), timeout=1)\n"
        "    print('open')\nexcept ConnectionRefusedError:\n    print('open')\n"
        "except OSError:\n    print('closed')",
        stdout="closed\n",
    ),
    Snippet(
        name="no subprocess",
        code="import subprocess\ntry:\n    subprocess.run(['true'])\n    print('open')\n"
        "except OSError:\n    print('closed')",
        stdout="closed\n",
    ),
    Snippet(
        name="no environment",
        code="import os\nprint(sorted(k for k in os.environ if 'TOKEN' in k or 'KEY' in k or k == 'USER'))",
        stdout="[]\n",
    ),
    Snippet(
        name="seeded random numbers",
        code="import random\nrandom.seed(7)\nprint(random.random())",
        stdout="0.32383276483316237\n",
    ),
)  # fmt: skip
ENDLESS = Snippet(
    name="time-out",
    code="while True:\n    pass",
    status=ToolStatus.CPU_LIMIT,
    busy_status=ToolStatus.WALL_LIMIT,
)


def mismatch(snippet: Snippet, result: ToolResult) -> str:
    """Empty if `result` is as expected, otherwise what differs, in one line."""
    for field in ("status", "stdout", "last_value", "error_type"):
        expected, got = getattr(snippet, field), getattr(result, field)
        if field == "status" and got == snippet.busy_status:
            continue
        if expected is not None and got != expected:
            detail = "" if field != "status" else f" ({result.stderr[-_SHOWN_CHARS:]!r})"
            return f"{field}: expected {str(expected)!r}, got {str(got)[:_SHOWN_CHARS]!r}{detail}"
    if snippet.stderr_has is not None and snippet.stderr_has not in result.stderr:
        return f"stderr: expected {snippet.stderr_has!r} in {result.stderr[-_SHOWN_CHARS:]!r}"
    return ""


async def preflight(
    tool: CodeRunner, hasty: CodeRunner, snippets: tuple[Snippet, ...] = SNIPPETS
) -> PreflightReport:
    """Runs all snippets at once; raises PreflightError at the first that is wrong, in order.

    Args:
      tool: must run what it is asked: a kept answer would prove nothing.
      hasty: the same with a short limit of CPU time, for a program that never ends.
    """
    start = time.monotonic()
    try:
        await tool.execute("print(1)")  # alone: a missing server is reported once
    except ToolUnavailable as error:
        raise PreflightError(
            f"{error} (start one with `python -m sandbox_server --address HOST:PORT` and give its "
            "address, or let the run start its own)"
        ) from error
    results = await asyncio.gather(
        *(tool.execute(snippet.code) for snippet in snippets),
        hasty.execute(ENDLESS.code),
        return_exceptions=True,
    )
    for snippet, result in zip((*snippets, ENDLESS), results, strict=True):
        if isinstance(result, BaseException):
            raise PreflightError(f"preflight {snippet.name!r}: {result}") from result
        difference = mismatch(snippet, result)
        if difference:
            raise PreflightError(f"preflight {snippet.name!r}: {difference}")
    return PreflightReport(num_snippets=len(results), seconds=time.monotonic() - start)
