"""Connections between the hosts of a run: bytes from each to each, and the news that one of them has ended.

Every pair of hosts holds one TCP connection. What goes over it never touches a device, so it needs no turn among the
programs of the devices. Whoever reads a connection also learns that the other side is gone:
  a process that is killed or aborted    at once: its system closes the connection
  an error that ends a host              at once: it says so, with its line
  a machine or a network that is lost    after SILENT_S seconds without a byte; idle hosts send a beat every BEAT_S

The addresses come from one collective of the devices, the first of the run. A connection is taken only with the run's
random token. Not covered: what the bytes mean (`wire`), how a host ends then (`host_watch`).
"""

import contextlib
import os
import queue
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

SILENT_S = 60.0  # above what one call of a library holds Python's lock, reading weights for one
BEAT_S = 5.0
PORT = "JAXTOOL_HOST_PORT"  # in the environment: a fixed port, where a firewall opens few
_CONNECT_S = 60.0  # for all connections of a host
_FRAME = struct.Struct("<BQ")  # kind, bytes that follow
_HELLO = struct.Struct("<16sI")  # token, number of the host that connects
_DATA, _BEAT, _END, _STOP = 0, 1, 2, 3
_ADDRESS_BYTES = 256

# A host's number and its last line; "" at the end of its program, None where it broke off without a word.
OnEnd = Callable[[int, str | None], None]
OnStop = Callable[[int], None]  # a host's number: it is told to stop


class _Peer:
    """The connection to one other host."""

    def __init__(self, index: int, connection: socket.socket):
        self.index, self.connection = index, connection
        self.heard_s = time.monotonic()
        self.has_ended = False
        self.inbox: queue.SimpleQueue[bytes | None] = (
            queue.SimpleQueue()
        )  # None: there will be no more
        self._sending = threading.Lock()

    def send(self, kind: int, payload: bytes | memoryview = b"") -> None:
        with self._sending:
            self.connection.sendall(_FRAME.pack(kind, len(payload)))
            self.connection.sendall(payload)

    def try_send(self, kind: int, payload: bytes = b"") -> None:
        """As `send`, unless a payload is on its way, which the other side hears as well."""
        if self._sending.acquire(blocking=False):
            try:
                self.connection.sendall(_FRAME.pack(kind, len(payload)) + payload)
            finally:
                self._sending.release()

    def read(self, count: int) -> bytearray:
        """Raises EOFError if the connection ends before."""
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            received = self.connection.recv_into(view[done:])
            if not received:
                raise EOFError
            done += received
            self.heard_s = time.monotonic()
        return data


class HostNetwork:
    """The connections of this host. Threads that live as long as the process read them."""

    def __init__(
        self,
        connections: Mapping[int, socket.socket],
        own: int,
        on_end: OnEnd,
        on_stop: OnStop,
    ):
        """`connections` by host, `own` number left out; threads call `on_end`, once a host, and `on_stop`."""
        self._own, self._count, self._on_stop = own, len(connections) + 1, on_stop
        self._peers = {i: _Peer(i, connection) for i, connection in sorted(connections.items())}
        self._on_end, self._ending = on_end, threading.Lock()
        self._reported: set[int] = set()
        for peer in self._peers.values():
            thread = threading.Thread(
                target=self._read, args=(peer,), name=f"host {peer.index}", daemon=True
            )
            thread.start()
        threading.Thread(target=self._beat, name="hosts' beat", daemon=True).start()

    def gather(self, payload: bytes) -> list[bytes]:
        """The payloads of all hosts, by number. Every host calls it as often as the others, from one thread.

        Waits for the slowest host as long as that lives.

        Raises:
          RuntimeError: a host has ended its program, in which it should have made this call too.
        """
        # Each begins with another neighbour, so that nobody gets everything at once.
        for step in range(1, self._count):
            peer = self._peers[(self._own + step) % self._count]
            try:
                peer.send(_DATA, payload)
            except OSError:  # its reader says what became of it; the others get theirs
                continue
        found = []
        for i in range(self._count):
            part = payload if i == self._own else self._peers[i].inbox.get()
            if part is None:
                raise RuntimeError(f"host {i} has ended while host {self._own} waits for it")
            found.append(part)
        return found

    def tell_stop(self) -> None:
        """Tells the others that this host is told to stop."""
        self._tell(_STOP)

    def leave(self, text: str) -> None:
        """Tells the others that this host ends, with its line; "" after the last step of its program."""
        self._tell(_END, text.encode())

    def _tell(self, kind: int, payload: bytes = b"") -> None:
        def tell() -> None:
            for peer in self._peers.values():
                try:
                    peer.send(kind, payload)
                except OSError:
                    continue

        # Nobody waits long for a host that takes nothing any more.
        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        thread.join(2)

    def wait_until_left(self, seconds: float) -> None:
        """Returns when all others have ended, or after so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not all(p.has_ended for p in self._peers.values()):
            time.sleep(0.05)

    def _read(self, peer: _Peer) -> None:
        text: str | None = None
        try:
            while True:
                kind, length = _FRAME.unpack(peer.read(_FRAME.size))
                payload = bytes(peer.read(length))
                if kind == _DATA:
                    peer.inbox.put(payload)
                elif kind == _STOP:
                    self._on_stop(peer.index)
                elif kind == _END:
                    text, peer.has_ended = payload.decode(errors="replace"), True
                    self._report(peer, text)
                    peer.inbox.put(None)  # it may stay until this host has ended
        except (OSError, EOFError):
            peer.has_ended = True
            self._report(peer, text)
            peer.inbox.put(None)

    def _report(self, peer: _Peer, text: str | None) -> None:
        """Once a host: what it said goes before that its connection broke."""
        with self._ending:
            if peer.index in self._reported:
                return
            self._reported.add(peer.index)
        self._on_end(peer.index, text)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_S)
            for peer in self._peers.values():
                if peer.has_ended:
                    continue
                try:
                    peer.try_send(_BEAT)
                except OSError:
                    continue
                if time.monotonic() - peer.heard_s > SILENT_S:
                    peer.has_ended = True
                    self._report(peer, None)


def open_network(on_end: OnEnd, on_stop: OnStop, coordinator: str | None = None) -> HostNetwork:
    """Connects this host to all others; every host calls it at the same place.

    Args:
      coordinator: host:port of process 0 where it is known: says which network the hosts share.

    Raises:
      RuntimeError: a host does not answer; with its addresses and what to do.
    """
    own, count = jax.process_index(), jax.process_count()
    listener = socket.create_server(("", int(os.environ.get(PORT, "0"))), backlog=count)
    # 1) Everybody learns where everybody listens, and the token that host 0 drew.
    places = ",".join(_own_addresses(coordinator)) + f"|{listener.getsockname()[1]}"
    if len(places) > _ADDRESS_BYTES:
        raise RuntimeError(
            f"the addresses of this host do not fit {_ADDRESS_BYTES} bytes: {places}"
        )
    row = places.encode().ljust(_ADDRESS_BYTES) + secrets.token_bytes(16)
    rows = multihost_utils.process_allgather(np.frombuffer(row, np.uint8))
    found = [bytes(one) for one in np.asarray(rows)]
    token = found[0][_ADDRESS_BYTES:]
    # 2) Each connects to those of lower numbers and is connected to by the others.
    connections = {
        i: _connect(i, found[i][:_ADDRESS_BYTES].decode().strip(), token, own) for i in range(own)
    }
    connections |= _accept(listener, token, range(own + 1, count))
    listener.close()
    return HostNetwork(connections, own, on_end, on_stop)


def _own_addresses(coordinator: str | None) -> list[str]:
    """Where others may reach this host, the likeliest first."""
    found = []
    # The route to a host names our side of it. Nothing is sent; the second stands for the rest of the world.
    targets = [coordinator.rpartition(":")[0].strip("[]")] if coordinator else []
    for target in (*targets, "192.0.2.1"):
        try:
            family, *_, place = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(place)
                found.append(probe.getsockname()[0])
        except OSError:
            continue
    with contextlib.suppress(OSError):
        found.append(socket.gethostbyname(socket.gethostname()))
    return list(dict.fromkeys(found))


def _connect(host: int, places: str, token: bytes, own: int) -> socket.socket:
    addresses, _, port = places.rpartition("|")
    until, error = time.monotonic() + _CONNECT_S, None
    while time.monotonic() < until:
        for address in addresses.split(","):
            try:
                connection = socket.create_connection((address, int(port)), timeout=5)
                connection.sendall(_HELLO.pack(token, own))
                if connection.recv(1) == b"+":
                    return _ready(connection)
                connection.close()  # another program listens at this address of ours
            except OSError as caught:
                error = caught
        time.sleep(0.2)
    raise RuntimeError(
        f"host {own} cannot reach host {host} at {addresses} port {port} ({error}): open the ports between the "
        f"hosts, or open one and name it to all of them by {PORT}"
    )


def _accept(
    listener: socket.socket, token: bytes, wanted: Sequence[int]
) -> dict[int, socket.socket]:
    found: dict[int, socket.socket] = {}
    until = time.monotonic() + _CONNECT_S + 10
    while missing := set(wanted) - set(found):
        listener.settimeout(max(0.1, until - time.monotonic()))
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            raise RuntimeError(
                f"host {min(missing)} does not connect to port {listener.getsockname()[1]} of this one: open the "
                f"ports between the hosts, or open one and name it to all of them by {PORT}"
            ) from None
        connection.settimeout(5)
        try:
            hello = connection.recv(_HELLO.size, socket.MSG_WAITALL)
            said, index = _HELLO.unpack(hello)
            is_known = secrets.compare_digest(said, token) and index in missing
            connection.sendall(b"+" if is_known else b"-")
        except (OSError, struct.error):
            is_known, index = False, -1
        if is_known:
            found[index] = _ready(connection)
        else:
            connection.close()
    return found


def _ready(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
