"""A server's unix socket deletes nothing of anybody else's, takes over no live server, and is the owner's alone."""

import os
import socket
import stat

import pytest

from sandbox_server.front.unix_address import UnixAddress


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # socket paths are short
    return tmp_path / "s"


def listen(path) -> socket.socket:
    """As gRPC binds: over a socket that nobody listens on."""
    if path.exists():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path.name)
    listener.listen()
    return listener


def test_a_free_place_is_taken_for_the_owner_alone_and_given_back(path):
    address = UnixAddress("unix:s")
    before = os.umask(0)
    try:
        with address.taken(), listen(path):
            pass
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    address.give_back()
    assert not path.exists()
    address.give_back()


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory", "fifo"])
def test_what_is_no_socket_is_refused_and_left_alone(path, kind):
    (path.parent / "data").write_text("precious")
    make = {
        "file": lambda: path.write_text("precious"),
        "link": lambda: path.symlink_to("data"),
        "dangling link": lambda: path.symlink_to("nowhere"),
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
    }
    make[kind]()
    address = UnixAddress("unix:s")
    with pytest.raises(ValueError, match="unix:s: something that is no socket"), address.taken():
        raise AssertionError("bound")
    address.give_back()
    assert os.path.lexists(path)
    if kind == "file":
        assert path.read_text() == "precious"


def test_a_live_server_is_not_taken_over(path):
    with listen(path):
        with (
            pytest.raises(ValueError, match="another server listens there"),
            UnixAddress("unix:s").taken(),
        ):
            raise AssertionError("bound")
        assert path.exists()


def test_a_socket_that_a_killed_server_left_is_no_hindrance(path):
    listen(path).close()
    with UnixAddress("unix:s").taken(), listen(path):
        pass


def test_the_socket_of_a_later_server_is_left_alone(path):
    first = UnixAddress("unix:s")
    with first.taken(), listen(path):
        pass
    path.rename(path.parent / "kept")  # so that the inode is not used again
    with listen(path):
        first.give_back()
        assert path.exists()


def test_a_directory_that_is_not_there_is_named(path):
    with (
        pytest.raises(ValueError, match="there is no directory none"),
        UnixAddress("unix:none/s").taken(),
    ):
        raise AssertionError("bound")


def test_other_addresses_are_left_to_grpc():
    address = UnixAddress("127.0.0.1:0")
    with address.taken():
        pass
    address.give_back()
