"""A tool call and its journal: what is known of the call says what is done next, until it has an end.

How it works
    `decisions/idempotency.py` says what is to be done with a call; `settled` does it and asks again, since a run, a tool's own word
    (`reconcile`) or a person's changes what is known. How the tool is run, and what an end looks like, is for whoever makes the call:
    the loop's `run_tool` gives an update of its state, the middleware what LangGraph's ToolNode gives.

What must stay true
    1. Nothing runs without a plan that was made of the journal as it stands; a word given on one attempt is used up by the next.
    2. A person is asked once a call; the model is told of a second doubt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from agent_graph.decisions import idempotency, prompt
from agent_graph.decisions.tools import canonical_json
from agent_graph.errors import OutcomeUnknown, ToolNotExecuted
from agent_graph.resolutions import Approve, Done, NotDone, Reject, Resolution, Respond
from agent_graph.runtime.asking import ask, doubt_key, whom_to_ask
from agent_graph.storage.port import JournalRow
from agent_graph.types import ToolCall

if TYPE_CHECKING:
    from agent_graph.config import AgentConfig
    from agent_graph.runtime.turn import Turn

__all__ = ["INTERRUPTED", "End", "JournaledCall", "planned"]

INTERRUPTED = "it was interrupted while it ran"
"""Why an outcome is unknown, where nothing more is on record."""

End = Literal["succeeded", "failed", "rejected", "cancelled", "in_doubt"]
"""States of the journal with which a call is over for this turn."""
R = TypeVar("R")


class Reconciler(Protocol):
    """Who knows which tools can say what became of a call, and asks them."""

    def can_reconcile(self, name: str) -> bool: ...

    async def reconcile(self, call: ToolCall) -> Resolution: ...


def planned(
    turn: Turn, *, run_id: str, step: int, index: int, call_id: str, tool: str, args: dict[str, Any], idempotent: bool
) -> tuple[JournalRow, ToolCall]:
    """Return the row of a call that nothing was done for yet, and the call with its idempotency key; `run_id` is the key's."""
    written = canonical_json(args)
    key = idempotency.call_key(
        namespace=turn.key.namespace, run_id=run_id, turn=turn.key.turn, step=step, index=index, tool=tool, args=written
    )
    row = JournalRow(
        key=turn.key,
        call_key=key,
        step=step,
        index=index,
        call_id=call_id,
        tool=tool,
        args=written,
        idempotent=idempotent,
        state="planned",
    )
    return row, ToolCall(tool_name=tool, args=args, call_id=call_id, idempotency_key=key)


class JournaledCall(ABC, Generic[R]):
    """One tool call of a turn; `R` is what it gives to whoever makes it."""

    def __init__(self, turn: Turn, row: JournalRow, record: ToolCall, *, config: AgentConfig, tools: Reconciler) -> None:
        self.turn, self.record = turn, record
        self._planned, self._config, self._tools = row, config, tools

    @property
    def row(self) -> JournalRow:
        """The call as the journal has it."""
        return self.turn.journal.get(self._planned.call_key, self._planned)

    @abstractmethod
    async def run(self, attempt: int) -> R | None:
        """Run the tool, journaled; return what the call gives, or None where the journal is to be asked again."""

    @abstractmethod
    async def replayed(self) -> R:
        """Return what a call gives whose end is on record: the tool is not run."""

    @abstractmethod
    def ended(self, state: End, *, result: Any = None, error: str | None = None) -> R:
        """Journal an end without another run of the tool, and return what the call gives."""

    async def reconciled(self) -> Resolution:
        """Return the tool's own word on what became of the call."""
        return await self._tools.reconcile(self.record)

    async def doubted(self) -> None:
        """Return when the doubt that a person is about to be asked about is written down."""

    async def settled(self) -> R:
        """Do what the journal says is to be done with the call, until it has an end."""
        resolved: Literal["not_done", "unknown"] | None = None
        asked = False
        while True:
            match self._plan("tell" if asked else whom_to_ask(self.turn, self.row, self._config.on_doubt), resolved):
                case idempotency.Replay():
                    return await self.replayed()
                case idempotency.Tell():
                    return self.ended("in_doubt", error=self._unknown())
                case idempotency.Failed():
                    return self.ended("failed", error=f"{ToolNotExecuted.__name__}: it was not done, and no attempt is left.")
                case idempotency.Run(attempt=attempt):
                    given = await self.run(attempt)
                    if given is not None:
                        return given
                    resolved = None
                    continue
                case idempotency.Reconcile():
                    word = await self.reconciled()
                case _:  # Ask
                    word, asked = await self._person(), True
            if isinstance(word, Done | Respond):
                return self.ended("succeeded", result=word.result if isinstance(word, Done) else word.text)
            if isinstance(word, Reject):
                return self.ended("cancelled", error=f"Cancelled: {word.reason}")
            resolved = "not_done" if isinstance(word, NotDone | Approve) else "unknown"

    def _plan(self, on_doubt: Literal["tell", "ask"], resolved: Literal["not_done", "unknown"] | None) -> idempotency.Plan:
        row = self.row
        return idempotency.plan(
            state=row.state,
            idempotent=row.idempotent,
            attempt=row.attempt,
            attempts=self._config.attempts,
            on_doubt=on_doubt,
            can_reconcile=self._tools.can_reconcile(row.tool),
            resolved=resolved,
        )

    def _unknown(self) -> str:
        """Never guess: what the model is told of a call that is in doubt."""
        reason = (self.row.state == "in_doubt" and self.row.error) or INTERRUPTED
        return reason if reason.startswith(OutcomeUnknown.__name__) else f"{OutcomeUnknown.__name__}: {prompt.IN_DOUBT} ({reason})"

    async def _person(self) -> Resolution:
        """Wait for a person to say what became of the call."""
        if self.row.state != "in_doubt":
            self.turn.record(replace(self.row, state="in_doubt", error=INTERRUPTED))
            await self.doubted()
        return ask(
            self.turn,
            key=doubt_key(self.row),
            call_id=self.row.call_id,
            name=self.row.tool,
            args=self.record.args,
            reason=f"{prompt.IN_DOUBT} ({self.row.error or INTERRUPTED})",
            allowed=("done", "not_done", "unknown", "reject"),
            idempotency_key=self.row.call_key,
        )
