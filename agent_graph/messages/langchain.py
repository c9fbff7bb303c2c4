"""The specification's `Message` as a LangChain message: what was read, and the original beside it where that is not all."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage

from agent_graph.decisions.plain import plain
from agent_graph.decisions.replies import Reply
from agent_graph.messages.fields import Answer, blocks_of, build, build_of, copied, extras_of, mapping, reply_fields, text_of, with_text
from agent_graph.messages.kept import keep
from agent_graph.messages.spec import to_spec
from agent_graph.types import Message

__all__ = ["to_ai_message", "to_langchain"]


def to_langchain(message: Message, answers: Sequence[Answer]) -> BaseMessage:
    """Return `message`, whose metadata is plain and a copy, and which the tool messages of `answers` follow, as LangChain's.

    ContractError for an unknown role, or content that is no text.
    """
    built = build(message, answers)
    again = to_spec(built)
    if again.content != message.content or copied(again.metadata) != message.metadata:
        keep(built, message.metadata)
    return built


def to_ai_message(answer: Message, reply: Reply) -> AIMessage:
    """Return a backend's `answer`, read as `reply`, as LangChain's; converted back, its metadata is what it was.

    What the answer holds of a LangChain model's own (blocks, ids) is brought back. ContractError if its content is no
    text.
    """
    copy = plain(answer.metadata)
    metadata, content = mapping(copy), blocks_of(answer)
    own, extras = reply_fields(reply, metadata), extras_of(metadata)
    own["response_metadata"] = {**mapping(extras.get("response_metadata")), **own["response_metadata"]}
    fields = {**extras, **own, "content": with_text(extras.get("content", content), text_of(content))}
    message = build_of("ai", fields)
    if not isinstance(message, AIMessage):
        message = AIMessage(content=content, **own)
    keep(message, copy)
    return message
