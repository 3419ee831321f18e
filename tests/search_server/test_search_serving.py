"""One running server: Search-R1's and verl's requests, refusals, limits before a body is read, metrics, many at once."""

import concurrent.futures
import contextlib
import json
import signal
import socket
import ssl
import time

import pytest
from helpers.certificates import make_certificate
from helpers.search_serving import ROWS, serving, write_rows

TOKEN = "0123456789abcdef0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("serving") / "c.jsonl", ROWS)


@pytest.fixture(scope="module")
def server(corpus_file):
    limits = ("--max-body-mib", "1", "--body-timeout-s", "0.5", "--max-connections", "20")
    with serving("--corpus", str(corpus_file), *limits, "--queue-queries", "8") as running:
        yield running


def test_search_r1s_client_gets_its_answer(server):
    answer = server.ask(queries=["comedy film", "xyzzy"], topk=2, return_scores=True)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    [hits, nothing] = answer.json["result"]
    assert nothing == []
    assert [set(hit) for hit in hits] == [{"document", "score"}] * len(hits)
    # What its client does with each: the first line is the title, the rest the text.
    title, _, text = hits[0]["document"]["contents"].partition("\n")
    assert (title, text) == (
        '"Kiss and Tell"',
        "A comedy film with Shirley Temple as Corliss Archer.",
    )
    assert hits[0]["score"] > hits[-1]["score"]
    documents = server.ask(queries=["comedy film", "xyzzy"], topk=2).json["result"]
    assert documents == [[hit["document"] for hit in hits], []]


def test_verls_headers_and_body_are_taken(server):
    body = json.dumps({"queries": ["Zoë \ud800 \x00"], "topk": 3, "return_scores": True}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    answer = server.send("POST", "/retrieve", body, **headers)
    assert answer.json["result"][0][0]["document"]["id"] == "zoë"


def test_one_request_of_many_queries_is_answered_in_order(server):
    queries = ["comedy", "treasurer", "band", "Zoë"] * 30
    answer = server.ask(queries=queries, topk=1)  # more than the queue holds, which is empty
    ids = [documents[0]["id"] for documents in answer.json["result"]]
    assert ids == ["kiss", "700", "3", "zoë"] * 30


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/retrieve", b"{", 400, "the body is not JSON"),
        ("POST", "/retrieve", b'{"query": "a"}', 400, "unknown key 'query'"),
        ("POST", "/retrieve", b'{"queries": ["' + b"a" * 5000 + b'"]}', 400, "more than 4096"),
        ("POST", "/retrieve", b" " * (1 << 20) + b"12", 413, "larger than 1 MiB"),
        ("GET", "/retrieve", b"", 405, "Method Not Allowed"),
        ("POST", "/elsewhere", b"", 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_answered_with_a_reason(server, method, path, body, status, said):
    answer = server.send(method, path, body)
    assert answer.status == status
    assert said in answer.json["error"]


def test_a_compressed_body_is_refused(server):
    answer = server.send("POST", "/retrieve", b"x", **{"Content-Encoding": "gzip"})
    assert (answer.status, answer.json) == (415, {"error": "send the body uncompressed"})


def raw(server, text, wait_s=5.0):
    """What the server says to these bytes, until it closes."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(text)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_large_body_is_refused_before_it_is_sent(server):
    said = raw(server, b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_not_waited_for(server):
    said = raw(server, b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    assert said.startswith(b"HTTP/1.1 408 ")


def test_nonsense_is_no_request(server):
    assert raw(server, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.0 400 ")


def test_one_connection_too_many_is_refused_and_the_next_is_served(server):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(contextlib.closing(server.connect()))
            connection.request("GET", "/health")
            connection.getresponse().read()
        refused = server.send("GET", "/health")
        assert (refused.status, refused.json) == (503, {"error": "too many connections"})
    deadline = time.monotonic() + 5
    while (answer := server.send("GET", "/health")).status != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answer.json == {"status": "ok", "documents": len(ROWS)}


def test_metrics_count_what_was_asked(server):
    before = metrics(server)
    server.ask(queries=["comedy", "xyzzy"])
    server.ask(queries="comedy")
    after = metrics(server)
    for name, more in (
        ("search_queries_total", 2),
        ("search_empty_total", 1),
        ('search_refused_total{reason="request"}', 1),
        ('search_requests_total{status="400"}', 1),
        ("search_request_seconds_count", 1),
    ):
        assert after[name] - before.get(name, 0) == more, name
    assert after["search_documents"] == len(ROWS)
    assert after["search_queued_queries"] == 0


def metrics(server):
    text = server.send("GET", "/metrics").body.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_many_clients_get_their_own_answers(server):
    def client(number):
        query = ("comedy", "treasurer", "band", "Zoë")[number % 4]
        answers = []
        for _ in range(10):
            answer = server.ask(queries=[query], topk=1)
            assert answer.status in (200, 503)
            if answer.status == 200:
                answers.append(answer.json["result"][0][0]["id"])
        return set(answers)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(client, range(8)))
    assert found == [{"kiss"}, {"700"}, {"3"}, {"zoë"}] * 2


def test_token_and_tls(corpus_file, tmp_path):
    """One more server: with both, on all addresses."""
    (tmp_path / "token").write_text(TOKEN)
    make_certificate(tmp_path)
    flags = ("--token-file", str(tmp_path / "token"), "--address", "0.0.0.0:0", "--tls-certificate",
             str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))  # fmt: skip
    with serving("--corpus", str(corpus_file), *flags) as server:
        port = int(server.address.rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))

        def send(head, body=b""):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                connection.sendall(head + b"Host: x\r\nConnection: close\r\n\r\n" + body)
                return b"".join(iter(lambda: connection.recv(65536), b""))

        right = f"Authorization: Bearer {TOKEN}\r\n".encode()
        wrong = b"Authorization: Bearer wrong\r\n"
        for head in (b"", wrong, right[:-3] + b"\r\n", b"Authorization: \xff\r\n"):
            said = send(b"POST /retrieve HTTP/1.1\r\nContent-Length: 999999999\r\n" + head)
            assert said.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), said
            assert b"result" not in said
        assert send(b"GET /metrics HTTP/1.1\r\n").startswith(b"HTTP/1.1 401 ")
        assert send(b"GET /health HTTP/1.1\r\n").startswith(b"HTTP/1.1 200 ")
        said = send(
            b"POST /retrieve HTTP/1.1\r\nContent-Length: 22\r\n" + right,
            b'{"queries": ["comedy"]}'[:22],
        )
        assert said.startswith(b"HTTP/1.1 400 ")  # a byte is missing: the token was right


def test_draining_finishes_what_runs(corpus_file):
    with serving("--index", f"{corpus_file}.index") as server:
        with contextlib.closing(server.connect()) as connection:
            connection.request(
                "POST", "/retrieve", json.dumps({"queries": ["comedy film"] * 1500, "topk": 1})
            )
            deadline = time.monotonic() + 5
            while metrics(server)["search_queued_queries"] == 0 and time.monotonic() < deadline:
                pass
            server.process.send_signal(signal.SIGTERM)
            answer = connection.getresponse()
            assert len(json.loads(answer.read())["result"]) == 1500
        assert server.process.wait(10) == 0
