"""When a run is free again although the attempt at it has not ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from agent_graph import LeaseLost, ProductionAgent, RunInProgress
from agent_graph.runtime.owner import GRACE_S, Owner
from agent_graph.testing import DictMemory, FakeClock, FakeTools, ListObservability, ScriptedLLM, call

PAY: dict[str, Any] = {"name": "pay", "idempotent": False}


def test_an_attempt_ends_with_its_task_and_its_loop() -> None:
    loop = asyncio.new_event_loop()
    running = loop.create_task(asyncio.Event().wait())
    ended = loop.create_task(asyncio.sleep(0))
    loop.run_until_complete(ended)
    assert Owner(ended).done()
    owner, collected, embedded = Owner(running), Owner(loop.create_task(asyncio.sleep(0))), Owner()
    assert not owner.done()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(running)
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert collected.done()
    assert owner.done()
    lasting = loop.create_task(asyncio.sleep(0))
    owner = Owner(lasting)
    assert not owner.done()
    loop.run_until_complete(lasting)
    loop.close()
    assert owner.done()
    assert not embedded.done()


@pytest.mark.parametrize("late_s", [0.0, GRACE_S + 1])
async def test_a_call_that_cannot_be_cancelled_does_not_keep_its_run_for_ever(late_s: float) -> None:
    """While its time lasts the run is its own; a while after, the next caller takes it over and the late one writes nothing."""
    clock, began, let_go = FakeClock(), asyncio.Event(), asyncio.Event()

    async def pay() -> str:
        began.set()
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        return "paid"

    def agent_of(*replies: Any, storage: Any) -> ProductionAgent:
        tools = FakeTools({"pay": pay})
        return ProductionAgent(
            ScriptedLLM(replies), [PAY], tools, DictMemory(), ListObservability(), {"timeout_s": 30}, storage=storage, clock=clock,
            on_busy="raise",
        )  # fmt: skip

    stuck = agent_of(call("pay"), storage=":memory:")
    task = asyncio.ensure_future(stuck.run("pay", "r"))
    await began.wait()
    clock.advance(30 + late_s)
    later = agent_of("I do not know.", storage=stuck.storage)
    if not late_s:
        with pytest.raises(RunInProgress):
            await later.run("pay", "r")
    else:
        run = await later.run("pay", "r")
        assert (run.turn, run.status in ("complete", "timeout")) == (1, True)
    let_go.set()
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(outcome, LeaseLost) == bool(late_s)
    await stuck.aclose()
