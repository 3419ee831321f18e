"""The client against an endpoint that speaks the protocol: slow, cut, busy, wrong and closed ones."""

import asyncio
import dataclasses
import time

import pytest
from helpers.chat_endpoint import KEY, Answer, endpoint, refusal, reply

from jaxtool.cold_start.chat_client import ChatClient, EndpointConfig
from jaxtool.cold_start.rewriter import RequestLost, RequestRefused, RewriterStopped
from jaxtool.cold_start.spending import Account, Budget, BudgetReached, Prices, Tokens, worst


@dataclasses.dataclass
class Log:
    lines: list[tuple] = dataclasses.field(default_factory=list)

    def sent(self, row, most):
        self.lines.append(("sent", row, most))

    def unanswered(self, row, *, is_billed, why):
        self.lines.append(("unanswered", row, is_billed, why))


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


def config_of(url, **settings):
    quick = {"model": "m", "api_key_variable": "TEST_KEY", "backoff_s": 0.001, "max_tokens": 50}
    return EndpointConfig(base_url=url, **(quick | settings))


@dataclasses.dataclass
class Asked:
    """What came of one question."""

    reply: object = None
    error: BaseException | None = None
    account: Account = None  # pyright: ignore[reportAssignmentType]
    log: Log = dataclasses.field(default_factory=Log)
    requests: list = dataclasses.field(default_factory=list)
    failures: dict = dataclasses.field(default_factory=dict)


def ask(behaviour, *, tokens=100_000, **settings) -> Asked:
    asked = Asked()

    async def go(url):
        asked.account = Account(Budget(tokens=tokens), Prices(), Tokens(), Tokens())
        client = ChatClient(config_of(url, **settings), asked.account, asked.log)
        try:
            asked.reply = await client.ask("row#0", "the prompt")
        except Exception as error:
            asked.error = error
        finally:
            await client.close()
        asked.failures = dict(client.failures)

    with endpoint(behaviour) as served:
        asyncio.run(go(served.url))
        asked.requests = served.requests
    return asked


def then(*answers):
    """The first answer to the first request, and so on; the last one for ever."""
    return lambda request: answers[min(request.number, len(answers)) - 1]


MOST = worst("the prompt", 50)


def test_a_reply_and_what_it_costs():
    asked = ask(then(reply("hi")), temperature=0.5, top_p=0.9)
    assert asked.reply.text == "hi"
    assert asked.account.spent == Tokens(prompt=100, written=10)
    [request] = asked.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "the prompt"}],
        "max_tokens": 50,
        "stream": False,
        "temperature": 0.5,
        "top_p": 0.9,
    }
    assert asked.log.lines == [("sent", "row#0", MOST)]


def test_settings_that_are_not_set_are_not_sent(monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    limit = "max_completion_tokens"
    asked = ask(then(reply("hi")), temperature=None, limit_name=limit)
    [request] = asked.requests
    assert request.body.keys() == {"model", "messages", limit, "stream"}
    assert "Authorization" not in request.headers


def test_a_usage_that_is_missing_counts_at_its_worst():
    asked = ask(then(reply("hi", usage=None)))
    assert (asked.account.spent.total, asked.account.uncertain) == (0, MOST)


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again_and_costs_nothing(status):
    asked = ask(then(refusal(status), reply("hi")))
    assert asked.reply.text == "hi"
    assert asked.account.total == Tokens(prompt=100, written=10)
    assert asked.failures == {str(status): 1}
    assert [line[0] for line in asked.log.lines] == ["sent", "unanswered", "sent"]
    assert asked.log.lines[1][2] is False


def test_a_reply_that_is_cut_may_have_been_billed():
    asked = ask(then(reply("hi", is_cut=True), reply("hi")))
    assert asked.reply.text == "hi"
    assert asked.account.uncertain == MOST
    assert asked.log.lines[1][2] is True


def test_a_slow_reply_may_have_been_billed():
    asked = ask(then(reply("hi", delay_s=1.5), reply("hi")), timeout_s=1.0)
    assert asked.reply.text == "hi"
    assert asked.account.uncertain == MOST
    assert asked.failures == {"TimeoutError": 1}


def test_wrong_json_is_tried_again_and_then_the_request_is_lost():
    asked = ask(then(Answer(body=b"<html>")), attempts=3)
    assert isinstance(asked.error, RequestLost)
    assert "UnreadableReply: no JSON" in str(asked.error)
    assert len(asked.requests) == 3
    assert asked.account.uncertain.total == 3 * MOST.total


def test_an_endless_body_is_not_taken_in(monkeypatch):
    monkeypatch.setattr("jaxtool.cold_start.chat_client._MOST_REPLY_BYTES", 1 << 16)
    asked = ask(then(Answer(body=b"x" * (1 << 20))), attempts=1)
    assert isinstance(asked.error, RequestLost)


def test_a_busy_endpoint_is_given_the_time_that_it_asks_for():
    start = time.monotonic()
    asked = ask(then(refusal(429, Retry_After="0.3"), reply("hi")), attempts=1)
    assert asked.reply.text == "hi"
    assert time.monotonic() - start >= 0.3


def test_a_time_longer_than_the_patience_is_not_waited_for():
    asked = ask(then(refusal(429, "slow down", Retry_After="86400")))
    assert isinstance(asked.error, RequestLost)
    assert "HTTP 429: slow down" in str(asked.error)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            refusal(401, "bad key"),
            r"HTTP 401: bad key \(the endpoint refuses the key in \$TEST_KEY\)",
        ),
        (refusal(404, "no model"), "is --endpoint the URL up to /chat/completions, and --model"),
        (refusal(402, "pay"), "the account has no money left"),
        (refusal(429, "pay", code="insufficient_quota"), "the account has no money left"),
        (
            refusal(307, "there", Location="http://127.0.0.1:1/"),
            "a key goes nowhere but to --endpoint",
        ),
    ],
)
def test_what_cannot_pass_stops_at_once(answer, message):
    asked = ask(then(answer))
    assert isinstance(asked.error, RewriterStopped)
    assert len(asked.requests) == 1
    assert asked.account.total == Tokens()
    with pytest.raises(RewriterStopped, match=message):
        raise asked.error


def test_no_key_is_said_to_be_none(monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    assert "(no key is set in $TEST_KEY)" in str(ask(then(refusal(401))).error)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_its_own_rows_matter(status):
    asked = ask(then(refusal(status, "too long")))
    assert isinstance(asked.error, RequestRefused)
    assert len(asked.requests) == 1
    assert asked.account.total == Tokens()


def test_the_key_is_in_no_message():
    for text in (f"wrong key {KEY}!", f"wrong key: {KEY[:8]}***, see", f"Bearer\t{KEY}"):
        for answer in (refusal(401, text), refusal(400, text), refusal(500, text)):
            asked = ask(then(answer), attempts=1)
            assert KEY[:6] not in f"{asked.error!r} {asked.error} {asked.log.lines}"


def test_a_key_that_no_header_can_hold(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-a\nb: c")
    asked = None
    with pytest.raises(ValueError, match=r"the key in \$TEST_KEY holds characters") as error:
        asked = ask(then(reply("hi")))
    assert asked is None
    assert "sk-a" not in str(error.value)


def test_nobody_listens():
    with endpoint(then(reply("hi"))) as served:
        url = served.url

    async def go():
        account = Account(Budget(tokens=10_000), Prices(), Tokens(), Tokens())
        client = ChatClient(config_of(url, attempts=2), account, Log())
        try:
            with pytest.raises(RequestLost, match="ClientConnectorError"):
                await client.ask("row#0", "p")
        finally:
            await client.close()
        assert account.total == Tokens()

    asyncio.run(go())


def test_a_request_that_might_not_fit_is_not_sent():
    asked = ask(then(reply("hi")), tokens=MOST.total - 1)
    assert isinstance(asked.error, BudgetReached)
    assert asked.requests == []
    assert ask(then(reply("hi")), tokens=MOST.total).reply.text == "hi"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "is no URL of an API"),
        ("ftp://a/v1", "is no URL of an API"),
        ("http://", "is no URL of an API"),
        ("http://a:x/v1", "is no URL of an API"),
        ("http://a/v1?key=b", "is no URL of an API"),
        ("https://me:secret@a/v1", "put the key into the environment"),
        ("https://a/v1/chat/completions", "leave out /chat/completions"),
    ],
)
def test_urls_that_are_none(url, message):
    with pytest.raises(ValueError, match=message) as error:
        config_of(url)
    assert "me:secret" not in str(error.value)


def test_a_key_in_the_clear_is_known(monkeypatch):
    assert config_of("http://rewriter.example/v1").sends_key_in_the_clear
    assert not config_of("https://rewriter.example/v1").sends_key_in_the_clear
    assert not config_of("http://127.0.0.1:8000/v1").sends_key_in_the_clear
    monkeypatch.delenv("TEST_KEY")
    assert not config_of("http://rewriter.example/v1").sends_key_in_the_clear
