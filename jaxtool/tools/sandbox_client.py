"""Asyncio client of one or many sandbox servers: deadlines, safe retries, typed results.

A user's error is a ToolResult; trouble of the infrastructure is retried and then raised as
ToolUnavailable, so that it is never scored. Use one client from one asyncio loop.
"""

import asyncio
import collections
import dataclasses
import pathlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import grpc
import grpc.aio

from jaxtool.core.ranges import check_range
from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.balancer import Balancer, Endpoint
from jaxtool.tools.result_cache import ResultCache
from jaxtool.tools.sandbox_session import SandboxSession
from jaxtool.tools.sandbox_wire import (
    UnknownReply,
    one_line,
    refusal_of,
    result_of,
    retry_after_s,
    sendable,
)
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

T = TypeVar("T")
_DEADLINE_MARGIN_S = 2.0
_LONGEST_BACKOFF_S = 2.0
_TIERS = {
    "any": pb.TIER_UNSPECIFIED,
    "landlock": pb.TIER_LANDLOCK,
    "namespace": pb.TIER_NAMESPACE,
}
# Execute is pure, so whatever may pass by itself is tried again. These will not pass:
_HOPELESS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
)
# The server lives but is busy or gave an odd answer: no reason to avoid it.
_NOT_SICK = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
_UNKNOWN_REPLY = "UNKNOWN_REPLY"  # beside gRPC's codes in `ClientStats.failures_by_code`
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 20),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SandboxClientConfig:
    """Limits of each execution and manners of the client."""

    cpu_limit_s: float = 5.0  # CPU clock of the program: load does not use it up
    wall_limit_s: float = 15.0  # for programs that sleep
    memory_mib: int = 512  # on top of the warm interpreter
    output_bytes: int = 16 << 10  # of stdout and stderr each, head and tail kept
    threads: int = 16
    seed: int = 0  # of random and numpy's global generator
    minimum_tier: str = "landlock"  # any, landlock or namespace; a weaker server is refused
    attempts: int = 8  # with the back-off below: about 7 s, a fork server restarts in 3
    backoff_s: float = 0.1  # doubled each time, at most 2 s
    queue_allowance_s: float = 60.0  # time a call may wait for a place at a server
    max_concurrency: int = 64  # calls in flight of this client
    # Results kept by code, and taken from runs that the server did for others; 0 runs every call.
    result_cache_entries: int = 0
    token_file: str = ""  # bearer token, as given to the server
    tls_ca_file: str = ""  # speak TLS, trust this authority
    tls_certificate_file: str = ""  # and show this certificate (mTLS)
    tls_key_file: str = ""  # its key

    def __post_init__(self) -> None:
        check_range(self, "cpu_limit_s", "wall_limit_s", "backoff_s", "queue_allowance_s", above=0)
        counts = ("memory_mib", "output_bytes", "threads", "attempts", "max_concurrency")
        check_range(self, *counts, least=1)
        if self.result_cache_entries < 0 or self.seed < 0:
            raise ValueError(f"{self.result_cache_entries=} and {self.seed=} must not be negative")
        if self.minimum_tier not in _TIERS:
            raise ValueError(f"{self.minimum_tier=} must be one of {sorted(_TIERS)}")
        if bool(self.tls_certificate_file) != bool(self.tls_key_file):
            raise ValueError(
                f"{self.tls_certificate_file=} and {self.tls_key_file=} are given together"
            )
        if self.tls_certificate_file and not self.tls_ca_file:
            raise ValueError(f"{self.tls_certificate_file=} needs tls_ca_file: TLS starts with it")

    @property
    def deadline_s(self) -> float:
        return self.queue_allowance_s + self.wall_limit_s + _DEADLINE_MARGIN_S


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientStats:
    """Counters since the start of the client."""

    executions: int  # calls that ended in a result, result cache hits and joins included
    by_status: Mapping[ToolStatus, int]
    retries: int
    failures_by_code: Mapping[str, int]  # failed attempts by gRPC code
    unavailable: int  # calls given up: ToolUnavailable was raised
    result_cache_hits: int
    result_cache_joins: int
    server_result_cache_hits: (
        int  # answered by a server from what it ran for another client, or before
    )
    ejected_servers: int  # at this moment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Counters of a run, over all its processes; a checkpoint keeps them."""

    executions: int = 0
    retries: int = 0
    result_cache_hits: int = 0
    server_result_cache_hits: int = 0


class SandboxClient:
    """A CodeRunner over sandbox servers at `addresses` (host:port or unix:/path)."""

    def __init__(self, addresses: Sequence[str], config: SandboxClientConfig):
        self._config = config
        self.addresses = tuple(addresses)
        self._balancer = Balancer(self.addresses)
        self._result_cache = ResultCache(config.result_cache_entries)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._places: asyncio.Semaphore | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()
        if config.token_file:
            token = pathlib.Path(config.token_file).read_text("utf-8").strip()
            self._metadata = (("authorization", f"Bearer {token}"),)
        self._by_status: collections.Counter[ToolStatus] = collections.Counter()
        self._by_code: collections.Counter[str] = collections.Counter()
        self._retries = 0
        self._unavailable = 0
        self._server_result_cache_hits = 0
        self._before = Totals()

    def continue_from(self, before: "Totals") -> None:
        """Counts on from what an earlier process of the run counted."""
        self._before = before

    @property
    def totals(self) -> "Totals":
        """Counters since the run began, those of earlier processes included."""
        now, before = self.stats, self._before
        return Totals(
            executions=before.executions + now.executions,
            retries=before.retries + now.retries,
            result_cache_hits=before.result_cache_hits + now.result_cache_hits,
            server_result_cache_hits=before.server_result_cache_hits + now.server_result_cache_hits,
        )

    @property
    def stats(self) -> ClientStats:
        return ClientStats(
            executions=self._by_status.total(),
            by_status=dict(self._by_status),
            retries=self._retries,
            failures_by_code=dict(self._by_code),
            unavailable=self._unavailable,
            result_cache_hits=self._result_cache.hits,
            result_cache_joins=self._result_cache.joins,
            server_result_cache_hits=self._server_result_cache_hits,
            ejected_servers=self._balancer.num_ejected,
        )

    async def execute(self, code: str) -> ToolResult:
        code = sendable(code)
        result = refusal_of(code)
        if result is None:
            try:
                result = await self._result_cache.get(code, self._run)
            except ToolUnavailable:
                self._unavailable += 1
                raise
        self._by_status[result.status] += 1
        return result

    async def create_session(self, *, has_checkpoints: bool = True) -> SandboxSession:
        """A stateful interpreter on one of the servers; close it when done.

        Args:
          has_checkpoints: a block that breaks a limit is rolled back; without, it costs several
            times less and such a block ends the session.
        """
        request = pb.CreateSessionRequest(
            limits=self._limits(),
            seed=self._config.seed,
            minimum_tier=_TIERS[self._config.minimum_tier],
            no_checkpoint=not has_checkpoints,
        )

        async def create(stub: sandbox_pb2_grpc.SandboxStub) -> pb.Session:
            made = await stub.CreateSession(
                request, timeout=self._config.deadline_s, metadata=self._metadata
            )
            if not made.session_id:
                raise UnknownReply("a session without a name")
            return made

        try:
            # Safe to retry: a session whose name was lost on the way expires at its server.
            endpoint, made = await self._with_retries(create)
        except ToolUnavailable:
            self._unavailable += 1
            raise
        return SandboxSession(
            address=endpoint.address,
            session_id=made.session_id,
            stub=self._stub(endpoint.address),
            metadata=self._metadata,
            deadline_s=self._config.deadline_s,
        )

    async def info(self) -> dict[str, pb.InfoResponse | str]:
        """What each server says of itself, or why it says nothing."""
        found: dict[str, pb.InfoResponse | str] = {}
        for address in self.addresses:
            try:
                stub = self._stub(address)
                found[address] = await stub.Info(
                    pb.InfoRequest(), timeout=10, metadata=self._metadata
                )
            except grpc.aio.AioRpcError as error:
                found[address] = f"{error.code().name}: {error.details()}"
        return found

    async def close(self) -> None:
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close()

    def _stub(self, address: str) -> sandbox_pb2_grpc.SandboxStub:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open(address)
        return sandbox_pb2_grpc.SandboxStub(channel)

    def _open(self, address: str) -> grpc.aio.Channel:
        if not self._config.tls_ca_file:
            return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        authority = pathlib.Path(self._config.tls_ca_file).read_bytes()
        key, chain = None, None
        if self._config.tls_key_file:
            key = pathlib.Path(self._config.tls_key_file).read_bytes()
            chain = pathlib.Path(self._config.tls_certificate_file).read_bytes()
        credentials = grpc.ssl_channel_credentials(authority, key, chain)
        return grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)

    def _limits(self) -> pb.Limits:
        config = self._config
        return pb.Limits(
            cpu_ms=round(config.cpu_limit_s * 1000),
            wall_ms=round(config.wall_limit_s * 1000),
            memory_bytes=config.memory_mib << 20,
            output_bytes=config.output_bytes,
            threads=config.threads,
        )

    async def _run(self, code: str) -> ToolResult:
        config = self._config
        tier = _TIERS[config.minimum_tier]
        request = pb.ExecuteRequest(
            code=code,
            limits=self._limits(),
            seed=config.seed,
            minimum_tier=tier,
            may_reuse=config.result_cache_entries > 0,
        )

        async def execute(stub: sandbox_pb2_grpc.SandboxStub) -> tuple[ToolResult, bool]:
            response = await stub.Execute(
                request, timeout=config.deadline_s, metadata=self._metadata
            )
            return result_of(response), response.reused

        if self._places is None:
            self._places = asyncio.Semaphore(config.max_concurrency)
        async with self._places:
            _, (result, is_reused) = await self._with_retries(execute)
        self._server_result_cache_hits += is_reused
        return result

    async def _with_retries(
        self, call: Callable[[sandbox_pb2_grpc.SandboxStub], Awaitable[T]]
    ) -> tuple[Endpoint, T]:
        """The server that answered and its answer. `call` must be safe to repeat."""
        config = self._config
        give_up = time.monotonic() + config.deadline_s
        failed_attempts, backoff_s = 0, config.backoff_s
        last: Endpoint | None = None
        while True:
            endpoint = self._balancer.choose(avoid=last)
            try:
                return endpoint, await self._call(endpoint, call)
            except (grpc.aio.AioRpcError, UnknownReply) as error:
                pause_s = self._judge(endpoint, error, backoff_s)
                if not _is_busy(error):
                    failed_attempts += 1
                is_over = time.monotonic() + pause_s > give_up
                if failed_attempts >= config.attempts or is_over:
                    raise ToolUnavailable(one_line(endpoint.address, error)) from error
            last = endpoint
            self._retries += 1
            # Another server is tried at once; the same one gets time to recover.
            await asyncio.sleep(pause_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _call(
        self, endpoint: Endpoint, call: Callable[[sandbox_pb2_grpc.SandboxStub], Awaitable[T]]
    ) -> T:
        endpoint.in_flight += 1
        try:
            response = await call(self._stub(endpoint.address))
        finally:
            endpoint.in_flight -= 1
        self._balancer.succeeded(endpoint)
        return response

    def _judge(
        self, endpoint: Endpoint, error: grpc.aio.AioRpcError | UnknownReply, backoff_s: float
    ) -> float:
        """Counts the failure; seconds to wait before the next attempt. Raises if it is hopeless."""
        if isinstance(error, UnknownReply):
            self._by_code[_UNKNOWN_REPLY] += 1
            self._balancer.failed(endpoint)
            return backoff_s
        code = error.code()
        self._by_code[code.name] += 1
        if code in _HOPELESS:
            raise ToolUnavailable(one_line(endpoint.address, error)) from error
        if code not in _NOT_SICK:
            self._balancer.failed(endpoint)
        return max(backoff_s, retry_after_s(error))


def _is_busy(error: grpc.aio.AioRpcError | UnknownReply) -> bool:
    return (
        not isinstance(error, UnknownReply) and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    )
