"""Admission: bounded, fair between clients, and slots never leak."""

import asyncio

import pytest

from sandbox_server.front.queue import FairQueue, QueueFull


def _queue(slots: int = 1, capacity: int = 100) -> FairQueue:
    return FairQueue(slots=slots, capacity=capacity, max_wait_s=1000.0)


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


def test_a_waiter_cancelled_as_its_turn_comes_does_not_leak_the_slot():
    async def main() -> None:
        queue = _queue()
        await queue._acquire("a")
        waiting = asyncio.create_task(queue._acquire("b"))
        await asyncio.sleep(0)
        queue._release()  # gives the slot to b
        waiting.cancel()  # before b has run
        await asyncio.gather(waiting, return_exceptions=True)
        assert queue.running == 0

    asyncio.run(main())
