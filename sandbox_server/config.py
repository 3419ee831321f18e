"""Settings of a server, checked once at the door. Knows no flags and no environment."""

import dataclasses
import math
import os

from sandbox_server import address as addresses

MIB = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitSet:
    """Limits of one execution; see `Limits` in sandbox.proto."""

    cpu_ms: int = 5_000
    wall_ms: int = 15_000  # generous: sleep is cheap, and load must not make a time-out
    memory_bytes: int = 512 * MIB
    output_bytes: int = 16 << 10  # of each stream; what a prompt can bear
    scratch_bytes: int = 32 * MIB
    threads: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"limit {field.name}={value} must be at least 1")


MAXIMUM_LIMITS = LimitSet(
    cpu_ms=120_000,
    wall_ms=600_000,
    memory_bytes=4096 * MIB,
    output_bytes=MIB,
    scratch_bytes=256 * MIB,
    threads=64,
)
SMALLEST_LIMITS = LimitSet(
    cpu_ms=10, wall_ms=10, memory_bytes=MIB, output_bytes=64, scratch_bytes=4096, threads=1
)


_RANGES = {  # least and most of each number
    "concurrency": (1, 512),  # with what waits and sessions, user ids for 2,047 processes
    "fork_servers": (0, 512),
    "flood_bytes": (1, 1 << 30),
    "code_bytes": (1, 64 * MIB),
    "input_bytes": (1, 1 << 30),
    "http_body_bytes": (1, 1 << 30),
    "intake_bytes": (1, 1 << 50),
    "queue_capacity": (0, 1 << 20),
    "queue_wait_s": (0, 1e6),
    "result_cache_bytes": (0, 1 << 50),
    "session_capacity": (1, 1024),
    "session_memory_bytes": (1, 1 << 50),
    "session_idle_s": (0.001, 1e9),
    "drain_s": (0, 1e6),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Everything a server needs to know."""

    address: str = "127.0.0.1:0"  # host:port, or unix:/path
    http_address: str = ""  # host:port of SandboxFusion's POST /run_code; empty: no HTTP door
    http_body_bytes: int = 8 * MIB  # of one HTTP request
    isolation: str = "auto"  # auto: the strongest tier that works; none: never unless given
    concurrency: int = dataclasses.field(  # programs at once
        default_factory=lambda: os.cpu_count() or 1
    )
    packages: tuple[str, ...] = ()  # imported in each fork server besides numpy, sympy and scipy
    fork_servers: int = 0  # of each kind (with and without scipy); 0: concurrency / 4
    default_limits: LimitSet = LimitSet()
    maximum_limits: LimitSet = MAXIMUM_LIMITS
    flood_bytes: int = MIB  # output beyond which an execution is killed
    code_bytes: int = 256 << 10
    input_bytes: int = 16 * MIB  # standard input and files of a request, together
    intake_bytes: int = 512 * MIB  # requests that are read, wait or run, together
    queue_capacity: int = 0  # 0: 64 times `concurrency`
    queue_wait_s: float = 30.0  # refuse when the estimated wait is longer
    result_cache_bytes: int = 64 * MIB  # answers kept for requests with `may_reuse`; 0: none
    session_capacity: int = 64
    session_idle_s: float = 600.0
    session_memory_bytes: int = 4096 * MIB  # of all sessions between their blocks
    token_file: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""  # demand and check client certificates (mTLS)
    metrics_address: str = ""  # host:port of the Prometheus text page; empty: none
    drain_s: float = 20.0  # how long SIGTERM waits for running executions
    log_code: bool = False  # user code in the log: off unless given

    def __post_init__(self) -> None:
        if self.isolation not in ("auto", "namespace", "landlock", "none"):
            raise ValueError(
                f"isolation={self.isolation!r} must be auto, namespace, landlock or none"
            )
        self._check_ranges()
        for name in self.packages:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"--packages: {name!r} is not the name of a module, as pandas is")
        for field in dataclasses.fields(LimitSet):
            default = getattr(self.default_limits, field.name)
            maximum = getattr(self.maximum_limits, field.name)
            if default > maximum:
                raise ValueError(f"default {field.name}={default} is above the maximum {maximum}")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("a TLS certificate and its key are given together")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("a client CA needs a TLS certificate and key")
        self._check_addresses()

    def _check_ranges(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= most):
                raise ValueError(f"{name}={value} must be from {least} to {most}")

    def _check_addresses(self) -> None:
        addresses.read("--address", self.address)
        has_lock = bool(self.token_file or self.tls_client_ca)
        if not self.is_local and not has_lock:
            raise ValueError(
                f"--address {self.address} is not loopback: give --token-file (and TLS), or bind 127.0.0.1"
            )
        self._check_http(has_lock)
        if not self.metrics_address:
            return
        page = addresses.read("--metrics-address", self.metrics_address, takes_unix=False)
        if isinstance(page, addresses.HostPort) and not page.is_local and not self.token_file:
            raise ValueError(
                f"--metrics-address {self.metrics_address} is not loopback: give --token-file, which the "
                "page then asks for as well, or bind 127.0.0.1"
            )
        if self.metrics_address == self.address and not self.address.endswith(":0"):
            raise ValueError(f"--metrics-address and --address are both {self.address}")

    def _check_http(self, has_lock: bool) -> None:
        """The HTTP door binds by the rule of the gRPC door: loopback, or a token or client certificates."""
        if not self.http_address:
            return
        where = addresses.read("--http-address", self.http_address, takes_unix=False)
        if isinstance(where, addresses.HostPort) and not where.is_local and not has_lock:
            raise ValueError(
                f"--http-address {self.http_address} is not loopback: give --token-file (and TLS), or "
                "bind 127.0.0.1"
            )

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach the address."""
        where = addresses.read("--address", self.address)
        return isinstance(where, str) or where.is_local

    @property
    def max_message_bytes(self) -> int:
        """The longest request that is read; names of files and of the request are the rest."""
        return self.code_bytes + self.input_bytes + MIB

    @property
    def num_intake_bytes(self) -> int:
        """At least one longest request must fit."""
        return max(self.intake_bytes, self.max_message_bytes)

    @property
    def max_calls(self) -> int:
        """Open calls: all that can run or wait, and some to be told that the queue is full."""
        return self.concurrency + self.max_queued + self.session_capacity + 256

    @property
    def batch_window(self) -> int:
        """Requests of one stream that run or whose answer is not read yet."""
        return min(16 * self.concurrency, self.concurrency + self.max_queued)

    @property
    def num_fork_servers(self) -> int:
        return self.fork_servers or max(1, self.concurrency // 4)

    @property
    def max_queued(self) -> int:
        return self.queue_capacity or 64 * self.concurrency


def _is_loopback(address: str) -> bool:
    return address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1")


def _check_http(config: ServerConfig, has_lock: bool) -> None:
    """The HTTP door binds by the rule of the gRPC door: loopback, or a token or client certificates."""
    if config.http_body_bytes < 1:
        raise ValueError(f"{config.http_body_bytes=} must be positive")
    if not config.http_address:
        return
    host, _, port = config.http_address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(
            f"{config.http_address=} must be host:port with a port up to 65535, "
            "as in 127.0.0.1:8080"
        )
    if not _is_loopback(config.http_address) and not has_lock:
        raise ValueError(
            f"{config.http_address=} is not loopback: give --token-file (and TLS), "
            "or bind 127.0.0.1"
        )
