"""The Prometheus page: names, a token, silent and wrong clients."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sandbox_server import address
from sandbox_server.front import metrics

_TOKEN = b"correct-horse-battery-staple"


def counted() -> metrics.Metrics:
    made = metrics.Metrics()
    made.count_execution("ok")
    made.count_refusal("internal")
    made.cpu_s.observe(0.015)
    made.add_gauge("sandbox_running", "Programs that run", lambda: 3)
    return made


async def _ask(request: bytes, token: bytes | None = None) -> bytes:
    page = metrics.Page(counted(), token)
    await page.start(address.HostPort(host="127.0.0.1", port=0))
    try:
        assert page._server is not None
        port = page._server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        if not request.endswith(b"\r\n\r\n"):
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer
    finally:
        page.close()


def ask(request: bytes, token: bytes | None = None) -> bytes:
    return asyncio.run(_ask(request, token))


def test_the_page_has_the_names_and_nothing_else():
    head, _, body = ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"text/plain" in head
    families = {f.name: f for f in text_string_to_metric_families(body.decode())}
    assert {name: family.type for name, family in families.items()} == {
        "sandbox_executions": "counter",
        "sandbox_refusals": "counter",
        "sandbox_queue_seconds": "histogram",
        "sandbox_cpu_seconds": "histogram",
        "sandbox_wall_seconds": "histogram",
        "sandbox_running": "gauge",
    }
    samples = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    assert samples["sandbox_executions_total", "ok"] == 1
    assert samples["sandbox_refusals_total", "internal"] == 1
    assert samples["sandbox_cpu_seconds_bucket", "0.01"] == 0
    assert samples["sandbox_cpu_seconds_bucket", "0.02"] == 1
    assert samples["sandbox_running",] == 3


def test_two_servers_in_one_process_have_metrics_of_their_own():
    first, second = counted(), counted()
    first.count_execution("ok")
    assert second.registry.get_sample_value("sandbox_executions_total", {"status": "ok"}) == 1


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n", b"\r\n\r\n"]
)
def test_other_pages_are_not_there(request_):
    assert ask(request_).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("request_", [b"", b"GET /met", b"\x16\x03\x01" * 9, b"x" * 20_000])
def test_what_is_no_request_gets_no_answer(request_):
    assert ask(request_) == b""


def test_a_silent_client_is_sent_away(monkeypatch):
    monkeypatch.setattr(metrics, "_REQUEST_TIMEOUT_S", 0.01)

    async def silent() -> bytes:
        page = metrics.Page(counted(), None)
        await page.start(address.HostPort(host="127.0.0.1", port=0))
        assert page._server is not None
        port = page._server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await reader.read()
        finally:
            writer.close()
            page.close()

    assert asyncio.run(silent()) == b""


def test_the_token_is_asked_for_where_there_is_one():
    plain = b"GET /metrics HTTP/1.1\r\n%s\r\n"
    good = b"authorization: Bearer " + _TOKEN + b"\r\n"
    assert ask(plain % b"", _TOKEN).startswith(b"HTTP/1.1 401 ")
    assert ask(plain % b"Authorization: Bearer x\r\n", _TOKEN).startswith(b"HTTP/1.1 401 ")
    assert ask(plain % good, _TOKEN).startswith(b"HTTP/1.1 200 ")
