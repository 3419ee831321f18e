"""Asyncio client of one or many search servers in Search-R1's protocol: deadlines, retries, passages.

Searching changes nothing, so whatever may pass by itself is tried again, at another server where there is one.
What does not pass is raised as ToolUnavailable, so that it is never scored. A query that a server refuses
(it is too long, say) is the policy's own error. Use one client from one asyncio loop.
"""

import asyncio
import collections
import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence

import aiohttp

from jaxtool.core.ranges import check_range
from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.balancer import Balancer, Endpoint
from jaxtool.tools.result_cache import ResultCache
from jaxtool.tools.retries import LONGEST_BACKOFF_S, Patience, TryAgain, with_retries
from jaxtool.tools.search_wire import UnknownAnswer, passages_of, request_body, shown

_MOST_ANSWER_BYTES = 4 << 20
_OF_THE_QUERY = (400, 413)  # refused, and a second try is refused as well
_HOPELESS = (401, 403, 404, 405, 415)
_BUSY = (429, 503)  # the server lives: no reason to avoid it


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchClientConfig:
    """Manners of the client."""

    topk: int = 3  # passages for a query; Search-R1 and OTC-PO have 3
    request_timeout_s: float = 30.0  # of one attempt
    attempts: int = 8  # with the back-off below: about 7 s
    backoff_s: float = 0.1  # doubled each time, at most 2 s
    queue_allowance_s: float = 60.0  # time a call may wait for busy servers
    max_concurrency: int = 64  # calls in flight of this client
    result_cache_entries: int = 0  # results kept by query; 0 asks every time
    token_file: str = ""  # bearer token, as given to the server

    def __post_init__(self) -> None:
        check_range(self, "request_timeout_s", "backoff_s", "queue_allowance_s", above=0)
        check_range(self, "topk", "attempts", "max_concurrency", least=1)
        check_range(self, "result_cache_entries", least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchStats:
    """Counters since the start of the client."""

    searches: int  # that ended in a result
    retries: int
    failures_by_kind: Mapping[str, int]  # failed attempts by HTTP status or error
    unavailable: int  # calls given up: ToolUnavailable was raised
    result_cache_hits: int


class SearchClient:
    """Searches at `addresses`: host:port, or a URL such as https://search.example:8000/retrieve."""

    def __init__(self, addresses: Sequence[str], config: SearchClientConfig):
        self.addresses = tuple(url_of(address) for address in addresses)
        self._config = config
        self._balancer = Balancer(self.addresses, what="search")
        self._cache = ResultCache(config.result_cache_entries)
        self._places = asyncio.Semaphore(config.max_concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._headers = {"Content-Type": "application/json"}
        if config.token_file:
            token = pathlib.Path(config.token_file).read_text("utf-8").strip()
            self._headers["Authorization"] = f"Bearer {token}"
        self._by_kind: collections.Counter[str] = collections.Counter()
        self._searches = self._retries = self._unavailable = 0

    @property
    def stats(self) -> SearchStats:
        return SearchStats(
            searches=self._searches,
            retries=self._retries,
            failures_by_kind=dict(self._by_kind),
            unavailable=self._unavailable,
            result_cache_hits=self._cache.hits,
        )

    async def search(self, query: str) -> ToolResult:
        """The passages as text in `stdout`. Raises ToolUnavailable for trouble that is not the query's."""
        try:
            result = await self._cache.get(query, self._run)
        except ToolUnavailable:
            self._unavailable += 1
            raise
        self._searches += 1
        return result

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, address: str, query: str) -> ToolResult:
        """One attempt at one server, for the preflight. Raises ToolUnavailable if it fails."""
        try:
            return await self._post(address, query)
        except TryAgain as error:
            raise ToolUnavailable(str(error)) from error

    async def _run(self, query: str) -> ToolResult:
        config = self._config
        patience = Patience(
            attempts=config.attempts,
            backoff_s=config.backoff_s,
            deadline_s=config.queue_allowance_s + config.request_timeout_s,
        )

        async def attempt(endpoint: Endpoint) -> ToolResult:
            return await self._post(endpoint.address, query)

        async with self._places:
            _, result = await with_retries(self._balancer, patience, attempt, self._count_retry)
        return result

    def _count_retry(self) -> None:
        self._retries += 1

    async def _post(self, url: str, query: str) -> ToolResult:
        if self._session is None:
            limit = aiohttp.ClientTimeout(total=self._config.request_timeout_s)
            # No proxy of the environment, no cookies: a call goes where the run file says.
            self._session = aiohttp.ClientSession(
                timeout=limit, cookie_jar=aiohttp.DummyCookieJar()
            )
        body = request_body(query, self._config.topk)
        start = time.monotonic()
        try:
            async with self._session.post(
                url, data=body, headers=self._headers, allow_redirects=False
            ) as answer:
                content = await _content(answer)
                if answer.status != 200:
                    return self._refused(url, answer, content)
            text = shown(passages_of(content, self._config.topk))
        except (aiohttp.ClientError, OSError, TimeoutError, UnknownAnswer) as error:
            name = type(error).__name__
            self._by_kind[name] += 1
            message = f"search server at {url}: {name}: {error!s:.300}".rstrip(": ")
            raise TryAgain(message) from error
        wall_ms = round((time.monotonic() - start) * 1000)
        return ToolResult(status=ToolStatus.OK, stdout=text, wall_ms=wall_ms)

    def _refused(self, url: str, answer: aiohttp.ClientResponse, content: bytes) -> ToolResult:
        """The result of a query that is refused; raises for all else."""
        status, reason = answer.status, content[:200].decode("utf-8", "replace")
        if status in _OF_THE_QUERY:
            message = f"SearchError: the query was refused: {reason}"
            return ToolResult(status=ToolStatus.ERROR, stderr=message, error_type="SearchError")
        self._by_kind[str(status)] += 1
        message = f"search server at {url}: HTTP {status}: {reason}"
        if status in _HOPELESS:
            raise ToolUnavailable(message)
        asked = answer.headers.get("Retry-After", "")
        pause_s = min(float(asked), LONGEST_BACKOFF_S) if asked.isdigit() else 0.0
        is_busy = status in _BUSY
        raise TryAgain(message, is_busy=is_busy, is_sick=not is_busy, pause_s=pause_s)


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for piece in answer.content.iter_chunked(1 << 16):
        content += piece
        if len(content) > _MOST_ANSWER_BYTES:
            raise UnknownAnswer(f"more than {_MOST_ANSWER_BYTES >> 20} MiB")
    return content


def url_of(address: str) -> str:
    """`host:port` as a URL; a URL without a path gets Search-R1's.

    url_of("127.0.0.1:8000")  ->  "http://127.0.0.1:8000/retrieve"

    Raises:
      ValueError: it is neither.
    """
    url = address if "://" in address else f"http://{address}"
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    name, _, port = host.rpartition(":")
    is_right = scheme in ("http", "https") and host and not any(c in address for c in " \n\t\\@?#")
    if "://" not in address or port.isdigit():
        is_right = is_right and name and port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if not is_right:
        raise ValueError(
            f"search address {address!r} must be host:port, such as 127.0.0.1:8000, or a URL"
        )
    return f"{scheme}://{host}/{path or 'retrieve'}"
