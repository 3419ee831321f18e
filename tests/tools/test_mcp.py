"""Tools of real MCP servers in a menu: by the official package over both transports, and one that is not ours."""

import asyncio
import json
import sys

import pytest
from helpers.mcp_calls import OURS, answered, answers, menu_of
from helpers.mcp_server import serving

from jaxtool.core.calls import InvalidCall
from jaxtool.core.types import ToolStatus, ToolUnavailable
from jaxtool.tools import mcp_calls
from jaxtool.tools.mcp import Mcp
from jaxtool.tools.mcp_connection import Connection, Lost
from jaxtool.tools.preflight import PreflightError

NAMES = ["add", "fail", "remember", "nap", "blocks", "whose", "pad"]


@pytest.fixture(scope="module")
def by_url():
    """Settings of one good server over HTTP."""
    with serving() as url:
        yield {"url": url}


@pytest.fixture(params=["stdio", "http"])
def by_both(request, by_url):
    """Of the same server over each transport. A process takes a second to start: most tests have `by_url` alone."""
    return {"command": OURS} if request.param == "stdio" else by_url


def test_each_tool_joins_the_menu_with_its_schema(by_both):
    sources = Mcp(**by_both, max_observation_tokens=50, max_concurrency=3).sources()
    assert [source.spec.name for source in sources] == NAMES
    add = sources[0].spec
    assert add.description == "Adds two numbers."
    assert add.parameters["required"] == ["a", "b"]
    assert add.parameters["properties"]["a"] == {"title": "A", "type": "integer"}
    assert (add.max_observation_tokens, add.max_concurrency) == (50, 3)
    taken = Mcp(**by_both, only=("pad", "add"), prefix="my_").sources()
    assert [source.spec.name for source in taken] == ["my_add", "my_pad"]


def test_results_errors_deadlines_and_everything_that_is_no_text(by_both):
    [found] = answers(
        Mcp(**by_both, max_result_chars=100, deadlines=(("nap", 1.0),)),
        ("nap", {"seconds": 0.01}),
        ("nap", {"seconds": 100}),
        ("add", {"a": 2, "b": 40}),
        ("fail", {"text": "no\nway"}),
        ("blocks", {}),
        ("pad", {"size": 3_000_000}),
        ("add", {"a": "2", "b": 40}),
    )
    rested, late, added, failed, blocks, long, invalid = found
    assert rested.stdout == "rested"
    assert late.status is ToolStatus.WALL_LIMIT
    assert late.stderr == "TimeoutError: no result after 1 s"
    assert (added.status, added.stdout) == (ToolStatus.OK, "42")
    assert (failed.status, failed.error_type) == (ToolStatus.ERROR, "ToolError")
    assert failed.stderr == "Error executing tool fail: no\nway"
    assert blocks.stdout == (
        "first\n[image/png, 8 bytes of base64: not shown]\nin a file\n[file:///b.txt: not shown]\nlast"
    )
    assert (long.stdout, long.is_truncated) == ("x" * 100, True)
    assert isinstance(invalid, InvalidCall)
    assert invalid.reason == "the argument 'a' of add must be of type integer, got '2'"


@pytest.mark.parametrize("ended_by", ["deadline", "trajectory"])
def test_a_call_that_ends_early_is_cancelled_at_the_server(by_url, ended_by):
    async def cancelled(menu):
        return (await answered(menu, "remember", {"text": "-"})).stdout.count("cancelled")

    async def made():
        menu = menu_of(Mcp(**by_url, deadline_s=1.0 if ended_by == "deadline" else 60.0))
        before = await cancelled(menu)
        call = asyncio.create_task(answered(menu, "nap", {"seconds": 100}))
        await asyncio.wait({call}, timeout=0.5 if ended_by == "trajectory" else None)
        call.cancel()
        await asyncio.wait({call})
        for _ in range(500):  # the server needs a moment
            if await cancelled(menu) > before:
                break
            await asyncio.sleep(0.01)
        after = await cancelled(menu)
        await menu.close()
        return after - before

    assert asyncio.run(made()) == 1


def test_trajectories_share_a_connection(by_url):
    [[one], [other]] = answers(Mcp(**by_url), ("whose", {}), trajectories=2)
    assert one.stdout == other.stdout


def test_each_trajectory_can_have_a_connection_of_its_own(by_both):
    own = Mcp(**by_both, shares="trajectory")
    calls = [("whose", {}), ("remember", {"text": "x"}), ("remember", {"text": "y"}), ("whose", {})]
    one, other = answers(own, *calls, trajectories=2)
    assert one[0].stdout == one[3].stdout != other[0].stdout
    if "command" in by_both:  # what a process remembers is the trajectory's
        assert one[2].stdout == other[2].stdout == "x y"


def test_many_calls_go_over_one_connection_at_a_time(by_url):
    async def made():
        menu = menu_of(Mcp(**by_url, max_concurrency=40))
        calls = [answered(menu, "add", {"a": n, "b": n}, str(n)) for n in range(150)]
        found = await asyncio.gather(*calls)
        await menu.close()
        return found, menu.take_figures()["add"]

    found, figures = asyncio.run(made())
    assert [result.stdout for result in found] == [str(2 * n) for n in range(150)]
    assert (len(figures.latencies_s), figures.retries, figures.unavailable) == (150, 0, 0)


def test_a_url_whose_server_comes_back_goes_on_and_one_that_does_not_masks(monkeypatch):
    monkeypatch.setattr(mcp_calls, "BACKOFF_S", 0.1)

    async def made():
        with serving() as url:
            menu = menu_of(Mcp(url=url))
            port = int(url.split(":")[2].split("/")[0])
            first = await answered(menu, "add", {"a": 1, "b": 2})
        gone = await answered(menu, "add", {"a": 1, "b": 2})
        with serving(port=port):
            again = await answered(menu, "add", {"a": 1, "b": 2})
            figures = menu.take_figures()["add"]
            await menu.close()
        return first, gone, again, figures

    first, gone, again, figures = asyncio.run(made())
    assert (first.stdout, again.stdout) == ("3", "3")
    assert isinstance(gone, ToolUnavailable)
    assert "ConnectError" in str(gone)
    assert (figures.unavailable, len(figures.latencies_s)) == (1, 2)


def test_a_session_that_the_server_has_forgotten_is_lost():
    """As after its restart: another connection can be made, and what a trajectory had there is gone."""

    async def made():
        with serving() as url:
            connection = Connection(Mcp(url=url).endpoint, needs_session=True)
            await connection.open()
            menu = menu_of(Mcp(url=url, shares="trajectory"))
            first = await answered(menu, "add", {"a": 1, "b": 2}, "t")
            port = int(url.split(":")[2].split("/")[0])
        with serving(port=port):
            with pytest.raises(Lost, match="the connection is over; HTTP 404"):
                await connection.call("add", {"a": 1, "b": 2}, 20.0)
            await connection.close()
            again = await answered(menu, "add", {"a": 1, "b": 2}, "t")
            other = await answered(menu, "add", {"a": 1, "b": 2}, "u")
            await menu.close()
        return first, again, other

    first, again, other = asyncio.run(made())
    assert (first.stdout, other.stdout) == ("3", "3")
    assert isinstance(again, ToolUnavailable)
    assert str(again).endswith("HTTP 404; what it remembered is lost")


def test_a_long_answer_may_be_streamed(by_url):
    """Sessions stream their answers as events, whose usual limit is a mebibyte."""
    own = Mcp(**by_url, shares="trajectory", max_result_chars=100)
    [[long]] = answers(own, ("pad", {"size": 3_000_000}))
    assert (long.status, long.is_truncated) == (ToolStatus.OK, True)


def test_headers_come_from_the_environment(monkeypatch):
    with serving(token="abc") as url:
        with pytest.raises(
            PreflightError, match=rf"MCP server '{url}': .*HTTP 401: set Mcp\.headers"
        ):
            Mcp(url=url).sources()
        monkeypatch.setenv("MY_TOKEN", "abc")
        allowed = Mcp(url=url, headers=(("Authorization", "Bearer ${MY_TOKEN}"),))
        [[added]] = answers(allowed, ("add", {"a": 1, "b": 2}))
        assert added.stdout == "3"


def test_a_server_without_sessions_cannot_keep_trajectories_apart():
    with serving(stateless=True) as url:
        with pytest.raises(ValueError, match=r"keeps no sessions, .*: set Mcp\.shares = 'run'"):
            Mcp(url=url, shares="trajectory").sources()
        [[added]] = answers(Mcp(url=url), ("add", {"a": 1, "b": 2}))
        assert added.stdout == "3"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/mcp", "http://no.such.host.invalid/mcp"])
def test_a_url_that_refuses_is_one_line(url):
    with pytest.raises(PreflightError, match=rf"MCP server '{url}': ConnectError: ") as error:
        Mcp(url=url).sources()
    assert "\n" not in str(error.value)


def test_a_url_that_is_no_mcp_server_is_one_line():
    with serving() as url, pytest.raises(PreflightError, match="HTTP 404") as error:
        Mcp(url=url.replace("/mcp", "/other")).sources()
    assert "\n" not in str(error.value)


def test_unknown_names_are_refused_with_those_that_there_are(by_url):
    has = "add, fail, remember, nap, blocks, whose, pad"
    with pytest.raises(ValueError, match=rf"Mcp\.only: .* has no tool 'sub'; it has {has}"):
        Mcp(**by_url, only=("add", "sub")).sources()
    with pytest.raises(ValueError, match=r"Mcp\.deadlines: there is no tool 'sub', only add, fail"):
        Mcp(**by_url, deadlines=(("sub", 1.0),)).sources()
    with pytest.raises(ValueError, match=r"Mcp\.known_answers: there is no tool 'add', only m_add"):
        Mcp(**by_url, only=("add",), prefix="m_", known_answers=(("add", {}, "1"),)).sources()


def test_the_time_server_of_the_protocols_authors():
    pytest.importorskip("mcp_server_time")
    server = Mcp(command=(sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"))
    zone = {"source_timezone": "UTC", "target_timezone": "Asia/Tokyo"}
    [[converted, bad_time, bad_zone]] = answers(
        server,
        ("convert_time", {**zone, "time": "12:30"}),
        ("convert_time", {**zone, "time": "25:61"}),
        ("get_current_time", {"timezone": "Mars/Olympus"}),
    )
    assert json.loads(converted.stdout)["time_difference"] == "+9.0h"
    assert "Invalid time format" in bad_time.stderr
    assert bad_zone.status is ToolStatus.ERROR
    assert "Invalid timezone" in bad_zone.stderr
