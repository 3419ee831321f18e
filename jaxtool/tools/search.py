"""Search in a menu: passages of a corpus, from servers in Search-R1's protocol or one that the run starts.

  search.Search.addresses = ("10.0.0.5:8000",)      # running servers, ours or Search-R1's
  search.Search.corpus = "wiki.jsonl"                # or: a server of the run's own on this file

Every server is asked before the run, and must know what `known` says. Not covered: how a call is written and
where its passages go (renderers).
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtool.core.bucket_files import local_copy
from jaxtool.core.calls import ToolSpec
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem, ToolResult, ToolStatus
from jaxtool.tools.base import CodeRunner, SharedSession
from jaxtool.tools.local_server import LocalServer, ServerStartError, run_local_search
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.search_client import SearchClient, SearchClientConfig, url_of
from jaxtool.tools.search_wire import QUERY, SEARCH_SPEC

_PROBE = "capital of Norway"  # any text: what comes of it must be passages, or none
_SHOWN_CHARS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """Called as `search` with one argument, `query`."""

    addresses: tuple[str, ...] = ()  # host:port or URL; empty: start a server on `corpus`
    # JSONL or parquet file, where there are no addresses; its index stays beside it.
    corpus: str = ""
    client: SearchClientConfig = dataclasses.field(default_factory=SearchClientConfig)
    name: str = SEARCH_SPEC.name  # as the policy writes it
    description: str = SEARCH_SPEC.description  # for the prompt
    # Its head is kept, so the best passages are. Search-R1 has 500; None: the renderer's max_output_chars.
    max_observation_tokens: int | None = 500
    # Pairs of a query and a text that must be in its passages, asked of each server before the run.
    known: tuple[tuple[str, str], ...] = ()
    start_timeout_s: float = 600.0  # of a server of the run's own, which may build its index first

    def __post_init__(self) -> None:
        check_range(self, "start_timeout_s", above=0)
        if self.max_observation_tokens is not None:
            check_range(self, "max_observation_tokens", least=1)
        if bool(self.addresses) == bool(self.corpus):
            raise ValueError(
                f"Search.addresses = {self.addresses} and Search.corpus = {self.corpus!r}: give one of "
                "them, running servers or a file for a server of the run's own"
            )
        for address in self.addresses:
            url_of(address)

    @property
    def uses_sandbox(self) -> bool:
        return False

    @property
    def spec(self) -> ToolSpec:
        client = self.client
        return dataclasses.replace(
            SEARCH_SPEC,
            name=self.name,
            description=self.description,
            # The client gives up by itself; a call that is over this has met a fault of the client's.
            deadline_s=client.queue_allowance_s + 2 * client.request_timeout_s,
            max_concurrency=client.max_concurrency,
            max_observation_tokens=self.max_observation_tokens,
        )

    def known_answers(self) -> list[tuple[Mapping[str, Any], str]]:
        """None of whole texts: `SearchTool.preflight` looks for the texts of `known`."""
        return []

    def open(self, runner: CodeRunner | None = None) -> "SearchTool":
        """Raises FileNotFoundError without the corpus, ServerStartError if the run's own server does not come up."""
        del runner
        if self.corpus and not local_copy(self.corpus).is_file():
            raise FileNotFoundError(
                f"Search.corpus = {self.corpus!r}: there is no such file: name one, or give running servers with "
                "--search or Search.addresses"
            )
        with contextlib.ExitStack() as stack:
            addresses: Sequence[str] = self.addresses
            if self.corpus:
                addresses = [stack.enter_context(self._own_server()).address]
            return SearchTool(self, SearchClient(addresses, self.client), stack.pop_all())

    @contextlib.contextmanager
    def _own_server(self) -> Iterator[LocalServer]:
        flags = ["--corpus", str(local_copy(self.corpus))]
        try:
            with run_local_search(flags=flags, start_timeout_s=self.start_timeout_s) as server:
                yield server
        except ServerStartError as error:
            raise ServerStartError(f"Search.corpus = {self.corpus!r}: {error}") from error


class SearchTool:
    """An open Search."""

    def __init__(self, config: Search, client: SearchClient, closing: contextlib.ExitStack):
        self.spec = config.spec
        self.client = client
        self._known = config.known
        self._session = SharedSession(self._call)
        self._closing = closing

    async def open(self, problem: Problem, key: str) -> SharedSession:
        del problem, key
        return self._session

    async def preflight(self) -> None:
        """Asks every server.

        Raises:
          PreflightError: one gives no passages, or lacks a text of `known`.
          ToolUnavailable: one cannot be reached.
        """
        for url in self.client.addresses:
            for query, text in self._known or ((_PROBE, ""),):
                result = await self.client.ask(url, query)
                if result.status is not ToolStatus.OK:
                    raise PreflightError(f"search server at {url}: {result.stderr}")
                if text not in result.stdout:
                    got = result.stdout[:_SHOWN_CHARS]
                    raise PreflightError(
                        f"search server at {url}: the passages of {query!r} lack {text!r}: {got!r}"
                    )

    async def close(self) -> None:
        await self.client.close()
        self._closing.close()

    async def _call(self, arguments: Mapping[str, Any]) -> ToolResult:
        return await self.client.search(arguments[QUERY])
