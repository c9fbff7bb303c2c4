"""What a `Message` stands for, as the fields of LangChain's class for its role: tolerant reading, nothing is written here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from agent_graph.decisions.plain import plain
from agent_graph.decisions.replies import Call, Reply, Usage, read_reply
from agent_graph.errors import AgentGraphError, ContractError
from agent_graph.types import Message, MessageRole

__all__ = [
    "CLASSES",
    "EXTRAS",
    "Answer",
    "answers_after",
    "blocks_of",
    "build",
    "build_of",
    "copied",
    "extras_of",
    "fields_from",
    "is_text",
    "is_usage_metadata",
    "mapping",
    "reply_fields",
    "role_of_kind",
    "text_of",
    "with_text",
]

EXTRAS: Final = "langchain"
"""Key of `Message.metadata` under which stands what `Message` cannot hold."""

CLASSES: Final[dict[str, type[BaseMessage]]] = {
    "system": SystemMessage,
    "human": HumanMessage,
    "ai": AIMessage,
    "tool": ToolMessage,
    "chat": ChatMessage,
    "function": FunctionMessage,
}
_TYPE_OF_ROLE: Final = {
    MessageRole.SYSTEM: "system",
    MessageRole.USER: "human",
    MessageRole.ASSISTANT: "ai",
    MessageRole.TOOL: "tool",
}
_ROLE_OF_KIND: Final = {
    **{kind: role for role, kind in _TYPE_OF_ROLE.items()},
    "developer": MessageRole.SYSTEM,
    "assistant": MessageRole.ASSISTANT,
    "model": MessageRole.ASSISTANT,
    "function": MessageRole.TOOL,
}


@dataclass(slots=True, frozen=True)
class Answer:
    """A tool message's word on which call it answers."""

    call_id: str | None
    name: str | None


def fields_from(message: Message, answers: Sequence[Answer]) -> tuple[str, dict[str, Any]]:
    """Return LangChain's type and fields for `message`, which the tool messages of `answers` follow.

    They share the parts of `message.metadata`, which therefore has to be a copy.
    """
    metadata = mapping(message.metadata)
    kind, content = _kind_of(message, mapping(metadata.get(EXTRAS))), blocks_of(message)
    fields = {"content": content, **_derived(kind, message, answers), **extras_of(metadata)}
    fields["content"] = with_text(fields["content"], text_of(content))
    return kind, fields


def role_of_kind(kind: str, chat_role: object) -> MessageRole:
    """Return the role of LangChain's type `kind`; of a ChatMessage by its own role, where an unknown one is a user's."""
    if kind == "chat":
        return _ROLE_OF_KIND.get(str(chat_role).lower(), MessageRole.USER)
    return _ROLE_OF_KIND[kind]


def _kind_of(message: Message, extras: Mapping[str, Any]) -> str:
    """Return LangChain's type. Metadata may name another one of the same role: it must not make a user's word the system's."""
    role, named = _role(message), extras.get("type")
    if isinstance(named, str) and named in CLASSES and role_of_kind(named, extras.get("role")) is role:
        return named
    return _TYPE_OF_ROLE[role]


def extras_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that stand beside the layout. (`content_blocks`, which is none, would be the content.)"""
    extras = mapping(metadata.get(EXTRAS))
    return {name: value for name, value in extras.items() if name not in ("type", "content_blocks")}


def build(message: Message, answers: Sequence[Answer]) -> BaseMessage:
    """Return LangChain's message; extras of a foreign hand that do not fit its class are left out."""
    built = build_of(*fields_from(message, answers))
    if built is None:
        metadata = {name: value for name, value in mapping(message.metadata).items() if name != EXTRAS}
        kind, fields = fields_from(Message(message.role, text_of(blocks_of(message)), metadata), answers)
        built = CLASSES[kind](**fields)
    return built


def build_of(kind: str, fields: Mapping[str, Any]) -> BaseMessage | None:
    """Return the message, or None where the fields do not fit the class (LangChain's validators take their form for granted)."""
    try:
        return CLASSES[kind](**fields)
    except (ValueError, TypeError, AttributeError, LookupError):
        return None


def answers_after(messages: Sequence[Message], index: int) -> list[Answer]:
    """Return what the tool messages directly after `index` answer; empty unless an assistant's message stands there."""
    answers: list[Answer] = []
    if _role(messages[index]) is MessageRole.ASSISTANT:
        for message in messages[index + 1 :]:
            if _role(message) is not MessageRole.TOOL:
                break
            fields = _tool_fields(message)
            answers.append(Answer(fields["tool_call_id"] or None, fields.get("name")))
    return answers


def _role(message: Message) -> MessageRole:
    value = getattr(message.role, "value", message.role)
    try:
        return MessageRole(value)
    except ValueError:
        raise ContractError(f"Message.role is {value!r}; system, user, assistant or tool was due.") from None


def _derived(kind: str, message: Message, answers: Sequence[Answer]) -> dict[str, Any]:
    match kind:
        case "ai":
            return _ai_fields(message, answers)
        case "tool":
            return _tool_fields(message)
        case _:
            return {}


def _tool_fields(message: Message) -> dict[str, Any]:
    metadata = mapping(message.metadata)
    name = _first_text(metadata, "name", "tool_name")
    call_id = _first_text(metadata, "tool_call_id", "call_id", "id") or ""
    return {"tool_call_id": call_id, "name": name} if name else {"tool_call_id": call_id}


def _ai_fields(message: Message, answers: Sequence[Answer]) -> dict[str, Any]:
    """Read a reply of the past: a call in its text counts only if it was answered."""
    names, metadata = {answer.name for answer in answers if answer.name}, mapping(message.metadata)
    usage = _usage_key(metadata)
    if usage is not None:  # it is taken as it is, and need not be understood
        message = Message(message.role, message.content, {key: value for key, value in metadata.items() if key != usage})
    try:
        reply = read_reply(message, tool_names=names, step=0, json_content=bool(names))
    except AgentGraphError:
        return {}  # metadata of someone else's making; it is kept as it is
    return reply_fields(replace(reply, calls=_with_answered_ids(reply.calls, answers)), metadata)


def _with_answered_ids(calls: Sequence[Call], answers: Sequence[Answer]) -> tuple[Call, ...]:
    """Give calls without an id of their own (step 0 made one up) the id under which they were answered, by position."""
    ids = [answer.call_id for answer in answers] + [None] * len(calls)
    return tuple(
        replace(call, id=given) if given and call.id == f"call_0_{index}" else call
        for index, (call, given) in enumerate(zip(calls, ids, strict=False))
    )


# --- a reply ----------------------------------------------------------------------------------------------------------


def reply_fields(reply: Reply, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what LangChain's AIMessage has beside the content."""
    cost = None if reply.cost_usd is None else str(reply.cost_usd)
    about = {"model_name": reply.model, "finish_reason": reply.finish_reason, "cost_usd": cost}
    return {
        "tool_calls": [_valid(call, call.args) for call in reply.calls if call.args is not None],
        "invalid_tool_calls": [_invalid(call) for call in reply.calls if call.args is None],
        "usage_metadata": _usage_metadata(reply.usage, metadata),
        "response_metadata": {name: value for name, value in about.items() if value is not None},
    }


def _valid(call: Call, args: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "args": args}


def _invalid(call: Call) -> dict[str, Any]:
    """Return the call with a JSON text for arguments: whoever reads that leniently still finds no arguments in it."""
    args = json.dumps(call.problem, ensure_ascii=False)
    return {"type": "invalid_tool_call", "id": call.id, "name": call.name, "args": args, "error": call.problem}


def _usage_metadata(usage: Usage | None, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return LangChain's `usage_metadata`; None if nothing is known. Where `metadata` holds one already, that one."""
    if (key := _usage_key(metadata)) is not None:
        return dict(metadata[key])
    if usage is None:
        return None
    read = {"cache_read": usage.cache_read, "cache_creation": usage.cache_write, "audio": usage.audio_input}
    read |= {"ephemeral_1h_input_tokens": usage.cache_write_1h}
    made = {"reasoning": usage.reasoning, "audio": usage.audio_output}
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        **_details("input_token_details", read),
        **_details("output_token_details", made),
    }


def _usage_key(metadata: Mapping[str, Any]) -> str | None:
    """Return under which key stands a usage that is LangChain's already."""
    key = next((key for key in ("usage", "usage_metadata") if metadata.get(key)), None)
    return key if key is not None and is_usage_metadata(mapping(metadata[key])) else None


def is_usage_metadata(written: Mapping[str, Any]) -> bool:
    """Return whether `written` is LangChain's own form of a usage, which is taken as it is."""
    details = (written.get(key, {}) for key in ("input_token_details", "output_token_details"))
    counts = [written.get(f"{kind}_tokens") for kind in ("input", "output", "total")]
    counts += [count for side in details for count in (side.values() if isinstance(side, Mapping) else [side])]
    return all(type(count) is int for count in counts)


def _details(name: str, counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    known = {kind: count for kind, count in counts.items() if count}
    return {name: known} if known else {}


# --- content and small readers ----------------------------------------------------------------------------------------


def blocks_of(message: Message) -> str | list[Any]:
    """Return the text; or the blocks, where a backend speaks in them against its port."""
    content: Any = message.content
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(block, str | dict) for block in content):
        return cast("list[Any]", plain(content))
    raise ContractError(f"Message.content is {type(content).__name__}; a str was due.")


def text_of(content: str | Iterable[Any]) -> str:
    """Return what a reader would read: the text blocks, joined as LangChain's `.text` joins them."""
    if isinstance(content, str):
        return str(content)
    return "".join(block if isinstance(block, str) else block["text"] for block in content if is_text(block))


def is_text(block: Any) -> bool:
    """Return whether a content block is text."""
    if isinstance(block, Mapping):
        return block.get("type") == "text" and isinstance(block.get("text"), str)
    return isinstance(block, str)


def _is_call(block: Any) -> bool:
    return isinstance(block, Mapping) and block.get("type") in ("function_call", "tool_use", "tool_call")


def with_text(content: Any, text: str) -> Any:
    """Return the content blocks, with `text` in place of theirs, or before their calls, if somebody has changed it since."""
    if not isinstance(content, list):
        return text
    if text_of(content) == text:
        return content
    first = next((index for index, block in enumerate(content) if is_text(block) or _is_call(block)), len(content))
    others = [block for block in content[first:] if not is_text(block)]
    return [*content[:first], {"type": "text", "text": text}, *others]


def copied(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy as plain JSON."""
    return cast("dict[str, Any]", plain(value))


def mapping(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _first_text(metadata: Mapping[str, Any], *names: str) -> str | None:
    return next((value for name in names if isinstance(value := metadata.get(name), str) and value), None)
