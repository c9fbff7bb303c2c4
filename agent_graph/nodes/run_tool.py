"""run_tool: one tool call, journaled. Each call of a reply runs in its own task, so one that dies does not take its siblings along.

The journal is written *around* `_execute_tool`, so that an override cannot skip it: `started` before, the end after. What a call
that was started and never ended means is decided in `decisions/idempotency.py`. A tool's failure is told to the model; only a broken
port ends the turn.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig

from agent_graph.decisions import idempotency, prompt
from agent_graph.decisions.results import make_storable
from agent_graph.decisions.tools import ToolSpec, canonical_json, check_args
from agent_graph.errors import ContractError, OutcomeUnknown, ToolNotFound, describe
from agent_graph.events import ToolFinished, ToolStarted
from agent_graph.guardrails import Ask, Block, Revise
from agent_graph.messages import ensure_id
from agent_graph.nodes import outcome
from agent_graph.nodes.guard import judged
from agent_graph.state import Call, turn_of
from agent_graph.storage.port import JournalRow
from agent_graph.types import ToolCall

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["run_tool"]

REPEATS = 3
"""So many identical calls with identical results in a row are pointed out to the model."""


async def run_tool(call: Call, config: RunnableConfig) -> dict[str, Any]:
    """Run one call and return its result as a tool message."""
    turn = await turn_of(call, config)
    with turn.at_work():
        row, record = _planned(turn, call)
        try:
            return await _life(turn, call, row, record)
        except outcome.PASSES:
            raise
        except Exception as error:
            return _broken(turn, row, record, error)


def _planned(turn: Turn, call: Call) -> tuple[JournalRow, ToolCall]:
    args = call["args"] if isinstance(call["args"], dict) else {}
    key = idempotency.call_key(
        namespace=turn.key.namespace,
        run_id=turn.key.run_id,
        turn=turn.key.turn,
        step=call["step"],
        index=call["index"],
        tool=call["name"],
        args=args,
    )
    row = turn.journal.get(key) or JournalRow(
        key=turn.key,
        call_key=key,
        step=call["step"],
        index=call["index"],
        call_id=call["id"],
        tool=call["name"],
        args=canonical_json(args),
        idempotent=turn.agent.is_idempotent(call["name"]),
        state="planned",
    )
    return row, ToolCall(tool_name=call["name"], args=args, call_id=call["id"], idempotency_key=key)


async def _life(turn: Turn, call: Call, row: JournalRow, record: ToolCall) -> dict[str, Any]:
    spec = turn.agent.specs.get(call["name"])
    refusal = _unusable(spec, call, turn)
    if refusal is not None:
        return _finished(turn, row, "rejected", replace(record, error=refusal))
    known = turn.journal.get(row.call_key)
    match idempotency.plan(
        state=None if known is None else known.state,
        idempotent=row.idempotent,
        attempt=row.attempt,
        attempts=turn.config.attempts,
        on_doubt="tell",
    ):
        case idempotency.Replay():
            return _replayed(turn, row)
        case idempotency.Tell():
            return _in_doubt(turn, row, record, "the process died while it ran")
        case idempotency.Run(attempt=attempt):
            return await _run(turn, replace(row, state="started", attempt=attempt), record, call["step"])
        case other:
            raise AssertionError(f"on_doubt='tell' gave {other!r}")


def _unusable(spec: ToolSpec | None, call: Call, turn: Turn) -> str | None:
    """Return why a call cannot be run, in words that let the model repair it; None where it can."""
    if spec is None:
        names = ", ".join(sorted(turn.agent.specs)) or "none"
        return f"{ToolNotFound.__name__}: there is no tool {call['name']!r}. The tools are: {names}."
    if call["problem"] is not None:
        return f"InvalidArguments: {call['problem']}"
    wrong = check_args(spec, call["args"])
    return None if wrong is None else f"InvalidArguments: {wrong}"


async def _run(turn: Turn, row: JournalRow, record: ToolCall, step: int) -> dict[str, Any]:
    verdict = await judged(turn, "tool_args", copy.deepcopy(record), step=step)
    if isinstance(verdict.decisive, Revise | Block | Ask):
        return _finished(turn, row, "rejected", replace(record, error=f"Refused: {verdict.findings[-1].reason}"))
    turn.record(row)
    await turn.durable()
    turn.emit(ToolStarted(copy.copy(record), step))
    asked = replace(record, args=verdict.payload.args if verdict.findings else copy.deepcopy(record.args))
    began = turn.clock.monotonic()
    try:
        done = await turn.agent._execute_tool(asked)
        _check_shape(done)
    except (ContractError, *outcome.PASSES):
        raise
    except Exception as error:  # an override of `_execute_tool` raised: whether the tool ran is not known
        if not row.idempotent:
            return _in_doubt(turn, row, record, describe(error))
        done = replace(record, error=describe(error))
    elapsed_ms = (turn.clock.monotonic() - began) * 1000
    latency = done.latency_ms if isinstance(done.latency_ms, int | float) and done.latency_ms > 0 else elapsed_ms
    record = replace(record, result=done.result, error=None if done.error is None else str(done.error), latency_ms=latency)
    if record.error is not None and record.error.startswith(OutcomeUnknown.__name__):
        return _in_doubt(turn, row, record, record.error.partition(":")[2].strip() or "its end was not seen")
    update = await _result_judged(turn, row, record, step)
    if not row.idempotent:
        await turn.durable()
    return update


async def _result_judged(turn: Turn, row: JournalRow, record: ToolCall, step: int) -> dict[str, Any]:
    verdict = await judged(turn, "tool_result", copy.copy(record), step=step)
    if isinstance(verdict.decisive, Revise | Block | Ask):
        shown = f"The result was withheld: {verdict.findings[-1].reason}"
        return _finished(turn, row, "failed" if record.error else "succeeded", replace(record, result=shown))
    if verdict.findings and isinstance(verdict.payload, ToolCall):
        record = replace(record, result=verdict.payload.result, error=verdict.payload.error)
    return _finished(turn, row, "failed" if record.error is not None else "succeeded", record)


def _check_shape(done: Any) -> None:
    if not (hasattr(done, "result") and hasattr(done, "error")):
        raise ContractError(f"ToolBackend.execute returned {type(done).__name__}; the ToolCall with result or error set was due.")


def _finished(turn: Turn, row: JournalRow, state: Any, record: ToolCall) -> dict[str, Any]:
    """Book the end of a call, tell those who listen, and return the tool message."""
    stored = make_storable(record.result)
    if stored.changed and state == "succeeded":
        turn.warn(f"{record.tool_name}: {stored.changed}", step=row.step)
    row = replace(
        row,
        state=state,
        result=None if record.result is None else stored.json,
        error=record.error,
        latency_ms=record.latency_ms,
    )
    turn.finished(row, record)
    turn.emit(ToolFinished(copy.copy(record), row.step))
    update: dict[str, Any] = {"messages": [_message(turn, row, stored.text)]}
    limit = turn.config.max_repeated_calls
    if limit is not None and _repeats(turn, row) >= limit:
        update["outcome"] = outcome.of_stop(f"max_repeated_calls: {_repeats(turn, row)} of {limit}")
    return update


def _message(turn: Turn, row: JournalRow, text: str) -> ToolMessage:
    content = text if row.error is None else f"Error: {row.error}"
    if _repeats(turn, row) >= REPEATS:
        content = f"{content}\n\n{prompt.REPEATED}"
    message = ToolMessage(content, tool_call_id=row.call_id, name=row.tool, status="success" if row.error is None else "error")
    ensure_id(message)
    return message


def _repeats(turn: Turn, row: JournalRow) -> int:
    """Return how many calls in a row, this one the last, were the same and had the same result."""
    count = 0
    for other in reversed(sorted(turn.journal.values(), key=lambda entry: (entry.step, entry.index))):
        if (other.step, other.index) > (row.step, row.index):
            continue
        if (other.tool, other.args, other.result, other.error) != (row.tool, row.args, row.result, row.error):
            break
        count += 1
    return count


def _replayed(turn: Turn, row: JournalRow) -> dict[str, Any]:
    """The call ended before the crash: its result is on record, the tool is not asked again."""
    text = "" if row.result is None else make_storable(turn.results[row.call_key].result).text
    return {"messages": [_message(turn, row, text)]}


def _in_doubt(turn: Turn, row: JournalRow, record: ToolCall, reason: str) -> dict[str, Any]:
    """Never guess: the model is told that the outcome is unknown, and the tool is not run again."""
    record = replace(record, result=None, error=f"{OutcomeUnknown.__name__}: {prompt.IN_DOUBT} ({reason})")
    return _finished(turn, row, "in_doubt", record)


def _broken(turn: Turn, row: JournalRow, record: ToolCall, error: Exception) -> dict[str, Any]:
    update = _finished(turn, row, "failed", replace(record, error=describe(error)))
    return {**update, "outcome": outcome.of_error(error, turn)}
