"""What is looked at before anything is started: limits of this process, files, addresses. One line for each trouble.

Not covered: isolation, which probe.py tries out.
"""

import contextlib
import errno
import logging
import os
import pathlib
import resource
import socket
import ssl
from collections.abc import Iterator

from sandbox_server import address
from sandbox_server.config import ServerConfig
from sandbox_server.front import descriptors
from sandbox_server.front.auth import read_token
from sandbox_server.front.engine import tasks_of_user
from sandbox_server.front.unix_address import UnixAddress

_DEFAULT_CLIENT_BYTES = 4 << 20
_FETCHED_BYTES = 768 << 10  # inside/runner.py: FETCH_BYTES
_REST_OF_AN_ANSWER_BYTES = 64 << 10
log = logging.getLogger("sandbox_server")
_OWN_TASKS = 24  # threads of gRPC, fork servers and what waits in them
_TASKS_PER_PROGRAM = 4
_BIND_REMEDIES = {
    errno.EADDRINUSE: "another program listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: 127.0.0.1 is its own, 0.0.0.0 all it has",
    errno.EACCES: "ports below 1024 are for root: choose a higher one",
}


def check(config: ServerConfig) -> None:
    """Raises ValueError, in one line with its remedy, if a server with these settings could not run here."""
    check_process(config)
    check_secrets(config)
    remark_on_answers(config)
    UnixAddress(config.address).check_is_free()
    for flag, text in (
        ("--address", config.address),
        ("--metrics-address", config.metrics_address),
        ("--http-address", config.http_address),
    ):
        place = address.read(flag, text) if text else ""
        if isinstance(place, address.HostPort):
            check_is_free(flag, place)


def remark_on_answers(config: ServerConfig) -> None:
    """Warns where an answer may be longer than clients read by default."""
    longest = 3 * config.maximum_limits.output_bytes + _FETCHED_BYTES + _REST_OF_AN_ANSWER_BYTES
    if longest > _DEFAULT_CLIENT_BYTES:
        log.warning(
            "answers may be longer than the 4 MiB that gRPC clients read by default: raise their "
            "grpc.max_receive_message_length, or lower --maximum-output-bytes",
            extra={"longest_answer_bytes": longest},
        )


def check_process(config: ServerConfig) -> None:
    """Limits of this process: open files, raised if they can be, and tasks of its user."""
    descriptors.check_limit(descriptors.raise_limit(), config.concurrency)
    allowed = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if allowed == resource.RLIM_INFINITY or os.geteuid() == 0:
        return
    running = tasks_of_user(os.getuid())
    needed = _OWN_TASKS + _TASKS_PER_PROGRAM * config.concurrency
    if allowed - running < needed:
        raise ValueError(
            f"{allowed} processes and threads are allowed for this user and {running} run, but "
            f"{needed} more are needed with --concurrency {config.concurrency}: raise `ulimit -u`, "
            "or lower --concurrency"
        )


def check_secrets(config: ServerConfig) -> None:
    """The token and the TLS files can be read and are what they should be."""
    if config.token_file:
        with _reading("--token-file", config.token_file):
            read_token(config.token_file)
    for flag, path in (
        ("--tls-certificate", config.tls_certificate),
        ("--tls-key", config.tls_key),
        ("--tls-client-ca", config.tls_client_ca),
    ):
        if path:
            with _reading(flag, path):
                pathlib.Path(path).read_bytes()
    if not config.tls_certificate:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password of ours OpenSSL would ask for one at the terminal.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(
            f"--tls-certificate {config.tls_certificate} and --tls-key {config.tls_key} are no "
            f"certificate and its key, in PEM and without a password: {_reason(error)}"
        ) from None
    if config.tls_client_ca:
        try:
            context.load_verify_locations(config.tls_client_ca)
        except ssl.SSLError as error:
            raise ValueError(
                f"--tls-client-ca {config.tls_client_ca} holds no certificate in PEM: {_reason(error)}"
            ) from None


@contextlib.contextmanager
def _reading(flag: str, path: str) -> Iterator[None]:
    """Turns an OSError into one line with flag and path."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{flag} {path} cannot be read: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return str(error).split(" (_ssl")[0]


def check_is_free(flag: str, place: address.HostPort) -> None:
    """Raises ValueError if nothing can listen at `place`."""
    try:
        found = socket.getaddrinfo(
            place.host or "::", place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError):
        raise ValueError(
            f"{flag} {place}: the host {place.host} is not known here: give an address of this machine"
        ) from None
    errors = [error for entry in found if (error := _bind_error(entry[0], entry[4])) is not None]
    in_use = [error for error in errors if error.errno == errno.EADDRINUSE]
    # A name may stand for an address that is not there, as localhost for ::1: one that works is enough.
    if in_use or len(errors) == len(found):
        error = (in_use or errors)[0]
        remedy = _BIND_REMEDIES.get(error.errno or 0, f"it cannot be listened at: {error.strerror}")
        raise ValueError(f"{flag} {place}: {remedy}")


def _bind_error(family: int, where: tuple) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(1)
    except OSError as error:
        return error
    return None
