"""Results of identical code: kept, joined, and never a result that load made."""

import asyncio

import pytest

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.result_cache import ResultCache


class _Runner:
    def __init__(self, status: ToolStatus = ToolStatus.OK):
        self.calls: list[str] = []
        self.status = status

    async def __call__(self, code: str) -> ToolResult:
        self.calls.append(code)
        await asyncio.sleep(0.01)
        return ToolResult(status=self.status, stdout=code)


def test_zero_entries_run_every_call():
    async def main() -> None:
        result_cache, run = ResultCache(0), _Runner()
        await asyncio.gather(*(result_cache.get("a", run) for _ in range(3)))
        assert run.calls == ["a"] * 3

    asyncio.run(main())


def test_identical_calls_are_joined_and_kept():
    async def main() -> None:
        result_cache, run = ResultCache(4), _Runner()
        results = await asyncio.gather(*(result_cache.get("a", run) for _ in range(5)))
        assert {r.stdout for r in results} == {"a"}
        await result_cache.get("a", run)
        assert (run.calls, result_cache.joins, result_cache.hits) == (["a"], 4, 1)

    asyncio.run(main())


def test_the_least_recently_used_is_forgotten():
    async def main() -> None:
        result_cache, run = ResultCache(2), _Runner()
        for code in "abacb":
            await result_cache.get(code, run)
        assert run.calls == ["a", "b", "c", "b"]

    asyncio.run(main())


@pytest.mark.parametrize("status", [s for s in ToolStatus if s not in ("ok", "error")])
def test_limits_and_signals_are_not_kept(status):
    async def main() -> None:
        result_cache, run = ResultCache(2), _Runner(status)
        await result_cache.get("a", run)
        await result_cache.get("a", run)
        assert run.calls == ["a", "a"]

    asyncio.run(main())


def test_failures_are_passed_to_all_and_not_kept():
    async def fail(code: str) -> ToolResult:
        await asyncio.sleep(0)
        raise ToolUnavailable("gone")

    async def main() -> None:
        result_cache, run = ResultCache(2), _Runner()
        both = await asyncio.gather(
            result_cache.get("a", fail), result_cache.get("a", fail), return_exceptions=True
        )
        assert [type(x) for x in both] == [ToolUnavailable] * 2
        assert (await result_cache.get("a", run)).stdout == "a"

    asyncio.run(main())


def test_one_waiter_cancelled_leaves_the_others_and_the_last_one_stops_the_run():
    async def main() -> None:
        result_cache, run = ResultCache(2), _Runner()
        first, second = (asyncio.create_task(result_cache.get("a", run)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).stdout == "a"
        only = asyncio.create_task(result_cache.get("b", run))
        await asyncio.sleep(0.001)
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)
        await asyncio.sleep(0.02)
        assert not result_cache._running
        assert "b" not in result_cache._kept

    asyncio.run(main())
