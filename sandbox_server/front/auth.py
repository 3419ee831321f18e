"""Who may call: a bearer token from a file, and TLS with or without client certificates."""

import hmac
import pathlib
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from sandbox_server.config import ServerConfig

_SHORTEST_TOKEN = 16
_OPEN_PREFIX = "/grpc.health.v1.Health/"  # probes of orchestrators cannot send a token


def read_token(path: str) -> bytes:
    """Token of the file, without surrounding white space."""
    token = pathlib.Path(path).read_bytes().strip()
    if len(token) < _SHORTEST_TOKEN:
        raise ValueError(
            f"--token-file {path}: the token is shorter than {_SHORTEST_TOKEN} characters"
        )
    return token


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """TLS credentials, None if the server speaks plain text."""
    if not config.tls_certificate:
        return None
    key = pathlib.Path(config.tls_key).read_bytes()
    chain = pathlib.Path(config.tls_certificate).read_bytes()
    authority = pathlib.Path(config.tls_client_ca).read_bytes() if config.tls_client_ca else None
    return grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=authority, require_client_auth=authority is not None
    )


async def _refuse(_request: object, context: grpc.aio.ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "missing or wrong bearer token")


async def _refuse_stream(_requests: object, context: grpc.aio.ServicerContext):
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "missing or wrong bearer token")
    yield None  # makes this a generator, as a streaming handler must be


class TokenCheck(grpc.aio.ServerInterceptor):
    """Lets a call pass only with `authorization: Bearer <token>`."""

    def __init__(self, token: bytes):
        self._expected = b"Bearer " + token

    async def intercept_service(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_OPEN_PREFIX):
            return handler
        for key, value in handler_call_details.invocation_metadata or ():
            given = value if isinstance(value, bytes) else str(value).encode()
            if key == "authorization" and hmac.compare_digest(given, self._expected):
                return handler
        if handler.response_streaming:  # pyright: ignore[reportAttributeAccessIssue]
            return grpc.stream_stream_rpc_method_handler(_refuse_stream)
        # A handler of a stream, of which nothing is read: a body costs the server nothing.
        return grpc.stream_unary_rpc_method_handler(_refuse)
