"""The transcript in the state, kept so that every provider accepts it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.types import Overwrite

from agent_graph.decisions import pairing

__all__ = ["answerable", "last_reply", "repaired", "text_of", "update_of"]

CANCELLED = "This call was cancelled: it has no result."
_CALL_IDS = {"function_call": "call_id", "tool_use": "id", "tool_call": "id"}
"""Content blocks that say a tool call once more, and where each has its id."""
_THOUGHTS = frozenset({"reasoning", "thinking", "redacted_thinking"})
"""Content blocks that hold a thought (OpenAI's responses, Anthropic)."""


def repaired(messages: Sequence[BaseMessage], answers: dict[str, str] | None = None) -> Sequence[BaseMessage]:
    """Return `messages` with every tool call answered right after its reply; the list itself where nothing had to change.

    `answers` says what a call without a result is answered with, by call id.
    """

    def answer(at: int, call_id: str) -> BaseMessage:
        return ToolMessage((answers or {}).get(call_id, CANCELLED), tool_call_id=call_id, status="error")

    views = [_view(message) for message in messages]
    if not pairing.repairs(views):
        return messages
    return pairing.repaired(messages, views, answer)


def _view(message: BaseMessage) -> pairing.View:
    if isinstance(message, AIMessage):
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        return pairing.View("assistant", tuple(str(call["id"]) for call in calls), None)
    if isinstance(message, ToolMessage):
        return pairing.View("tool", (), message.tool_call_id)
    return pairing.View({"human": "user"}.get(message.type, message.type), (), None)


def last_reply(messages: Sequence[BaseMessage]) -> AIMessage | None:
    """Return the newest reply of the model, or None."""
    return next((message for message in reversed(messages) if isinstance(message, AIMessage)), None)


def update_of(known: Sequence[BaseMessage], messages: Sequence[BaseMessage]) -> Any:
    """Return what brings the state from `known` to `messages`: what comes after, where that is all; writing the rest again would cost
    each time the whole conversation."""
    goes_on = len(messages) > len(known) and all(map(is_, known, messages))
    return list(messages[len(known) :]) if goes_on else Overwrite(list(messages))


def text_of(message: BaseMessage) -> str:
    """Return the readable text of a message, without thinking or tool blocks."""
    return message.text


def answerable(reply: AIMessage, step: int) -> AIMessage:
    """Make `reply` one that a conversation can go on behind, and return it: each call with an id of its own, no thought at its end."""
    _give_ids(reply, step)
    if not (reply.tool_calls or reply.invalid_tool_calls):
        _drop_last_thoughts(reply)
    return reply


def _drop_last_thoughts(reply: AIMessage) -> None:
    """Take out thoughts that led to nothing: providers refuse a conversation with one, now and for ever after."""
    if isinstance(reply.content, list) and reply.content:
        kept = list(reply.content)
        while kept and isinstance(kept[-1], dict) and kept[-1].get("type") in _THOUGHTS:
            kept.pop()
        reply.content = kept or ""
    if not reply.content:
        reply.additional_kwargs = {name: value for name, value in reply.additional_kwargs.items() if name != "reasoning"}


def _give_ids(reply: AIMessage, step: int) -> None:
    """Give every tool call of `reply` an id of its own: a provider may leave ids out, and a repeated one could not be
    answered. Content blocks that repeat a call (OpenAI's responses, Anthropic) get the same id."""
    given: dict[str, list[str]] = {}
    seen: set[str] = set()
    for index, call in enumerate([*reply.tool_calls, *reply.invalid_tool_calls]):
        told = call["id"] or ""
        own = f"{told}_{index}" if told in seen else told or f"call_{step}_{index}"
        call["id"] = own
        seen.add(own)
        given.setdefault(told, []).append(own)
    for block in reply.content if isinstance(reply.content, list) else ():
        key = _CALL_IDS.get(str(block.get("type"))) if isinstance(block, dict) else None
        if isinstance(block, dict) and key is not None and given.get(block.get(key) or ""):
            block[key] = given[block.get(key) or ""].pop(0)
