"""The gRPC face: translates messages and errors, decides nothing about executions."""

import base64
import contextlib
import dataclasses
import logging
import platform
import secrets
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TypeVar

import grpc
import grpc.aio

from sandbox_server.config import LimitSet
from sandbox_server.front import batch, descriptors, version
from sandbox_server.front.engine import (
    Engine,
    InvalidRequest,
    Program,
    check_code,
    check_code_and_input,
    check_fetch_files,
    merge_limits,
)
from sandbox_server.front.execution import BrokenChild, FilesNotWritten, Outcome
from sandbox_server.front.fork_server import ForkServerGone
from sandbox_server.front.intake import ByteBudget
from sandbox_server.front.metrics import Metrics
from sandbox_server.front.queue import QueueFull
from sandbox_server.front.result_cache import ResultCache
from sandbox_server.front.session_tree import SessionLost, SupervisorError
from sandbox_server.front.sessions import Sessions
from sandbox_server.inside.lockdown import Tier
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

T = TypeVar("T")
log = logging.getLogger("sandbox_server.service")
_MESSAGE_CHARS = 500  # it travels in a header, where 8 KiB are allowed
_ID_CHARS = 32 << 10
TIER_NUMBERS = {Tier.NONE: 1, Tier.LANDLOCK: 2, Tier.NAMESPACE: 3}


class Refusal(Exception):
    """A gRPC error to reply with."""

    def __init__(self, *, code: grpc.StatusCode, message: str, retry_after_ms: int = 0):
        super().__init__(message)
        self.code = code
        self.message = " ".join(message.split())[:_MESSAGE_CHARS]
        self.retry_after_ms = retry_after_ms


def refusal_of(error: Exception) -> Refusal:
    """The gRPC error for each trouble of ours; anything unknown is INTERNAL."""
    if isinstance(error, QueueFull):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        return Refusal(code=code, message=str(error), retry_after_ms=error.retry_after_ms)
    if isinstance(error, InvalidRequest):
        return Refusal(code=grpc.StatusCode.INVALID_ARGUMENT, message=str(error))
    if isinstance(error, ForkServerGone):
        return Refusal(code=grpc.StatusCode.UNAVAILABLE, message=str(error), retry_after_ms=200)
    if isinstance(error, SessionLost):
        return Refusal(code=grpc.StatusCode.NOT_FOUND, message=str(error))
    if isinstance(error, SupervisorError):
        return Refusal(code=grpc.StatusCode.ABORTED, message=str(error))
    if isinstance(error, descriptors.TooFewDescriptors):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        return Refusal(code=code, message=str(error), retry_after_ms=500)
    if isinstance(error, FilesNotWritten):
        return Refusal(code=grpc.StatusCode.INVALID_ARGUMENT, message=str(error))
    if isinstance(error, BrokenChild):
        log.error("a child broke", extra={"why": str(error)})
        last = (str(error).splitlines() or ["no word"])[-1]
        return Refusal(code=grpc.StatusCode.INTERNAL, message=f"the child broke: {last}")
    log.error("unexpected error", exc_info=error)
    return Refusal(code=grpc.StatusCode.INTERNAL, message=f"{type(error).__name__}: {error}")


def _limits_message(limits: LimitSet) -> pb.Limits:
    return pb.Limits(**dataclasses.asdict(limits))


def _requested_limits(message: pb.Limits) -> dict[str, int]:
    return {field.name: getattr(message, field.name) for field in dataclasses.fields(LimitSet)}


def clean(text: object, limit: int) -> str:
    """Untrusted text from a report: a string of at most `limit` bytes of UTF-8, without surrogates."""
    if not isinstance(text, str):
        return ""
    return text[:limit].encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def response_of(outcome: Outcome, *, value_bytes: int) -> pb.ExecuteResponse:
    """The wire form of an outcome."""
    report, line = outcome.report, outcome.report.get("line")
    is_int = isinstance(line, int) and 0 <= line < 1 << 31
    said = report.get("value")
    value = clean(said, value_bytes)
    is_cut = report.get("cut") is True or (isinstance(said, str) and len(value) < len(said))
    return pb.ExecuteResponse(
        status=pb.Status.Name(outcome.status),
        stdout=outcome.stdout.text(),
        stderr=outcome.stderr.text(),
        last_value=value,
        error_type=clean(report.get("type"), 200),
        error_line=line if is_int else 0,  # pyright: ignore[reportArgumentType]
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        stdout_truncated=outcome.stdout.is_truncated or is_cut,
        stderr_truncated=outcome.stderr.is_truncated,
        stdout_bytes=outcome.stdout.total,
        stderr_bytes=outcome.stderr.total,
        cpu_ms=outcome.cpu_ms,
        wall_ms=outcome.wall_ms,
        peak_private_bytes=outcome.peak_bytes,
    )


def _add_files(response: pb.ExecuteResponse, report: dict, asked: Sequence[str]) -> None:
    """The files that were asked for, from a report that may be forged: names and base64 are checked."""
    files, too_large = report.get("files"), report.get("files_too_large")
    for name in dict.fromkeys(asked):
        content = files.get(name) if isinstance(files, dict) else None
        if isinstance(content, str):
            with contextlib.suppress(ValueError):
                response.files[name] = base64.b64decode(content, validate=True)
        elif isinstance(too_large, list) and name in too_large:
            response.files_too_large.append(name)


class SandboxService(sandbox_pb2_grpc.SandboxServicer):
    """Implements sandbox.proto over an engine."""

    def __init__(self, engine: Engine, remarks: list[str], metrics: Metrics):
        self._engine = engine
        self._metrics = metrics
        self._remarks = remarks
        self.server_id = secrets.token_hex(8)
        self.sessions = Sessions(engine.config, engine, self.server_id)
        self.result_cache = ResultCache(engine.config.result_cache_bytes)
        self.budget = ByteBudget(engine.config.num_intake_bytes)
        self.is_draining = False

    @property
    def is_ready(self) -> bool:
        return self._engine.pool.is_ready

    async def Execute(self, request, context):
        return await self._reply(self.execute(request, client_of(context)), context)

    async def ExecuteBatch(self, request_iterator, context) -> AsyncIterator[pb.BatchResponse]:
        client = client_of(context)

        async def execute(request: pb.ExecuteRequest) -> pb.BatchResponse:
            reply = pb.BatchResponse(request_id=request.request_id[:_ID_CHARS])
            try:
                reply.response.CopyFrom(await self.execute(request, client))
            except Exception as error:
                refusal = self._refused(error)
                reply.error.code = refusal.code.value[0]
                reply.error.message = refusal.message
                reply.error.retry_after_ms = refusal.retry_after_ms
            return reply

        window = self._engine.config.batch_window
        work = batch.answers(request_iterator, execute, window, self.budget)
        async with contextlib.aclosing(work) as answers:
            async for answer in answers:
                yield answer

    async def CreateSession(self, request, context):
        return await self._reply(self._create_session(request), context)

    async def _create_session(self, request: pb.CreateSessionRequest) -> pb.Session:
        self.check_open(request.minimum_tier)
        descriptors.check_room()
        limits = merge_limits(_requested_limits(request.limits), self._engine.config)
        session = await self.sessions.create(
            limits,
            request.seed,
            request.idle_ttl_ms / 1000,
            has_checkpoints=not request.no_checkpoint,
        )
        return pb.Session(session_id=session.session_id, server_id=self.server_id)

    async def ExecuteInSession(self, request, context):
        return await self._reply(self._execute_in_session(request, client_of(context)), context)

    async def _execute_in_session(
        self, request: pb.SessionExecuteRequest, client: str
    ) -> pb.ExecuteResponse:
        self.check_open(0)
        _check_id(request.request_id)
        check_code(request.code, self._engine.config)
        session = self.sessions.find(request.session_id)
        requested = {"cpu_ms": request.cpu_ms, "wall_ms": request.wall_ms}
        clocks = merge_limits(requested, self._engine.config)
        given = {name: getattr(clocks, name) for name, value in requested.items() if value}
        limits = dataclasses.replace(session.tree.limits, **given)
        block = await self.sessions.run(
            request.session_id,
            request.code,
            echo=not request.no_echo,
            limits=limits,
            client=client,
        )
        response = response_of(block.outcome, value_bytes=limits.output_bytes)
        response.request_id = request.request_id
        response.rolled_back = block.is_rolled_back
        response.session_lost = not session.is_alive
        response.session_evicted = block.is_evicted
        self._count(response, block.queued_s, request.code)
        return response

    async def ForkSession(self, request, context):
        return await self._reply(self._fork_session(request), context)

    async def _fork_session(self, request: pb.ForkSessionRequest) -> pb.Session:
        self.check_open(0)
        descriptors.check_room()
        session = await self.sessions.fork(request.session_id)
        return pb.Session(session_id=session.session_id, server_id=self.server_id)

    async def CloseSession(self, request, context):
        existed = await self.sessions.close(request.session_id)
        return pb.CloseSessionResponse(existed=existed)

    async def Info(self, request, context):
        engine, facts, config = self._engine, self._engine.pool.facts, self._engine.config
        return pb.InfoResponse(
            server_id=self.server_id,
            version=version.version(),
            tier=pb.Tier.Name(TIER_NUMBERS[engine.pool.tier]),
            landlock_abi=facts.get("landlock_abi", 0),
            architecture=platform.machine(),
            python_version=platform.python_version(),
            packages=facts.get("packages", {}),
            default_limits=_limits_message(config.default_limits),
            maximum_limits=_limits_message(config.maximum_limits),
            slots=config.concurrency,
            running=engine.queue.running,
            queued=engine.queue.queued,
            queue_capacity=config.max_queued,
            sessions=len(self.sessions),
            session_capacity=config.session_capacity,
            session_idle_ms=round(config.session_idle_s * 1000),
            code_bytes_limit=config.code_bytes,
            flood_bytes=config.flood_bytes,
            remarks=[*self._remarks, *facts.get("remarks", [])],
        )

    async def execute(self, request: pb.ExecuteRequest, client: str) -> pb.ExecuteResponse:
        """Checks, runs and counts one program, for whichever door it came through."""
        engine = self._engine
        self.check_open(request.minimum_tier)
        _check_id(request.request_id)
        limits = merge_limits(_requested_limits(request.limits), engine.config)
        files = dict(request.files)
        check_code_and_input(
            request.code, request.stdin, files, limits, engine.pool.tier, engine.config
        )
        check_fetch_files(request.fetch_files, engine.pool.tier)
        if (kept := self.result_cache.get(request)) is not None:
            kept.request_id = request.request_id
            return kept
        program = Program(
            code=request.code,
            stdin=request.stdin,
            limits=limits,
            seed=request.seed,
            echo=not request.no_echo,
            files=files,
            fetch_files=tuple(request.fetch_files),
        )
        outcome, queued_s = await engine.run(program, client)
        response = response_of(outcome, value_bytes=limits.output_bytes)
        response.request_id = request.request_id
        _add_files(response, outcome.report, request.fetch_files)
        self._count(response, queued_s, request.code)
        self.result_cache.keep(request, response)
        return response

    def _count(self, response: pb.ExecuteResponse, queued_s: float, code: str) -> None:
        """Completes a response, counts it and logs it."""
        response.queue_ms = round(queued_s * 1000)
        response.server_id = self.server_id
        name = pb.Status.Name(response.status).removeprefix("STATUS_").lower()
        metrics = self._metrics
        metrics.count_execution(name)
        metrics.queue_s.observe(queued_s)
        metrics.cpu_s.observe(response.cpu_ms / 1000)
        metrics.wall_s.observe(response.wall_ms / 1000)
        if log.isEnabledFor(logging.DEBUG) or self._engine.config.log_code:
            facts = {"status": name, "cpu_ms": response.cpu_ms, "queue_ms": response.queue_ms}
            facts["request_id"] = response.request_id[:64]
            if self._engine.config.log_code:
                facts["code"] = code
            log.info("execution", extra=facts)

    def count_refusal(self, refusal: Refusal) -> None:
        self._metrics.count_refusal(refusal.code.name.lower())

    def check_open(self, minimum_tier: int) -> None:
        """Raises if this server is going away or is weaker than the client wants."""
        if self.is_draining:
            raise Refusal(code=grpc.StatusCode.UNAVAILABLE, message="draining: use another server")
        tier = self._engine.pool.tier
        if minimum_tier > TIER_NUMBERS[tier]:
            wanted = (
                pb.Tier.Name(minimum_tier) if minimum_tier in pb.Tier.values() else minimum_tier
            )
            message = f"this server has tier {tier}, the request wants {wanted}"
            raise Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, message=message)

    async def _reply(self, work: Awaitable[T], context: grpc.aio.ServicerContext) -> T:
        try:
            return await work
        except Exception as error:
            refusal = self._refused(error)
        trailer = (
            (("retry-after-ms", str(refusal.retry_after_ms)),) if refusal.retry_after_ms else ()
        )
        await context.abort(refusal.code, refusal.message, trailer)
        raise AssertionError("abort raises")

    def _refused(self, error: Exception) -> Refusal:
        """The gRPC error for `error`, counted."""
        refusal = error if isinstance(error, Refusal) else refusal_of(error)
        self.count_refusal(refusal)
        return refusal


def _check_id(request_id: str) -> None:
    """It comes back with the answer, which must stay readable."""
    if len(request_id) > _ID_CHARS:
        raise InvalidRequest(
            f"request_id has {len(request_id)} characters, at most {_ID_CHARS} are taken"
        )


def client_of(context: grpc.aio.ServicerContext) -> str:
    """Who waits in the queue: the name a client gives itself, or its address."""
    for key, value in context.invocation_metadata() or ():
        if key == "client-id":
            return str(value)[:64]
    return context.peer()
