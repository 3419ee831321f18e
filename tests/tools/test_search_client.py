"""The search client against servers that answer as told: passages, refusals, trouble, garbage."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from jaxtool.core.types import Problem, ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.search import Search
from jaxtool.tools.search_client import SearchClient, SearchClientConfig, url_of
from jaxtool.tools.search_wire import NOTHING_FOUND, UnknownAnswer, passages_of, request_body, shown
from jaxtool.train.run_tools import open_menu

OSLO = {"id": "7", "contents": '"Oslo"\nCapital of Norway.\nA city.'}
ANSWER = {"result": [[{"document": OSLO, "score": 2.5}]]}
QUICK = SearchClientConfig(attempts=3, backoff_s=0.001, request_timeout_s=30.0)


class _Server:
    """Answers the requests with `answers` in order, then with the last one for ever."""

    def __init__(self, *answers: web.Response | dict):
        self.answers = list(answers)
        self.requests: list[tuple[dict, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((await request.json(), request.headers.get("Authorization", "")))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, dict):
            return web.json_response(answer)
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)


@contextlib.asynccontextmanager
async def _serving(*servers: _Server) -> AsyncIterator[list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for server in servers:
            app = web.Application()
            app.router.add_post("/retrieve", server.answer)
            runner = web.AppRunner(app)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            addresses.append(f"{host}:{port}")
        yield addresses


def _with_client(
    servers: list[_Server],
    use: Callable[[SearchClient], Awaitable[ToolResult]],
    config: SearchClientConfig = QUICK,
) -> tuple[ToolResult, SearchClient]:
    async def run() -> tuple[ToolResult, SearchClient]:
        async with _serving(*servers) as addresses:
            client = SearchClient(addresses, config)
            try:
                return await use(client), client
            finally:
                await client.close()

    return asyncio.run(run())


def _search(*servers: _Server, config: SearchClientConfig = QUICK):
    return _with_client(list(servers), lambda client: client.search("capital of Norway"), config)


def test_passages_become_the_text_of_search_r1():
    server = _Server(ANSWER)
    result, client = _search(server)
    assert result.status is ToolStatus.OK
    assert result.stdout == "Doc 1(Title: Oslo) Capital of Norway.\nA city.\n"
    asked, authorization = server.requests[0]
    assert asked == {"queries": ["capital of Norway"], "topk": 3, "return_scores": True}
    assert authorization == ""
    assert (client.stats.searches, client.stats.retries) == (1, 0)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ([[OSLO, {"title": "Rome", "text": "In Italy."}]],
         "Doc 1(Title: Oslo) Capital of Norway.\nA city.\nDoc 2(Title: Rome) In Italy.\n"),
        ([[{"document": {"id": 1, "title": "Rome", "text": "In Italy."}, "score": 1}]],
         "Doc 1(Title: Rome) In Italy.\n"),
        ([[{"contents": "one line"}]], "Doc 1(Title: one line) \n"),
        ([[]], NOTHING_FOUND),
    ],
)  # fmt: skip
def test_forms_of_documents(result: list, text: str):
    assert shown(passages_of(json.dumps({"result": result}).encode(), 3)) == text


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"result": []}', b'{"result": [[], []]}', b'{"result": [[3]]}',
     b'{"result": [[{"contents": 3}]]}', b'{"result": [["text"]]}', b'{"results": [[]]}',
     b'{"result": [[{"title": "x"}]]}', b"[" * 100_000, b'{"result": [[{"contents": "a"}, '
     b'{"contents": "a"}, {"contents": "a"}, {"contents": "a"}]]}'],
)  # fmt: skip
def test_what_is_no_answer_is_trouble(body: bytes):
    with pytest.raises(UnknownAnswer):
        passages_of(body, 3)


def test_half_a_surrogate_pair_can_be_sent():
    assert json.loads(request_body("a\ud800b", 1))["queries"] == ["a?b"]


def test_a_busy_server_is_asked_again_and_uses_up_no_attempt():
    busy = web.Response(status=503, headers={"Retry-After": "0"}, text='{"error": "full"}')
    result, client = _search(_Server(*[busy] * 5, ANSWER))
    assert result.status is ToolStatus.OK
    assert client.stats.retries == 5
    assert client.stats.failures_by_kind == {"503": 5}


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (web.Response(status=500, text="oh"), "500"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "302"),
        (web.Response(text="no json"), "UnknownAnswer"),
        (web.Response(body=b'{"result": [[]]}' + b" " * (5 << 20)), "UnknownAnswer"),
    ],
)
def test_trouble_is_tried_again_then_unavailable(trouble: web.Response, kind: str):
    result, client = _search(_Server(trouble, ANSWER))
    assert result.status is ToolStatus.OK
    assert client.stats.failures_by_kind == {kind: 1}
    server = _Server(trouble)
    with pytest.raises(ToolUnavailable, match=r"search server at http://127.0.0.1:\d+/retrieve"):
        _search(server)
    assert len(server.requests) == 3


def test_a_sick_server_is_left_for_another():
    result, client = _search(_Server(web.Response(status=500)), _Server(ANSWER))
    assert result.status is ToolStatus.OK
    assert client.stats.retries <= 1


def test_a_wrong_token_is_not_tried_again(tmp_path):
    (tmp_path / "token").write_text("secret-of-sixteen\n")
    config = SearchClientConfig(token_file=str(tmp_path / "token"))
    server = _Server(web.Response(status=401, text="no"))
    with pytest.raises(ToolUnavailable, match="HTTP 401: no"):
        _search(server, config=config)
    assert [authorization for _, authorization in server.requests] == ["Bearer secret-of-sixteen"]


def test_a_refused_query_is_the_policys_own_error():
    result, client = _search(_Server(web.Response(status=400, text="queries[0] is too long")))
    assert result.status is ToolStatus.ERROR
    assert result.error_type == "SearchError"
    assert result.stderr == "SearchError: the query was refused: queries[0] is too long"
    assert client.stats.searches == 1


def test_no_server_is_unavailable():
    async def run() -> None:
        client = SearchClient(["127.0.0.1:1"], QUICK)
        try:
            with pytest.raises(
                ToolUnavailable, match=r"127\.0\.0\.1:1/retrieve: ClientConnectorError"
            ):
                await client.search("x")
            assert client.stats.unavailable == 1
        finally:
            await client.close()

    asyncio.run(run())


def test_equal_queries_can_share_a_result():
    server = _Server(ANSWER)
    config = SearchClientConfig(result_cache_entries=10)

    async def use(client: SearchClient) -> ToolResult:
        await asyncio.gather(*(client.search("a") for _ in range(4)))
        return await client.search("a")

    _, client = _with_client([server], use, config)
    assert len(server.requests) == 1
    assert client.stats.result_cache_hits == 1
    assert client.stats.searches == 5


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/retrieve"),
        ("[::1]:8000", "http://[::1]:8000/retrieve"),
        ("https://search.example", "https://search.example/retrieve"),
        ("http://a:8000/v2/retrieve", "http://a:8000/v2/retrieve"),
        ("http://a:8000/", "http://a:8000/retrieve"),
    ],
)
def test_addresses(address: str, url: str):
    assert url_of(address) == url


@pytest.mark.parametrize(
    "address",
    ["", "a", "a:", ":8000", "a:99999", "a:0", "a:x", "ftp://a:1", "http://", "http://a b:1",
     "http://user@a:1", "unix:/tmp/s", "http://a:1/?x=1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(ValueError, match=r"must be host:port, such as 127\.0\.0\.1:8000"):
        url_of(address)


def test_a_search_needs_servers_or_a_corpus():
    for wrong in ({}, {"addresses": ("a:1",), "corpus": "wiki.jsonl"}):
        with pytest.raises(ValueError, match="give one of them"):
            Search(**wrong)
    with pytest.raises(ValueError, match="must be host:port"):
        Search(addresses=("a",))


def _preflight(server: _Server, **settings) -> None:
    async def run() -> None:
        async with _serving(server) as addresses:
            tool = Search(addresses=tuple(addresses), **settings).open()
            try:
                await tool.preflight()
            finally:
                await tool.close()

    asyncio.run(run())


def test_the_preflight_asks_for_passages_and_for_what_must_be_known():
    _preflight(_Server(ANSWER))
    _preflight(_Server(ANSWER), known=(("norway", "Capital of Norway"),))
    with pytest.raises(PreflightError, match=r"the passages of 'norway' lack 'Bergen': 'Doc 1"):
        _preflight(_Server(ANSWER), known=(("norway", "Bergen"),))
    with pytest.raises(PreflightError, match="refused: no topk"):
        _preflight(_Server(web.Response(status=400, text="no topk")))
    with pytest.raises(ToolUnavailable, match="UnknownAnswer"):
        _preflight(_Server(web.Response(text="an index page")))


def test_a_call_goes_through_the_tools_session():
    async def run() -> ToolResult:
        async with _serving(_Server(ANSWER)) as addresses:
            tool = Search(addresses=tuple(addresses)).open()
            try:
                problem = Problem(problem_id="p", question="q", answer="a")
                session = await tool.open(problem, "key")
                return await session.call({"query": "capital of Norway"})
            finally:
                await tool.close()

    assert asyncio.run(run()).stdout.startswith("Doc 1(Title: Oslo)")


def _opened(server: _Server, addresses: tuple[str, ...] = (), **settings) -> None:
    """Opens a run's menu with a search on a server that lives in a thread of its own."""
    ready, over = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with _serving(server) as own:
            found.extend(own)
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.005)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        search = Search(addresses=addresses or tuple(found), client=QUICK, **settings)
        with asyncio.Runner() as runner, open_menu((search,), None, runner) as menu:
            assert [spec.name for spec in menu.specs] == ["search"]
    finally:
        over.set()
        thread.join()


def test_a_run_asks_the_servers_before_it_starts():
    server = _Server(ANSWER)
    _opened(server)
    assert len(server.requests) == 1
    with pytest.raises(PreflightError, match=r"tool 'search': ToolUnavailable: .*127\.0\.0\.1:1/"):
        _opened(server, addresses=("127.0.0.1:1",))
    with pytest.raises(PreflightError, match="lack 'Bergen'"):
        _opened(server, known=(("norway", "Bergen"),))
