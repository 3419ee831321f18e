"""Asks an OpenAI-compatible endpoint: deadlines, retries, a budget, and a key that stays secret.

What may pass by itself is tried again; a busy endpoint is given the time that it asks for. What cannot pass (a
wrong key, no money, no such model) stops everything at once with one line. A request that the endpoint
refuses for what stands in it concerns its own row alone.
Not covered: what is asked (`prompt`), what is kept (`journal`). Use one client from one asyncio loop.
"""

import asyncio
import collections
import dataclasses
import os
import random
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any, Literal, get_args

import aiohttp

from jaxtool.cold_start import chat_wire
from jaxtool.cold_start.chat_wire import Reply, UnreadableReply
from jaxtool.cold_start.rewriter import AttemptLog, RequestLost, RequestRefused, RewriterStopped
from jaxtool.cold_start.spending import Account, Tokens, expected_prompt_tokens, worst
from jaxtool.core.ranges import check_range

LimitName = Literal["max_tokens", "max_completion_tokens"]
_MOST_REPLY_BYTES = 16 << 20
_LONGEST_BACKOFF_S = 60.0
_OF_THE_REQUEST = (400, 413, 422)
_HOPELESS = (301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 410, 415)
_BUSY = (429, 503, 529)
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached")
_SHORTEST_KEY = 6  # shorter ones are stand-ins, such as EMPTY
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """Whom to ask, and how patiently. The key is read from the environment and kept nowhere."""

    base_url: str  # up to /chat/completions, such as https://api.openai.com/v1
    model: str
    api_key_variable: str = "OPENAI_API_KEY"  # of the environment; unset: no key is sent
    max_tokens: int = 8192  # that one reply may have; longer ones are cut off and fall out
    limit_name: LimitName = "max_tokens"  # OpenAI's reasoning models want the other one
    temperature: float | None = 0.7  # None: the endpoint's own, for models that take no other
    top_p: float | None = None
    timeout_s: float = 600.0  # of one attempt: without streaming a long reply comes as a whole
    attempts: int = 6  # with the back-off below: about a minute
    backoff_s: float = 1.0  # doubled each time, at most 60 s
    patience_s: float = 1800.0  # that a request waits in all for a busy endpoint
    concurrency: int = 8  # requests on their way
    uses_proxy: bool = False  # that of HTTPS_PROXY; otherwise none

    def __post_init__(self) -> None:
        check_range(self, "max_tokens", "attempts", "concurrency", least=1)
        check_range(self, "timeout_s", "backoff_s", "patience_s", above=0)
        check_range(self, "temperature", least=0, most=2)
        check_range(self, "top_p", above=0, most=1)
        if self.limit_name not in get_args(LimitName):
            raise ValueError(f"{self.limit_name=} must be one of {', '.join(get_args(LimitName))}")
        if not self.model:
            raise ValueError("no model: give its name as the endpoint knows it, --model NAME")
        _check_url(self.base_url)

    @property
    def url(self) -> str:
        return f"{self.base_url.rstrip('/')}/chat/completions"

    @property
    def sampling(self) -> dict[str, float]:
        named = {"temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """What a recorded reply rests on. The address may change: it is the model that answers."""
        return {"model": self.model, "max_tokens": self.max_tokens, "sampling": self.sampling}

    def cost(self, prompt: str) -> tuple[int, Tokens]:
        """Prompt tokens to be expected, one for three bytes; and the most, one a byte."""
        return expected_prompt_tokens(prompt), worst(prompt, self.max_tokens)

    def open(self, account: Account, log: AttemptLog, prompts: Sequence[str]) -> "ChatClient":
        """A client; close it when done."""
        del prompts  # a server takes them as they come
        return ChatClient(self, account, log)

    @property
    def sends_key_in_the_clear(self) -> bool:
        """Whether the key would go over plain HTTP to another machine."""
        parts = urllib.parse.urlsplit(self.base_url)
        is_near = parts.hostname in _LOOPBACK
        return (
            parts.scheme == "http" and not is_near and bool(os.environ.get(self.api_key_variable))
        )


class _Failed(Exception):
    """One attempt; another may pass."""

    def __init__(
        self, message: str, *, is_busy: bool = False, is_billed: bool = False, pause_s: float = 0.0
    ):
        """Args:
        is_busy: the endpoint is full, which uses up no attempt, only time.
        is_billed: it may have been.
        pause_s: the endpoint asks for as long before the next attempt.
        """
        super().__init__(message)
        self.is_busy, self.is_billed, self.pause_s = is_busy, is_billed, pause_s


class ChatClient:
    """Asks; close it when done."""

    def __init__(self, config: EndpointConfig, account: Account, log: AttemptLog):
        """Raises ValueError for a key that no header can hold; the message does not show it."""
        self._config, self._account, self._log = config, account, log
        self._key = os.environ.get(config.api_key_variable, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ValueError(
                f"the key in ${config.api_key_variable} holds characters that no HTTP header may: set it "
                "again"
            )
        self._session: aiohttp.ClientSession | None = None
        self.failures: collections.Counter[str] = collections.Counter()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, row: str, prompt: str) -> Reply:
        """The reply to a prompt. What it costs is on the account.

        Args:
          row: for the log.

        Raises:
          BudgetReached: it might not fit.
          RewriterStopped: no request can pass.
          RequestRefused: this one cannot.
          RequestLost: all attempts failed.
        """
        config = self._config
        most = worst(prompt, config.max_tokens)
        body = chat_wire.request_body(
            model=config.model,
            prompt=prompt,
            max_tokens=config.max_tokens,
            limit_name=config.limit_name,
            sampling=config.sampling,
        )
        give_up = time.monotonic() + config.patience_s
        failed_attempts, backoff_s = 0, config.backoff_s
        while True:
            try:
                return await self._attempt(row, body, most)
            except _Failed as failure:
                failed_attempts += not failure.is_busy
                # Clients that failed together must not come back together.
                pause_s = max(failure.pause_s, backoff_s * random.uniform(0.5, 1.0))
                is_over = time.monotonic() + pause_s > give_up
                if failed_attempts >= config.attempts or is_over:
                    raise RequestLost(str(failure)) from None
            await asyncio.sleep(pause_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _attempt(self, row: str, body: bytes, most: Tokens) -> Reply:
        """One request, on the account and in the log whatever becomes of it."""
        await self._account.admit(most)
        self._log.sent(row, most)
        spent: Tokens | None = None
        is_billed, why, is_answered = True, "this process ended it", False
        try:
            reply = await self._post(body)
            spent, is_answered = reply.used, True
            return reply
        except _Failed as failure:
            is_billed, why = failure.is_billed, str(failure)
            raise
        except (RewriterStopped, RequestRefused) as error:
            is_billed, why = False, str(error)
            raise
        finally:
            if not is_answered:
                self._log.unanswered(row, is_billed=is_billed, why=why)
            self._account.settle(most, spent=spent, is_billed=is_billed)

    async def _post(self, body: bytes) -> Reply:
        url, headers = self._config.url, {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            async with self._opened().post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                content = await _content(answer)
                if answer.status != 200:
                    raise self._refused(answer, content)
            return chat_wire.read_reply(content)
        except aiohttp.ClientConnectorError as error:  # nothing was sent
            raise self._failed(error, is_billed=False) from None
        except (aiohttp.ClientError, OSError, TimeoutError, UnreadableReply, ValueError) as error:
            raise self._failed(error, is_billed=True) from None

    def _failed(self, error: Exception, *, is_billed: bool) -> _Failed:
        name = type(error).__name__
        self.failures[name] += 1
        told = self._without_key(f"{name}: {error}".rstrip(": "))
        return _Failed(f"{self._config.url}: {told}", is_billed=is_billed)

    def _refused(self, answer: aiohttp.ClientResponse, content: bytes) -> Exception:
        """What to raise for a status that is not 200."""
        status = answer.status
        self.failures[str(status)] += 1
        told = self._without_key(chat_wire.error_text(content))
        message = f"{self._config.url}: HTTP {status}: {told}".rstrip(": ")
        if status in _HOPELESS or chat_wire.error_code(content) in _NO_MONEY:
            return RewriterStopped(f"{message} ({self._remedy(status)})")
        if status in _OF_THE_REQUEST:
            return RequestRefused(message)
        pause_s = chat_wire.retry_after_s(answer.headers.get("Retry-After", ""), time.time())
        return _Failed(message, is_busy=status in _BUSY, pause_s=pause_s)

    def _remedy(self, status: int) -> str:
        variable = self._config.api_key_variable
        if status in (401, 403):
            said = "the endpoint refuses the key in" if self._key else "no key is set in"
            return f"{said} ${variable}"
        if status in (404, 405, 410, 415):
            return "is --endpoint the URL up to /chat/completions, and --model a model that it has?"
        if 300 <= status < 400:
            return "it redirects, and a key goes nowhere but to --endpoint: name the final URL"
        return "the account has no money left: what was recorded is kept"

    def _without_key(self, text: str) -> str:
        """Endpoints repeat the key in their errors, some of them in part."""
        text = chat_wire.one_line(text)
        if len(self._key) < _SHORTEST_KEY:
            return text
        return " ".join(
            "[key]" if self._key in word or word[:_SHORTEST_KEY] in self._key else word
            for word in text.split(" ")
            if word
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
                connector=aiohttp.TCPConnector(limit=self._config.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self._config.uses_proxy,
            )
        return self._session


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in answer.content.iter_chunked(1 << 16):
        content += piece
        if len(content) > _MOST_REPLY_BYTES:
            raise UnreadableReply(f"more than {_MOST_REPLY_BYTES >> 20} MiB")
    return bytes(content)


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    try:
        parts.port  # noqa: B018 - raises for one that is none
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_right = False
    if not is_right or parts.query or parts.fragment or any(c.isspace() for c in url):
        raise ValueError(
            f"--endpoint {url!r} is no URL of an API: give its beginning, such as "
            "https://api.openai.com/v1 or http://127.0.0.1:8000/v1"
        )
    if parts.username or parts.password:
        raise ValueError(
            "--endpoint holds a user or a password, which would be written into logs: put the key into "
            "the environment, see --api_key_variable"
        )
    if url.rstrip("/").endswith("/chat/completions"):
        raise ValueError(f"--endpoint {url!r}: leave out /chat/completions, it is added")
