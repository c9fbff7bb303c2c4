"""guard: entered when a rail does not simply allow a reply, or must wait or spend to judge it.

No effect leaves before every verdict on it is in: the tools of a reply run, and its text is handed on, only from here or after every
rail allowed it in `call_model`. The paid reply is on disk before a rail that waits is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from agent_graph.decisions import routing
from agent_graph.events import TextDelta
from agent_graph.guardrails import Block, Finding, Judgement, Revise
from agent_graph.messages import ensure_id
from agent_graph.nodes import outcome
from agent_graph.nodes.call_model import sends
from agent_graph.runtime.judging import holds_text, judged, withheld
from agent_graph.runtime.transcript import last_reply, text_of
from agent_graph.state import RunState, turn_of

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["guard"]

Next = Literal["run_tool", "call_model", "finish"]

SENT_BACK = "Not run: the reply that asked for this was sent back."


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
    reply, step = last_reply(state["messages"]), state["step"]
    landing = state.get("landing") is not None or state.get("ended_by") is not None  # either way nothing more is called
    assert reply is not None, "guard is entered with a reply"
    judgement, reply, changed = await _verdict(turn, state, reply)
    if isinstance(judgement.decisive, Block):
        return _blocked(reply, judgement.findings[-1])
    if isinstance(judgement.decisive, Revise):
        sent_back = _sent_back(turn, state, reply, judgement.decisive, judgement.findings[-1], landing=landing)
        if sent_back is not None:
            return sent_back
    if turn.streaming and holds_text(turn) and text_of(reply) and not _ran_before(state):
        turn.emit(TextDelta(text_of(reply), step))
    calls = sends(turn, reply, step)
    runs = routing.after_reply(allowed=True, calls=len(calls), landing=landing) == "run_tool"
    return Command(update={"messages": [reply]} if changed else {}, goto=calls if runs else "finish")


def _ran_before(state: RunState) -> bool:
    """Return whether a hook ended the turn at a reply whose tools have run: its text was told when they did."""
    messages = state["messages"]
    newest = next((message for message in reversed(messages) if isinstance(message, AIMessage | ToolMessage)), None)
    return state.get("ended_by") is not None and isinstance(newest, ToolMessage)


async def _verdict(turn: Turn, state: RunState, reply: AIMessage) -> tuple[Judgement, AIMessage, bool]:
    """Judge the reply, and where it is an answer the output too; apply what a rail replaced."""
    message, step = turn.conversion.to_spec([reply])[0], state["step"]
    judgement = await judged(turn, "reply", message, step=step)
    changed = judgement.payload is not message
    if changed:
        replaced = turn.conversion.to_langchain([judgement.payload])[0]
        reply = reply.model_copy(update={"content": replaced.content})
    calls = bool(reply.tool_calls or reply.invalid_tool_calls) and state.get("ended_by") is None
    if judgement.decisive is not None or calls:
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
            return _blocked(reply, finding)
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


def _blocked(reply: AIMessage, finding: Finding) -> Command[Next]:
    """End the turn; the reply's place in the conversation, and so in the memory, is kept by a message that does not hold its text."""
    end = outcome.ended("failed", f"guardrails: {finding.rail}: {finding.reason}", "blocked")
    return Command(update={"messages": [withheld(reply, finding)], "outcome": end}, goto="finish")
