"""A sandbox server killed under a running rollout: nothing is scored wrong, the run goes on."""

import asyncio
import os
import signal

from helpers.scripted_engine import ANSWER, stage

from jaxtool.core.types import FinishReason, ToolStatus, trajectories_of
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.local_server import run_local_server
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig

ROWS, CALLS = 24, 3


def _script(row: int) -> list[str]:
    calls = []
    for call in range(CALLS):
        code = f"__import__('time').sleep(0.05) or {row}*{call}+7"
        calls += ["<code>", *code, "</code>"]
    return [*calls, *ANSWER]


async def _collect(addresses: list[str], doomed: int, attempts: int = 8):
    """Collects; kills `doomed` when some calls are done and others in flight."""
    client = SandboxClient(addresses, SandboxClientConfig(backoff_s=0.05, attempts=attempts))
    made = stage(
        [[_script(row)] for row in range(ROWS)],
        tool=client,
        decode_rows=ROWS,
        window_steps=16,
        config=RolloutConfig(max_response_tokens=400, max_tool_calls=CALLS),
    )

    async def kill() -> None:
        while client.stats.executions < ROWS // 2:
            await asyncio.sleep(0.002)
        os.kill(doomed, signal.SIGKILL)

    try:
        killer = asyncio.create_task(kill())
        trajectories = trajectories_of(await made.collect())
        await killer
        return trajectories, client.stats
    finally:
        await client.close()


def test_a_server_killed_under_a_rollout_changes_no_trajectory():
    with run_local_server(flags=["--concurrency", "2"]) as doomed, run_local_server() as other:
        collect = _collect([doomed.address, other.address], doomed.pid)
        trajectories, stats = asyncio.run(collect)
    assert stats.retries > 0
    for row, trajectory in enumerate(trajectories):
        trajectory.check()
        assert trajectory.finish_reason is FinishReason.ANSWER
        results = [call.result for call in trajectory.tool_calls]
        assert [result.status for result in results] == [ToolStatus.OK] * CALLS
        assert [result.last_value for result in results] == [
            str(row * call + 7) for call in range(CALLS)
        ]


def test_when_the_only_server_dies_what_it_had_is_masked_and_not_wrong():
    with run_local_server(flags=["--concurrency", "2"]) as doomed:
        collect = _collect([doomed.address], doomed.pid, attempts=2)
        trajectories, stats = asyncio.run(collect)
    lost = [trajectory for trajectory in trajectories if trajectory.is_masked]
    assert lost
    assert stats.unavailable == len(lost)
    for trajectory in trajectories:
        assert trajectory.is_masked or trajectory.finish_reason is FinishReason.ANSWER
        assert all(call.result.status == ToolStatus.OK for call in trajectory.tool_calls)
