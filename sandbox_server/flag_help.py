"""What each flag of the server means, with its unit. A test holds this table to the settings.

`{default}` is filled in from ServerConfig; it is not written where a default says nothing.
"""

from typing import Any

# name of the setting: (placeholder, which is the unit where there is one; help)
SETTINGS: dict[str, tuple[str, str]] = {
    "address": (
        "HOST:PORT",
        "where gRPC clients connect; port 0 takes a free one; or unix:/path ({default})",
    ),
    "http_address": (
        "HOST:PORT",
        "where SandboxFusion's clients POST /run_code; not given: no HTTP door",
    ),
    "http_body_bytes": ("BYTES", "largest body of one HTTP request, in bytes ({default})"),
    "isolation": (
        "TIER",
        "namespace, landlock, or auto: the strongest that works here; none: no wall at all, for "
        "trusted code only ({default})",
    ),
    "concurrency": ("N", "programs that run at once; others wait (one for each core: {default})"),
    "packages": (
        "NAMES",
        "modules loaded besides numpy, sympy and scipy, so that a program gets them without the "
        "import; names with commas between them, as in pandas,networkx; costs memory in every "
        "fork server",
    ),
    "fork_servers": (
        "N",
        "warm processes of each kind, with and without scipy; 0: a quarter of --concurrency "
        "({default})",
    ),
    "flood_bytes": (
        "BYTES",
        "output after which a program is killed, in bytes of stdout and stderr together ({default})",
    ),
    "code_bytes": ("BYTES", "largest program, in bytes of UTF-8 ({default})"),
    "input_bytes": (
        "BYTES",
        "standard input and files of one request, together, in bytes ({default})",
    ),
    "intake_bytes": (
        "BYTES",
        "requests that are read, wait or run, together, in bytes; beyond it they wait unread "
        "({default})",
    ),
    "queue_capacity": (
        "N",
        "programs that may wait before others are refused; 0: 64 times --concurrency ({default})",
    ),
    "queue_wait_s": (
        "SECONDS",
        "refuse a program that would wait longer than this, in seconds ({default})",
    ),
    "result_cache_bytes": (
        "BYTES",
        "memory for answers of programs that clients allow to be reused, in bytes; 0: none "
        "({default})",
    ),
    "session_capacity": (
        "N",
        "sessions kept at once; the one idle longest makes room ({default})",
    ),
    "session_memory_bytes": (
        "BYTES",
        "memory that all sessions may hold between their blocks, in bytes; the largest idle one is "
        "ended ({default})",
    ),
    "session_idle_s": ("SECONDS", "end a session that is idle for so many seconds ({default})"),
    "token_file": (
        "PATH",
        "file with the token that clients must show, at least 16 characters; needed beyond "
        "loopback, unless --tls-client-ca is given",
    ),
    "tls_certificate": ("PATH", "certificate chain (PEM) of both doors; needs --tls-key"),
    "tls_key": ("PATH", "private key (PEM) of the certificate"),
    "tls_client_ca": ("PATH", "authority (PEM) that must have signed a client's certificate"),
    "metrics_address": (
        "HOST:PORT",
        "where Prometheus reads GET /metrics; not given: no such page",
    ),
    "drain_s": (
        "SECONDS",
        "after SIGTERM, seconds that running programs have to end ({default})",
    ),
    "log_code": ("", "write programs into the log, which never holds them otherwise"),
}

# --default-NAME, for requests that do not say it, and --maximum-NAME, beyond which they are refused.
LIMITS: dict[str, tuple[str, str]] = {
    "cpu_ms": ("MS", "CPU time of a program, all threads together, in milliseconds ({default})"),
    "wall_ms": (
        "MS",
        "time on the clock from the start of a program, in milliseconds ({default})",
    ),
    "memory_bytes": ("BYTES", "memory on top of the warm interpreter, in bytes ({default})"),
    "output_bytes": (
        "BYTES",
        "kept of stdout and of stderr each, in bytes; three quarters from the front, one from the "
        "end ({default})",
    ),
    "scratch_bytes": ("BYTES", "size of /tmp, in bytes; namespace tier only ({default})"),
    "threads": ("N", "threads of a program, the main one included ({default})"),
}


_OF_LIMITS = {"default": "for requests that do not say it: ", "maximum": "most of any request: "}


def limit(kind: str, name: str, default: object) -> dict[str, Any]:
    """As `lookup`, for a limit of one `kind`, default or maximum."""
    found = lookup(LIMITS, name, default)
    return found | {"help": _OF_LIMITS[kind] + found["help"]}


def lookup(table: dict[str, tuple[str, str]], name: str, default: object) -> dict[str, Any]:
    """Arguments for argparse: `help` and, where the flag takes a value, `metavar`."""
    metavar, text = table.get(name, ("VALUE", ""))
    text = text.format(default=default).replace("%", "%%")
    return {"help": text} | ({"metavar": metavar} if metavar else {})
