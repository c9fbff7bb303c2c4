"""FakeClock: time passes when the test says so."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent_graph.ports import Clock
from agent_graph.testing import FakeClock


def test_it_is_a_clock() -> None:
    assert isinstance(FakeClock(), Clock)


async def test_sleepers_wake_in_the_order_of_their_time() -> None:
    clock, woken = FakeClock(), []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.ensure_future(sleep(seconds)) for seconds in (3, 1, 2)]
    await asyncio.sleep(0)
    clock.advance(2.5)
    await asyncio.sleep(0.01)
    assert (woken, clock.sleepers) == ([1, 2], 1)
    clock.advance(0.5)
    await asyncio.gather(*tasks)
    assert (woken, clock.slept) == ([1, 2, 3], [3, 1, 2])


async def test_auto_moves_to_the_end_of_each_sleep() -> None:
    clock = FakeClock(start=10, auto=True)
    await clock.sleep(3600)
    assert clock.monotonic() == 3610


async def test_a_sleep_of_nothing_lets_others_run() -> None:
    ran: list[int] = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await FakeClock().sleep(0)
    assert ran == [1]


def test_the_wall_clock_jumps_alone() -> None:
    clock = FakeClock(start=5, epoch=1_000)
    clock.advance(2)
    clock.jump(-3600)
    assert (clock.monotonic(), clock.time()) == (7, 1_000 + 2 - 3600)
    with pytest.raises(ValueError, match="jump"):
        clock.advance(-1)


async def test_a_cancelled_sleeper_is_gone() -> None:
    clock = FakeClock()
    sleeping = asyncio.ensure_future(clock.sleep(1))
    await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert clock.sleepers == 0
    clock.advance(2)


def test_sleepers_of_other_threads_wake_in_their_own_loop() -> None:
    clock, done = FakeClock(), []
    threads = [threading.Thread(target=lambda: done.append(asyncio.run(clock.sleep(1)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    while clock.sleepers < 4:
        threading.Event().wait(0.001)
    clock.advance(1)
    for thread in threads:
        thread.join(10)
    assert done == [None] * 4
