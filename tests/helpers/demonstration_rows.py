"""Written solutions in ReTool's tags, rows of text reasoning, and a sandbox that knows a little arithmetic."""

import json
from pathlib import Path

from helpers.fakes import ArithmeticTool

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.tools.sandbox_session import BlockResult


def program(code: str, output: str) -> str:
    """A call with its output, as a rewriter writes it."""
    return f"<code>\n```python\n{code}\n```\n</code>\n<interpreter>\n{output}\n</interpreter>\n\n"


def solution(a: int, b: int, *, output: object = None, answer: object = None) -> str:
    """a * b by one program; what it prints and the answer may be given otherwise."""
    printed = a * b if output is None else output
    return (
        f"We multiply.\n{program(f'print({a} * {b})', str(printed))}So it is that.\n"
        f"<answer>\\boxed{{{a * b if answer is None else answer}}}</answer>"
    )


def source_row(a: int, b: int) -> dict[str, object]:
    return {
        "question": f"How many apples lie in {a} boxes of {b} apples each, if none is eaten?",
        "reasoning": f"We multiply {a} by {b} and get {a * b}.",
        "answer": a * b,
    }


def write_rows(path: Path, rows: list) -> Path:
    """Rows as JSON lines; a text is written as the line itself."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class ArithmeticSandbox(ArithmeticTool):
    """Programs of `print(<expr>)`; a session remembers `x = <expr>` for a later `print(x)`."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = 0

    async def create_session(self) -> "ArithmeticSession":
        self.sessions += 1
        return ArithmeticSession(self)


class ArithmeticSession:
    """One trace's interpreter."""

    def __init__(self, sandbox: ArithmeticSandbox):
        self._sandbox = sandbox
        self._x = ""
        self.is_closed = False

    async def execute(self, code: str) -> BlockResult:
        if code.startswith("x = "):
            self._x = code.removeprefix("x = ")
            return BlockResult(result=ToolResult(status=ToolStatus.OK))
        if code == "exit":
            return BlockResult(result=ToolResult(status=ToolStatus.KILLED), is_lost=True)
        return BlockResult(result=await self._sandbox.execute(code.replace("x", self._x)))

    async def close(self) -> None:
        self.is_closed = True
