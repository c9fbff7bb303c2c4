"""The account of a turn: an AgentRun as JSON, and an AgentRun rebuilt from the rows of journal and ledger.

The rows are the truth. A live turn keeps its AgentRun in step with them; after a crash the same AgentRun comes out of them again,
the part before the crash too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any, Literal

from agent_graph.decisions import idempotency
from agent_graph.decisions.results import make_storable
from agent_graph.errors import OutcomeUnknown
from agent_graph.storage.port import JournalRow, LedgerRow, Storage, TurnRow
from agent_graph.types import AgentRun, ToolCall

__all__ = [
    "NANO",
    "Totals",
    "call_of",
    "from_json",
    "is_over",
    "rebuild",
    "stored_run",
    "to_json",
    "to_result",
    "totals",
    "usd",
    "used_s",
]

NANO = 10**9


class Totals:
    """Sums over a turn's ledger: settled and uncertain, in tokens and nano-USD.

    A reply that was paid for and lost (a crash before its checkpoint) is asked for again under the same step: two bills, one step.
    """

    __slots__ = ("_used", "cost_nusd", "dearest_nusd", "largest_tokens", "tokens", "uncertain_nusd", "uncertain_tokens")

    def __init__(self) -> None:
        self.tokens = self.cost_nusd = self.uncertain_tokens = self.uncertain_nusd = 0
        self.dearest_nusd = self.largest_tokens = 0
        self._used: set[int] = set()

    @property
    def steps(self) -> int:
        """Steps that have a reply."""
        return len(self._used)

    def add(self, row: LedgerRow, sign: Literal[1, -1] = 1) -> None:
        """Count `row`; with -1, take it out again."""
        if row.kind == "landing":  # it is held in shared budgets, and no money of the turn
            return
        if row.state in ("reserved", "unsettled"):
            self.uncertain_tokens += sign * row.bound_tokens
            self.uncertain_nusd += sign * row.bound_nusd
            if row.kind != "subagent":
                return
        self.tokens += sign * row.tokens
        self.cost_nusd += sign * row.cost_nusd
        if row.used:
            self._used.add(row.step)
        if row.kind != "subagent":
            self.dearest_nusd = max(self.dearest_nusd, row.cost_nusd)
            self.largest_tokens = max(self.largest_tokens, row.tokens)


def totals(rows: Iterable[LedgerRow]) -> Totals:
    """Return the sums over `rows`."""
    sums = Totals()
    for row in rows:
        sums.add(row)
    return sums


def usd(nano: int) -> Decimal:
    """Return nano-USD as USD."""
    return Decimal(nano) / NANO


def to_json(run: AgentRun) -> str:
    """Return `run` as JSON text; what JSON cannot hold is made storable."""
    calls = [{**vars(call), "args": None, "result": None} for call in run.tool_calls]
    for slot, call in zip(calls, run.tool_calls, strict=True):
        slot["args"] = json.loads(make_storable(call.args).json)
        slot["result"] = json.loads(make_storable(call.result).json)
    return make_storable({**vars(run), "tool_calls": calls}, max_chars=64_000_000).json


def from_json(text: str) -> AgentRun:
    """Return the AgentRun that `to_json` wrote; keys of a later version are ignored."""
    known = asdict(AgentRun(run_id="", input=""))
    stored: dict[str, Any] = {key: value for key, value in json.loads(text).items() if key in known}
    stored["tool_calls"] = [ToolCall(**call) for call in stored.get("tool_calls", [])]
    return AgentRun(**stored)


def call_of(row: JournalRow) -> ToolCall:
    """Return a journal row as the ToolCall that it records, its result in JSON form."""
    return ToolCall(
        tool_name=row.tool,
        args=json.loads(row.args),
        call_id=row.call_id,
        result=None if row.result is None else json.loads(row.result),
        error=row.error,
        latency_ms=row.latency_ms,
        idempotency_key=row.call_key,
    )


def is_over(row: JournalRow) -> bool:
    """Return whether a call has an end: one in doubt has it once the model has been told so."""
    return row.state in idempotency.ENDS or (row.state == "in_doubt" and (row.error or "").startswith(OutcomeUnknown.__name__))


def used_s(turn: TurnRow, journal: Sequence[JournalRow], ledger: Sequence[LedgerRow]) -> float:
    """Return the working time that the rows know of, in seconds."""
    return max([turn.used_s, *(row.used_s for row in journal), *(row.used_s for row in ledger)])


def rebuild(turn: TurnRow, journal: Sequence[JournalRow], ledger: Sequence[LedgerRow]) -> AgentRun:
    """Return the account of an unfinished turn from its rows."""
    sums = totals(ledger)
    used = used_s(turn, journal, ledger)
    return AgentRun(
        run_id=turn.key.run_id,
        input=turn.input,
        steps=sums.steps,
        tool_calls=[call_of(row) for row in journal if is_over(row)],
        total_tokens=sums.tokens,
        total_cost_usd=float(usd(sums.cost_nusd)),
        cost_uncertain_usd=float(usd(sums.uncertain_nusd)),
        latency_ms=used * 1000,
        status="running",
        turn=turn.key.turn,
    )


def to_result(run: AgentRun) -> str:
    """Return what a turn's row keeps of its AgentRun: all but the tool calls, which the journal has."""
    return make_storable({**vars(run), "tool_calls": []}).json


async def stored_run(storage: Storage, turn: TurnRow) -> AgentRun:
    """Return the account of a stored turn: as it ended or waits, or as far as its rows tell."""
    journal = await storage.journal(turn.key)
    if turn.result is None:
        return rebuild(turn, journal, await storage.ledger(turn.key))
    run = from_json(turn.result)
    run.tool_calls = [call_of(row) for row in journal if is_over(row)]
    return run
