"""Servers, buckets and peers that are there, that are not, and that answer wrong."""

import contextlib
import socket
from types import SimpleNamespace

import pytest

from jaxtool.cluster import reach_checks
from jaxtool.cluster.doctor import checks_of
from jaxtool.cluster.reach_checks import check_peer
from jaxtool.tools.search_client import SearchClientConfig
from sandbox_server.wire import sandbox_pb2 as pb


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def free():
    """A port of this host that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_a_peer_that_answers_and_a_port_that_is_free_are_right(listening, free):
    assert check_peer(listening).text == f"{listening} answers"
    assert check_peer(free).text == f"{free} is of this host, and free"


def test_a_host_on_which_nobody_listens_yet_is_right(monkeypatch, free):
    class Elsewhere(socket.socket):
        def bind(self, address):
            raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(reach_checks.socket, "socket", Elsewhere)
    monkeypatch.setattr(
        reach_checks.socket,
        "create_connection",
        lambda *_, **__: (_ for _ in ()).throw(ConnectionRefusedError(111, "refused")),
    )
    assert check_peer(free).text == f"{free}: the host answers, nobody listens on the port yet"


def test_a_firewall_and_an_unknown_name_are_told_apart(monkeypatch):
    def silent(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(reach_checks.socket, "create_connection", silent)
    found = check_peer("127.0.0.1:9000", timeout_s=2)
    assert (found.status, found.text) == ("fail", "127.0.0.1:9000: no answer in 2 s")
    assert found.remedy.startswith("open port 9000 between the hosts")

    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(reach_checks.socket, "getaddrinfo", unknown)
    found = check_peer("nowhere:9000")
    assert (found.status, "nowhere has no address" in found.text) == ("fail", True)


def test_a_port_of_ones_own_that_is_taken_is_said(monkeypatch, listening):
    def refused(*_, **__):
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(reach_checks.socket, "create_connection", refused)
    found = check_peer(listening)
    assert (found.status, found.remedy) == ("fail", "another port")


@pytest.mark.parametrize("address", ["host", "host:", ":9000", "host:x", "host:70000", "host:0"])
def test_a_peer_is_host_and_port(address):
    with pytest.raises(ValueError, match="must be host:port"):
        check_peer(address)


def sandbox_of(monkeypatch, **infos):
    @contextlib.contextmanager
    def opened(config, runner, addresses):
        async def info():
            return infos

        yield SimpleNamespace(info=info)

    monkeypatch.setattr(reach_checks, "open_sandbox", opened)


def test_the_weaker_tier_is_a_warning_with_the_servers_own_remarks(monkeypatch):
    strong = pb.InfoResponse(tier=pb.TIER_NAMESPACE)
    weak = pb.InfoResponse(tier=pb.TIER_LANDLOCK, remarks=["no user namespaces"])
    sandbox_of(monkeypatch, own=strong)
    found = reach_checks.check_sandbox()
    assert (found.status, found.text.endswith("as expected, tier_namespace")) == ("ok", True)
    sandbox_of(monkeypatch, one=strong, two=weak)
    found = reach_checks.check_sandbox(("one", "two"))
    assert found.status == "warn"
    assert found.text.endswith("tier_landlock, tier_namespace; two: no user namespaces")
    sandbox_of(monkeypatch, one="UNAVAILABLE: gone")
    with pytest.raises(ConnectionError, match="one: UNAVAILABLE: gone"):
        reach_checks.check_sandbox(("one",))


def test_servers_that_are_not_there_fail_with_a_remedy(free, monkeypatch):
    quick = SearchClientConfig(attempts=1, request_timeout_s=1.0, queue_allowance_s=1.0)
    search = reach_checks.Search
    monkeypatch.setattr(
        reach_checks, "Search", lambda addresses: search(addresses=addresses, client=quick)
    )
    checks = {
        check.name: check
        for check in checks_of(workdir=".", needs_gib=1.0, search=(free,), peers=("x:1",), bucket="gs://b")
    }  # fmt: skip
    assert set(checks) == {
        *("python", "versions", "devices", "memory", "disk", "clock", "limits", "sandbox"),
        *("search", "bucket", "peer"),
    }
    with pytest.raises(Exception, match=free):
        checks["search"].look()
    assert "start the servers" in checks["search"].remedy
