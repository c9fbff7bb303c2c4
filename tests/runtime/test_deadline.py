"""Foreign code gets its time, and no more."""

from __future__ import annotations

import asyncio

import pytest

from agent_graph.runtime.deadline import Expired, within


async def answer(value: object, seconds: float = 0.0) -> object:
    await asyncio.sleep(seconds)
    return value


@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_work_in_time_is_returned(seconds: float | None) -> None:
    assert await within(seconds, answer(1)) == 1


@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_an_exception_of_the_work_is_its_own(seconds: float | None) -> None:
    async def fail() -> None:
        raise TimeoutError("my own")

    with pytest.raises(TimeoutError, match="my own"):
        await within(seconds, fail())


async def test_late_work_is_cancelled() -> None:
    ended = asyncio.Event()

    async def late() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    with pytest.raises(Expired):
        await within(0.01, late())
    assert ended.is_set()


async def test_work_that_swallows_its_cancellation_is_left_behind() -> None:
    """Were it waited for, this would never end."""
    go_on = asyncio.Event()

    async def stubborn() -> None:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(Expired):
        await within(0.01, stubborn())
    go_on.set()
    await asyncio.sleep(0)


async def test_a_result_that_comes_while_it_is_cancelled_is_not_thrown_away() -> None:
    """The effect has happened: to call it unknown would be a lie."""

    async def last_moment() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "paid"
        return "never"

    assert await within(0.01, last_moment()) == "paid"


async def test_cancelling_the_caller_cancels_the_work() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    caller = asyncio.ensure_future(within(30, work()))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_no_time_is_no_time() -> None:
    with pytest.raises(Expired):
        await within(-1.0, answer(1, 0.01))
