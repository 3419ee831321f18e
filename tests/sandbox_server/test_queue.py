"""Admission: bounded, fair between clients, and places never leak."""

import asyncio

import pytest

from sandbox_server.front.queue import FairQueue, QueueFull


def _queue(
    concurrency: int = 1, capacity: int = 100, max_wait_s: float = 1000.0, mean_run_s: float = 0.02
) -> FairQueue:
    queue = FairQueue(concurrency=concurrency, capacity=capacity, max_wait_s=max_wait_s)
    queue._mean_run_s = mean_run_s
    return queue


def test_clients_are_served_in_turn():
    order = []

    async def call(queue: FairQueue, client: str) -> None:
        async with queue.admitted(client):
            order.append(client)
            await asyncio.sleep(0)

    async def main() -> None:
        queue = _queue()
        calls = [call(queue, "greedy") for _ in range(6)] + [call(queue, "modest")]
        await asyncio.gather(*calls)
        assert queue.running == queue.queued == 0

    asyncio.run(main())
    assert order.index("modest") <= 2
    assert order.count("greedy") == 6


def test_a_full_queue_refuses_with_a_hint():
    async def main() -> None:
        queue = _queue(capacity=1)
        async with queue.admitted("a"):
            waiting = asyncio.create_task(queue._acquire("b"))
            await asyncio.sleep(0)
            with pytest.raises(QueueFull) as caught:
                await queue._acquire("c")
            assert caught.value.retry_after_ms >= 50
        await waiting
        assert queue.running == 1

    asyncio.run(main())


def test_a_wait_that_would_be_too_long_is_refused_and_not_sooner():
    """Four run at once for 2 s each: who comes when 60 wait is served in 30 s, the next in 30.5 s."""

    async def main() -> None:
        queue = _queue(concurrency=4, max_wait_s=30.0, mean_run_s=2.0)
        calls = [asyncio.create_task(queue._acquire(f"client {i}")) for i in range(4 + 61)]
        await asyncio.sleep(0)
        assert (queue.running, queue.queued) == (4, 61)
        assert queue.expected_wait_s == 61 * 2.0 / 4
        with pytest.raises(QueueFull) as caught:
            await queue._acquire("one more")
        assert caught.value.retry_after_ms == 15_250  # half the expected wait
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())


def test_a_cancelled_waiter_gives_its_place_up():
    async def main() -> None:
        queue = _queue()
        async with queue.admitted("a"):
            waiting = asyncio.create_task(queue._acquire("b"))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert queue.queued == 0
        assert queue.running == 0

    asyncio.run(main())


def test_a_waiter_cancelled_as_its_turn_comes_does_not_leak_its_place():
    async def main() -> None:
        queue = _queue()
        await queue._acquire("a")
        waiting = asyncio.create_task(queue._acquire("b"))
        await asyncio.sleep(0)
        queue._release()  # gives the place to b
        waiting.cancel()  # before b has run
        await asyncio.gather(waiting, return_exceptions=True)
        assert queue.running == 0

    asyncio.run(main())
