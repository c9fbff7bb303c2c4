"""The transcript in the state, kept so that every provider accepts it."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agent_graph.decisions import pairing

__all__ = ["last_reply", "repaired", "text_of"]

CANCELLED = "This call was cancelled: it has no result."


def repaired(messages: Sequence[BaseMessage], answers: dict[str, str] | None = None) -> Sequence[BaseMessage]:
    """Return `messages` with every tool call answered right after its reply; the list itself where nothing had to change.

    `answers` says what a call without a result is answered with, by call id.
    """

    def answer(at: int, call_id: str) -> BaseMessage:
        return ToolMessage((answers or {}).get(call_id, CANCELLED), tool_call_id=call_id, status="error")

    views = [_view(message) for message in messages]
    found = pairing.repairs(views)
    if not found.drop and not found.missing:
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


def text_of(message: BaseMessage) -> str:
    """Return the readable text of a message, without thinking or tool blocks."""
    return message.text
