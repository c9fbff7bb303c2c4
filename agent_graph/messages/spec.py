"""A LangChain message as the specification's `Message`: our documented layout, and what does not fit it beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from agent_graph.decisions.plain import plain
from agent_graph.decisions.replies import is_cut
from agent_graph.errors import ContractError
from agent_graph.messages.fields import CLASSES, EXTRAS, build, fields_from, is_usage_metadata, mapping, role_of_kind, text_of
from agent_graph.messages.kept import NATIVE, calls_changed, kept_metadata
from agent_graph.types import Message, MessageRole

__all__ = ["MADE_UP", "to_spec"]

MADE_UP: Final = "lc_"
"""How an id begins that no provider gave."""

_DEFAULTS: Final[dict[str, Any]] = {
    "name": None,
    "id": None,
    "additional_kwargs": {},
    "response_metadata": {},
    "tool_calls": [],
    "invalid_tool_calls": [],
    "usage_metadata": None,
    "artifact": None,
    "status": "success",
}
_NOT_BACK_TO_BACKENDS: Final = frozenset({"id", "tool_calls", "invalid_tool_calls", "usage_metadata", "response_metadata"})
"""Fields that were read from a backend's metadata, or set by the run: not written back beside the metadata kept."""


def to_spec(message: BaseMessage) -> Message:
    """Return `message` as the specification's.

    Its metadata shares the parts of `message` and may hold what has no JSON form: copy it before it goes out (`copied`).
    ContractError for what is no message of a conversation (RemoveMessage).
    """
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    kept = kept_metadata(message)
    metadata = _written(message) if kept is None else _restored(kept, message)
    spec = Message(_role_of(message), text_of(message.content), metadata)
    extras = _missing(message, spec, ignored=() if kept is None else _NOT_BACK_TO_BACKENDS)
    if extras:
        metadata[EXTRAS] = {**mapping(metadata.get(EXTRAS)), **extras}
    return spec


def _role_of(message: BaseMessage) -> MessageRole:
    if message.type not in CLASSES:
        raise ContractError(f"{type(message).__name__} is no message of a conversation; a system, human, ai, tool or chat message was due.")
    return role_of_kind(message.type, message.role if isinstance(message, ChatMessage) else None)


def _written(message: BaseMessage) -> dict[str, Any]:
    """Return the metadata in our documented layout; empty for most messages."""
    if isinstance(message, AIMessage):
        return {key: value for key, value in _written_reply(message).items() if value not in (None, [])}
    if isinstance(message, ToolMessage):
        name = {} if message.name is None else {"name": message.name}
        return {"tool_call_id": message.tool_call_id, **name}
    return {}


def _written_reply(message: AIMessage) -> dict[str, Any]:
    about = message.response_metadata
    return {
        "tool_calls": _written_calls(message),
        "usage": message.usage_metadata,
        "model": _first_text(about, ("model_name", "model", "model_id")),
        "finish_reason": _first_text(about, ("finish_reason", "stop_reason", "done_reason")) or _incomplete(about),
        "cost_usd": about.get("cost_usd"),
    }


def _written_calls(message: AIMessage) -> list[Any]:
    """Return all calls; those that are not valid have their arguments' text, which no reader takes for an object."""
    calls: list[Mapping[str, Any]] = [*message.tool_calls, *message.invalid_tool_calls]
    return [{"id": call["id"], "name": call["name"], "args": call["args"]} for call in calls]


def _incomplete(about: Mapping[str, Any]) -> str | None:
    """Return why a reply of OpenAI's Responses API was cut: it has no finish_reason."""
    return _first_text(mapping(about.get("incomplete_details")), ("reason",)) if about.get("status") == "incomplete" else None


def _restored(metadata: dict[str, Any], message: BaseMessage) -> dict[str, Any]:
    """Return the kept metadata, with the calls written anew where somebody has changed them."""
    if isinstance(message, AIMessage) and calls_changed(message):
        for key in ("tool_call", "function_call"):
            metadata.pop(key, None)
        metadata["tool_calls"] = _written_calls(message)
    return metadata


def _missing(message: BaseMessage, spec: Message, *, ignored: Collection[str]) -> dict[str, Any]:
    """Return the fields of `message` that `spec` alone would not bring back."""
    kind, expected = _foreseen(message, spec) or _read_back(spec)
    fields = {name: value for name, value in _fields_of(message).items() if name not in ignored}
    extras = {name: value for name, value in fields.items() if name not in expected or expected[name] != value}
    if str(extras.get("id") or MADE_UP).startswith(MADE_UP):
        extras.pop("id", None)
    if "artifact" in extras and plain(extras["artifact"]) != extras["artifact"]:
        del extras["artifact"]
    return extras if kind == message.type else {"type": message.type, **extras}


def _foreseen(message: BaseMessage, spec: Message) -> tuple[str, dict[str, Any]] | None:
    """Return what `_read_back` would, or None where only reading tells: reading takes longer than all else that is done here."""
    if EXTRAS in spec.metadata:
        return None
    if isinstance(message, AIMessage):
        return _foreseen_reply(message, spec)
    if isinstance(message, ToolMessage):
        answers = {"tool_call_id": message.tool_call_id, "name": message.name or None}
        return "tool", {**_DEFAULTS, "content": spec.content, **answers}
    if type(message) in (HumanMessage, SystemMessage):
        return message.type, {**_DEFAULTS, "content": spec.content}
    return None


def _foreseen_reply(message: AIMessage, spec: Message) -> tuple[str, dict[str, Any]] | None:
    metadata, about, usage = spec.metadata, message.response_metadata, message.usage_metadata
    finish = metadata.get("finish_reason")
    if NATIVE in about or message.invalid_tool_calls or "cost_usd" in metadata or (finish is not None and is_cut(finish)):
        return None
    if not _are_usual(message.tool_calls) or not (usage is None or is_usage_metadata(usage)):
        return None
    told = {"model_name": metadata.get("model"), "finish_reason": finish}
    calls = [{"type": "tool_call", "id": call["id"], "name": call["name"], "args": call["args"]} for call in message.tool_calls]
    fields = {"content": spec.content, "tool_calls": calls, "usage_metadata": usage}
    return "ai", {**_DEFAULTS, **fields, "response_metadata": {name: value for name, value in told.items() if value is not None}}


def _are_usual(calls: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether calls are read as they were written: each named, and with an id of its own."""
    ids = {call["id"] for call in calls}
    return len(ids) == len(calls) and all(
        isinstance(call["id"], str)
        and call["id"]
        and call["name"]
        and call["name"] == call["name"].strip()
        and set(map(type, call["args"])) <= {str}
        for call in calls
    )


def _read_back(spec: Message) -> tuple[str, dict[str, Any]]:
    """Return the LangChain type and fields that come of `spec`. With extras only building tells, since they may not fit."""
    if EXTRAS in spec.metadata:
        built = build(spec, ())
        return built.type, {**_DEFAULTS, **_fields_of(built)}
    kind, fields = fields_from(spec, ())
    return kind, {**_DEFAULTS, **fields}


def _fields_of(message: BaseMessage) -> dict[str, Any]:
    fields = {**message.__dict__, **(message.model_extra or {})}
    del fields["type"]
    if NATIVE in message.response_metadata:
        about = message.response_metadata
        fields["response_metadata"] = {name: value for name, value in about.items() if name != NATIVE}
    return fields


def _first_text(about: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((value for key in keys if isinstance(value := about.get(key), str) and value), None)
