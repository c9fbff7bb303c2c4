"""run_tool: one tool call, journaled. Each call of a reply runs in its own task, so one that dies does not take its siblings along.

The journal is written *around* `_execute_tool`, so that an override cannot skip it: `started` before, the end after. What a call
that was started and never ended means is decided in `decisions/idempotency.py`. A tool's failure is told to the model; only a broken
port ends the turn. Whatever happens, the node may run again from its beginning: after a crash, and after waiting for a person.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from agent_graph.decisions import idempotency, prompt
from agent_graph.decisions.results import make_storable
from agent_graph.decisions.tools import ToolSpec, canonical_json, check_args
from agent_graph.errors import ContractError, OutcomeUnknown, ToolNotExecuted, ToolNotFound, describe
from agent_graph.events import ToolFinished, ToolStarted
from agent_graph.failpoints import failpoint
from agent_graph.guardrails import Block, Revise
from agent_graph.messages import ensure_id
from agent_graph.nodes import outcome
from agent_graph.resolutions import Approve, Done, NotDone, Reject, Resolution, Respond
from agent_graph.runtime.asking import ask, doubt_key, whom_to_ask
from agent_graph.runtime.foreign import called
from agent_graph.runtime.judging import judged
from agent_graph.state import Call, turn_of
from agent_graph.storage.port import JournalRow
from agent_graph.types import ToolCall

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["run_tool"]

Update = dict[str, Any]

REPEATS = 3
"""So many identical calls with identical results in a row are pointed out to the model."""
INTERRUPTED = "it was interrupted while it ran"


async def run_tool(call: Call, config: RunnableConfig) -> Update:
    """Run one call and return its result as a tool message."""
    turn = await turn_of(call, config)
    with turn.at_work():
        row, record = _planned(turn, call)
        try:
            refusal = _unusable(turn.agent.specs.get(call["name"]), call, turn)
            if refusal is not None:
                return _finished(turn, row, "rejected", replace(record, error=refusal))
            return await _life(turn, row, record)
        except outcome.PASSES:
            raise
        except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
            end = _finished(turn, row, "failed", replace(record, error=describe(error)))
            return {**end, "outcome": outcome.of_error(error, turn)}


def _planned(turn: Turn, call: Call) -> tuple[JournalRow, ToolCall]:
    args = call["args"] if isinstance(call["args"], dict) else {}
    written = canonical_json(args)
    key = idempotency.call_key(
        namespace=turn.key.namespace,
        run_id=turn.key.run_id,
        turn=turn.key.turn,
        step=call["step"],
        index=call["index"],
        tool=call["name"],
        args=written,
    )
    row = turn.journal.get(key) or JournalRow(
        key=turn.key,
        call_key=key,
        step=call["step"],
        index=call["index"],
        call_id=call["id"],
        tool=call["name"],
        args=written,
        idempotent=turn.agent.is_idempotent(call["name"]),
        state="planned",
    )
    return row, ToolCall(tool_name=call["name"], args=args, call_id=call["id"], idempotency_key=key)


def _unusable(spec: ToolSpec | None, call: Call, turn: Turn) -> str | None:
    """Return why a call cannot be run, in words that let the model repair it; None where it can."""
    if spec is None:
        names = ", ".join(sorted(turn.agent.specs)) or "none"
        return f"{ToolNotFound.__name__}: there is no tool {call['name']!r}. The tools are: {names}."
    if call["problem"] is not None:
        return f"InvalidArguments: {call['problem']}"
    wrong = check_args(spec, call["args"])
    return None if wrong is None else f"InvalidArguments: {wrong}"


# -- a call's life ------------------------------------------------------------------------------------------------------------


async def _life(turn: Turn, row: JournalRow, record: ToolCall) -> Update:
    """Do what the journal says is to be done with the call, until it has an end."""
    resolved: Literal["not_done", "unknown"] | None = None
    asked = False
    while True:
        row = turn.journal.get(row.call_key, row)
        match _plan(turn, row, "tell" if asked else whom_to_ask(turn, row, turn.config.on_doubt), resolved):
            case idempotency.Replay():
                return await _replayed(turn, row, record)
            case idempotency.Tell():
                return _told(turn, row, record)
            case idempotency.Failed():
                error = f"{ToolNotExecuted.__name__}: it was not done, and no attempt is left."
                return _finished(turn, row, "failed", replace(record, error=error))
            case idempotency.Run(attempt=attempt):
                update = await _run(turn, replace(row, state="started", attempt=attempt), record)
                if update is not None:
                    return update
                resolved = None
                continue
            case idempotency.Reconcile():
                word = await turn.agent.reconcile(record)
            case _:  # Ask
                word, asked = _person(turn, row, record), True
        if isinstance(word, Done | Respond):
            result = word.result if isinstance(word, Done) else word.text
            return _finished(turn, row, "succeeded", replace(record, result=result))
        if isinstance(word, Reject):
            return _finished(turn, row, "cancelled", replace(record, error=f"Cancelled: {word.reason}"))
        resolved = "not_done" if isinstance(word, NotDone | Approve) else "unknown"


def _plan(
    turn: Turn, row: JournalRow, on_doubt: Literal["tell", "ask"], resolved: Literal["not_done", "unknown"] | None
) -> idempotency.Plan:
    return idempotency.plan(
        state=row.state,
        idempotent=row.idempotent,
        attempt=row.attempt,
        attempts=turn.config.attempts,
        on_doubt=on_doubt,
        can_reconcile=turn.agent.can_reconcile(row.tool),
        resolved=resolved,
    )


def _person(turn: Turn, row: JournalRow, record: ToolCall) -> Resolution:
    """Wait for a person to say what became of a call that is in doubt."""
    if row.state != "in_doubt":
        turn.record(replace(row, state="in_doubt", error=INTERRUPTED))
    return ask(
        turn,
        key=doubt_key(row),
        call_id=row.call_id,
        name=row.tool,
        args=record.args,
        reason=f"{prompt.IN_DOUBT} ({row.error or INTERRUPTED})",
        allowed=("done", "not_done", "unknown", "reject"),
        idempotency_key=row.call_key,
    )


async def _run(turn: Turn, row: JournalRow, record: ToolCall) -> Update | None:
    """Run the tool once more and return the update, or None where the outcome is in doubt (the journal then says why)."""
    verdict = await judged(turn, "tool_args", replace(record, args=copy.deepcopy(record.args)), step=row.step, subject=record.call_id)
    if isinstance(verdict.decisive, Revise | Block):
        return _finished(turn, row, "rejected", replace(record, error=f"Refused: {verdict.findings[-1].reason}"))
    if verdict.findings:
        record = replace(record, args=verdict.payload.args)
        wrong = check_args(turn.agent.specs[record.tool_name], record.args)
        if wrong is not None:
            return _finished(turn, row, "rejected", replace(record, error=f"InvalidArguments: {wrong}"))
        if verdict.payload.result is not None:  # a person answered in the tool's place
            return _finished(turn, row, "succeeded", replace(record, result=verdict.payload.result))
    failpoint("tool.before_started")
    turn.record(row)
    await turn.durable()
    failpoint("tool.started")
    if turn.sink is not None:
        turn.emit(ToolStarted(copy.copy(record), row.step))
    try:
        done = await _executed(turn, row, record)
    except GraphBubbleUp:  # `interrupt` inside the tool is its own word that it wants to be run again, from its beginning
        turn.record(replace(turn.journal[row.call_key], state="planned", attempt=row.attempt - 1))
        await turn.durable()
        turn.pause_clock()
        raise
    failpoint("tool.executed")
    if done is None:
        return None
    update = await _judged_result(turn, turn.journal[row.call_key], done)
    failpoint("tool.end_queued")
    if not row.idempotent:
        await turn.durable()
    failpoint("tool.finished")
    return update


async def _executed(turn: Turn, row: JournalRow, record: ToolCall) -> ToolCall | None:
    """Return the record with its result or error, or None where it is not known whether the tool ran."""
    began = turn.clock.monotonic()

    def elapsed_ms() -> float:
        return (turn.clock.monotonic() - began) * 1000

    try:
        done = await called(turn.agent._execute_tool, replace(record, args=copy.deepcopy(record.args)))
        if not (hasattr(done, "result") and hasattr(done, "error")):
            raise ContractError(f"_execute_tool returned {type(done).__name__}; the ToolCall with result or error set was due.")
    except (ContractError, *outcome.PASSES):
        raise
    except Exception as error:  # noqa: BLE001  an override raised: whether the tool ran is not known
        if not row.idempotent:
            _doubt(turn, row, describe(error), elapsed_ms())
            return None
        return replace(record, error=describe(error), latency_ms=elapsed_ms())
    failed = None if done.error is None else str(done.error)
    if failed is not None and failed.startswith(OutcomeUnknown.__name__):
        _doubt(turn, row, failed.partition(":")[2].strip(), elapsed_ms())
        return None
    latency = done.latency_ms if isinstance(done.latency_ms, int | float) and done.latency_ms > 0 else elapsed_ms()
    return replace(record, result=done.result, error=failed, latency_ms=latency)


def _doubt(turn: Turn, row: JournalRow, reason: str, latency_ms: float) -> None:
    turn.record(replace(turn.journal[row.call_key], state="in_doubt", error=reason or INTERRUPTED, latency_ms=latency_ms))


async def _judged_result(turn: Turn, row: JournalRow, record: ToolCall) -> Update:
    """Let the rails look at the result, book the end of the call and return the update.

    Where a person has to look at it, the result is on record before the wait begins: the call is not made again for it.
    """
    state: Literal["failed", "succeeded"] = "failed" if record.error is not None else "succeeded"
    try:
        verdict = await judged(turn, "tool_result", copy.copy(record), step=row.step, subject=record.call_id)
    except GraphBubbleUp:
        result = None if record.result is None else make_storable(record.result).json
        turn.record(replace(row, state=state, result=result, error=record.error, latency_ms=record.latency_ms))
        raise
    if isinstance(verdict.decisive, Revise | Block):
        return _finished(turn, row, state, replace(record, result=f"The result was withheld: {verdict.findings[-1].reason}"))
    if not verdict.findings:
        return _finished(turn, row, state, record)
    shown = replace(record, result=verdict.payload.result, error=verdict.payload.error)
    only_shown = all(getattr(finding.verdict, "shown_only", False) for finding in verdict.findings)
    return _finished(turn, row, state, record if only_shown else shown, shown=shown)


# -- its end ------------------------------------------------------------------------------------------------------------------


def _finished(turn: Turn, row: JournalRow, state: Any, record: ToolCall, *, shown: ToolCall | None = None) -> Update:
    """Book the end of a call, tell those who listen, and return the tool message; `shown`: what the model reads, if not the record."""
    stored = make_storable((shown or record).result)
    if stored.changed and state == "succeeded":
        turn.warn(f"{record.tool_name}: {stored.changed}", step=row.step)
    result = None if record.result is None else stored.json
    row = turn.finished(row, record, state=state, result=result, error=record.error, latency_ms=record.latency_ms)
    if turn.sink is not None:
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


async def _replayed(turn: Turn, row: JournalRow, record: ToolCall) -> Update:
    """The call ended before the crash, or before a person looked at its result: the tool is not asked again."""
    known = turn.results[row.call_key]
    return await _judged_result(turn, row, replace(record, result=known.result, error=known.error, latency_ms=known.latency_ms))


def _told(turn: Turn, row: JournalRow, record: ToolCall) -> Update:
    """Never guess: the model is told that the outcome is unknown, and the tool is not run again."""
    reason = row.error if row.state == "in_doubt" and row.error else INTERRUPTED
    known = reason if reason.startswith(OutcomeUnknown.__name__) else f"{OutcomeUnknown.__name__}: {prompt.IN_DOUBT} ({reason})"
    return _finished(turn, row, "in_doubt", replace(record, result=None, error=known, latency_ms=row.latency_ms))
