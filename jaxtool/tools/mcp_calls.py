"""Calls to the tools of one MCP server: over one connection for the run, or one for each trajectory.

A call ends in a result or in ToolUnavailable. What is the call's own fault is a result; the rest is tried again,
counted, and masks the trajectory in the end.

  the server says                    one connection for the run           one for each trajectory
  ---------------------------------  -----------------------------------  --------------------------------
  a result, or that it is an error   the result                           the result
  that the arguments are no good     an error (if the tool is unchanged)  the same
  another error, or nonsense         asked again, then unavailable        unavailable: its state is unsure
  nothing by the deadline, and it    a time-out, cancelled at the server  the same
  answers others
  nothing by the deadline, to        a command is made again alone;       a time-out, and the server ended
  nobody                             a URL is unavailable                 (a URL is unavailable)
  it is gone                         a command is made again alone;       unavailable: its state is gone
                                     a URL after a while

Alone means on a further server that this call has to itself: of many calls on a server that hangs or dies, the one that
did it is found so, and the others get their results. A call that does not end even alone is a time-out. Once the tools
are no longer those of the prompts, every call is unavailable.
"""

import asyncio
import dataclasses
import sys
from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.loop_thread import LoopThread
from jaxtool.tools.mcp_connection import BadArguments, Connection, Failed, Lost, ServerDown
from jaxtool.tools.mcp_endpoint import McpEndpoint
from jaxtool.tools.mcp_listing import Offered, broken_by, differences
from jaxtool.tools.mcp_results import tool_result
from jaxtool.tools.preflight import PreflightError

ATTEMPTS = 3
BACKOFF_S = 0.5  # doubled each time
PROBE_S = 5.0  # for a server that let a deadline pass to show that it lives
_ALONE_AT_A_TIME = 2
_CLOSE_TIMEOUT_S = 9.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Call:
    tool: str
    arguments: Mapping[str, Any]
    deadline_s: float


@dataclasses.dataclass
class _Held:
    """What a trajectory has of a server with state."""

    connection: Connection | None = None
    lost: str = ""  # why there will be none again


class _NotAnswering(Exception):
    """A deadline has passed, and the server answers nobody."""


def listed_tools(endpoint: McpEndpoint, *, needs_session: bool) -> list[Offered]:
    """Starts or reaches the server once, for its list of tools; blocks.

    Args:
      needs_session: it must be able to keep connections apart.

    Raises:
      PreflightError: it cannot be asked; one line.
      ValueError: there is no such command, or a variable is not set.
    """

    async def asked() -> list[Offered]:
        connection = Connection(endpoint, needs_session=needs_session)
        await connection.open()
        try:
            return await connection.tools()
        finally:
            await connection.close()

    thread = LoopThread("mcp list")
    try:
        return thread.wait_for(asked())
    except (ServerDown, Failed, Lost) as error:
        raise PreflightError(str(error)) from None
    finally:
        thread.close()


class McpCalls:
    """Shared by the tools of a server. Its connections live in a thread from `start` to the last `release`."""

    def __init__(
        self,
        endpoint: McpEndpoint,
        *,
        wanted: Mapping[str, Offered],
        by_trajectory: bool,
        max_chars: int,
    ):
        """Args:
        wanted: tools that will be called, by any name; as the prompts say them.
        by_trajectory: each has a connection of its own.
        """
        self._endpoint = endpoint
        self._wanted = tuple(wanted.values())
        self._by_trajectory = by_trajectory
        self._max_chars = max_chars
        self._users = 0
        self._retries: Counter[str] = Counter()
        self._said: set[str] = set()
        self._changed = ""  # how the tools are no longer those of the prompts
        self._thread: LoopThread | None = None
        self._begin()

    def retries(self, tool: str) -> int:
        """Calls of a tool that were made again, so far; by the server's name of it."""
        return self._retries[tool]

    def retain(self) -> None:
        """One tool more that needs it."""
        self._users += 1

    async def release(self) -> None:
        """One tool less; with the last one all connections close."""
        self._users -= 1
        thread = self._thread
        if self._users > 0 or thread is None:
            return
        self._thread = None
        try:
            await thread.run(self._end())
        finally:
            await asyncio.to_thread(thread.close)

    async def start(self) -> None:
        """Asks whether the server works and offers what the prompts say.

        Raises:
          ToolUnavailable: it does not.
        """
        await self._in_thread(self._start())

    async def call(
        self, tool: str, arguments: Mapping[str, Any], deadline_s: float, trajectory: str
    ) -> ToolResult:
        """What came of it. Raises ToolUnavailable for trouble that is not the call's.

        Args:
          tool: the server's name of it.
          deadline_s: from when the server has the call.
          trajectory: names the one whose call it is.
        """
        if self._changed:
            raise ToolUnavailable(self._changed)
        made = _Call(tool=tool, arguments=arguments, deadline_s=deadline_s)
        if self._by_trajectory:
            return await self._in_thread(self._of_trajectory(made, trajectory))
        return await self._in_thread(self._of_run(made))

    async def leave(self, trajectory: str) -> None:
        """The trajectory is over; its connection closes, and nobody waits for it."""
        if self._by_trajectory and self._thread is not None:
            await self._in_thread(self._leave(trajectory))

    async def _in_thread(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._thread is None:
            self._begin()
            self._thread = LoopThread("mcp")
        return await self._thread.run(work)

    def _begin(self) -> None:
        """What belongs to one thread, and is nothing yet."""
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._held: dict[str, _Held] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Semaphore(_ALONE_AT_A_TIME)
        self._suspects = 0  # calls that are, or wait to be, alone
        self._lone: list[Connection] = []  # of those before, which did no harm

    # What follows runs in the thread.

    async def _start(self) -> None:
        if self._by_trajectory:
            self._drop(await self._opened())
        else:
            await self._shared()

    async def _of_run(self, made: _Call) -> ToolResult:
        """A call over the connection that all trajectories share."""
        failure = ""
        for attempt in range(ATTEMPTS):
            await self._pause(attempt)
            self._retries[made.tool] += attempt > 0
            connection = await self._shared()
            try:
                return await self._result(connection, made)
            except Failed as error:
                failure = str(error)
            except (_NotAnswering, Lost) as error:
                self._drop(connection)
                failure = str(error)
                if self._endpoint.command:
                    return await self._by_itself(made)
                if isinstance(error, _NotAnswering):
                    break
        raise ToolUnavailable(failure)

    async def _by_itself(self, made: _Call) -> ToolResult:
        """A call on a server that it has to itself, and which therefore has its faults from this call."""
        self._suspects += 1
        try:
            async with self._alone:
                return await self._alone_now(made)
        finally:
            self._suspects -= 1
            if not self._suspects:
                for connection in self._lone:
                    self._drop(connection)
                self._lone = []

    async def _alone_now(self, made: _Call) -> ToolResult:
        failure = ""
        for attempt in range(ATTEMPTS - 1):
            await self._pause(attempt)
            self._retries[made.tool] += 1
            connection = self._lone.pop() if self._lone else await self._opened()
            is_well = False
            try:
                result = await self._answer(connection, made)
                is_well = True
                return result
            except TimeoutError:
                return late(made.deadline_s)
            except (Failed, Lost) as error:
                failure = str(error)
            finally:
                if is_well:
                    self._lone.append(connection)
                else:
                    self._drop(connection)
        raise ToolUnavailable(failure)

    async def _of_trajectory(self, made: _Call, trajectory: str) -> ToolResult:
        """A call over the trajectory's own connection, which opens with its first call."""
        held = self._held.setdefault(trajectory, _Held())
        if held.lost:
            raise ToolUnavailable(held.lost)
        if held.connection is None:
            held.connection = await self._opened()
        try:
            return await self._result(held.connection, made)
        except (Failed, Lost, _NotAnswering) as error:
            self._drop(held.connection)
            held.connection = None
            if isinstance(error, _NotAnswering) and self._endpoint.command:
                return late(
                    made.deadline_s, "; the server was ended, and what it remembered is lost"
                )
            held.lost = f"{error}; what it remembered is lost"
            raise ToolUnavailable(held.lost) from None

    async def _result(self, connection: Connection, made: _Call) -> ToolResult:
        """What a connection with a sane list says to a call."""
        if connection.is_list_stale:
            await self._check_list(connection)
        try:
            return await self._answer(connection, made)
        except TimeoutError:
            if await connection.is_answering(PROBE_S):
                return late(made.deadline_s)
            raise _NotAnswering(
                f"{self._endpoint.title} let the deadline of {made.deadline_s:g} s pass and answers nothing"
            ) from None

    async def _answer(self, connection: Connection, made: _Call) -> ToolResult:
        try:
            answer = await connection.call(made.tool, made.arguments, made.deadline_s)
        except BadArguments as error:
            # The arguments fit the schema of the prompts: is it the server's still?
            await self._check_list(connection)
            text = str(error)[: self._max_chars]
            return ToolResult(status=ToolStatus.ERROR, stderr=text, error_type="InvalidParams")
        return tool_result(answer, self._max_chars)

    async def _check_list(self, connection: Connection) -> None:
        """Raises ToolUnavailable if the server's tools are no longer those of the prompts."""
        listed = await connection.tools()
        broken = broken_by(self._wanted, listed)
        if broken:
            self._changed = (
                f"{self._endpoint.title}: {broken} during the run, whose prompts have the old one: "
                "start the run again"
            )
            raise ToolUnavailable(self._changed)
        for difference in differences(self._wanted, listed):
            if difference not in self._said:
                self._said.add(difference)
                print(f"warning: {self._endpoint.title}: {difference}", file=sys.stderr, flush=True)

    async def _shared(self) -> Connection:
        """The run's connection, opened where it is not; all who wait get the same one, or the same error."""
        if self._connection is not None and not self._connection.is_over:
            return self._connection
        if self._opening is None:
            self._opening = asyncio.create_task(self._opened())
        opening = self._opening
        try:
            connection = await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None
        self._connection = connection
        return connection

    async def _opened(self) -> Connection:
        """A new connection to a server whose tools are those of the prompts."""
        failure = ""
        for attempt in range(ATTEMPTS):
            await self._pause(attempt)
            connection = Connection(self._endpoint, needs_session=self._by_trajectory)
            try:
                await connection.open()
                await self._check_list(connection)
                return connection
            except (ServerDown, Failed, Lost) as error:
                failure = str(error)
                self._drop(connection)
            except ValueError as error:
                raise ToolUnavailable(str(error)) from None
            except BaseException:
                self._drop(connection)
                raise
        raise ToolUnavailable(failure)

    async def _pause(self, attempt: int) -> None:
        if attempt:
            await asyncio.sleep(BACKOFF_S * 2 ** (attempt - 1))

    def _drop(self, connection: Connection) -> None:
        """Closes it, in the background: a server that hangs takes seconds to end."""
        if self._connection is connection:
            self._connection = None
        closing = asyncio.create_task(connection.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _leave(self, trajectory: str) -> None:
        held = self._held.pop(trajectory, None)
        if held is not None and held.connection is not None:
            self._drop(held.connection)

    async def _end(self) -> None:
        open_ones = [held.connection for held in self._held.values()]
        self._held = {}
        for connection in (self._connection, *open_ones, *self._lone):
            if connection is not None:
                self._drop(connection)
        if self._closing:
            await asyncio.wait(set(self._closing), timeout=_CLOSE_TIMEOUT_S)


def late(deadline_s: float, more: str = "") -> ToolResult:
    """A call whose deadline has passed."""
    message = f"TimeoutError: no result after {deadline_s:g} s{more}"
    return ToolResult(status=ToolStatus.WALL_LIMIT, stderr=message, error_type="TimeoutError")
