"""The interpreter of one trajectory: its variables last from call to call, and over the loss of a session.

What a call may come to, and what follows:

  program ends by itself              its variables last
  program breaks a limit, or exits    with checkpoints the variables are those before it; without, the interpreter
                                      starts again with none. The policy reads which (`ToolResult.note`)
  session lost (its server is gone,   1. another session is opened, with the same random numbers
  evicted, broken)                    2. the trajectory's programs run again in order, each with its own limits
                                      3. what they say must be what the policy has read, or the state is another
                                      4. then the call's program runs
  programs that print the time, an    ToolUnavailable: the trajectory is masked, since its policy has read what is
  address or an entropy at 3          no longer true
  too many losses, or too slow        the same

A session never answers from a result cache. Not covered: where sessions live and how they are lost
(`sandbox_session`, the server).
"""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxtool.core.calls import CODE
from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.code_sessions import BlockResult, CodeSession, SessionLost, SessionRunner

OnLostSession = Literal["replay", "mask"]
ROLLED_BACK = "Variables are as they were before this program."
RESTARTED = "The interpreter was restarted: all variables are gone."

_OPENING_TIMEOUT_S = 5.0  # that a session which is being opened has, when nobody wants it any more
_ENDS_BY_ITSELF = (ToolStatus.OK, ToolStatus.ERROR)
_SHOWN_CHARS = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionRules:
    """How the interpreters of trajectories are kept; the fields are those of `PythonSandbox`."""

    has_checkpoints: bool
    session_idle_s: float
    on_lost_session: OnLostSession
    max_replays: int
    max_replay_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Program:
    """One that has run, and what came of it."""

    code: str
    block: BlockResult


class Interpreter:
    """A ToolSession. Its session is opened at the first call."""

    def __init__(self, runner: SessionRunner, rules: SessionRules, key: str):
        """Args:
        key: names the trajectory, and so its random numbers.
        """
        self._runner = runner
        self._rules = rules
        self._key = key
        self._session: CodeSession | None = None
        self._opening: asyncio.Task[CodeSession] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._programs: list[_Program] = []  # that made the present state
        self._losses = 0
        self._why_lost = ""
        self._replayed_s = 0.0

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        """What came of the program. Raises ToolUnavailable where its state could not be kept."""
        code = arguments[CODE]
        while True:
            try:
                session = self._session or await self._open()
                return self._kept(code, await session.execute(code))
            except SessionLost as error:
                self._lose(str(error))
            except ToolUnavailable:  # the trajectory ends here: no half-made state is kept
                self._runner.session_counts.masked += bool(self._losses)
                self._drop()
                raise

    async def close(self) -> None:
        """Ends the session, also one that is still being opened. Never raises."""
        opening = self._opening
        if opening is not None:
            await asyncio.wait({opening}, timeout=_OPENING_TIMEOUT_S)
            self._opening = None
            if not opening.done():
                opening.cancel()
            elif not opening.cancelled() and opening.exception() is None:
                self._session = opening.result()
        self._drop()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _open(self) -> CodeSession:
        """A session in the state that the trajectory's programs have made."""
        is_too_often = self._losses > self._rules.max_replays
        if self._losses and (self._rules.on_lost_session == "mask" or is_too_often):
            raise self._given_up(f"lost {self._losses} times, at last: {self._why_lost}")
        session = await self._opened()
        self._session = session
        if not self._losses:
            return session
        left_s = self._rules.max_replay_s - self._replayed_s
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(left_s):
                await self._replay(session)
        except TimeoutError:
            took = f"replaying took more than {self._rules.max_replay_s:g} s"
            raise self._given_up(took) from None
        finally:
            self._replayed_s += loop.time() - started
        self._runner.session_counts.replayed += 1
        return session

    async def _opened(self) -> CodeSession:
        """Shielded: what a cancelled call was opening must be closed, and is known to `close`."""
        opening = self._runner.create_session(
            name=self._key,
            has_checkpoints=self._rules.has_checkpoints,
            idle_s=self._rules.session_idle_s,
        )
        self._opening = asyncio.ensure_future(opening)
        try:
            opened = await asyncio.shield(self._opening)
        except ToolUnavailable:
            self._opening = None
            raise
        self._opening = None
        return opened

    async def _replay(self, session: CodeSession) -> None:
        """Raises SessionLost, or ToolUnavailable where a program says something else than before."""
        for number, program in enumerate(self._programs, start=1):
            block = await session.execute(program.code)
            if block.is_lost:
                raise SessionLost("the session was lost while it was replayed")
            if not is_same(program.block, block):
                shown = program.code[:_SHOWN_CHARS]
                raise self._given_up(
                    f"program {number} of {len(self._programs)} says something else when it is "
                    f"replayed: {shown!r}"
                )

    def _kept(self, code: str, block: BlockResult) -> ToolResult:
        """The result as the policy reads it, with the state noted."""
        result, has_checkpoints = block.result, self._rules.has_checkpoints
        # 1. With checkpoints no program ends its session, and without, it has: what it had made is gone.
        ended_by_itself = block.is_evicted or result.status in _ENDS_BY_ITSELF
        if block.is_lost and has_checkpoints and not ended_by_itself:
            raise SessionLost("the session ended with its program, checkpoint and all")
        if block.is_lost and not has_checkpoints and not block.is_evicted:
            self._programs.clear()
            self._drop()
            return dataclasses.replace(result, note=RESTARTED)
        # 2. Else its state lasts, or the one before it: a replay repeats it, also where it was rolled back, for
        #    /tmp is not.
        self._programs.append(_Program(code=code, block=block))
        # 3. The server may have made room behind it: then the next call replays.
        if block.is_lost:
            self._lose("evicted")
        return dataclasses.replace(result, note=ROLLED_BACK) if block.is_rolled_back else result

    def _lose(self, why: str) -> None:
        self._runner.session_counts.lost += 1
        self._losses += 1
        self._why_lost = why
        self._drop()

    def _drop(self) -> None:
        """Closes the session in the background: the server may still have what we count as lost."""
        session, self._session = self._session, None
        if session is not None:
            task = asyncio.ensure_future(session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _given_up(self, why: str) -> ToolUnavailable:
        return ToolUnavailable(f"session of {self._key}: {why}")


def is_same(before: BlockResult, again: BlockResult) -> bool:
    """Whether a program that is replayed says what it said.

    One that was rolled back left no state, and how far it came depends on the clock: it must only be rolled back
    again.
    """
    if before.is_rolled_back or again.is_rolled_back:
        return before.is_rolled_back and again.is_rolled_back
    return _said(before.result) == _said(again.result)


def _said(result: ToolResult) -> tuple[object, ...]:
    """What a result says, without its times."""
    texts = (result.stdout, result.stderr, result.last_value, result.error_type)
    return (result.status, *texts, result.is_truncated)
