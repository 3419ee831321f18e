"""Interpreters whose state lasts from program to program: what opens one, what comes of a block, what is counted.

Knows no server: `sandbox_session` has the sandbox's, tests have their own.
"""

import dataclasses
from typing import Protocol, runtime_checkable

from jaxtool.core.types import ToolResult, ToolUnavailable


class SessionLost(ToolUnavailable):
    """The session and its state are gone; open another and run its blocks again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockResult:
    """How a block ended, and what that did to the session."""

    result: ToolResult
    is_rolled_back: bool = False  # the state is the one before this block
    is_lost: bool = False  # the session ended with this block
    is_evicted: bool = False  # of a lost one: the server made room, the block has no part in it


class CodeSession(Protocol):
    """One interpreter. One block at a time, from one asyncio loop."""

    @property
    def is_lost(self) -> bool:
        """Whether every further block raises SessionLost."""
        ...

    async def execute(self, code: str) -> BlockResult:
        """Runs one block. Raises SessionLost, or ToolUnavailable where it was refused and not run."""
        ...

    async def close(self) -> None:
        """Ends it, also one that is lost. Never raises."""
        ...


@dataclasses.dataclass(kw_only=True)
class SessionCounts:
    """Of the sessions of a client, since its start."""

    opened: int = 0  # those that replace a lost one included
    lost: int = 0  # to the infrastructure: a server that ended, an eviction
    replayed: int = 0  # lost ones whose state was made again
    masked: int = 0  # trajectories given up because theirs was lost


@runtime_checkable
class SessionRunner(Protocol):
    """Opens interpreters: a client of the sandbox."""

    @property
    def session_counts(self) -> SessionCounts:
        """Who uses sessions counts what becomes of them here; `opened` is the runner's own."""
        ...

    async def create_session(
        self, *, name: str = "", has_checkpoints: bool = True, idle_s: float = 0.0
    ) -> CodeSession:
        """An interpreter in its first state. Raises ToolUnavailable.

        Args:
          name: of its random numbers: sessions of one name draw the same. "": those of any program.
          has_checkpoints: a block that breaks a limit is rolled back; without, it ends the session.
          idle_s: unused for so long it may be ended; 0: as long as the server allows.
        """
        ...
