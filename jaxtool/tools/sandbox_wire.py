"""Between the server's messages and the core's types: programs out, results and errors in. Pure."""

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


def result_of(response: pb.ExecuteResponse) -> ToolResult:
    """The core's result for a response of the server."""
    return ToolResult(
        status=_STATUSES[response.status],
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
    """When the server wants to be asked again, 0 if it did not say."""
    for key, value in error.trailing_metadata() or ():
        if key == "retry-after-ms":
            return int(value) / 1000
    return 0.0


def one_line(address: str, error: grpc.aio.AioRpcError) -> str:
    """Server, code and details for a message."""
    details = " ".join((error.details() or "").split())[:300]
    return f"sandbox at {address}: {error.code().name}: {details}"
