"""An HTTP/1.1 door to the same engine, for clients of SandboxFusion: `POST /run_code`, `GET /v1/ping`.

Parses with h11: 300 KB of plain Python without dependencies, where aiohttp brings 15 MB with nine
others. What a program means is read in run_code.py. Queue, limits, drain, metrics and the result are
those of the gRPC door, because both call `SandboxService.execute`.

Order of checks, so that a stranger costs nothing: connections, size of the head (16 KiB), path,
`Origin` (a web page must not reach this door), token, size of the body, bytes of all bodies together.
Only then is the body read. What may pass by itself is answered 504 with `Retry-After`: verl's client
tries again on 504 and gives up on 429 and 503.
"""

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import hmac
import http
import json
import logging
import ssl
from collections.abc import AsyncIterator

import grpc
import h11

from sandbox_server import address as addresses
from sandbox_server.config import ServerConfig
from sandbox_server.front import descriptors, run_code
from sandbox_server.front.auth import read_token
from sandbox_server.front.service import Refusal, SandboxService, refusal_of

_HEAD_BYTES = 16 << 10
_READ_BYTES = 64 << 10
_HEAD_TIMEOUT_S = 30.0  # an idle connection too
_BODY_TIMEOUT_S = 60.0
_WRITE_TIMEOUT_S = 60.0
_LINGER_S = 2.0  # lets a client read why its body was not taken
_BODIES_AT_ONCE_BYTES = 64 << 20
_MOST_CONNECTIONS = 1024
_REASON_CHARS = 150
_BUSY_RETRY_S = 1
_ROUTES = {b"/run_code": b"POST", b"/v1/ping": b"GET"}
_WHAT_THERE_IS = "this door has POST /run_code and GET /v1/ping; sessions are on the gRPC door"
_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 422,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.FAILED_PRECONDITION: 422,
}
_MAY_PASS = 504
log = logging.getLogger("sandbox_server.http_door")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """What goes back. `closes`: a body was left unread, so the connection cannot go on."""

    status: int
    body: object
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    closes: bool = False


class _Refused(Exception):
    """Ends a request with an answer."""

    def __init__(self, answer: _Answer):
        super().__init__(answer.reason)
        self.answer = answer


class _ClientGone(Exception):
    """Nobody waits for the answer any more."""


def _refused(status: int, message: str, *, closes: bool = False, retry_s: int = 0) -> _Answer:
    headers = (("Retry-After", str(retry_s)),) if retry_s else ()
    # `requests` shows the reason phrase in its errors, and nothing of the body.
    reason = "".join(c if " " <= c <= "~" else "?" for c in message[:_REASON_CHARS])
    return _Answer(
        status=status,
        body=run_code.refusal(message),
        reason=reason,
        headers=headers,
        closes=closes,
    )


class _Connection:
    """One client's connection: h11's state and the streams below it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer
        self._state = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self.host = str((writer.get_extra_info("peername") or ("",))[0])
        self._left_unread = False

    async def next_event(self) -> object:
        while (event := self._state.next_event()) is h11.NEED_DATA:
            if self._state.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._state.send(go_on) or b"")
            self._state.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def wait_until_gone(self) -> None:
        """Returns when the client hangs up. A next request that comes meanwhile is kept, up to a limit."""
        kept = 0
        while kept < _READ_BYTES and (data := await self._reader.read(_READ_BYTES)):
            kept += len(data)
            self._state.receive_data(data)
        if kept >= _READ_BYTES:
            await asyncio.Event().wait()

    async def send(self, answer: _Answer) -> None:
        body = json.dumps(answer.body, ensure_ascii=False).encode()
        reason = answer.reason or http.HTTPStatus(answer.status).phrase
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        headers += answer.headers
        if answer.closes:
            self._left_unread = True
            headers.append(("Connection", "close"))
        head = h11.Response(
            status_code=answer.status, headers=headers, reason=reason.encode("ascii")
        )
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._state.send(event) or b"")
        async with asyncio.timeout(_WRITE_TIMEOUT_S):
            await self._writer.drain()

    @property
    def can_answer(self) -> bool:
        return self._state.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def starts_next(self) -> bool:
        """Whether the connection takes another request."""
        if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
            return False
        self._state.start_next_cycle()
        return True

    async def close(self) -> None:
        """Where a body is under way, ends our side first and reads on, or its client loses the answer."""
        if not self._left_unread:
            return self._writer.close()
        with contextlib.suppress(OSError, RuntimeError, NotImplementedError, TimeoutError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
            async with asyncio.timeout(_LINGER_S):
                while await self._reader.read(_READ_BYTES):
                    pass
        self._writer.close()


class HttpDoor:
    """Listens at `config.http_address` and hands programs to `service`."""

    def __init__(self, config: ServerConfig, service: SandboxService):
        self._config = config
        self._service = service
        self._token = read_token(config.token_file) if config.token_file else b""
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], bool] = {}  # True: a request is being served
        self._body_bytes = 0
        limit = descriptors.raise_limit()
        # The gRPC door takes the other half.
        share = descriptors.max_connections(limit, config.concurrency) // 2
        self._most_connections = min(_MOST_CONNECTIONS, share)
        self.url = ""

    @property
    def num_connections(self) -> int:
        return len(self._connections)

    async def bind(self) -> None:
        """Takes the port; who connects before `open` is refused."""
        where = addresses.read("--http-address", self._config.http_address, takes_unix=False)
        assert isinstance(where, addresses.HostPort)
        context = _tls(self._config)
        self._server = await asyncio.start_server(
            self._accept,
            where.host or None,
            where.port,
            limit=_READ_BYTES,
            start_serving=False,
            ssl=context,
            ssl_handshake_timeout=10.0 if context else None,
        )
        port = self._server.sockets[0].getsockname()[1]
        bound = dataclasses.replace(where, port=port)
        self.url = f"{'https' if context else 'http'}://{bound}/run_code"

    async def open(self) -> None:
        assert self._server is not None
        await self._server.start_serving()

    async def stop(self) -> None:
        """Takes no more connections, lets requests end within the drain time, ends the rest."""
        if self._server is None:
            return
        self._server.close()
        for task, is_busy in list(self._connections.items()):
            if not is_busy:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=self._config.drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(reader, writer)
        is_full = len(self._connections) >= self._most_connections
        self._connections[task] = False
        try:
            if is_full:
                message = f"{self._most_connections} connections are open already"
                await connection.send(
                    _refused(_MAY_PASS, message, closes=True, retry_s=_BUSY_RETRY_S)
                )
            else:
                while await self._serve_one(connection, task):
                    self._connections[task] = False
            await connection.close()
        except (OSError, TimeoutError, _ClientGone, asyncio.CancelledError):
            pass  # idle, gone or drained
        except Exception:
            log.exception("unexpected error")
        finally:
            writer.close()
            del self._connections[task]

    async def _serve_one(self, connection: _Connection, task: asyncio.Task[None]) -> bool:
        """Answers one request; whether another may follow."""
        try:
            async with asyncio.timeout(_HEAD_TIMEOUT_S):
                request = await connection.next_event()
            if not isinstance(request, h11.Request):
                return False
            self._connections[task] = True
            answer = await self._answer(connection, request)
        except h11.RemoteProtocolError as error:
            if not connection.can_answer:
                return False
            answer = _refused(error.error_status_hint, str(error), closes=True)
        except _Refused as refused:
            answer = refused.answer
        await connection.send(answer)
        return not answer.closes and not self._service.is_draining and connection.starts_next()

    async def _answer(self, connection: _Connection, request: h11.Request) -> _Answer:
        headers = {bytes(name): bytes(value) for name, value in request.headers}
        self._check_head(request, headers)
        async with self._body(connection, headers) as content:
            if request.method == b"GET":
                return self._ping()
            client = headers.get(b"client-id", b"")[:64].decode("latin-1")
            running = asyncio.create_task(self._run(content, client or f"http:{connection.host}"))
            # Somebody who hangs up does not want the answer: the run is killed.
            watching = asyncio.create_task(connection.wait_until_gone())
            try:
                await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    raise _ClientGone
                return running.result()
            finally:
                for task in (running, watching):
                    task.cancel()
                await asyncio.gather(running, watching, return_exceptions=True)

    def _check_head(self, request: h11.Request, headers: dict[bytes, bytes]) -> None:
        path = request.target.partition(b"?")[0]
        method = _ROUTES.get(path)
        if method is None:
            raise _Refused(_refused(404, _WHAT_THERE_IS, closes=True))
        if request.method != method:
            answer = _refused(405, _WHAT_THERE_IS, closes=True)
            allow = (("Allow", method.decode()),)
            raise _Refused(dataclasses.replace(answer, headers=allow))
        if b"origin" in headers:
            raise _Refused(_refused(403, "requests of web pages are not taken", closes=True))
        if method == b"POST" and self._token and not _shows(headers, self._token):
            code = grpc.StatusCode.UNAUTHENTICATED
            answer = self._refuse(Refusal(code=code, message="missing or wrong token"))
            raise _Refused(
                dataclasses.replace(answer, headers=(("WWW-Authenticate", "Bearer"),), closes=True)
            )

    @contextlib.asynccontextmanager
    async def _body(
        self, connection: _Connection, headers: dict[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        """The body, whose bytes count among those of all requests until the answer is known."""
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if taken + size > self._config.http_body_bytes:
                message = f"the body is larger than {self._config.http_body_bytes} bytes"
                raise _Refused(_refused(413, f"{message} (--http-body-bytes)", closes=True))
            if self._body_bytes + size > max(_BODIES_AT_ONCE_BYTES, self._config.http_body_bytes):
                message = "the bodies of other requests fill the memory set aside for them"
                raise _Refused(_refused(_MAY_PASS, message, closes=True, retry_s=_BUSY_RETRY_S))
            taken += size
            self._body_bytes += size

        content = bytearray()
        try:
            announced = int(headers.get(b"content-length", b"0"))
            take(announced)
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                while isinstance(event := await connection.next_event(), h11.Data):
                    content += event.data
                    take(max(0, len(content) - taken))
            if not isinstance(event, h11.EndOfMessage):
                raise _ClientGone
            yield bytes(content)
        except TimeoutError:
            message = f"the body did not arrive within {_BODY_TIMEOUT_S:g} s"
            raise _Refused(_refused(408, message, closes=True)) from None
        finally:
            self._body_bytes -= taken

    def _ping(self) -> _Answer:
        if self._service.is_draining or not self._service.is_ready:
            return _refused(503, "draining, or no fork server lives", retry_s=_BUSY_RETRY_S)
        return _Answer(status=200, body="pong")

    async def _run(self, content: bytes, client: str) -> _Answer:
        try:
            request = run_code.read_request(content, self._config)
            response = await self._service.execute(request, client)
        except Exception as error:
            return self._refuse(error if isinstance(error, Refusal) else refusal_of(error))
        return _Answer(status=200, body=run_code.answer(response))

    def _refuse(self, refusal: Refusal) -> _Answer:
        self._service.count_refusal(refusal)
        status = _HTTP_STATUS.get(refusal.code, _MAY_PASS)
        retry_s = 0
        if status == _MAY_PASS:
            retry_s = max(_BUSY_RETRY_S, -(-refusal.retry_after_ms // 1000))
        return _refused(status, refusal.message, retry_s=retry_s)


def _shows(headers: dict[bytes, bytes], token: bytes) -> bool:
    """Whether the request brings the token: as a bearer, or as the password of `http://x:TOKEN@host`.

    The second is for clients that only let their URL be set, as verl's does.
    """
    kind, _, given = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif kind.lower() != b"bearer":
        return False
    return hmac.compare_digest(given.strip(), token)


def _tls(config: ServerConfig) -> ssl.SSLContext | None:
    """The gRPC door's certificates; None if the server speaks plain text."""
    if not config.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.tls_certificate, config.tls_key)
    if config.tls_client_ca:
        context.load_verify_locations(config.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
