"""Asyncio client of one or many sandbox servers: deadlines, safe retries, typed results.

A user's error is a ToolResult; trouble of the infrastructure is retried and then raised as
ToolUnavailable, so that it is never scored. Use one client from one asyncio loop.
"""

import asyncio
import collections
import dataclasses
import pathlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import grpc
import grpc.aio

from jaxtool.core.ranges import check_range
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.balancer import Balancer, Endpoint
from jaxtool.tools.code_sessions import SessionCounts
from jaxtool.tools.result_cache import ResultCache
from jaxtool.tools.retries import Patience, TryAgain, with_retries
from jaxtool.tools.sandbox_session import SandboxSession
from jaxtool.tools.sandbox_wire import (
    UnknownReply,
    one_line,
    refusal_of,
    result_of,
    retry_after_s,
    sendable,
)
from jaxtool.tools.session_places import SessionPlaces
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

T = TypeVar("T")
_DEADLINE_MARGIN_S = 2.0
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
    sessions_opened: int = 0  # as of `SessionCounts`, and the next three
    sessions_lost: int = 0
    sessions_replayed: int = 0
    sessions_masked: int = 0


class SandboxClient:
    """A CodeRunner over sandbox servers at `addresses` (host:port or unix:/path)."""

    def __init__(self, addresses: Sequence[str], config: SandboxClientConfig):
        self._config = config
        self.addresses = tuple(addresses)
        self._balancer = Balancer(self.addresses)
        self.session_places = SessionPlaces(self.addresses)
        self.session_counts = SessionCounts()
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

    def count_earlier(self, programs: int) -> None:
        """An earlier process had them run behind its last checkpoint; their results are read back."""
        executions = self._before.executions + programs
        self._before = dataclasses.replace(self._before, executions=executions)

    @property
    def totals(self) -> "Totals":
        """Counters since the run began, those of earlier processes included."""
        stats, sessions = self.stats, dataclasses.asdict(self.session_counts)
        now = Totals(
            executions=stats.executions,
            retries=stats.retries,
            result_cache_hits=stats.result_cache_hits,
            server_result_cache_hits=stats.server_result_cache_hits,
            **{f"sessions_{name}": count for name, count in sessions.items()},
        )
        before = dataclasses.asdict(self._before)
        return Totals(**{name: n + before[name] for name, n in dataclasses.asdict(now).items()})

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
        self._count_result(result)
        return result

    async def create_session(
        self, *, name: str = "", has_checkpoints: bool = True, idle_s: float = 0.0
    ) -> SandboxSession:
        """A stateful interpreter on the server with the most room; close it when done.

        Where all servers are full, as far as this client knows, it waits: a server would end another's session.

        Args:
          name: of its random numbers, drawn by the configuration's seed; "": those of any program.
          has_checkpoints: a block that breaks a limit is rolled back; without, it costs several
            times less and such a block ends the session.
          idle_s: it ends when it is idle for longer, or for what the server allows at most (0).
        """
        seed = self._config.seed
        request = pb.CreateSessionRequest(
            limits=self._limits(),
            seed=stream_seed(seed, "session", name) if name else seed,
            idle_ttl_ms=round(idle_s * 1000),
            minimum_tier=_TIERS[self._config.minimum_tier],
            no_checkpoint=not has_checkpoints,
        )

        async def create(endpoint: Endpoint) -> SandboxSession:
            address = endpoint.address
            self.session_places.take(address)
            try:
                made = await self._stub(address).CreateSession(
                    request, timeout=self._config.deadline_s, metadata=self._metadata
                )
                if not made.session_id:
                    raise UnknownReply("a session without a name")
            except BaseException:
                self.session_places.give_back(address)
                raise
            return SandboxSession(
                address=address,
                session_id=made.session_id,
                stub=self._stub(address),
                metadata=self._metadata,
                deadline_s=self._config.deadline_s,
                places=self._calls_in_flight(),
                on_result=self._count_result,
                on_close=lambda: self.session_places.give_back(address),
            )

        try:
            # Safe to retry: a session whose name was lost on the way expires at its server.
            session = await self._with_retries(create, load=self.session_places.load)
        except ToolUnavailable:
            self._unavailable += 1
            raise
        self.session_counts.opened += 1
        return session

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

    async def packages(self) -> dict[str, tuple[str, ...]]:
        """The packages that each server has loaded; none for one that says nothing of itself."""
        return {
            address: tuple(said.packages) if isinstance(said, pb.InfoResponse) else ()
            for address, said in (await self.info()).items()
        }

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

        async def execute(endpoint: Endpoint) -> tuple[ToolResult, bool]:
            response = await self._stub(endpoint.address).Execute(
                request, timeout=config.deadline_s, metadata=self._metadata
            )
            return result_of(response), response.reused

        async with self._calls_in_flight():
            result, is_reused = await self._with_retries(execute)
        self._server_result_cache_hits += is_reused
        return result

    async def _with_retries(
        self,
        call: Callable[[Endpoint], Awaitable[T]],
        load: Callable[[Endpoint], float] | None = None,
    ) -> T:
        """The first answer. `call` must be safe to repeat; `load` is that of `Balancer.choose`."""
        config = self._config
        patience = Patience(
            attempts=config.attempts, backoff_s=config.backoff_s, deadline_s=config.deadline_s
        )

        async def attempt(endpoint: Endpoint) -> T:
            try:
                return await call(endpoint)
            except (grpc.aio.AioRpcError, UnknownReply) as error:
                raise self._trouble(endpoint, error) from error

        counted = self._count_retry
        _, answer = await with_retries(self._balancer, patience, attempt, counted, load)
        return answer

    def _calls_in_flight(self) -> asyncio.Semaphore:
        """Made at the first call, in the loop of the calls."""
        if self._places is None:
            self._places = asyncio.Semaphore(self._config.max_concurrency)
        return self._places

    def _count_result(self, result: ToolResult) -> None:
        self._by_status[result.status] += 1

    def _count_retry(self) -> None:
        self._retries += 1

    def _trouble(
        self, endpoint: Endpoint, error: grpc.aio.AioRpcError | UnknownReply
    ) -> TryAgain | ToolUnavailable:
        """Counts the failure; what to raise for it."""
        message = one_line(endpoint.address, error)
        if isinstance(error, UnknownReply):
            self._by_code[_UNKNOWN_REPLY] += 1
            return TryAgain(message)
        code = error.code()
        self._by_code[code.name] += 1
        if code in _HOPELESS:
            return ToolUnavailable(message)
        return TryAgain(
            message,
            is_busy=code is grpc.StatusCode.RESOURCE_EXHAUSTED,
            is_sick=code not in _NOT_SICK,
            pause_s=retry_after_s(error),
        )
