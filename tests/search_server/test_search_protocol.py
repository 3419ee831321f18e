"""Requests are read as Search-R1's server reads them, or refused with a reason; settings are checked at the door."""

import json

import pytest

from search_server import protocol
from search_server.config import ServerConfig, read_token
from search_server.protocol import BadRequest
from search_server.search import Hit

CONFIG = ServerConfig(max_query_chars=20, max_queries=4, max_answer_passages=30, max_topk=10)


def read(**request):
    return protocol.read(json.dumps(request).encode(), CONFIG)


def test_what_is_left_out_has_search_r1s_defaults():
    asked = read(queries=["a"])
    assert (asked.queries, asked.topk, asked.return_scores) == (["a"], 3, False)
    assert read(queries=["a"], topk=None).topk == read(queries=["a"], topk=0).topk == 3
    assert read(queries=[], topk=10, return_scores=True).queries == []
    assert read(queries=["\x00", ""]).queries == ["\x00", ""]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "queries must be a list of texts"),
        ({"queries": "a"}, "queries must be a list of texts"),
        ({"queries": ["a", 5]}, r"queries\[1\] must be text, not 5"),
        ({"queries": ["a"], "top_k": 5}, "unknown key 'top_k': there are queries, topk, return_scores"),
        ({"queries": ["a"], "topk": 11}, "topk must be a whole number of 1 to 10, not 11"),
        ({"queries": ["a"], "topk": -1}, "topk must be"),
        ({"queries": ["a"], "topk": True}, "topk must be"),
        ({"queries": ["a"], "topk": False}, "topk must be"),
        ({"queries": ["a"], "topk": 2.0}, "topk must be"),
        ({"queries": ["a"], "topk": "3"}, "topk must be"),
        ({"queries": ["a"], "topk": 10**400}, "topk must be"),
        ({"queries": ["a"], "return_scores": 1}, "return_scores must be true or false, not 1"),
        ({"queries": ["a"], "return_scores": None}, "return_scores must be"),
        ({"queries": ["a" * 21]}, r"queries\[0\] has 21 characters, more than 20 \(--max-query-chars\)"),
        ({"queries": ["a"] * 5}, "5 queries are more than 4"),
        ({"queries": ["a"] * 4, "topk": 10}, "4 queries with topk 10 ask for more than 30 passages"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_the_reason(request_, said):
    with pytest.raises(BadRequest, match=said):
        read(**request_)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b"5", b"[" * 100_000, b'"a"'])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequest, match="the body"):
        protocol.read(body, CONFIG)


HITS = [[Hit(document=b'{"id": "1"}', score=2.5), Hit(document=b'{"id": "2"}', score=-1e-9)], []]


def test_answers_are_search_r1s():
    assert json.loads(protocol.write(HITS, True)) == {
        "result": [
            [{"document": {"id": "1"}, "score": 2.5}, {"document": {"id": "2"}, "score": 0.0}],
            [],
        ]
    }
    assert json.loads(protocol.write(HITS, False)) == {"result": [[{"id": "1"}, {"id": "2"}], []]}
    assert json.loads(protocol.write([], True)) == {"result": []}
    odd = [[Hit(document=b"{}", score=float("nan"))]]
    assert json.loads(protocol.write(odd, True))["result"][0][0]["score"] == 0.0


@pytest.mark.parametrize(
    ("address", "where"),
    [
        (":8000", ("127.0.0.1", 8000)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses_without_a_host_are_loopback(address, where):
    config = ServerConfig(address=address)
    assert (config.host, config.port, config.is_local) == (*where, True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"address": "0.0.0.0:8000"}, r"--address 0\.0\.0\.0:8000 is not loopback: give --token-file"),
        ({"address": "[::]:8000"}, "is not loopback"),
        ({"address": "127.0.0.1.evil:80"}, "is not loopback"),
        ({"address": "8000"}, "must be host:port"),
        ({"address": "127.0.0.1:"}, "must be host:port"),
        ({"address": "127.0.0.1:http"}, "must be host:port"),
        ({"address": ":65536"}, "a port is at most 65535"),
        ({"topk": 0}, "--topk 0 must be above 0"),
        ({"drain_s": float("nan")}, "--drain-s nan must be above 0"),
        ({"topk": 200}, "--topk 200 is above --max-topk 100"),
        ({"tls_key": "k"}, "--tls-certificate and --tls-key are given together"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        ServerConfig(**settings)


def test_a_token_is_one_long_word(tmp_path):
    file = tmp_path / "token"
    for text, said in (("short", "shorter than 16"), ("two words of text", "must be one word")):
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_token(str(file))
    file.write_text("0123456789abcdef\n")
    assert read_token(str(file)) == b"0123456789abcdef"
