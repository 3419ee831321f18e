"""Between the server's messages and the core's types: programs out, results and errors in. Pure."""

import re

import grpc.aio

from jaxtool.core.types import ToolResult, ToolStatus
from sandbox_server.wire import sandbox_pb2 as pb

MAX_CODE_BYTES = 256 << 10  # the server's default; longer programs are the policy's own error
_STATUSES = {
    pb.STATUS_OK: ToolStatus.OK,
    pb.STATUS_ERROR: ToolStatus.ERROR,
    pb.STATUS_CPU_LIMIT: ToolStatus.CPU_LIMIT,
    pb.STATUS_WALL_LIMIT: ToolStatus.WALL_LIMIT,
    pb.STATUS_MEMORY_LIMIT: ToolStatus.MEMORY_LIMIT,
    pb.STATUS_OUTPUT_LIMIT: ToolStatus.OUTPUT_LIMIT,
    pb.STATUS_KILLED: ToolStatus.KILLED,
}


def sendable(code: str) -> str:
    """`code` as protobuf takes it: without surrogates."""
    return code.encode("utf-8", "replace").decode("utf-8")


def refusal_of(code: str) -> ToolResult | None:
    """The result of a program that is too long to send, None for all others."""
    size = len(code.encode())
    if size <= MAX_CODE_BYTES:
        return None
    message = f"CodeTooLong: {size} bytes, at most {MAX_CODE_BYTES}"
    return ToolResult(status=ToolStatus.ERROR, stderr=message, error_type="CodeTooLong")


class UnknownReply(Exception):
    """A server answered with something that this client cannot read: trouble, never a result."""


def result_of(response: pb.ExecuteResponse) -> ToolResult:
    """The core's result for a response of the server.

    Raises:
      UnknownReply: its status is missing, or one that this client does not know.
    """
    status = _STATUSES.get(response.status)
    if status is None:
        raise UnknownReply(
            f"status {response.status} is none of {sorted(_STATUSES)}: client and server are of "
            "different versions"
        )
    return ToolResult(
        status=status,
        stdout=response.stdout,
        stderr=response.stderr,
        last_value=response.last_value,
        error_type=response.error_type,
        is_truncated=response.stdout_truncated or response.stderr_truncated,
        cpu_ms=response.cpu_ms,
        wall_ms=response.wall_ms,
        queue_ms=response.queue_ms,
    )


def retry_after_s(error: grpc.aio.AioRpcError) -> float:
    """When the server wants to be asked again, 0 if it did not say so in a way that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == "retry-after-ms":
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            # At most nine digits: more are no time to wait.
            return int(text) / 1000 if re.fullmatch(r"[0-9]{1,9}", text) else 0.0
    return 0.0


def one_line(address: str, error: grpc.aio.AioRpcError | UnknownReply) -> str:
    """Server, code and details for a message."""
    if isinstance(error, UnknownReply):
        return f"sandbox at {address}: unknown reply: {error}"
    details = " ".join((error.details() or "").split())[:300]
    return f"sandbox at {address}: {error.code().name}: {details}"
