"""What is left of a turn that another input closed: the memory of it, and the word to the observability backend.

A turn is closed by the claim that begins the next one (`Storage.claim`). What follows here is done before the next one begins, and is
known to be done by the closed turn's `delivered` mark: killed in between, whoever resumes the next turn does it. So each is told at
least once.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent_graph.messages import Conversion
from agent_graph.runtime.account import stored_run
from agent_graph.runtime.deadline import within
from agent_graph.runtime.foreign import called
from agent_graph.runtime.memory import SAVE_S
from agent_graph.runtime.transcript import repaired
from agent_graph.runtime.turn import kept_back

if TYPE_CHECKING:
    from agent_graph.storage.port import Claim, JournalRow, TurnRow

__all__ = ["close_earlier"]

CLOSED = "closed: it was given up, and the run went on with another input"


async def close_earlier(agent: Any, claim: Claim) -> None:
    """Finish the turns that were closed before the one of `claim`, where that has not been done yet."""
    assert claim.turn is not None, "a granted claim names its turn"
    key = claim.turn.key
    if key.turn == 1 or (claim.closed is None and claim.outcome != "resume"):
        return
    for row in await agent.storage.turns(key.namespace, key.run_id):
        if row.status == "closed" and not row.delivered:
            await _remember(agent, row)
            mine = claim.closed is not None and claim.closed.key == row.key
            await _tell(agent, row, calls=claim.died or not mine)  # not mine: whoever closed it was killed before it had told
            agent.storage.put(replace(row, delivered=True), fence=claim.fence)


async def _remember(agent: Any, row: TurnRow) -> None:
    """Save what the turn had come to: its open calls are answered, each by what the journal knows of it."""
    state = await agent.graph.aget_state({"configurable": {"thread_id": row.key.thread_id}})
    if state.values.get("turn") != row.key.turn or not state.values.get("messages"):
        return
    answers = {call.call_id: text for call in await agent.storage.journal(row.key) if (text := _left_behind(call)) is not None}
    messages = repaired(state.values["messages"], answers)
    with contextlib.suppress(Exception):  # a memory that fails now will fail the next turn's load, which says so
        await within(SAVE_S, called(agent.memory.save, row.key.run_id, Conversion().to_spec(messages)))


async def _tell(agent: Any, row: TurnRow, *, calls: bool) -> None:
    """Tell the turn's end; `calls`: those of its tool calls too that were over, since it is not known whether they were told."""
    if agent.observability is None:
        return
    run = await stored_run(agent.storage, row)
    kept = kept_back(await agent.storage.notes(row.key)) if calls else set[str]()
    for call in run.tool_calls if calls else ():
        if call.idempotency_key not in kept:
            agent.recorder.tool_call(call, run.run_id)
    run.status, run.stop_reason, run.error, run.pending = "failed", "closed", CLOSED, []
    agent.recorder.run(run)
    await agent.recorder.delivered()


def _left_behind(call: JournalRow) -> str | None:
    """Return what the next turn reads of a call that was made, or may have been, and whose result its closed turn never read.

    Not the result itself: no rail may have seen it.
    """
    if call.state == "succeeded":
        return "This call was made and succeeded; the turn was cancelled before its result was read. Check before you repeat it."
    if call.state in ("started", "in_doubt") and not call.idempotent:
        return "This call was cancelled while it ran: its outcome is unknown. Check before you repeat it."
    return None
