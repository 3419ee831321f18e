"""An MCP server by the official package: over stdio as a program, over HTTP in a thread of the test.

python mcp_server.py            # stdio
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import EmbeddedResource, ResourceLink, TextContent, TextResourceContents


def make_server() -> MCPServer:
    server = MCPServer("test", instructions="For tests.", log_level="CRITICAL")
    remembered: list[str] = []

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def fail(text: str) -> str:
        """Fails."""
        raise ToolError(text)

    @server.tool()
    def remember(text: str) -> str:
        """What it was told so far."""
        remembered.append(text)
        return " ".join(remembered)

    @server.tool()
    async def nap(seconds: float) -> str:
        """Sleeps, and remembers whether it was left alone."""
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            remembered.append("cancelled")
            raise
        return "rested"

    @server.tool(structured_output=False)
    def blocks() -> list:
        """One block of every kind."""
        resource = TextResourceContents(uri="file:///a.txt", text="in a file")
        return [
            TextContent(type="text", text="first"),
            Image(data=b"12345", format="png"),
            EmbeddedResource(type="resource", resource=resource),
            ResourceLink(type="resource_link", uri="file:///b.txt", name="b"),
            TextContent(type="text", text="last"),
        ]

    @server.tool()
    def whose(context: Context) -> str:
        """The process, and over HTTP the session."""
        return f"{os.getpid()} {(context.headers or {}).get('mcp-session-id', 'none')}"

    @server.tool()
    def pad(size: int) -> str:
        """A text of this length."""
        return "x" * size

    return server


@contextlib.contextmanager
def serving(
    *, port: int = 0, token: str = "", stateless: bool = False, server: MCPServer | None = None
) -> Iterator[str]:
    """The URL of a server in a thread.

    Args:
      port: 0: any.
      token: requests without "Bearer TOKEN" are refused.
    """
    # A program over stdio, which imports this file, starts without these.
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    app = (server or make_server()).streamable_http_app(stateless_http=stateless)

    async def guarded(scope, receive, send):
        is_refused = (
            bool(token)
            and scope["type"] == "http"
            and Request(scope).headers.get("authorization") != f"Bearer {token}"
        )
        answer = PlainTextResponse("no", status_code=401) if is_refused else app
        await answer(scope, receive, send)

    listening = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(guarded, log_level="critical", timeout_graceful_shutdown=1, ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    finally:
        running.should_exit = True
        thread.join(20)
        listening.close()


if __name__ == "__main__":
    make_server().run()
