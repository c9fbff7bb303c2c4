"""Asking the rails for a live turn: every verdict but Allow is noted and told, and an Ask waits for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.messages import AIMessage, HumanMessage

from agent_graph.events import GuardrailVerdict
from agent_graph.guardrails import Ask, Block, Finding, Guardrail, Judgement, judge
from agent_graph.resolutions import Edit, Reject, Resolution, Respond
from agent_graph.runtime.asking import ask

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

M = TypeVar("M", AIMessage, HumanMessage)

__all__ = ["all_pure", "holds_text", "judged", "may_change_text", "rails_at", "withheld"]

ALLOWED = {
    "input": ("approve", "edit", "reject"),
    "reply": ("approve", "edit", "reject"),
    "tool_args": ("approve", "edit", "reject", "respond"),
    "tool_result": ("approve", "edit", "reject"),
    "output": ("approve", "edit", "reject", "respond"),
}
"""What a person may say at a stage."""


def rails_at(turn: Turn, stage: str) -> Sequence[Guardrail]:
    """Return the rails that look at `stage`, in order."""
    rails: Sequence[Guardrail] = turn.agent.rails[stage]
    return rails


def all_pure(rails: Sequence[Guardrail]) -> bool:
    """Return whether none of `rails` waits for anything."""
    return all(getattr(rail, "pure", False) for rail in rails)


async def judged(turn: Turn, stage: str, payload: Any, *, step: int, subject: str = "") -> Judgement:
    """Return what the rails say of `payload`, every verdict but Allow noted and told to whoever listens.

    An Ask waits here for a person, and the rails after it are then asked too: the Judgement that is returned never holds one.
    `subject` tells two payloads of one stage and step apart: a tool call's id.
    """
    rails, findings = rails_at(turn, stage), list[Finding]()
    while True:
        left = None if all_pure(rails) else turn.work_time_s
        judgement = await judge(rails, stage, payload, turn.run, time_left_s=left)
        findings += judgement.findings
        _book(turn, judgement.findings, step)
        if not isinstance(judgement.decisive, Ask):
            return Judgement(judgement.payload, tuple(findings), judgement.decisive)
        asking = judgement.findings[-1]
        word = ask(
            turn,
            key=f"{stage}:{step}:{subject}:{asking.rail}",
            call_id=subject or f"{stage}:{step}",
            name=getattr(judgement.payload, "tool_name", stage),
            args=_shown(judgement.payload),
            reason=asking.reason,
            allowed=ALLOWED[stage],
            guardrail=asking.rail,
            idempotency_key=getattr(judgement.payload, "idempotency_key", None),
        )
        if isinstance(word, Reject):
            block = Block(word.reason)
            return Judgement(judgement.payload, (*findings, Finding(asking.rail, stage, block, word.reason)), block)
        payload = _after_the_word(stage, judgement.payload, word)
        rails = rails[[rail.name for rail in rails].index(asking.rail) + 1 :]


def _book(turn: Turn, findings: Sequence[Finding], step: int) -> None:
    for finding in findings:
        verdict = type(finding.verdict).__name__.lower()
        body = {"rail": finding.rail, "stage": finding.stage, "verdict": verdict, "reason": finding.reason}
        turn.note("verdict", body, step=step)
        turn.emit(GuardrailVerdict(finding.rail, finding.stage, verdict, finding.reason, step))


def _shown(payload: Any) -> dict[str, Any]:
    """Return what a person has to see to decide."""
    if isinstance(payload, str):
        return {"text": payload}
    if hasattr(payload, "content"):
        return {"text": payload.content}
    return dict(payload.args) if payload.result is None else {**payload.args, "result": payload.result}


def _after_the_word(stage: str, payload: Any, word: Resolution) -> Any:
    """Return the payload to go on with after a person's word that is no Reject."""
    if not isinstance(word, Edit | Respond):
        return payload
    value = word.value if isinstance(word, Edit) else word.text
    if stage == "tool_args":
        return replace(payload, args=value) if isinstance(word, Edit) else replace(payload, result=value)
    if stage == "tool_result":
        return replace(payload, result=value)
    return replace(payload, content=str(value)) if stage == "reply" else str(value)


def holds_text(turn: Turn) -> bool:
    """Return whether streamed text waits for its verdicts: a rail may still change it, and the policy is to hold it."""
    return turn.config.hold_text and may_change_text(turn)


def may_change_text(turn: Turn) -> bool:
    """Return whether a rail may hold up or change what the model writes."""
    return any(getattr(rail, "changes_text", True) for stage in ("reply", "output") for rail in rails_at(turn, stage))


def withheld(message: M, finding: Finding) -> M:
    """Return what stands in the place of a message that a rail blocked: its id, and nothing that it said or asked for."""
    return type(message)(f"(withheld by the guardrail {finding.rail}: {finding.reason})", id=message.id)
