"""The counters of a run's tool go on over a resume."""

import asyncio
import types

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig, Totals
from jaxtool.train import run_state
from jaxtool.train.rollout_worker import RolloutWorker

BEFORE = Totals(executions=7, retries=2, result_cache_hits=1, server_result_cache_hits=3)


def client_after(calls):
    client = SandboxClient(["127.0.0.1:9"], SandboxClientConfig(result_cache_entries=9))

    async def run(code):
        return ToolResult(status=ToolStatus.OK)

    async def ask():
        for code in calls:
            await client.execute(code)

    client._run = run
    asyncio.run(ask())
    return client


def test_totals_are_those_before_and_those_of_this_process():
    client = client_after("aab")
    assert client.totals == Totals(executions=3, result_cache_hits=1)
    client.continue_from(BEFORE)
    assert client.totals == Totals(
        executions=10, retries=2, result_cache_hits=2, server_result_cache_hits=3
    )
    assert client.stats.executions == 3  # of this process


def test_a_checkpoint_keeps_the_totals_and_a_resume_continues_them():
    client = client_after("aab")
    client.continue_from(BEFORE)
    worker = types.SimpleNamespace(client=client)
    saved = RolloutWorker.tool_totals(worker)
    assert saved["executions"] == 10

    fresh = client_after("")
    meta = {"batches": {}, "store": {}, "counts": {}, "queued": [], "tool_totals": saved}
    run = types.SimpleNamespace(
        state=None,
        learner=types.SimpleNamespace(view=types.SimpleNamespace(frozen=None)),
        batches=types.SimpleNamespace(set_state=lambda state: None),
        worker=types.SimpleNamespace(client=fresh, engine=types.SimpleNamespace()),
    )
    checkpoints = types.SimpleNamespace(restore_newest=lambda state: (4, state, meta))
    assert run_state.restore(run, checkpoints) == (4, [])
    assert fresh.totals == Totals(**saved)


def test_a_run_without_a_sandbox_has_no_totals():
    assert RolloutWorker.tool_totals(types.SimpleNamespace(client=None)) == {}
