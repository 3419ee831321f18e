"""The client against real servers: results, limits, retries, many servers, a killed one."""

import asyncio
import os
import signal

import pytest
from helpers.sandbox_clients import with_client
from helpers.sandbox_serving import serving

from jaxtool.core.types import ToolStatus, ToolUnavailable
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.preflight import SNIPPETS
from jaxtool.tools.sandbox_client import SandboxClientConfig
from jaxtool.tools.sandbox_wire import MAX_CODE_BYTES
from jaxtool.train.sources import Sandbox, open_sandbox

_QUICK = SandboxClientConfig(cpu_limit_s=0.5, wall_limit_s=4.0, backoff_s=0.05)


@pytest.fixture(scope="module")
def address():
    with start_local_server() as started:
        yield started


def _with_client(addresses, work, config=_QUICK):
    return with_client(addresses, work, config)


def test_each_kind_of_end_has_its_status(address):
    async def work(client):
        codes = ["print(1)\n2", "1 / 0", "while True: pass", "import time; time.sleep(9)"]
        codes += ["bytearray(1 << 30)", "print('x' * (3 << 20))", "import os; os.abort()"]
        results = await asyncio.gather(*(client.execute(code) for code in codes))
        return results, client.stats

    results, stats = _with_client([address], work)
    expected = ["ok", "error", "cpu_limit", "wall_limit", "memory_limit", "output_limit", "killed"]
    assert [result.status for result in results] == expected
    assert (results[0].stdout, results[0].last_value) == ("1\n", "2")
    assert results[1].error_type == "ZeroDivisionError"
    assert results[5].is_truncated
    assert results[2].cpu_ms >= 500
    assert stats.executions == 7
    assert stats.by_status[ToolStatus.CPU_LIMIT] == 1
    assert stats.unavailable == 0


def test_odd_programs_are_results_and_never_failures(address):
    async def work(client):
        codes = ["print('\ud800')", "x = '\0'", "", "x" * (MAX_CODE_BYTES + 1), "\ufeff1"]
        return [await client.execute(code) for code in codes]

    results = _with_client([address], work)
    assert [r.status in (ToolStatus.OK, ToolStatus.ERROR) for r in results] == [True] * 5
    assert results[3].error_type == "CodeTooLong"


def test_concurrency_stays_within_its_bound_and_order_is_kept(address):
    config = SandboxClientConfig(max_concurrency=4)

    async def work(client):
        return await asyncio.gather(*(client.execute(f"{i} * 2") for i in range(40)))

    results = _with_client([address], work, config)
    assert [result.last_value for result in results] == [str(2 * i) for i in range(40)]


def test_the_result_cache_runs_identical_code_once(address):
    config = SandboxClientConfig(result_cache_entries=8)

    async def work(client):
        await asyncio.gather(*(client.execute("import time\ntime.sleep(0.1)\n5") for _ in range(6)))
        await client.execute("import time\ntime.sleep(0.1)\n5")
        return client.stats

    stats = _with_client([address], work, config)
    assert (stats.result_cache_joins, stats.result_cache_hits, stats.executions) == (5, 1, 7)


def test_clients_with_a_memo_share_what_a_server_ran(address):
    """The program's answer is new each time it runs."""

    async def work(client):
        results = [await client.execute("import time\ntime.time_ns()") for _ in range(2)]
        return [result.last_value for result in results], client.stats

    shares = SandboxClientConfig(result_cache_entries=8)
    (first, _), (second, stats) = (_with_client([address], work, shares) for _ in range(2))
    assert first == second
    assert (stats.server_result_cache_hits, stats.result_cache_hits) == (1, 1)
    own, stats = _with_client([address], work)
    assert len({*own, *first}) == 3
    assert stats.server_result_cache_hits == 0


def test_the_preflight_of_a_run_is_executed_each_time(address):
    """It neither takes an answer from a result cache nor leaves one there."""
    config = Sandbox(client=SandboxClientConfig(result_cache_entries=8))
    for _ in range(2):
        with asyncio.Runner() as runner, open_sandbox(config, runner, (address,)) as client:
            runner.run(client.execute("print('after the preflight')"))
            last = client.stats
    assert last.server_result_cache_hits == 1
    with asyncio.Runner() as runner, open_sandbox(config, runner, (address,)) as client:
        for snippet in SNIPPETS:
            assert runner.run(client.execute(snippet.code)).status == snippet.status
        assert client.stats.server_result_cache_hits == 0


def test_nobody_there_is_unavailable_in_one_line():
    config = SandboxClientConfig(attempts=3, backoff_s=0.01)

    async def work(client):
        with pytest.raises(ToolUnavailable, match=r"127\.0\.0\.1:9: UNAVAILABLE") as caught:
            await client.execute("1")
        assert "\n" not in str(caught.value)
        return client.stats

    stats = _with_client(["127.0.0.1:9"], work, config)
    assert (stats.failures_by_code, stats.retries, stats.unavailable) == ({"UNAVAILABLE": 3}, 2, 1)
    assert stats.ejected_servers == 1


def test_a_dead_server_among_two_costs_nothing_but_retries(address):
    async def work(client):
        results = await asyncio.gather(*(client.execute(f"{i} + 1") for i in range(30)))
        return [result.last_value for result in results], client.stats

    values, stats = _with_client([address, "127.0.0.1:9"], work)
    assert values == [str(i + 1) for i in range(30)]
    assert stats.unavailable == 0


def test_a_server_killed_under_load_scores_nothing_wrong(address):
    """In flight calls of the dead server are run again on the other; every answer is right."""
    with serving("--concurrency", "2") as doomed:

        async def work(client):
            async def one(i: int) -> str:
                return (await client.execute(f"import time\ntime.sleep(0.05)\n{i} ** 2")).last_value

            calls = [asyncio.create_task(one(i)) for i in range(60)]
            await asyncio.sleep(0.3)
            os.kill(doomed.pid, signal.SIGKILL)
            return await asyncio.gather(*calls), client.stats

        values, stats = _with_client([address, doomed.address], work)
        assert values == [str(i * i) for i in range(60)]
        assert stats.unavailable == 0
        assert stats.retries > 0
        assert set(stats.failures_by_code) <= {"UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL"}


def test_a_killed_fork_server_is_survived_by_one_server():
    with serving("--concurrency", "2") as server:

        async def work(client):
            calls = [
                asyncio.create_task(client.execute(f"import time\ntime.sleep(0.3)\n{i}"))
                for i in range(4)
            ]
            await asyncio.sleep(0.2)
            server.kill_descendants()
            return [result.last_value for result in await asyncio.gather(*calls)], client.stats

        values, stats = _with_client([server.address], work)
        assert values == ["0", "1", "2", "3"]
        assert stats.failures_by_code.get("UNAVAILABLE", 0) > 0


def test_a_full_queue_is_waited_for():
    with serving("--concurrency", "1", "--queue-capacity", "1") as server:

        async def work(client):
            calls = (client.execute(f"import time\ntime.sleep(0.05)\n{i}") for i in range(12))
            return [r.last_value for r in await asyncio.gather(*calls)], client.stats

        values, stats = _with_client([server.address], work)
        assert values == [str(i) for i in range(12)]
        assert stats.failures_by_code["RESOURCE_EXHAUSTED"] > 0
        assert stats.ejected_servers == 0


def test_hopeless_errors_are_not_retried(tmp_path):
    token = tmp_path / "token"
    token.write_text("a-good-long-token-for-tests")
    with serving("--token-file", str(token)) as server:

        async def refused(client):
            with pytest.raises(ToolUnavailable, match="UNAUTHENTICATED"):
                await client.execute("1")
            return client.stats

        assert _with_client([server.address], refused).retries == 0
        config = SandboxClientConfig(token_file=str(token))

        async def allowed(client):
            return (await client.execute("1")).last_value, await client.info()

        value, info = _with_client([server.address], allowed, config)
        assert value == "1"
        assert info[server.address].python_version


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"cpu_limit_s": 0}, "cpu_limit_s"),
        ({"attempts": 0}, "attempts"),
        ({"result_cache_entries": -1}, "result_cache_entries"),
        ({"minimum_tier": "strong"}, "minimum_tier"),
        ({"tls_ca_file": "ca", "tls_key_file": "key"}, "together"),
        ({"tls_certificate_file": "c", "tls_key_file": "k"}, "tls_ca_file"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, word):
    with pytest.raises(ValueError, match=word):
        SandboxClientConfig(**settings)
