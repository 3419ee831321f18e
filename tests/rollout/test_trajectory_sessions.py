"""Interpreters of trajectories on real servers: state lasts, losses are replayed or mask, none is left behind."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import time

import pytest
from helpers.sandbox_serving import serving
from helpers.scripted_engine import ANSWER, EOS, stage

from jaxtool.core.types import FinishReason, ToolStatus, trajectories_of
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.code_sessions import SessionCounts
from jaxtool.tools.menu import Menu
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig
from sandbox_server.wire import sandbox_pb2 as pb

LASTING = PythonSandbox(state="trajectory")
CONFIG = SandboxClientConfig(attempts=2, backoff_s=0.02)
HASTY = dataclasses.replace(CONFIG, cpu_limit_s=0.3)
BUDGET = RolloutConfig(max_response_tokens=400, max_tool_calls=4)
CAPACITY, MEMORY = 8, 120 << 20  # of the small server


@pytest.fixture(scope="module")
def servers():
    """One as it comes, and a small one, which the last test kills."""
    flags = ("--session-capacity", str(CAPACITY), "--session-memory-bytes", str(MEMORY))
    with serving("--concurrency", "2") as roomy, serving("--concurrency", "2", *flags) as small:
        yield roomy, small


@pytest.fixture(scope="module")
def server(servers):
    return servers[0]


@pytest.fixture(scope="module")
def small(servers):
    return servers[1]


def programs(*codes):
    return [piece for code in codes for piece in ("<code>", *code, "</code>")]


def sessions_at(*servers):
    """How many each server holds."""
    return [server.stub.Info(pb.InfoRequest(), timeout=10).sessions for server in servers]


async def executed(client, count):
    async with asyncio.timeout(30):
        while client.stats.executions < count:
            await asyncio.sleep(0.002)


def staged(client, scripts, source):
    made = stage(
        [[script] for script in scripts], tool=client, config=BUDGET, decode_rows=len(scripts)
    )
    made.collector.tools = Menu([source.open(client)])
    return made


def collected(servers, scripts, *, source=LASTING, during=None, capacity=None, config=CONFIG):
    """The trajectories of scripted rows and the client's counts; `during` runs beside them."""

    async def main():
        addresses = [server.address for server in servers]
        client = SandboxClient(addresses, config)
        if capacity is not None:
            client.session_places.learn(dict.fromkeys(addresses, capacity))
        made = staged(client, scripts, source)
        beside = asyncio.create_task(during(client)) if during else None
        try:
            trajectories = trajectories_of(await made.collect())
            if beside is not None:
                await beside
            assert client.session_places.taken == 0
        finally:
            await client.close()
        return trajectories, client.session_counts

    return asyncio.run(main())


def said(trajectory):
    return [call.result.last_value or call.result.error_type for call in trajectory.tool_calls]


def test_however_a_trajectory_ends_its_session_ends_with_it(server):
    scripts = [
        [*programs("x=7", "x*6"), *ANSWER],
        [*programs("x=1", "x+1"), "a", EOS],
        [*programs("x=2", "x+3"), *("a" * 400)],  # the budget ends it
        [*programs("x=3", "x", "x", "x", "x")],  # one call too many
        [*ANSWER],  # opens none
    ]
    trajectories, counts = collected([server], scripts)
    assert [t.finish_reason for t in trajectories] == [
        FinishReason.ANSWER,
        FinishReason.EOS,
        FinishReason.LENGTH,
        FinishReason.TOOL_LIMIT,
        FinishReason.ANSWER,
    ]
    assert [said(t) for t in trajectories] == [["", "42"], ["", "2"], ["", "5"], ["", *"333"], []]
    assert counts == SessionCounts(opened=4)
    assert sessions_at(server) == [0]


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_a_program_that_breaks_a_limit_is_undone_or_costs_all_variables(server, has_checkpoints):
    """The policy reads which of the two, and the trajectory counts."""
    script = [*programs("x=7", "x=0\nwhile 1:0", "x"), *ANSWER]
    source = PythonSandbox(state="trajectory", has_checkpoints=has_checkpoints)
    [trajectory], counts = collected([server], [script], source=source, config=HASTY)
    _, endless, after = [call.result for call in trajectory.tool_calls]
    assert endless.status in (ToolStatus.CPU_LIMIT, ToolStatus.WALL_LIMIT)
    assert f"{endless.note[-12:]}\n</interpreter>" in trajectory.response_text  # 24 characters
    found = (after.last_value, after.error_type)
    assert found == (("7", "") if has_checkpoints else ("", "NameError"))
    assert not trajectory.is_masked
    assert counts == SessionCounts(opened=1 if has_checkpoints else 2)
    assert sessions_at(server) == [0]


@pytest.mark.parametrize("way", ["cancelled", "raised"])
def test_rollouts_that_are_cancelled_or_raise_leave_no_session(server, way):
    """As Ctrl-C does, and a fault of the decoder."""
    scripts = [[*programs("x=1", "__import__('time').sleep(1)"), *ANSWER] for _ in range(3)]

    async def main():
        client = SandboxClient([server.address], CONFIG)
        made = staged(client, scripts, LASTING)
        rollouts = asyncio.create_task(made.collect())
        await executed(client, 3)
        if way == "cancelled":
            rollouts.cancel()
        else:
            made.engine.append = lambda outputs: 1 / 0
        with pytest.raises((asyncio.CancelledError, ZeroDivisionError)):
            await rollouts
        await client.close()
        return client.session_counts.opened

    assert asyncio.run(main()) == 3
    assert sessions_at(server) == [0]


def test_random_numbers_are_the_trajectorys_in_every_run(server):
    script = [*programs("import random", "random.random()"), *ANSWER]
    first, again = (collected([server], [script, script])[0] for _ in range(2))
    assert [said(t) for t in first] == [said(t) for t in again]
    assert said(first[0]) != said(first[1])


def test_rows_are_shared_out_over_servers_and_wait_for_a_place(server, small):
    """Six rows, two servers with two places each: nobody is evicted."""
    script = [*programs("x=7", "__import__('time').sleep(.1)", "x"), *ANSWER]
    seen = []

    async def watch(client):
        while client.stats.executions < 10:
            seen.append(sessions_at(server, small))
            await asyncio.sleep(0.02)

    trajectories, counts = collected([server, small], [script] * 6, during=watch, capacity=2)
    assert [said(t)[-1] for t in trajectories] == ["7"] * 6
    assert counts == SessionCounts(opened=6)
    assert max(max(pair) for pair in seen) == 2
    assert sessions_at(server, small) == [0, 0]


def test_a_session_evicted_by_others_is_replayed(small):
    """The row's third program waits until another client has taken all places."""
    script = [*programs("x=7", "y=1"), *"a" * 200, *programs("x"), *ANSWER]
    began = []

    async def fill(client):
        await executed(client, 2)
        other = SandboxClient([small.address], CONFIG)
        began.extend([await other.create_session() for _ in range(CAPACITY)])
        for session in began:
            await session.close()
        await other.close()

    async def main():
        client = SandboxClient([small.address], CONFIG)
        made = staged(client, [script], LASTING)
        filled = asyncio.create_task(fill(client))
        fetch = made.engine.fetch

        def fetch_then(flight):
            if client.stats.executions == 2 and len(began) < CAPACITY:
                time.sleep(0.05)  # in a thread
            return fetch(flight)

        made.engine.fetch = fetch_then
        [trajectory] = trajectories_of(await made.collect())
        await filled
        await client.close()
        return trajectory, client.session_counts

    trajectory, counts = asyncio.run(main())
    assert len(began) == CAPACITY
    assert said(trajectory) == ["", "", "7"]
    assert counts == SessionCounts(opened=2, lost=1, replayed=1)
    assert sessions_at(small) == [0]


def test_a_state_that_no_server_has_room_for_masks_and_is_not_scored(small):
    """Evicted behind its program, and again at each replay; the answer of the program itself stands."""
    too_much = f"x=bytearray({2 * MEMORY})"
    scripts = [[*programs(too_much), *ANSWER], [*programs(too_much, "len(x)"), *ANSWER]]
    (stops_in_time, needs_it), counts = collected([small], scripts)
    assert [call.result.status for call in stops_in_time.tool_calls] == [ToolStatus.OK]
    assert stops_in_time.finish_reason is FinishReason.ANSWER
    assert needs_it.is_masked
    assert needs_it.num_tool_calls == 1
    assert counts == SessionCounts(opened=4, lost=4, masked=1)
    assert sessions_at(small) == [0]


def test_a_session_whose_process_is_gone_is_infrastructure(small):
    """As where the kernel refuses its fork: the server says that it broke, and it is replayed, never scored."""
    script = [*programs("x=7", "y=1"), *"a" * 300, *programs("x"), *ANSWER]

    async def kill(client):
        await executed(client, 2)
        async with asyncio.timeout(30):
            while not (stopped := [pid for pid in small.descendants() if is_stopped(pid)]):
                await asyncio.sleep(0.002)
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)

    [trajectory], counts = collected([small], [script], during=kill)
    assert said(trajectory) == ["", "", "7"]
    assert counts == SessionCounts(opened=2, lost=1, replayed=1)


def is_stopped(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"
    return False


def stateful(row):
    """Each program needs the ones before, and one draws a random number."""
    codes = (
        f"import random,time;r=random.random();x={row}",
        "time.sleep(.1);x+=1",
        "x+=1",
        "[x,r]",
    )
    return [*programs(*codes), *ANSWER]  # fmt: skip


def test_a_server_killed_under_stateful_rollouts_changes_no_trajectory(server, small):
    scripts = [stateful(row) for row in range(8)]
    undisturbed, _ = collected([server], scripts)

    async def kill(client):
        await executed(client, 12)
        assert sessions_at(small) != [0]
        os.kill(small.pid, signal.SIGKILL)

    trajectories, counts = collected([small, server], scripts, during=kill)
    small.process.wait(10)
    assert sessions_at(server) == [0]
    assert counts.lost >= 1
    assert counts == SessionCounts(opened=8 + counts.lost, lost=counts.lost, replayed=counts.lost)
    for trajectory, same in zip(trajectories, undisturbed, strict=True):
        assert trajectory.ids.tolist() == same.ids.tolist()
        assert said(trajectory) == said(same)
