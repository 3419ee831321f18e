"""A loop in a thread of its own goes on while the caller's stands still, and hears of cancellations."""

import asyncio
import threading
import time

import pytest

from jaxtool.tools.loop_thread import LoopThread


@pytest.fixture
def thread():
    made = LoopThread("test loop")
    yield made
    made.close()
    assert "test loop" not in {each.name for each in threading.enumerate()}


def test_results_and_errors_come_back(thread):
    async def name():
        return threading.current_thread().name

    async def fails():
        raise KeyError("x")

    async def made():
        with pytest.raises(KeyError):
            await thread.run(fails())
        return await thread.run(name())

    assert asyncio.run(made()) == thread.wait_for(name()) == "test loop"


def test_it_goes_on_while_the_caller_stands_still(thread):
    ticks = []

    async def tick():
        for n in range(3):
            ticks.append(n)
            await asyncio.sleep(0.01)

    async def made():
        task = asyncio.create_task(thread.run(tick()))
        await asyncio.sleep(0)
        give_up = time.monotonic() + 20
        while len(ticks) < 3 and time.monotonic() < give_up:
            time.sleep(0.01)  # this loop does not turn
        seen = list(ticks)
        await task
        return seen

    assert asyncio.run(made()) == [0, 1, 2]


def test_what_is_cancelled_here_is_cancelled_there(thread):
    cancelled = threading.Event()

    async def waits():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def made():
        task = asyncio.create_task(thread.run(waits()))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(made())
    assert cancelled.wait(20)


def test_closing_cancels_what_still_runs():
    begun, cancelled = threading.Event(), threading.Event()

    async def waits():
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def begins():
        waiting.append(asyncio.create_task(waits()))

    waiting = []
    thread = LoopThread("another loop")
    thread.wait_for(begins())
    assert begun.wait(20)
    thread.close()
    assert cancelled.is_set()
