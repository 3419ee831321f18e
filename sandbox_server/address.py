"""Addresses that a server may listen on, read strictly: HOST:PORT, [IPV6]:PORT or unix:PATH.

gRPC takes more forms, and takes 127.0.0.1:99999 for port 34463. Knows no sockets: whether an address is
free is seen in front/start_checks.py.
"""

import dataclasses
import ipaddress
import re

UNIX = "unix:"
_LONGEST_UNIX_PATH = 107  # bytes, of sockaddr_un
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostPort:
    """A TCP address. An empty host is every interface, port 0 any free one."""

    host: str  # without brackets
    port: int

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach it."""
        return self.host in _LOCAL_HOSTS

    def __str__(self) -> str:
        host = self.host or "::"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def read(flag: str, text: str, *, takes_unix: bool = True) -> HostPort | str:
    """A TCP address, or `unix:PATH` as it was given.

    Raises:
      ValueError: it is neither; `flag` and what would be are named.
    """
    if text.startswith(UNIX) and takes_unix:
        path = text.removeprefix(UNIX)
        if not path:
            raise ValueError(f"{flag} {text} names no path: give {flag} unix:/run/sandbox/socket")
        if len(path.encode()) > _LONGEST_UNIX_PATH:
            raise ValueError(
                f"{flag} {text[:60]}…: the path has {len(path.encode())} bytes, a socket's at most "
                f"{_LONGEST_UNIX_PATH}: choose a shorter one"
            )
        return text
    forms = "HOST:PORT or unix:PATH" if takes_unix else "HOST:PORT"
    host, colon, port = text.rpartition(":")
    host = _host(host) if colon and not text.startswith(UNIX) else None
    if host is None:
        raise ValueError(f"{flag} {text[:80]!r} is not {forms}, for example 127.0.0.1:50051")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(
            f"{flag} {text[:80]!r}: port {port[:20]!r} is none: give one from 1 to 65535, or 0 for any free one"
        )
    return HostPort(host=host, port=int(port))


def _host(text: str) -> str | None:
    """The host without brackets, None if it is none."""
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            return None
    return text if re.fullmatch(r"[A-Za-z0-9._-]*", text) else None
