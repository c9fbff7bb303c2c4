"""A person's word: checked, written down as a note of the turn that waits for it, under that turn's own lease.

The lease is what makes two words at once (a double click, two operators) one: the second finds the turn at work, or nothing that
waits. Without it, the second could write "it goes on" over a turn that had ended meanwhile.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent_graph import resolutions
from agent_graph.decisions.results import make_storable
from agent_graph.errors import AgentGraphError, ConfigError, RunConflict, RunInProgress, RunNotFound
from agent_graph.failpoints import failpoint
from agent_graph.runtime.account import stored_run, to_result
from agent_graph.runtime.owner import Owner
from agent_graph.runtime.turn import RESOLUTION
from agent_graph.storage.port import Claim, NoteRow, TurnRequest, TurnRow

if TYPE_CHECKING:
    from agent_graph.resolutions import Resolution
    from agent_graph.types import AgentRun

__all__ = ["settle"]


async def settle(agent: Any, request: TurnRequest, call_id: str, word: Resolution) -> AgentRun:
    """Write the word down; in the AgentRun returned, `pending` is what is still waited for."""
    owner = Owner(asyncio.current_task())  # kept until the word is on disk: the lease lives as long
    claim: Claim = await agent.storage.claim(replace(request, settles=True), owner)
    row = _granted(agent, claim, request.run_id, call_id)
    failpoint("word.claimed")
    run = await stored_run(agent.storage, row)
    try:
        entry = _entry(agent, run, call_id, resolutions.to_json(word))
    except AgentGraphError:
        await _give_back(agent, replace(row, status="waiting"), claim.fence)
        raise
    body = make_storable({"key": entry["key"], "outcome": resolutions.to_json(word)}).json
    agent.storage.put(NoteRow(key=row.key, step=0, kind=RESOLUTION, body=body), fence=claim.fence)
    failpoint("word.queued")
    run.pending = [other for other in run.pending if other is not entry]
    status: Any = "waiting" if run.pending else "stopped"
    await _give_back(agent, replace(row, status=status, result=to_result(run) if run.pending else None), claim.fence)
    return run


def _granted(agent: Any, claim: Claim, run_id: str, call_id: str) -> TurnRow:
    if claim.outcome == "not_found":
        raise RunNotFound(f"run {run_id!r}: nothing of this name is in {agent.storage.location}.", run_id=run_id)
    if claim.outcome == "busy":
        raise RunInProgress(f"run {run_id!r} is being worked on: {call_id!r} has had its answer, or the turn goes on.", run_id=run_id)
    if claim.outcome == "changed":  # whoever goes on with it then would refuse: nothing is written down
        raise RunConflict(f"run {run_id!r}: {claim.reason}", run_id=run_id)
    if claim.outcome != "resume" or claim.turn is None:
        raise _nothing(run_id, call_id, "nothing")
    return claim.turn


def _entry(agent: Any, run: AgentRun, call_id: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of `pending` that `said` is on. Raises RunConflict or ConfigError."""
    entry = next((entry for entry in run.pending if entry["call_id"] == call_id), None)
    if entry is None:
        raise _nothing(run.run_id, call_id, ", ".join(repr(entry["call_id"]) for entry in run.pending))
    if said["type"] not in entry["allowed"]:
        raise ConfigError(f"outcome: {said['type']!r} makes no sense for {call_id!r}; one of {', '.join(entry['allowed'])} is due.")
    asks = entry.get("guardrail")
    if asks is not None and asks not in {rail.name for rail in agent.guardrails}:
        raise ConfigError(
            f"outcome: the guardrail {asks!r} asked about {call_id!r}, and this agent has none of that name, so nobody would "
            "hear the answer. Resolve it with the agent that has it."
        )
    return entry


def _nothing(run_id: str, call_id: str, waits: str) -> RunConflict:
    return RunConflict(f"run {run_id!r}: {call_id!r} waits for nobody's word; what waits: {waits}.", run_id=run_id)


async def _give_back(agent: Any, row: TurnRow, fence: int) -> None:
    """Write the turn's row and return once all is on disk and the turn is free."""
    agent.storage.put(row, fence=fence)
    await agent.storage.release(row.key, fence=fence)
