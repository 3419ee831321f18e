"""Settings of a server, checked once at the door. Knows no flags and no environment."""

import dataclasses
import os

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
                raise ValueError(f"limit {field.name}={value} must be positive")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Everything a server needs to know."""

    address: str = "127.0.0.1:0"  # host:port, or unix:/path
    isolation: str = "auto"  # auto: the strongest tier that works; none: never unless given
    concurrency: int = dataclasses.field(  # programs at once
        default_factory=lambda: os.cpu_count() or 1
    )
    fork_servers: int = 0  # of each kind (with and without scipy); 0: concurrency / 4
    default_limits: LimitSet = LimitSet()
    maximum_limits: LimitSet = MAXIMUM_LIMITS
    flood_bytes: int = MIB  # output beyond which an execution is killed
    code_bytes: int = 256 << 10
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
            raise ValueError(f"{self.isolation=} must be auto, namespace, landlock or none")
        if self.concurrency < 1 or self.fork_servers < 0:
            raise ValueError(
                f"{self.concurrency=} must be at least 1, {self.fork_servers=} at least 0"
            )
        if self.result_cache_bytes < 0:
            raise ValueError(f"{self.result_cache_bytes=} must not be negative")
        if self.session_capacity < 1 or self.session_memory_bytes < 1:
            raise ValueError(
                f"{self.session_capacity=} and {self.session_memory_bytes=} must be at least 1"
            )
        for field in dataclasses.fields(LimitSet):
            default = getattr(self.default_limits, field.name)
            maximum = getattr(self.maximum_limits, field.name)
            if default > maximum:
                raise ValueError(f"default {field.name}={default} is above the maximum {maximum}")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("a TLS certificate and its key are given together")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("a client CA needs a TLS certificate and key")
        if not self.is_local and not self.token_file and not self.tls_client_ca:
            raise ValueError(
                f"{self.address=} is not loopback: give --token-file (and TLS), or bind 127.0.0.1"
            )

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach the address."""
        host = self.address.rpartition(":")[0].strip("[]")
        return self.address.startswith("unix:") or host in ("127.0.0.1", "localhost", "::1")

    @property
    def num_fork_servers(self) -> int:
        return self.fork_servers or max(1, self.concurrency // 4)

    @property
    def max_queued(self) -> int:
        return self.queue_capacity or 64 * self.concurrency
