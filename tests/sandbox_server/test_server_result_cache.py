"""Results that a server keeps: only for requests that allow it, only for the same request."""

import pytest

from sandbox_server.front.result_cache import ResultCache
from sandbox_server.wire import sandbox_pb2 as pb

NOW = "import time\ntime.time_ns()"  # no two runs give the same result


def request(code="1", **settings):
    return pb.ExecuteRequest(**{"code": code, "may_reuse": True} | settings)


def result(value="1", status=pb.STATUS_OK, **more):
    return pb.ExecuteResponse(status=status, last_value=value, **more)


def test_a_kept_result_says_that_it_is_an_earlier_one():
    cache = ResultCache(1 << 20)
    cache.keep(request(request_id="a"), result(cpu_ms=7, queue_ms=5))
    reused = cache.get(request(request_id="b"))
    assert reused == result(cpu_ms=7, reused=True)
    assert cache.hits == 1


@pytest.mark.parametrize(
    "other",
    [
        {"code": "2"},
        {"stdin": "x"},
        {"seed": 1},
        {"no_echo": True},
        {"limits": pb.Limits(cpu_ms=10)},
        {"files": {"a": b"1"}},
        {"minimum_tier": pb.TIER_LANDLOCK},
        {"may_reuse": False},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_request_is_run(other):
    cache = ResultCache(1 << 20)
    cache.keep(request(), result())
    assert cache.get(request(**other)) is None
    assert cache.hits == 0


def test_the_order_of_files_does_not_matter():
    cache = ResultCache(1 << 20)
    cache.keep(request(files={"a": b"1", "b": b"2"}), result())
    assert cache.get(request(files={"b": b"2", "a": b"1"})) is not None


def test_what_may_not_be_reused_is_not_kept():
    cache = ResultCache(1 << 20)
    cache.keep(request(may_reuse=False), result())
    for status in pb.Status.values():
        if status not in (pb.STATUS_OK, pb.STATUS_ERROR):
            cache.keep(request(), result(status=status))
    assert len(cache) == cache.bytes == 0


def test_the_least_recently_used_go_when_their_bytes_are_too_many():
    """Three answers of 300 + 1004 bytes (status 2, tag and length 3, text 999): two fit into 2608."""
    cache = ResultCache(2608)
    cache.keep(request("a"), result("x" * 999))
    cache.keep(request("a"), result("x" * 999))  # once more: not counted twice
    cache.keep(request("b"), result("x" * 999))
    assert (len(cache), cache.bytes) == (2, 2608)
    cache.get(request("a"))
    cache.keep(request("c"), result("x" * 999))
    assert [cache.get(request(code)) is not None for code in "abc"] == [True, False, True]
    cache.keep(request("d"), result("x" * 5000))
    assert len(cache) == cache.bytes == 0


def test_a_server_runs_what_may_be_reused_once(server):
    first, again = (server.stub.Execute(request(NOW, request_id=name)) for name in "ab")
    assert (first.reused, again.reused) == (False, True)
    assert again.last_value == first.last_value
    assert (again.request_id, again.server_id) == ("b", first.server_id)
    fresh = server.stub.Execute(request(NOW, may_reuse=False))
    assert not fresh.reused
    assert fresh.last_value != first.last_value
    batch = list(server.stub.ExecuteBatch(iter([request(NOW, request_id="c")])))
    assert (batch[0].request_id, batch[0].response.reused) == ("c", True)
