"""Settings of a server, checked once at the door. Knows no flags and no environment."""

import dataclasses
import os
import pathlib

MIB = 1 << 20
_SHORTEST_TOKEN = 16


def _setting(default, help: str):
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Everything a server needs to know beside its index."""

    address: str = _setting("127.0.0.1:8000", "host:port; without a host 127.0.0.1; port 0: any")
    topk: int = _setting(3, "passages for a request that does not say how many")
    max_topk: int = _setting(100, "most passages that a query may ask for")
    max_query_chars: int = _setting(4096, "longest query, in characters")
    max_queries: int = _setting(4096, "most queries of one request")
    max_answer_passages: int = _setting(32_768, "most passages of one answer: queries times topk")
    max_body_mib: int = _setting(16, "largest body of a request, in MiB")
    body_timeout_s: float = _setting(30.0, "how long a client may take to send a body, in seconds")
    concurrency: int = dataclasses.field(
        default_factory=lambda: os.cpu_count() or 1,
        metadata={"help": "searches at once; default: one for each core"},
    )
    queue_queries: int = _setting(16_384, "queries admitted and not answered yet; more are refused")
    max_connections: int = _setting(1024, "open connections; further ones are closed")
    feedback: bool = _setting(True, "search again with words of the first passage found (BM25)")
    token_file: str = _setting("", "file with the bearer token that clients must send")
    tls_certificate: str = _setting("", "PEM file; with --tls-key the server speaks HTTPS")
    tls_key: str = _setting("", "PEM file of the certificate's key")
    drain_s: float = _setting(20.0, "how long SIGTERM waits for running requests, in seconds")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > 0:
                raise ValueError(f"--{field.name.replace('_', '-')} {value} must be above 0")
        if self.topk > self.max_topk:
            raise ValueError(f"--topk {self.topk} is above --max-topk {self.max_topk}")
        host, port = self.host, self.port  # raises if there are none
        if not self.is_local and not self.token_file:
            raise ValueError(
                f"--address {host}:{port} is not loopback: give --token-file (and TLS), or bind 127.0.0.1"
            )
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("--tls-certificate and --tls-key are given together")

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]") or "127.0.0.1"

    @property
    def port(self) -> int:
        text = self.address.rpartition(":")[2]
        if ":" not in self.address or not text.isascii() or not text.isdigit():
            raise ValueError(
                f"--address {self.address!r} must be host:port, such as 127.0.0.1:8000"
            )
        if int(text) > 65_535:
            raise ValueError(f"--address {self.address!r}: a port is at most 65535")
        return int(text)

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach the address."""
        return self.host in ("127.0.0.1", "localhost", "::1")


def read_token(path: str) -> bytes:
    """Token of the file, without surrounding white space."""
    token = pathlib.Path(path).read_bytes().strip()
    if len(token) < _SHORTEST_TOKEN:
        raise ValueError(f"the token in {path} is shorter than {_SHORTEST_TOKEN} characters")
    if not token.isascii() or len(token.split()) != 1:
        raise ValueError(f"the token in {path} must be one word of ASCII characters")
    return token
