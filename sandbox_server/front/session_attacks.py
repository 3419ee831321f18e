"""Hostile sessions: files of several blocks in attacks/sessions, run against the server's sessions.

A file is a header (`# Expect: LOST | OK`) and steps: `# Block` and the code of a block, or `# Fork`.
`Expect` lists what is right for the last step: a status, OK for a branch, or LOST where the session
has ended. Contained means: such an end, no output with ESCAPED, no process that runs between blocks,
none left when the session has ended.
"""

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import re
import time

from sandbox_server.config import LimitSet
from sandbox_server.front import canaries
from sandbox_server.front.engine import Engine
from sandbox_server.front.session_tree import SessionLost
from sandbox_server.front.sessions import Sessions

FOLDER = pathlib.Path(__file__).parents[1] / "attacks" / "sessions"
LIMITS = LimitSet(cpu_ms=400, wall_ms=30_000)
_AT_ONCE = 6  # some take all the time that they get, for seconds
_END_S = 10.0
_LOOK_S = 0.02
_STOPPED_S = 5.0  # a process that is told to stop does so when its turn comes
_SETTLED_S = 1.0  # for children forked ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One call: a block with its code, or a fork."""

    is_fork: bool
    code: str = ""


def steps_of(text: str) -> list[Step]:
    """The calls that an attack file asks for."""
    parts = re.split(r"^# (Block|Fork)\n", text, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [Step(is_fork=kind == "Fork", code=code) for kind, code in pairs]


def expected(text: str) -> set[str]:
    match = re.search(r"^# Expect: (.+)$", text, re.MULTILINE)
    return {name.strip() for name in match.group(1).split("|")} if match else set()


def below(pid: int) -> dict[int, str]:
    """Processes below `pid` and their states, one letter as in /proc/PID/stat."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                children.setdefault(int(parent), []).append((int(entry.name), state))
    found: dict[int, str] = {}
    pending = [pid]
    while pending:
        for child, state in children.get(pending.pop(), []):
            found[child] = state
            pending.append(child)
    return found


async def _step(sessions: Sessions, session_id: str, step: Step) -> tuple[str, str]:
    """How a step ended, and what it printed."""
    try:
        if step.is_fork:
            await sessions.fork(session_id)
            return "OK", ""
        block = await sessions.run(session_id, step.code, echo=True, limits=LIMITS, client="attack")
    except SessionLost:
        return "LOST", ""
    return block.outcome.status.name, block.outcome.stdout.text()


async def _is_awake(supervisor: int) -> bool:
    """Whether something below the supervisor goes on: at no look are all stopped."""
    stop = time.monotonic() + _STOPPED_S
    while time.monotonic() < stop:
        if all(state in "TtZX" for state in below(supervisor).values()):
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def _attack(engine: Engine, path: pathlib.Path, has_checkpoints: bool) -> canaries.Verdict:
    """Runs one file in a session of its own."""
    text, faults, end = path.read_text("utf-8"), [], ""
    sessions = Sessions(engine.config, engine, "selftest")
    session = await sessions.create(LIMITS, 0, 60.0, has_checkpoints=has_checkpoints)
    try:
        for step in steps_of(text):
            end, printed = await _step(sessions, session.session_id, step)
            if "ESCAPED" in printed:
                faults.append(printed[-200:])
        if end not in expected(text):
            faults.append(f"{end}, expected {sorted(expected(text))}")
        if not session.tree.is_closed and await _is_awake(session.tree.pid):
            faults.append("a process runs between blocks")
    finally:
        await sessions.stop()
    await asyncio.wait({session.tree.ended}, timeout=_END_S)
    if not session.tree.ended.done():
        faults.append("the supervisor does not end")
    mode = "session" if has_checkpoints else "session without checkpoints"
    name = f"{path.name.removesuffix('.py.txt')}, {mode}"
    return canaries.Verdict(name=name, is_contained=not faults, detail="; ".join(faults))


async def attacks(engine: Engine) -> list[canaries.Verdict]:
    """All files, with checkpoints and without, several at once: most of them wait for a time-out."""
    me = os.getpid()
    await asyncio.sleep(_SETTLED_S)
    before = len(below(me))
    places = asyncio.Semaphore(_AT_ONCE)

    async def tried(path: pathlib.Path, has_checkpoints: bool) -> canaries.Verdict:
        async with places:
            return await _attack(engine, path, has_checkpoints)

    tries = [
        tried(path, has_checkpoints)
        for path in sorted(FOLDER.glob("*.py.txt"))
        for has_checkpoints in (True, False)
    ]
    verdicts = await asyncio.gather(*tries)
    stop = time.monotonic() + _END_S
    while (now := len(below(me))) > before and time.monotonic() < stop:
        await asyncio.sleep(_LOOK_S)
    detail = f"{now} processes, {before} before"
    left = canaries.Verdict(
        name="sessions leave nothing", is_contained=now <= before, detail=detail
    )
    return [*verdicts, left]
