"""Who may run a turn, and how it begins and ends.

How it works
    `claim` decides in one transaction what a call of `run()` means (the table in docs/guarantees.md): a new turn, an unfinished one
    to go on with, a stored result, or a refusal. A claimed turn is driven through the graph; its last record is on disk before the
    caller gets the result. A cancelled caller leaves the turn `stopped`: it can be resumed, and a new input closes it.

    Where the graph runs inside another graph there is no `run()`: hosting.py enters the turn, and `conclude` leaves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.runnables.config import var_child_runnable_config

from agent_graph.decisions.structured import Misfit
from agent_graph.errors import LeaseLost, NotDurable, RunConflict, RunInProgress, RunNotFound, StorageError
from agent_graph.events import RunFinished, RunStarted
from agent_graph.failpoints import failpoint
from agent_graph.runtime import lineage, memory, settling
from agent_graph.runtime.account import stored_run
from agent_graph.runtime.asked import Asked
from agent_graph.runtime.asking import pending_of
from agent_graph.runtime.closing import close_earlier
from agent_graph.runtime.hosting import Hosting, driving
from agent_graph.runtime.owner import Owner
from agent_graph.runtime.streaming import streamed
from agent_graph.runtime.turn import Turn
from agent_graph.storage.port import Claim, TurnRequest, TurnRow

if TYPE_CHECKING:
    from agent_graph.events import Event
    from agent_graph.resolutions import Resolution
    from agent_graph.types import AgentRun

__all__ = ["Driver"]

POLL_S = 0.05
"""How often a waiting caller looks whether the run that it waits for has ended, in seconds."""
SUPERSTEPS_A_STEP = 5
LIMITS = frozenset({"max_steps", "max_tokens", "max_cost_usd", "timeout_s", "budget"})
"""What `AgentRun.stop_reason` is where a turn ended at a limit."""


class Driver:
    """Runs the turns of one agent. Used by several tasks, threads and loops at once."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self.live: dict[tuple[str, int], Turn] = {}
        """The turns that are being worked on, by run_id and number."""
        self.hosting = Hosting(agent, self)

    async def drive(self, asked: Asked) -> AgentRun:
        """Return the AgentRun that `asked` leads to: of a new turn, a resumed one, or one that is stored already."""
        failpoint("claim.before")
        if asked.add_budget is not None:
            await self._insist_on_a_limit(asked.run_id)
        owner = Owner(asyncio.current_task())
        claim = await self._claimed(asked, owner)
        failpoint("claim.after")
        if claim.turn is not None and claim.outcome in ("stored", "waiting"):
            return await self._stored(claim.turn, asked)
        assert claim.turn is not None, "a granted claim names its turn"
        async with self.beginning(claim):
            turn = await self._turn(claim, asked)
        owner.works_on(turn)
        return await self._through_the_graph(turn, asked, resumed=claim.outcome == "resume")

    def stream(self, asked: Asked) -> AsyncGenerator[Event, None]:
        """Yield the events of what `drive` does; closing the generator stops the turn."""
        return streamed(lambda put: self.drive(replace(asked, sink=put)))

    # -- claiming ---------------------------------------------------------------------------------------------------------------

    async def _claimed(self, asked: Asked, owner: Owner) -> Claim:
        agent, awaited = self._agent, None
        patience_s = agent.config.timeout_s
        until = None if patience_s is None else agent.clock.monotonic() + patience_s
        while True:
            claim: Claim = await agent.storage.claim(self.request(asked, awaited), owner)
            if claim.outcome != "busy":
                return self.granted(claim, asked)
            if asked.add_budget is not None:  # whoever works on it has its limits; to wait for that result would add nothing
                raise RunInProgress(
                    f"run {asked.run_id!r} is being worked on: nothing was added. Add it when it has ended.", run_id=asked.run_id
                )
            lineage.refuse_ancestor(agent.namespace, asked.run_id)
            if agent.config.on_busy == "raise" or (until is not None and agent.clock.monotonic() >= until):
                raise RunInProgress(f"run {asked.run_id!r} is being worked on elsewhere.", run_id=asked.run_id)
            awaited = claim.turn.key.turn if claim.turn is not None else None
            await agent.clock.sleep(POLL_S)

    def request(self, asked: Asked, awaited: int | None) -> TurnRequest:
        """Return what the storage is asked; `awaited`: the turn that the caller has waited for."""
        agent, parent = self._agent, lineage.parent()
        return TurnRequest(
            namespace=agent.namespace,
            run_id=asked.run_id,
            agent=agent.name,
            input=asked.input,
            request_id=asked.request_id,
            fingerprint=agent.fingerprint,
            on_unfinished=asked.on_unfinished or agent.config.on_unfinished,
            force=asked.force,
            reopen=asked.add_budget is not None,
            awaited=awaited,
            parent=None if parent is None else json.dumps([parent.key.namespace, parent.key.run_id, parent.key.turn]),
        )

    async def _insist_on_a_limit(self, run_id: str) -> None:
        """Raise RunConflict where the run's last turn has ended, but at no limit that could be raised."""
        rows = await self._agent.storage.turns(self._agent.namespace, run_id)
        if not rows or not rows[-1].has_ended:
            return
        run = await stored_run(self._agent.storage, rows[-1])
        if rows[-1].status not in ("failed", "timeout") or run.stop_reason not in LIMITS:
            why = f"it ended {rows[-1].status} ({run.stop_reason}), at no limit"
            raise RunConflict(f"run {run_id!r}: add_budget cannot continue turn {run.turn}: {why}.", run_id=run_id)

    def granted(self, claim: Claim, asked: Asked) -> Claim:
        """Return `claim`. Raises RunNotFound or RunConflict where it was refused."""
        if claim.outcome == "not_found":
            ended = "" if claim.turn is None else f" Turn {claim.turn.key.turn} ended {claim.turn.status}; `get` returns its account."
            raise RunNotFound(f"run {asked.run_id!r}: nothing of this name is unfinished.{ended}", run_id=asked.run_id)
        if claim.outcome in ("conflict", "changed"):
            raise RunConflict(f"run {asked.run_id!r}: {claim.reason}", run_id=asked.run_id)
        return claim

    async def account(self, row: TurnRow) -> AgentRun:
        """Return the account of a stored turn, its answer an object again where one was asked for."""
        run, answer = await stored_run(self._agent.storage, row), self._agent.response_format
        if answer is not None and run.structured is not None and not isinstance(value := answer.read(run.output), Misfit):
            run.structured = value
        return run

    async def _stored(self, row: TurnRow, asked: Asked) -> AgentRun:
        run, parent = await self.account(row), lineage.parent()
        if parent is not None:
            parent.account.book_ended(row.key, await self._agent.storage.ledger(row.key))
        if not row.delivered and row.status != "waiting":
            with contextlib.suppress(LeaseLost):  # its own caller is just about to say the same
                self._agent.storage.put(replace(row, delivered=True), fence=0)
        if asked.sink is not None:
            asked.sink(RunFinished(run))
        return run

    async def _turn(self, claim: Claim, asked: Asked) -> Turn:
        turn = await self.opened(claim)
        turn.sink, turn.deadline_at = asked.sink, asked.deadline_at
        if asked.add_budget is not None:
            turn.add_budget(asked.add_budget)
        self.live[(turn.key.run_id, turn.key.turn)] = turn
        return turn

    async def opened(self, claim: Claim) -> Turn:
        """Return the live turn of a granted claim; a resumed one with its account as the rows leave it."""
        agent = self._agent
        assert claim.turn is not None
        turn = Turn(
            agent=agent,
            row=claim.turn,
            fence=claim.fence,
            storage=agent.storage,
            clock=agent.clock,
            system=agent._build_system_prompt(agent.tools),
            parent=lineage.parent(),
            budget=agent.budget,
        )
        if claim.outcome == "resume":
            storage, key = agent.storage, turn.key
            turn.restore(*await asyncio.gather(storage.journal(key), storage.ledger(key), storage.notes(key)))
            turn.loaded = True
            if claim.died:
                turn.tell_again()
            turn.put_turn("running", result=False)
        turn.account.join()
        return turn

    # -- the graph --------------------------------------------------------------------------------------------------------------

    async def _through_the_graph(self, turn: Turn, asked: Asked, *, resumed: bool) -> AgentRun:
        failpoint("turn.begins")
        turn.start_clock()
        turn.emit(RunStarted(turn.key.run_id, turn.key.turn, resumed))
        try:
            with driving(turn), _own_config() as callbacks:
                waits_for = await self._invoke(turn, asked, resumed, callbacks)
            if waits_for:
                await self._waiting(turn, waits_for)
            await turn.durable()
        except asyncio.CancelledError:
            await self.stopped(turn)
            raise
        except (StorageError, NotDurable, LeaseLost):
            await self._let_go(turn)
            raise
        except BaseException:
            await self.stopped(turn)
            raise
        finally:
            self.live.pop((turn.key.run_id, turn.key.turn), None)
        await self._delivered(turn)
        failpoint("turn.before_return")
        turn.emit(RunFinished(turn.run))
        return turn.run

    async def _invoke(self, turn: Turn, asked: Asked, resumed: bool, callbacks: Any) -> list[dict[str, Any]]:
        """Drive the graph to its end, or until it waits; return what it waits for."""
        agent = self._agent
        given = asked.config or {}
        config: dict[str, Any] = {
            "run_name": agent.name,
            **({} if callbacks is None else {"callbacks": callbacks}),
            **given,
            "configurable": {**given.get("configurable", {}), "thread_id": turn.key.thread_id},
            "recursion_limit": SUPERSTEPS_A_STEP * (turn.limits.max_steps or 100_000) + 50,
        }
        begin: Any = {"run_id": turn.key.run_id, "turn": turn.key.turn}
        if asked.messages is not None:
            begin["given"] = list(asked.messages)
        if resumed and await self._has_begun(turn, config):
            begin = None
        # Without a mode nothing is collected; `ainvoke` would have each superstep's values and updates gathered, and throw them away.
        options: dict[str, Any] = {"context": asked.context, "stream_mode": [*asked.modes], "durability": "sync"}
        async for mode, chunk in agent.graph.astream(begin, config, **options):
            if asked.relay is not None:
                asked.relay(mode, chunk)
        if turn.row.has_ended:
            return []
        newest = await agent.graph.aget_state({"configurable": {"thread_id": turn.key.thread_id}})  # a caller's config may name another
        return [pending_of(waiting.value) for waiting in newest.interrupts]

    async def _waiting(self, turn: Turn, waits_for: list[dict[str, Any]]) -> None:
        """Write down that the turn waits; its calls have been told by then, as at an end: whoever goes on takes that for granted."""
        await self._agent.recorder.delivered()
        run = turn.refresh()
        run.status, run.pending, run.stop_reason = "running", waits_for, "waiting"
        turn.put_turn("waiting", result=True)

    async def _has_begun(self, turn: Turn, config: dict[str, Any]) -> bool:
        """Return whether the graph has a checkpoint of this very turn to go on from.

        One that came to its end while its turn did not was taken up again (`add_budget`): the loop is entered anew before the model.
        """
        state = await self._agent.graph.aget_state(config)
        if not state.created_at or state.values.get("turn") != turn.key.turn:
            return False
        if not state.tasks:
            await self._agent.graph.aupdate_state(config, {"outcome": None, "stop": None, "landing": None}, as_node="run_tool")
        return True

    async def _delivered(self, turn: Turn) -> None:
        failpoint("turn.before_delivered")
        turn.put_turn(_stored_status(turn.run), result=True, delivered=True)
        self._leave(turn)
        failpoint("turn.before_release")
        try:
            await turn.storage.release(turn.key, fence=turn.fence)
        except asyncio.CancelledError:  # its caller went away without the result: it is handed to whoever asks next
            with contextlib.suppress(StorageError, NotDurable, LeaseLost):
                turn.storage.put(replace(turn.row, delivered=False), fence=0)
            raise

    async def stopped(self, turn: Turn) -> None:
        """The caller stopped: keep the turn so that it can go on; one that has ended stays so, for whoever asks for it next.

        It is stopped once its calls have been told. Not to be cut short by a second cancellation.
        """
        try:
            if not turn.row.has_ended:
                await self._agent.recorder.delivered()
        finally:
            if not turn.row.has_ended:
                turn.refresh()
                with contextlib.suppress(StorageError, NotDurable, LeaseLost):
                    turn.put_turn("stopped", result=False)
            await asyncio.shield(self._let_go(turn))

    @contextlib.asynccontextmanager
    async def beginning(self, claim: Claim) -> AsyncIterator[None]:
        """Finish what the claim has closed, and let go of the turn where the block that makes it does not come to its end."""
        try:
            await close_earlier(self._agent, claim)
            yield
        except BaseException:  # whatever it is, the caller's going away too: the lease must not outlive it
            await asyncio.shield(self._unbegun(claim))
            raise

    async def _unbegun(self, claim: Claim) -> None:
        """The turn did not begin: it can go on, or be followed by another input.

        One that its process died on is left as that left it: what was told of it is not known any better now.
        """
        storage, row = self._agent.storage, claim.turn
        assert row is not None, "a granted claim names its turn"
        died = claim.outcome == "resume" and claim.died
        with contextlib.suppress(StorageError, NotDurable, LeaseLost):
            storage.put(replace(row, status="running" if died else "stopped"), fence=claim.fence)
            await storage.release(row.key, fence=claim.fence)

    async def _let_go(self, turn: Turn) -> None:
        self._leave(turn)
        with contextlib.suppress(StorageError, NotDurable, LeaseLost):
            await turn.storage.release(turn.key, fence=turn.fence)

    @staticmethod
    def _leave(turn: Turn) -> None:
        """Tell the turn above how this one ended; whether that one can still record it is its own concern."""
        with contextlib.suppress(StorageError, NotDurable, LeaseLost):
            turn.account.leave()

    # -- a person's word ------------------------------------------------------------------------------------------------------------

    async def resolve(self, run_id: str, call_id: str, word: Resolution, **asked: Any) -> AgentRun:
        """Write the word down, and let the turn go on, `asked` for it, once nothing is left to wait for."""
        run = await self.settle(run_id, call_id, word)
        return run if run.pending else await self.drive(Asked(run_id=run_id, input=None, **asked))

    async def settle(self, run_id: str, call_id: str, word: Resolution, *, force: bool = False) -> AgentRun:
        """Write the word down; in the AgentRun returned, `pending` is what is still waited for. `force`: whatever the tools are now."""
        return await settling.settle(self._agent, self.request(Asked(run_id=run_id, input=None, force=force), None), call_id, word)

    # -- its end ----------------------------------------------------------------------------------------------------------------

    async def conclude(self, turn: Turn) -> None:
        """Tell the observability backend of the turn's end and write it down; a turn of an embedding graph is also delivered and let go.

        In this order, since nobody takes up a turn that has ended: killed in between, it is unfinished, and whoever goes on with it
        tells its end again. What is told is what a crash leaves, so all that led to it is on disk before.
        """
        failpoint("turn.before_conclude")
        agent = self._agent
        if turn.run.status != "running" and agent.observability is not None:
            await turn.durable()
            agent.recorder.run(turn.run)
        failpoint("turn.record_run_queued")
        try:
            await agent.recorder.delivered()
        finally:  # also where its caller goes away meanwhile: it has ended, and has been told all the same
            turn.put_turn(_stored_status(turn.run), result=True)
        failpoint("turn.record_run_delivered")
        if turn.direct:
            self.live.pop((turn.key.run_id, turn.key.turn), None)
            await turn.durable()
            await self._delivered(turn)

    async def load(self, turn: Turn) -> Any:
        """Return what the memory knows of the run; None: what the graph's state holds."""
        return await memory.load(turn, self._agent.memory)


def _stored_status(run: AgentRun) -> Any:
    return "waiting" if run.status == "running" else run.status


@contextlib.contextmanager
def _own_config() -> Iterator[Any]:
    """Run our graph as a root, also where the caller is itself a node of some graph; hand on its callbacks, so that traces nest."""
    outer = var_child_runnable_config.get()
    token = var_child_runnable_config.set(None)
    try:
        yield None if outer is None else outer.get("callbacks")
    finally:
        var_child_runnable_config.reset(token)
