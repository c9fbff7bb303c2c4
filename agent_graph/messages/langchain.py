"""The specification's `Message` as a LangChain message: what was read, and the original beside it where that is not all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from agent_graph.decisions.replies import Reply
from agent_graph.messages.fields import (
    CLASSES,
    Answer,
    blocks_of,
    extras_of,
    fields_from,
    mapping,
    reply_fields,
    text_of,
    with_text,
    without_extras,
)
from agent_graph.messages.kept import keep
from agent_graph.messages.spec import role_of, to_spec
from agent_graph.types import Message

__all__ = ["to_ai_message", "to_langchain"]


def to_langchain(message: Message, answers: Sequence[Answer]) -> BaseMessage:
    """Return `message`, which the tool messages of `answers` follow, as LangChain's.

    ContractError for an unknown role, or content that is no text.
    """
    built = _build(*fields_from(message, answers))
    if built is None or role_of(built).value != getattr(message.role, "value", message.role):
        kind, fields = fields_from(without_extras(message), answers)
        built = CLASSES[kind](**fields)
    again = to_spec(built)
    if again.content != message.content or again.metadata != message.metadata:
        keep(built, message.metadata)
    return built


def to_ai_message(answer: Message, reply: Reply) -> AIMessage:
    """Return a backend's `answer`, read as `reply`, as LangChain's; converted back, its metadata is what it was.

    What the answer holds of a LangChain model's own (blocks, ids) is brought back. ContractError if its content is no
    text.
    """
    metadata, content = mapping(answer.metadata), blocks_of(answer)
    own, extras = reply_fields(reply, metadata), extras_of(metadata)
    own["response_metadata"] = {**mapping(extras.get("response_metadata")), **own["response_metadata"]}
    fields = {**extras, **own, "content": with_text(extras.get("content", content), text_of(content))}
    message = _build("ai", fields)
    if not isinstance(message, AIMessage):
        message = AIMessage(content=content, **own)
    keep(message, answer.metadata)
    return message


def _build(kind: str, fields: dict[str, Any]) -> BaseMessage | None:
    """Return the message, or None where extras of a foreign hand do not fit LangChain's class."""
    try:
        return CLASSES[kind](**fields)
    except (ValueError, TypeError):
        return None
