"""guard: entered when a rail does not simply allow a reply, or must wait or spend to judge it.

No effect leaves before every verdict on it is in: the tools of a reply run, and its text is handed on, only from here or after every
rail allowed it in `call_model`. The paid reply is on disk before a rail that waits is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from agent_graph.decisions import routing
from agent_graph.events import GuardrailVerdict, TextDelta
from agent_graph.guardrails import Ask, Block, Finding, Judgement, Revise, judge, stages_of
from agent_graph.messages import ensure_id
from agent_graph.nodes import outcome
from agent_graph.resolutions import Edit, Reject, Resolution, Respond
from agent_graph.runtime.asking import ask
from agent_graph.runtime.transcript import last_reply, text_of
from agent_graph.state import RunState, turn_of

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["guard", "judged", "rails_at"]

Next = Literal["run_tool", "call_model", "finish"]

ALLOWED = {
    "input": ("approve", "edit", "reject"),
    "reply": ("approve", "edit", "reject"),
    "tool_args": ("approve", "edit", "reject", "respond"),
    "tool_result": ("approve", "edit", "reject"),
    "output": ("approve", "edit", "reject", "respond"),
}
"""What a person may say at a stage."""
SENT_BACK = "Not run: the reply that asked for this was sent back."


def rails_at(turn: Turn, stage: str) -> list[Any]:
    """Return the rails that look at `stage`, in order."""
    return [rail for rail in turn.agent.guardrails if stage in stages_of(rail)]


async def judged(turn: Turn, stage: str, payload: Any, *, step: int, subject: str = "") -> Judgement:
    """Return what the rails say of `payload`, every verdict but Allow noted and told to whoever listens.

    An Ask waits here for a person, and the rails after it are then asked too: the Judgement that is returned never holds one.
    `subject` tells two payloads of one stage and step apart: a tool call's id.
    """
    rails, findings = list(turn.agent.guardrails), list[Finding]()
    while True:
        judgement = await judge(rails, stage, payload, turn.run, time_left_s=turn.time_left_s)
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


async def guard(state: RunState, config: RunnableConfig) -> Command[Next]:
    """Let every rail judge the newest reply, and do what the decisive verdict says."""
    turn = await turn_of(state, config)
    with turn.at_work():
        try:
            return await _guarded(turn, state)
        except outcome.PASSES:
            raise
        except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
            return Command(update={"outcome": outcome.of_error(error, turn)}, goto="finish")


async def _guarded(turn: Turn, state: RunState) -> Command[Next]:
    from agent_graph.nodes.call_model import sends  # the two nodes share this one edge

    reply, step, landing = last_reply(state["messages"]), state["step"], state.get("landing") is not None
    assert reply is not None, "guard is entered with a reply"
    judgement, reply, changed = await _verdict(turn, state, reply)
    if isinstance(judgement.decisive, Block):
        return _blocked(judgement.findings[-1])
    if isinstance(judgement.decisive, Revise):
        sent_back = _sent_back(turn, state, reply, judgement.decisive, judgement.findings[-1], landing=landing)
        if sent_back is not None:
            return sent_back
    if turn.streaming and turn.config.hold_text and text_of(reply):
        turn.emit(TextDelta(text_of(reply), step))
    calls = sends(turn, reply, step)
    runs = routing.after_reply(judged=True, allowed=True, calls=len(calls), landing=landing) == "run_tool"
    return Command(update={"messages": [reply]} if changed else {}, goto=calls if runs else "finish")


async def _verdict(turn: Turn, state: RunState, reply: AIMessage) -> tuple[Judgement, AIMessage, bool]:
    """Judge the reply, and where it is an answer the output too; apply what a rail replaced."""
    message, step = turn.conversion.to_spec([reply])[0], state["step"]
    judgement = await judged(turn, "reply", message, step=step)
    changed = judgement.payload is not message
    if changed:
        replaced = turn.conversion.to_langchain([judgement.payload])[0]
        reply = reply.model_copy(update={"content": replaced.content})
    if judgement.decisive is not None or reply.tool_calls or reply.invalid_tool_calls:
        return judgement, reply, changed
    final = await judged(turn, "output", text_of(reply), step=step)
    if final.payload != text_of(reply):
        reply, changed = reply.model_copy(update={"content": final.payload}), True
    return final, reply, changed


def _sent_back(turn: Turn, state: RunState, reply: AIMessage, verdict: Revise, finding: Finding, *, landing: bool) -> Command[Next] | None:
    """Return the way back to the model, or what a Revise counts as once it is used up; None to let the reply pass."""
    done = dict(state.get("revisions") or {})
    if landing or done.get(finding.rail, 0) >= verdict.limit:
        if verdict.after == "block" and not (landing and not text_of(reply).strip()):
            return _blocked(finding)
        turn.warn(f"{finding.rail}: {finding.reason}", step=state["step"])
        return None
    done[finding.rail] = done.get(finding.rail, 0) + 1
    open_calls = [str(call["id"]) for call in (*reply.tool_calls, *reply.invalid_tool_calls)]
    added: list[BaseMessage] = [ToolMessage(SENT_BACK, tool_call_id=call_id, status="error") for call_id in open_calls]
    added.append(HumanMessage(verdict.feedback))
    for message in added:
        ensure_id(message)
    kept = state.get("kept", "") + text_of(reply) if verdict.keep_text else ""
    return Command(update={"messages": added, "revisions": done, "kept": kept}, goto="call_model")


def _blocked(finding: Finding) -> Command[Next]:
    end = outcome.ended("failed", f"guardrails: {finding.rail}: {finding.reason}", "blocked")
    return Command(update={"outcome": end}, goto="finish")
