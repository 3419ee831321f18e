"""Sandbox and search servers that are stopped, restarted, or answer garbage or half: every answer is right or masked.

What a killed, slow, busy or refusing server does is drilled in tests/tools and tests/rollout; docs/faults.md names all.
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading

import pytest
from helpers.scripted_engine import ANSWER, stage

from jaxtool.core.types import FinishReason, ToolStatus, ToolUnavailable, trajectories_of
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.local_server import run_local_server
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig
from jaxtool.tools.search_client import SearchClient, SearchClientConfig

ROWS, CALLS = 12, 2
LIMIT_S = 60.0  # of every drill
QUICK = {"backoff_s": 0.05, "queue_allowance_s": 3.0, "wall_limit_s": 2.0, "cpu_limit_s": 2.0}


def script_of(row, calls=CALLS):
    written = []
    for call in range(calls):
        written += ["<code>", *f"__import__('time').sleep(0.03) or {row}*{call}+7", "</code>"]
    return [*written, *ANSWER]


async def collect(addresses, trouble=None, *, attempts=8, calls=CALLS, rows=ROWS):
    """Rows that call; `trouble` comes when a third of the calls are done."""
    client = SandboxClient(addresses, SandboxClientConfig(attempts=attempts, **QUICK))
    config = RolloutConfig(max_response_tokens=400, max_tool_calls=calls)
    made = stage(
        [[script_of(row, calls)] for row in range(rows)],
        tool=client, decode_rows=rows, window_steps=16, config=config,
    )  # fmt: skip

    async def make_trouble():
        while client.stats.executions < rows // 3:
            await asyncio.sleep(0.002)
        trouble()

    try:
        async with asyncio.timeout(LIMIT_S):
            making = asyncio.create_task(make_trouble()) if trouble else None
            trajectories = trajectories_of(await made.collect())
            if making is not None:
                await making
        return trajectories, client.stats, made.collector.tools.last_trouble
    finally:
        await client.close()


def right_or_masked(trajectories, calls=CALLS):
    """Checks that nothing is scored wrong; returns how many are masked."""
    for row, trajectory in enumerate(trajectories):
        trajectory.check()
        assert trajectory.is_masked or trajectory.finish_reason is FinishReason.ANSWER
        assert trajectory.is_masked or trajectory.num_tool_calls == calls
        for call, made in enumerate(trajectory.tool_calls):
            assert made.result.status is ToolStatus.OK
            assert made.result.last_value == str(row * call + 7)
    return sum(trajectory.is_masked for trajectory in trajectories)


@contextlib.contextmanager
def stopped(pid):
    """A process that is there and does nothing goes on at the end, or it could not be ended."""
    try:
        yield lambda: os.kill(pid, signal.SIGSTOP)
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.nightly
def test_a_sandbox_that_is_stopped_is_left_for_another_at_its_deadline():
    with run_local_server() as doomed, run_local_server() as other, stopped(doomed.pid) as stop:
        trajectories, stats, _ = asyncio.run(collect([doomed.address, other.address], stop))
    assert right_or_masked(trajectories) == 0
    assert stats.failures_by_code.get("DEADLINE_EXCEEDED", 0) > 0


def test_the_only_sandbox_that_is_stopped_masks_what_it_had_and_hangs_nobody():
    with run_local_server() as doomed, stopped(doomed.pid) as stop:
        trajectories, _, trouble = asyncio.run(collect([doomed.address], stop, attempts=1))
    assert 0 < right_or_masked(trajectories) < ROWS * CALLS
    assert "tool 'python'" in trouble
    assert "DEADLINE_EXCEEDED" in trouble
    assert "\n" not in trouble


@pytest.mark.nightly
def test_one_of_three_sandboxes_that_is_down_costs_retries_alone():
    with run_local_server() as a, run_local_server() as b, run_local_server() as c:
        addresses = [a.address, b.address, c.address]
        kill = lambda: os.kill(c.pid, signal.SIGKILL)  # noqa: E731
        trajectories, stats, _ = asyncio.run(collect(addresses, kill))
    assert right_or_masked(trajectories) == 0
    assert (stats.unavailable, stats.retries > 0) == (0, True)


def test_a_sandbox_that_is_restarted_is_found_again(tmp_path):
    """Killed in the middle; another process listens at the same address a moment later."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(run_local_server())
        second = stack.enter_context(run_local_server())
        link = tmp_path / "sandbox"
        link.symlink_to(first.address.removeprefix("unix:"))

        def restart():
            os.kill(first.pid, signal.SIGKILL)
            link.unlink()
            threading.Timer(
                0.3, lambda: link.symlink_to(second.address.removeprefix("unix:"))
            ).start()

        trajectories, stats, _ = asyncio.run(collect([f"unix:{link}"], restart))
    assert right_or_masked(trajectories) == 0
    assert stats.retries > 0


@contextlib.contextmanager
def answering(reply):
    """A server that answers every connection with the same bytes and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(0.2)
                    connection.recv(1 << 16)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


GARBAGE = {
    "noise": bytes(range(256)) * 8,
    "half a frame": b"\x00\x00\x12\x04\x00\x00\x00",
    "nothing": b"",
    "http": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n",
}


@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE)
def test_a_sandbox_of_garbage_masks_and_is_named_in_one_line(reply):
    with answering(reply) as address:
        trajectories, stats, trouble = asyncio.run(collect([address], attempts=2, rows=2))
    assert right_or_masked(trajectories) == 2
    assert stats.unavailable == 2
    assert address in trouble
    assert "\n" not in trouble


SEARCH = {
    "half an answer": b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"result": [[{"docu',
    "noise": bytes(range(256)) * 8,
    "nothing": b"",
    "a head without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
}


@pytest.mark.parametrize("reply", SEARCH.values(), ids=SEARCH)
def test_a_search_server_of_garbage_or_half_an_answer_is_unavailable_in_one_line(reply):
    async def ask(address):
        client = SearchClient(
            [address], SearchClientConfig(attempts=2, backoff_s=0.01, request_timeout_s=2.0)
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                await client.search("capital of Norway")
        finally:
            await client.close()

    with answering(reply) as address, pytest.raises(ToolUnavailable) as caught:
        asyncio.run(ask(address))
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_search_server_that_is_stopped_is_left_at_its_deadline():
    """It takes the connection and never answers."""

    async def ask(address):
        config = SearchClientConfig(attempts=2, backoff_s=0.01, request_timeout_s=0.3)
        client = SearchClient([address], config)
        try:
            async with asyncio.timeout(LIMIT_S):
                await client.search("capital of Norway")
        finally:
            await client.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ToolUnavailable, match=address) as caught:
            asyncio.run(ask(address))
    assert "\n" not in str(caught.value)


@pytest.mark.nightly
def test_a_storm_of_calls_is_answered_in_order_and_nothing_is_lost():
    """40 rows that do nothing but call, six times each, at a server that runs one program and queues one."""
    flags = ["--concurrency", "1", "--queue-capacity", "1"]
    with run_local_server(flags=flags) as server:
        storm = collect_storm([server.address])
        trajectories, stats, _ = asyncio.run(storm)
    assert right_or_masked(trajectories, 6) == 0
    assert stats.executions == 240
    assert stats.failures_by_code.get("RESOURCE_EXHAUSTED", 0) > 0


async def collect_storm(addresses):
    config = SandboxClientConfig(backoff_s=0.02, queue_allowance_s=50.0)
    client = SandboxClient(addresses, config)
    scripts = [
        [
            [piece for call in range(6) for piece in ("<code>", *f"{row}*{call}+7", "</code>")]
            + ANSWER
        ]
        for row in range(40)
    ]
    made = stage(
        scripts, tool=client, decode_rows=40, window_steps=16,
        config=RolloutConfig(max_response_tokens=400, max_tool_calls=6),
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            return trajectories_of(await made.collect()), client.stats, ""
    finally:
        await client.close()
