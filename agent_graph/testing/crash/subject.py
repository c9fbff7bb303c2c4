"""What is tested: a program that does a task in attempts, and gives an account of it. Ours is a ProductionAgent.

Another program is tested by a class of the same shape (tests/crash/stock.py: LangGraph with its own SQLite saver).
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent_graph.errors import ConfigError, OutcomeUnknown
from agent_graph.events import RunFinished
from agent_graph.storage.location import VARIABLE
from agent_graph.storage.port import TurnKey
from agent_graph.testing.crash.evidence import Account, RecordedCall, Said, TurnAccount
from agent_graph.testing.crash.world import World, views_of

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent
    from agent_graph.events import Event
    from agent_graph.storage.port import TurnRow
    from agent_graph.types import AgentRun, Message

__all__ = ["RUN_ID", "AgentSubject", "Subject"]

RUN_ID = "crash"
LIMITS = frozenset({"max_steps", "max_tokens", "max_cost_usd", "timeout_s", "budget"})
_NANO = Decimal(10) ** 9


class Subject(Protocol):
    """A program that may be killed."""

    def prepare(self) -> None:
        """Do what is the same for every attempt, in the process that forks them: it must open no thread, connection or loop."""
        ...

    async def attempt(self, world: World, *, resume: bool) -> None:
        """Do the task to its end, from wherever earlier attempts left it.

        `resume`: by the program's own way of finding what is unfinished; else by asking for the same thing again, as a queue does.
        """
        ...

    async def account(self, world: World) -> Account:
        """Return what the program says of the finished task."""
        ...


@dataclass(frozen=True, slots=True)
class AgentSubject:
    """A ProductionAgent: one run_id, one turn per input."""

    make_agent: Callable[[World], ProductionAgent | Awaitable[ProductionAgent]]
    task: Sequence[str]
    stream: bool = False
    """Whether turns are taken by `stream` and `stream_resume`."""

    def prepare(self) -> None:
        """Compile the loop."""
        from agent_graph.graph import compiled_graph

        compiled_graph()

    async def attempt(self, world: World, *, resume: bool) -> None:
        """Take the turns that are left, each under a request_id of its own."""
        async with await self._made(world) as agent:
            if resume:
                for run_id in await agent.unfinished():
                    await (_last(agent.stream_resume(run_id)) if self.stream else agent.resume(run_id))
            for number, text in enumerate(self.task, 1):
                run = await self._asked(agent, text, f"request-{number}")
                while run.pending:
                    run = await _looked_up(agent, world, run)

    async def _asked(self, agent: ProductionAgent, text: str, request_id: str) -> AgentRun:
        if self.stream:
            return await _last(agent.stream(text, RUN_ID, request_id=request_id))
        return await agent.run(text, RUN_ID, request_id=request_id)

    async def account(self, world: World) -> Account:
        """Return what `run` returned, or would return, of each turn, and the conversation as it is stored."""
        async with await self._made(world) as agent:
            rows, others = await agent.storage.turns(agent.namespace, RUN_ID), await _turns_of_others(agent)
            return Account(
                turns=tuple([await _turn(agent, row) for row in rows]),
                transcript=await _transcript(agent, rows[-1]) if rows else (),
                others=await _calls_of(agent, others),
                idempotent=await _marks(agent, others),
                max_cost_usd=agent.config.max_cost_usd,
                max_steps=agent.config.max_steps,
                bounded=all(_is_priced(agent, candidate) for candidate in agent.governor.candidates),
            )

    async def _made(self, world: World) -> ProductionAgent:
        os.environ[VARIABLE] = str(world.storage)  # the storage of an agent that names none
        made = self.make_agent(world)
        agent = await made if inspect.isawaitable(made) else made
        if not hasattr(agent, "storage_location"):
            raise ConfigError(f"make_agent returned {type(agent).__name__}; a ProductionAgent was due.")
        _check_place(agent.storage_location, world.folder)
        return agent


async def _last(events: AsyncIterator[Event]) -> AgentRun:
    """Return the account that stands at the end of a stream."""
    return [event.run async for event in events if isinstance(event, RunFinished)][-1]


def _check_place(location: str, folder: Path) -> None:
    if not Path(location).resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"make_agent: the storage is {location}, outside this run's folder. Give it storage=world.storage, or none: a storage that "
            "lives elsewhere, or in memory, would not be this run's own after the kill."
        )


async def _looked_up(agent: ProductionAgent, world: World, run: AgentRun) -> AgentRun:
    """Say what became of the first call in doubt, as a person would who looks it up in the world."""
    entry = run.pending[0]
    if "done" not in entry["allowed"]:
        raise ConfigError(
            f"{entry['call_id']} waits for a person ({entry['reason']}): a crash test has nobody to ask. Leave that rail out."
        )
    word = world.reconcile(await _key_of(agent, run, entry["call_id"]))
    return await agent.resolve(run.run_id, entry["call_id"], word)


async def _key_of(agent: ProductionAgent, run: AgentRun, call_id: str) -> str | None:
    rows = await agent.storage.journal(TurnKey(agent.namespace, run.run_id, run.turn))
    return next((row.call_key for row in reversed(rows) if row.call_id == call_id), None)


async def _turns_of_others(agent: ProductionAgent) -> list[TurnRow]:
    """The turns of the other runs in its storage: of sub-agents."""
    newest = [row for row in await agent.storage.runs(agent.namespace, limit=1_000) if row.key.run_id != RUN_ID]
    return [row for last in newest for row in await agent.storage.turns(agent.namespace, last.key.run_id)]


async def _calls_of(agent: ProductionAgent, rows: Sequence[TurnRow]) -> tuple[RecordedCall, ...]:
    """Their tool calls by the journal: a sub-agent whose parent has given it up has no account of what it had begun."""
    from agent_graph.runtime.account import call_of, is_over

    calls = [row for turn in rows for row in await agent.storage.journal(turn.key) if row.state != "planned"]
    return tuple(_call(call_of(row)) if is_over(row) else replace(_call(call_of(row)), state="in doubt", succeeded=False) for row in calls)


async def _marks(agent: ProductionAgent, others: Sequence[TurnRow]) -> dict[str, bool]:
    """Which tools may be run twice: by their own mark, before what the agent makes of it; of sub-agents' tools, by the journal."""
    journaled = {call.tool: call.idempotent for row in others for call in await agent.storage.journal(row.key)}
    return journaled | {name: _mark(agent, spec) for name, spec in agent.specs.items()}


def _mark(agent: ProductionAgent, spec: Any) -> bool:
    return agent.is_idempotent(spec.name) if spec.idempotent is None else bool(spec.idempotent)


def _is_priced(agent: ProductionAgent, candidate: Any) -> bool:
    return candidate.backend is None and agent.governor.output_price_usd(candidate, 1) is not None


async def _turn(agent: ProductionAgent, row: TurnRow) -> TurnAccount:
    from agent_graph.runtime.account import stored_run

    run = await stored_run(agent.storage, row)
    ledger = await agent.storage.ledger(row.key)
    return TurnAccount(
        status=run.status if row.status not in ("stopped", "closed") else row.status,
        output=run.output,
        steps=run.steps,
        cost_usd=_money(run.total_cost_usd),
        uncertain_usd=_money(run.cost_uncertain_usd),
        unsettled_usd=tuple(
            entry.bound_nusd / _NANO for entry in ledger if entry.state in ("reserved", "unsettled") and entry.kind != "landing"
        ),
        calls=tuple(_call(call) for call in run.tool_calls),
        limited=run.landed is not None or (run.error or "").partition(":")[0] in LIMITS,
    )


def _money(usd: float) -> Decimal:
    return Decimal(repr(usd)).quantize(Decimal("1e-9"))


def _call(call: Any) -> RecordedCall:
    in_doubt = (call.error or "").startswith(OutcomeUnknown.__name__)
    return RecordedCall(
        tool=call.tool_name,
        args=json.dumps(call.args, sort_keys=True, default=str),
        call_id=call.call_id,
        key=call.idempotency_key or call.call_id,
        state="in doubt" if in_doubt else "recorded",
        succeeded=call.error is None,
        result=json.dumps(call.result, sort_keys=True, default=str),
    )


async def _transcript(agent: ProductionAgent, row: TurnRow) -> tuple[Said, ...]:
    from agent_graph.messages import Conversion

    state = await agent.graph.aget_state({"configurable": {"thread_id": row.key.thread_id}})
    messages = Conversion().to_spec(state.values.get("messages") or [])
    return tuple(_said(message, view) for message, view in zip(messages, views_of(messages), strict=True))


def _said(message: Message, view: Any) -> Said:
    calls = message.metadata.get("tool_calls") or () if view.role == "assistant" else ()
    named = zip(view.calls, calls, strict=True) if calls else ()
    shown = [json.dumps([call_id, call.get("name"), call.get("args")], sort_keys=True, default=str) for call_id, call in named]
    return Said(role=view.role, text=message.content, calls=tuple(shown), call_ids=view.calls, answers=view.answers)
