"""run_tool: one tool call, journaled. Each call of a reply runs in its own task, so one that dies does not take its siblings along.

The journal is written *around* `_execute_tool`, so that an override cannot skip it: `started` before, the end after. What a call
that was started and never ended means, `runtime/tool_call.py` finds out. A tool's failure is told to the model; only a broken
port ends the turn. Whatever happens, the node may run again from its beginning: after a crash, and after waiting for a person.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from agent_graph.decisions import prompt
from agent_graph.decisions.results import make_storable
from agent_graph.decisions.tools import ToolSpec, check_args
from agent_graph.errors import ContractError, OutcomeUnknown, ToolNotFound, describe
from agent_graph.events import ToolFinished, ToolStarted
from agent_graph.failpoints import failpoint
from agent_graph.guardrails import Block, Revise
from agent_graph.messages import ensure_id
from agent_graph.nodes import outcome
from agent_graph.runtime.foreign import called
from agent_graph.runtime.judging import judged
from agent_graph.runtime.tool_call import INTERRUPTED, End, JournaledCall, planned
from agent_graph.state import Call, turn_of
from agent_graph.storage.port import JournalRow
from agent_graph.types import ToolCall

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["run_tool"]

Update = dict[str, Any]

REPEATS = 3
"""So many identical calls with identical results in a row are pointed out to the model."""


async def run_tool(call: Call, config: RunnableConfig) -> Update:
    """Run one call and return its result as a tool message."""
    turn = await turn_of(call, config)
    with turn.at_work():
        mine = _Call(turn, call)
        try:
            refusal = _unusable(turn.agent.specs.get(call["name"]), call, turn)
            return await mine.settled() if refusal is None else mine.ended("rejected", error=refusal)
        except outcome.PASSES:
            raise
        except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
            return {**mine.ended("failed", error=describe(error)), "outcome": outcome.of_error(error, turn)}


def _unusable(spec: ToolSpec | None, call: Call, turn: Turn) -> str | None:
    """Return why a call cannot be run, in words that let the model repair it; None where it can."""
    if spec is None:
        names = ", ".join(sorted(turn.agent.specs)) or "none"
        return f"{ToolNotFound.__name__}: there is no tool {call['name']!r}. The tools are: {names}."
    if call["problem"] is not None:
        return f"InvalidArguments: {call['problem']}"
    wrong = check_args(spec, call["args"])
    return None if wrong is None else f"InvalidArguments: {wrong}"


class _Call(JournaledCall[Update]):
    """A call of the loop: the rails look at its arguments and its result, `_execute_tool` runs it."""

    def __init__(self, turn: Turn, call: Call) -> None:
        row, record = planned(
            turn,
            run_id=turn.key.run_id,
            step=call["step"],
            index=call["index"],
            call_id=call["id"],
            tool=call["name"],
            args=call["args"] if isinstance(call["args"], dict) else {},
            idempotent=turn.agent.is_idempotent(call["name"]),
        )
        super().__init__(turn, row, record, config=turn.config, tools=turn.agent)

    async def run(self, attempt: int) -> Update | None:
        """Run the tool once more; None where the outcome is in doubt (the journal then says why)."""
        row, record = self.row, self.record
        verdict = await judged(
            self.turn, "tool_args", replace(record, args=copy.deepcopy(record.args)), step=row.step, subject=record.call_id
        )
        if isinstance(verdict.decisive, Revise | Block):
            return self.ended("rejected", error=f"Refused: {verdict.findings[-1].reason}")
        if verdict.findings:
            record = replace(record, args=verdict.payload.args)
            wrong = check_args(self.turn.agent.specs[record.tool_name], record.args)
            if wrong is not None:
                return self._finished("rejected", replace(record, error=f"InvalidArguments: {wrong}"))
            if verdict.payload.result is not None:  # a person answered in the tool's place
                return self._finished("succeeded", replace(record, result=verdict.payload.result))
        await self._start(attempt, record)
        done = await self._executed(record)
        failpoint("tool.executed")
        if done is None:
            return None
        update = await self._judged_result(done)
        failpoint("tool.end_queued")
        if not row.idempotent:
            await self.turn.durable()
        failpoint("tool.finished")
        return update

    async def _start(self, attempt: int, record: ToolCall) -> None:
        """Return once it is on disk that the tool is about to run."""
        failpoint("tool.before_started")
        self.turn.record(self.row, state="started", attempt=attempt)
        await self.turn.durable()
        failpoint("tool.started")
        if self.turn.streaming:
            self.turn.emit(ToolStarted(copy.copy(record), self.row.step))

    async def _executed(self, record: ToolCall) -> ToolCall | None:
        """Return the record with its result or error, or None where it is not known whether the tool ran."""
        turn, began = self.turn, self.turn.clock.monotonic()

        def elapsed_ms() -> float:
            return (turn.clock.monotonic() - began) * 1000

        try:
            done = await called(turn.agent._execute_tool, replace(record, args=copy.deepcopy(record.args)))
            if not (hasattr(done, "result") and hasattr(done, "error")):
                raise ContractError(
                    f"_execute_tool returned {type(done).__name__} for {record.tool_name}; the ToolCall with result or error set was due."
                )
        except GraphBubbleUp:
            await self._wants_to_run_again()
            raise
        except (ContractError, *outcome.PASSES):
            raise
        except Exception as error:  # noqa: BLE001  an override raised: whether the tool ran is not known
            if not self.row.idempotent:
                self._doubt(describe(error), elapsed_ms())
                return None
            return replace(record, error=describe(error), latency_ms=elapsed_ms())
        failed = None if done.error is None else str(done.error)
        if failed is not None and failed.startswith(OutcomeUnknown.__name__):
            self._doubt(failed.partition(":")[2].strip(), elapsed_ms())
            return None
        latency = done.latency_ms if isinstance(done.latency_ms, int | float) and done.latency_ms > 0 else elapsed_ms()
        return replace(record, result=done.result, error=failed, latency_ms=latency)

    async def _wants_to_run_again(self) -> None:
        """`interrupt` inside the tool is its own word that it wants to be run again, from its beginning."""
        self.turn.record(self.row, state="planned", attempt=self.row.attempt - 1)
        await self.turn.durable()
        self.turn.pause_clock()

    def _doubt(self, reason: str, latency_ms: float) -> None:
        self.turn.record(self.row, state="in_doubt", error=reason or INTERRUPTED, latency_ms=latency_ms)

    async def _judged_result(self, record: ToolCall) -> Update:
        """Let the rails look at the result, book the end of the call and return the update.

        Where a person has to look at it, the result is on record before the wait begins: the call is not made again for it.
        """
        row = self.row
        state: End = "succeeded" if record.error is None else "failed"
        try:
            verdict = await judged(self.turn, "tool_result", copy.copy(record), step=row.step, subject=record.call_id)
        except GraphBubbleUp:
            self.turn.keep_back(row)
            result = None if record.result is None else make_storable(record.result).json
            self.turn.record(row, state=state, result=result, error=record.error, latency_ms=record.latency_ms)
            raise
        if isinstance(verdict.decisive, Revise | Block):
            return self._finished(state, replace(record, result=f"The result was withheld: {verdict.findings[-1].reason}"))
        if not verdict.findings:
            return self._finished(state, record)
        shown = replace(record, result=verdict.payload.result, error=verdict.payload.error)
        only_shown = all(getattr(finding.verdict, "shown_only", False) for finding in verdict.findings)
        return self._finished(state, record if only_shown else shown, shown=shown)

    async def replayed(self) -> Update:
        """The call ended before the crash, or before a person looked at its result: the tool is not asked again."""
        known = self.turn.results[self.row.call_key]
        return await self._judged_result(replace(self.record, result=known.result, error=known.error, latency_ms=known.latency_ms))

    def ended(self, state: End, *, result: Any = None, error: str | None = None) -> Update:
        """Book an end without another run of the tool."""
        return self._finished(state, replace(self.record, result=result, error=error, latency_ms=self.row.latency_ms))

    def _finished(self, state: End, record: ToolCall, *, shown: ToolCall | None = None) -> Update:
        """Book the end of a call, tell those who listen, and return the tool message; `shown`: what the model reads, if not the record."""
        turn, stored = self.turn, make_storable((shown or record).result)
        if stored.changed and state == "succeeded":
            turn.warn(f"{record.tool_name}: {stored.changed}", step=self.row.step)
        result = None if record.result is None else stored.json
        row = turn.finished(self.row, record, state=state, result=result, error=record.error, latency_ms=record.latency_ms)
        if turn.streaming:
            turn.emit(ToolFinished(copy.copy(record), row.step))
        update: Update = {"messages": [_message(turn, row, stored.text)]}
        limit = turn.config.max_repeated_calls
        if limit is not None and _repeats(turn, row) >= limit:
            update["outcome"] = outcome.of_stop(f"max_repeated_calls: {_repeats(turn, row)} of {limit}")
        return update


def _message(turn: Turn, row: JournalRow, text: str) -> ToolMessage:
    content = text if row.error is None else f"Error: {row.error}"
    if _repeats(turn, row) >= REPEATS:
        content = f"{content}\n\n{prompt.REPEATED}"
    message = ToolMessage(content, tool_call_id=row.call_id, name=row.tool, status="success" if row.error is None else "error")
    artifact = turn.artifacts.pop(row.call_key, None)
    if artifact is not None:  # beside the result, for the application: not journaled, so a replayed call has none
        message.artifact = json.loads(make_storable(artifact).json)
    ensure_id(message)
    return message


def _repeats(turn: Turn, row: JournalRow) -> int:
    """Return how many calls in a row, this one the last, were the same and had the same result."""
    count = 0
    for other in turn.newest_first():
        if (other.step, other.index) > (row.step, row.index):
            continue
        if (other.tool, other.args, other.result, other.error) != (row.tool, row.args, row.result, row.error):
            break
        count += 1
    return count
