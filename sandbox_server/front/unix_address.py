"""The file of a unix socket: taken where nothing of anybody else's is, and given back only while it is ours.

Not covered: listening on it, which gRPC does.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "unix:"
_CONNECT_TIMEOUT_S = 1.0


class UnixAddress:
    """`unix:PATH` of one server, or any other address, for which nothing is done."""

    def __init__(self, address: str):
        self._path = Path(address.removeprefix(_PREFIX)) if address.startswith(_PREFIX) else None
        self._inode: tuple[int, int] | None = None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Around the binding: the place is free before it, and the socket is the owner's alone behind it.

        Raises:
          ValueError: something else is there, or another server listens.
        """
        if self._path is None:
            yield
            return
        self.check_is_free()
        before = os.umask(0o177)
        try:
            yield
        finally:
            os.umask(before)
        found = os.lstat(self._path)
        self._inode = (found.st_dev, found.st_ino)

    def give_back(self) -> None:
        """Removes the socket if it is the one that was bound; what stands there by now is left alone."""
        if self._path is None or self._inode is None:
            return
        with contextlib.suppress(OSError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self._path)
        self._inode = None

    def check_is_free(self) -> None:
        """Raises ValueError if something else is there, or another server listens."""
        path = self._path
        if path is None:
            return
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise ValueError(
                    f"--address unix:{path}: there is no directory {path.parent}"
                ) from None
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ValueError(
                f"--address unix:{path}: something that is no socket is there, and is left alone: "
                "choose another path"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CONNECT_TIMEOUT_S)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                return  # left by a server that was killed: gRPC binds over it
            except OSError as error:
                raise ValueError(
                    f"--address unix:{path}: a socket is there that cannot be asked ({error}): "
                    "choose another path"
                ) from None
        raise ValueError(
            f"--address unix:{path}: another server listens there: stop it, or choose another path"
        )
