"""Turns that another graph drives: where the loop is a node of somebody's graph there is no `run()`.

`load_memory` enters the turn by itself; every later node attends it. What the graph's input says of the turn is not believed: an outer
graph may have keys of the same names, and whoever names a turn that is at work would write into it. A turn that its graph gave up,
resumes in another process or takes up again from an earlier checkpoint (a fork) is claimed here first, like every other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.messages import HumanMessage

from agent_graph.errors import ConfigError, LeaseLost, RunConflict, RunInProgress
from agent_graph.runtime.asked import Asked
from agent_graph.runtime.owner import Owner

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from agent_graph.runtime.driver import Driver
    from agent_graph.runtime.turn import Turn
    from agent_graph.state import RunState
    from agent_graph.storage.port import Claim

__all__ = ["Hosting", "driving"]


_driven: ContextVar[Turn | None] = ContextVar("agent_graph_driven", default=None)
"""The turn that the running task drives through its agent's own graph."""


@contextmanager
def driving(turn: Turn) -> Iterator[None]:
    """While it lasts, `load_memory` enters `turn` in this task's graph."""
    token = _driven.set(turn)
    try:
        yield
    finally:
        _driven.reset(token)


class Hosting:
    """The turns of one agent that other graphs drive."""

    def __init__(self, agent: Any, driver: Driver) -> None:
        self._agent, self._driver = agent, driver

    async def enter(self, state: RunState, config: RunnableConfig) -> Turn:
        """Return the turn that `load_memory` works for: the one that `drive` began, or one of an embedding graph."""
        turn = _driven.get()
        if turn is not None and turn.agent is self._agent and (turn.key.run_id, turn.key.turn) == (state.get("run_id"), state.get("turn")):
            return turn
        return await self._entered(state, config)

    async def _entered(self, state: RunState, config: RunnableConfig) -> Turn:
        question = next((m for m in reversed(state.get("messages") or []) if isinstance(m, HumanMessage)), None)
        if question is None:
            raise ConfigError("messages: the graph needs at least one human message; the last one is the turn's input.")
        agent, run_id = self._agent, _embedded_run_id(config)
        await self._supersede(run_id)
        owner = Owner()
        asked = Asked(run_id=run_id, input=question.text)
        request = replace(self._driver.request(asked, None), on_unfinished="close")
        claim: Claim = await agent.storage.claim(request, owner)
        if claim.outcome == "stored":  # its end was never delivered: the embedding graph asks again, so it is a new turn
            claim = await agent.storage.claim(replace(request, request_id=uuid4().hex), owner)
        if claim.outcome == "busy":
            raise RunInProgress(f"run {run_id!r} is being worked on elsewhere.", run_id=run_id)
        return await self._hosted(self._driver.granted(claim, asked), owner)

    async def _hosted(self, claim: Claim, owner: Owner) -> Turn:
        async with self._driver.beginning(claim):
            turn = await self._driver.opened(claim)
        turn.direct, turn.owner = True, owner
        owner.works_on(turn)
        turn.start_clock()
        self._driver.live[(turn.key.run_id, turn.key.turn)] = turn
        return turn

    async def _supersede(self, run_id: str) -> None:
        """Let go of an earlier turn of this run that its graph gave up without finishing."""
        for key, turn in list(self._driver.live.items()):
            if key[0] == run_id and turn.direct and not turn.busy:
                del self._driver.live[key]
                await self._driver.stopped(turn)

    async def attend(self, run_id: str, number: int) -> Turn:
        """Return the live turn; one that an embedding graph resumes in another process, or forks, is taken over first."""
        turn = self._driver.live.get((run_id, number))
        if turn is not None:
            return turn
        agent, owner = self._agent, Owner()
        request = self._driver.request(Asked(run_id=run_id, input=None), None)
        claim: Claim = await agent.storage.claim(request, owner)
        if claim.outcome in ("not_found", "stored"):
            await self._reopen(run_id, number)
            claim = await agent.storage.claim(request, owner)
        if claim.outcome != "resume" or claim.turn is None or claim.turn.key.turn != number:
            raise LeaseLost(f"run {run_id!r}: turn {number} is not this graph's any more ({claim.outcome}).", run_id=run_id)
        return await self._hosted(claim, owner)

    async def _reopen(self, run_id: str, number: int) -> None:
        """Take an ended turn up again: its graph goes on from an earlier checkpoint (a fork).

        Its journal and its ledger stay: a call that was made is not made again, and what was spent is spent.
        """
        rows = await self._agent.storage.turns(self._agent.namespace, run_id)
        if not rows or rows[-1].key.turn != number:
            newest = f"; its newest turn is {rows[-1].key.turn}, and only that can be gone back in" if rows else ""
            raise RunConflict(f"run {run_id!r}: turn {number} cannot go on{newest}.", run_id=run_id)
        self._agent.storage.put(replace(rows[-1], status="stopped", result=None, delivered=False), fence=0)


def _embedded_run_id(config: RunnableConfig) -> str:
    """Return the run that an embedding graph's thread stands for: its thread_id, and where we are one of its nodes, that node's name."""
    configurable = config.get("configurable") or {}
    thread_id = str(configurable.get("thread_id") or uuid4().hex)
    names = [part.split(":", 1)[0] for part in str(configurable.get("checkpoint_ns") or "").split("|")]
    # the last name is the node of ours that is running
    outer = [name for name in names[:-1] if name]
    return "/".join([thread_id, *outer])
