"""Asks running servers for answers that are known: one that turns wrong is seen before an update.

The preflight asks once, before the run; this asks during it, two short programs a server at a time: a
product that nobody has asked before, which no cache can know, and the next of the preflight's programs.
Knows no server: any CodeRunner can be asked. Not covered: when to ask, which the run loop decides.
"""

import asyncio
import dataclasses
from collections.abc import Mapping

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.base import CodeRunner
from jaxtool.tools.preflight import SNIPPETS, Snippet, mismatch

_SHOWN_CHARS = 200
# A machine with too much to do may give these to a program that needs a moment: it is asked once more.
_OF_A_BUSY_MACHINE = (ToolStatus.CPU_LIMIT, ToolStatus.WALL_LIMIT, ToolStatus.KILLED)


class WrongAnswer(RuntimeError):
    """A sandbox gave a wrong answer to a program whose answer is known; the message is one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What came of one round of questions."""

    programs: int
    unreachable: tuple[str, ...] = ()  # servers that did not answer, each with its error
    wrong: str = ""  # server, program, expected and got; empty if all answers were right


class KnownAnswers:
    """The servers that are asked."""

    def __init__(self, tools: Mapping[str, CodeRunner]):
        """`tools` reach one server each and answer nothing from a cache; by address."""
        self._tools = dict(tools)

    async def ask(self, number: int) -> Asked:
        """Two programs at each server; `number` counts the rounds and says which two."""
        programs = snippets_of(number)
        asked = [(address, snippet) for address in self._tools for snippet in programs]
        differences = await asyncio.gather(
            *(_difference(self._tools[address], snippet) for address, snippet in asked),
            return_exceptions=True,
        )
        unreachable: dict[str, str] = {}
        wrong = []
        for (address, snippet), difference in zip(asked, differences, strict=True):
            if isinstance(difference, ToolUnavailable):
                unreachable[address] = str(difference)
            elif isinstance(difference, BaseException):
                raise difference
            elif difference:
                program = snippet.code[:_SHOWN_CHARS]
                wrong.append(
                    f"the sandbox at {address} answers wrongly: program {program!r}: {difference}"
                )
        return Asked(
            programs=len(asked),
            unreachable=tuple(unreachable.values()),
            wrong=wrong[0] if wrong else "",
        )


def snippets_of(number: int) -> tuple[Snippet, Snippet]:
    """The two programs of a round.

    Example: snippets_of(3) are `print(123456795 * 987654318)` and SNIPPETS[3].
    """
    left, right = (
        123_456_789 + 2 * number,
        987_654_321 - number,
    )  # 18 digits, nearly all ten of them
    product = Snippet(
        name="product", code=f"print({left} * {right})", stdout=f"{left * right}\n", last_value=""
    )
    return product, SNIPPETS[number % len(SNIPPETS)]


async def _difference(tool: CodeRunner, snippet: Snippet) -> str:
    """Empty if the answer is right."""
    result: ToolResult = await tool.execute(snippet.code)
    if result.status in _OF_A_BUSY_MACHINE:
        result = await tool.execute(snippet.code)
    return mismatch(snippet, result)
