"""One connection to an MCP server, over stdio or streamable HTTP, by the package `mcp`.

The connection lives in a task of its own, from `open` to `close`, because the package wants to be left by the task
that entered it. Calls come from any task of the same loop, many at a time. A call that is cancelled, or has reached
its deadline, is cancelled at the server by the package.

What can go wrong with a call, by kind:

1. the server says that the arguments are no good (JSON-RPC -32602): BadArguments, the policy's;
2. no answer by the deadline: TimeoutError;
3. an answer that breaks the protocol, or any other JSON-RPC error: Failed, and the connection goes on;
4. the connection is over: Lost.

Not covered: what a server asks of its client (sampling, elicitation, roots): it is told that there is none. Results of
many megabytes over stdio, which the package reads in quadratic time (seconds for ten): the deadline bounds them.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

import jaxtool
from jaxtool.tools.mcp_endpoint import McpEndpoint
from jaxtool.tools.mcp_listing import Offered, offered
from jaxtool.tools.pipe_tail import PipeTail

_MAX_EVENT_BYTES = 64 << 20  # of a streamed answer; longer ones end the connection
_CLOSE_TIMEOUT_S = (
    8.0  # the package closes the server's input, waits, sends SIGTERM, waits, sends SIGKILL
)
_LIST_TIMEOUT_S = 30.0
_MAX_PAGES = 100  # of a list of tools
_LAST_WORDS_S = 1.0  # for the rest of a dead server's error stream
_SHOWN_CHARS = 300
_CLIENT = types.Implementation(name="jaxtool", version=jaxtool.__version__)

# What the package logs of a bad server (each line of garbage, with a traceback) comes in errors, not on the terminal.
_log = logging.getLogger("mcp")
_log.addHandler(logging.NullHandler())
_log.propagate = False
logging.getLogger("client").addFilter(lambda record: not record.pathname.endswith("session.py"))


class ServerDown(Exception):
    """A server that cannot be started or reached; the message is one line."""


class Lost(Exception):
    """The connection is over; the message is one line."""


class Failed(Exception):
    """The server answered, and not as the protocol wants it; the message is one line."""


class BadArguments(Exception):
    """The server refuses the arguments of a call."""


class Connection:
    """Made closed; `open` opens it, once."""

    def __init__(self, endpoint: McpEndpoint, *, needs_session: bool = False):
        """Args:
        needs_session: the server must keep this connection apart from others.
        """
        self.is_list_stale = False  # the server says that its tools have changed
        self._endpoint = endpoint
        self._needs_session = needs_session
        self._closing = asyncio.Event()
        self._scope = anyio.CancelScope()
        self._has_session = False
        self._garbage = ""  # the last line of the server's that is no message
        self._broken = 0  # such lines that were meant as one
        self._status = 0  # the last HTTP status that is an error
        self._error_text: PipeTail | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self._life is None or self._life.done()

    async def open(self) -> None:
        """Connects and shakes hands.

        Raises:
          ServerDown: that fails, or takes longer than the endpoint's start_timeout_s.
          ValueError: there is no such command, or a variable is not set.
        """
        self._ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live())
        timeout_s = self._endpoint.start_timeout_s
        try:
            await asyncio.wait({self._ready}, timeout=timeout_s)
        except asyncio.CancelledError:
            self._ready.cancel()
            self._scope.cancel()
            raise
        if not self._ready.done():
            self._ready.cancel()
            self._scope.cancel()
            await asyncio.wait({self._life}, timeout=_CLOSE_TIMEOUT_S)
            why = f"was not ready after {timeout_s:g} s"
            raise ServerDown(f"{self._endpoint.title} {why}{self._evidence()}")
        self._session = self._ready.result().session

    async def tools(self) -> list[Offered]:
        """The server's tools. Raises Lost, or Failed for a list that never ends or does not come."""
        self.is_list_stale = False
        found: list[Offered] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor)
            page = await self._asked(self._session.list_tools(params=params), _LIST_TIMEOUT_S)
            found += [
                offered(tool.name, tool.description, tool.input_schema) for tool in page.tools
            ]
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise Failed(f"{self._endpoint.title}: its list of tools has no end")

    async def call(
        self, tool: str, arguments: Mapping[str, Any], deadline_s: float
    ) -> types.CallToolResult:
        """The server's answer, or one of the four ways in which there is none (see the module)."""
        broken = self._broken
        try:
            async with asyncio.timeout(deadline_s):
                return await self._answer(self._session.call_tool(tool, dict(arguments)))
        except TimeoutError:
            if self._broken == broken:
                raise
            what = f"its answer is no message: {self._garbage[:80]!r}"
            raise Failed(f"{self._endpoint.title}: {what}") from None

    async def is_answering(self, within_s: float) -> bool:
        """Whether the server says anything at all."""
        try:
            await self._asked(self._session.list_tools(), within_s)
        except (Failed, Lost) as error:
            return isinstance(error, Failed) and not isinstance(error, _Silent)
        return True

    async def close(self) -> None:
        """Ends it, and the server if it is ours. Never raises and never hangs."""
        self._closing.set()
        if self._life is not None:
            await asyncio.wait({self._life}, timeout=_CLOSE_TIMEOUT_S)

    async def _live(self) -> None:
        """The whole life of the connection."""
        error: BaseException | None = None
        try:
            with self._scope:
                async with contextlib.AsyncExitStack() as stack:
                    client = await self._entered(stack)
                    if not self._ready.done():
                        self._ready.set_result(client)
                    await self._closing.wait()
        except (Exception, asyncio.CancelledError) as caught:
            error = caught
        finally:
            if not self._ready.done():
                self._ready.set_exception(await self._down(error))
            if self._error_text is not None:
                self._error_text.close()

    async def _entered(self, stack: contextlib.AsyncExitStack) -> Client:
        is_legacy = self._needs_session and bool(self._endpoint.url)
        transport = await self._http(stack) if self._endpoint.url else self._stdio()
        client = Client(
            transport,
            # Over HTTP only the older protocol has sessions; a process is a session in either.
            mode="legacy" if is_legacy else "auto",
            message_handler=self._noticed,
            client_info=_CLIENT,
            cache=None,
        )
        await stack.enter_async_context(client)
        if self._error_text is not None:
            self._error_text.given_away()
        if is_legacy and not self._has_session:
            raise ValueError(
                f"{self._endpoint.title} keeps no sessions, so it cannot keep trajectories apart: set "
                "Mcp.shares = 'run'"
            )
        return client

    def _stdio(self) -> Any:
        environment = get_default_environment() | self._endpoint.read_env()
        program, *arguments = self._endpoint.started_by(environment)
        self._error_text = PipeTail()
        parameters = StdioServerParameters(
            command=program,
            args=arguments,
            env=self._endpoint.read_env(),
            cwd=self._endpoint.cwd or None,
            encoding_error_handler="replace",
        )
        return stdio_client(parameters, errlog=self._error_text.writer)

    async def _http(self, stack: contextlib.AsyncExitStack) -> Any:
        client = httpx2.AsyncClient(
            headers=self._endpoint.read_headers(),
            # Calls have deadlines of their own, and as many go at a time as the menu lets through.
            timeout=httpx2.Timeout(30.0, read=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            event_hooks={"response": [self._saw]},
        )
        await stack.enter_async_context(client)
        return streamable_http_client(
            self._endpoint.read_url(), http_client=client, max_sse_event_size=_MAX_EVENT_BYTES
        )

    async def _saw(self, response: httpx2.Response) -> None:
        self._has_session |= "mcp-session-id" in response.headers
        if response.status_code >= 400:
            self._status = response.status_code

    async def _noticed(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.is_list_stale = True
        elif isinstance(message, ValidationError):
            self._garbage = str(message.errors(include_url=False)[0].get("input", ""))
            self._broken += '"jsonrpc"' in self._garbage

    async def _asked(self, request: Any, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(request)
        except TimeoutError:
            raise _Silent(
                f"{self._endpoint.title} does not answer within {timeout_s:g} s{self._evidence()}"
            ) from None
        except BadArguments as error:
            raise Failed(f"{self._endpoint.title}: {error}") from None

    async def _answer(self, request: Any) -> Any:
        title = self._endpoint.title
        try:
            return await request
        except MCPError as error:
            if error.code == types.INVALID_PARAMS:
                raise BadArguments(error.message) from None
            is_forgotten = error.code == types.INVALID_REQUEST and self._status == 404
            if error.code == types.CONNECTION_CLOSED or is_forgotten:
                await self._last_words()
                raise Lost(f"{title}: the connection is over{self._evidence()}") from None
            said = f"error {error.code}: {' '.join(error.message.split()):.{_SHOWN_CHARS}}"
            raise Failed(f"{title}: {said}{self._http_status()}") from None
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError) as error:
            raise Lost(f"{title}: {one_line(error)}") from None
        except (
            Exception
        ) as error:  # an answer that breaks the protocol, whatever the package makes of it
            raise Failed(f"{title}: {one_line(error)}") from None

    async def _down(self, error: BaseException | None) -> Exception:
        """Why there is no connection."""
        await self._last_words()
        error = first_of(error)
        if isinstance(error, ValueError) and not isinstance(error, ValidationError):
            return error
        title, evidence = self._endpoint.title, self._evidence()
        is_closed = isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED
        if self._endpoint.command and is_closed:
            return ServerDown(f"{title} ended before it was ready{evidence}")
        if error is None:
            return ServerDown(f"{title} was given up")
        return ServerDown(f"{title}: {one_line(error)}{evidence}")

    async def _last_words(self) -> None:
        if self._error_text is not None:
            await self._error_text.wait_for_end(_LAST_WORDS_S)

    def _evidence(self) -> str:
        """What is known beside the error: HTTP status, what stood in the place of messages, the error stream."""
        found = self._http_status()
        if self._garbage:
            found += (
                f"; it wrote {self._garbage[:80]!r}, which is no message, to its standard output"
            )
        said = "" if self._error_text is None else self._error_text.last_lines()
        return found + (f"; its error stream ends with: {said}" if said else "")

    def _http_status(self) -> str:
        if self._status in (401, 403):
            return f"; HTTP {self._status}: set Mcp.headers"
        return f"; HTTP {self._status}" if self._status else ""


class _Silent(Failed):
    """No answer to a question that every server answers."""


def first_of(error: BaseException | None) -> BaseException | None:
    """The error itself, or the first one of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def one_line(error: BaseException) -> str:
    """By type and message."""
    text = " ".join(str(error).split())
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {text:.{_SHOWN_CHARS}}" if text else type(error).__name__
