"""The specification's `Message` <-> LangChain's messages, without loss in either direction.

Both sides say the same thing in different fields. `Message` has a role, a text and a metadata mapping; LangChain has a class per
role, content blocks, and fields for tool calls, usage and provenance. What follows is one rule, used twice:

- *A LangChain message becomes a `Message`*: the text goes into `content`, and what our documented layout knows (docs/backends.md:
  `tool_calls`, `usage`, `model`, `finish_reason`, `cost_usd`, `tool_call_id`, `name`) into `metadata`. Then the result is read
  back. Every field that does not come out as it went in (blocks, ids, provider's data) is put into `metadata["langchain"]` as
  plain JSON. So losslessness holds by construction, and a plain message has plain metadata.
- *A `Message` becomes a LangChain message*: it is read tolerantly, since users' backends write many layouts. Then the result is
  written back. Where that is not the metadata that came in, the original is kept in `response_metadata["agent_graph"]`, and
  comes back unchanged. Replies of an `LLMBackend` always keep it.

An id that was merely made up (`lc_...`, LangChain's own prefix for those) is not worth a place in the metadata: within a run the
`Conversion` remembers it, after a restart another serves as well. Artifacts that have no JSON form are not for the model and are
dropped. A message chunk is read as the message that it makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from agent_graph.decisions.plain import plain
from agent_graph.decisions.replies import Call, Usage, read_reply
from agent_graph.errors import AgentGraphError, ContractError
from agent_graph.types import Message, MessageRole

__all__ = ["Conversion", "current_conversion", "ensure_id", "keep_metadata", "langchain_usage", "split_calls"]

EXTRAS: Final = "langchain"
"""Key of `Message.metadata` under which stands what `Message` cannot hold."""
NATIVE: Final = "agent_graph"
"""Key of `response_metadata` under which a `Message`'s own metadata is kept."""
MADE_UP: Final = "lc_"
"""How an id begins that no provider gave."""

_CLASSES: Final[dict[str, type[BaseMessage]]] = {
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
_ROLE_OF_TYPE: Final = {
    **{name: role for role, name in _TYPE_OF_ROLE.items()},
    "developer": MessageRole.SYSTEM,
    "assistant": MessageRole.ASSISTANT,
    "model": MessageRole.ASSISTANT,
    "function": MessageRole.TOOL,
}
_OWN_TO_BACKENDS: Final = frozenset({"id", "tool_calls", "invalid_tool_calls", "usage_metadata", "response_metadata"})
"""Fields of an `LLMBackend`'s reply that were read from its metadata, or set by the run: never written back into it."""


def ensure_id(message: BaseMessage) -> BaseMessage:
    """Return `message`, with an id made up in place if it had none."""
    if not message.id:
        message.id = f"{MADE_UP}{uuid4()}"
    return message


class Conversion:
    """Converts the messages of one run, each of them once.

    The same LangChain object gives the same `Message` object again and the other way round, so the cost of a step does not grow
    with the history. A `Message` that was changed since is converted anew and keeps its id. LangChain messages are taken as
    immutable, as LangGraph takes them (setting an id is fine). Belongs to one run; not for several threads at once.
    """

    __slots__ = ("_by_id", "_by_langchain", "_by_spec", "_longest")

    def __init__(self) -> None:
        self._clear()

    def to_spec(self, messages: Sequence[BaseMessage]) -> list[Message]:
        """Return the specification's messages for `messages`. ContractError for what is no message, such as RemoveMessage."""
        pairs = [self._pair_of(message) for message in messages]
        self._forget_all_but(pairs)
        return [pair.spec for pair in pairs]

    def to_langchain(self, messages: Sequence[Message]) -> list[BaseMessage]:
        """Return LangChain's messages for `messages`, ids kept (None where there was none: see `ensure_id`).

        ContractError for an unknown role or a content that is no str.
        """
        pairs = [self._pair_for(message, messages, index) for index, message in enumerate(messages)]
        self._forget_all_but(pairs)
        return [pair.langchain for pair in pairs]

    def remember(self, langchain: BaseMessage, spec: Message) -> None:
        """Take `spec` for the very message that `langchain` stands for, as when a backend's reply has just been wrapped."""
        self._add(_Pair(langchain, spec, langchain.content, spec.role, spec.content, plain(spec.metadata)))

    def _pair_of(self, message: BaseMessage) -> _Pair:
        pair = self._by_langchain.get(id(message)) or self._by_id.get(message.id or "")
        if pair is not None and pair.stands_for(message) and pair.is_unchanged():
            return pair
        spec = _to_spec(message)
        return self._add(_Pair(message, spec, message.content, spec.role, spec.content, plain(spec.metadata)))

    def _pair_for(self, message: Message, messages: Sequence[Message], index: int) -> _Pair:
        pair = self._by_spec.get(id(message))
        if pair is not None and pair.is_unchanged():
            return pair
        langchain = _to_langchain(message, _answers_after(messages, index))
        if pair is not None and langchain.id is None:
            langchain.id = pair.langchain.id
        return self._add(
            _Pair(langchain, message, langchain.content, message.role, message.content, plain(message.metadata))
        )

    def _add(self, pair: _Pair) -> _Pair:
        self._by_langchain[id(pair.langchain)] = pair
        self._by_spec[id(pair.spec)] = pair
        if pair.langchain.id:
            self._by_id[pair.langchain.id] = pair
        return pair

    def _forget_all_but(self, pairs: list[_Pair]) -> None:
        """Let go of what compression dropped, once it outweighs the longest list that was converted."""
        self._longest = max(self._longest, len(pairs))
        if len(self._by_spec) > 2 * self._longest + 256:
            self._clear()
            for pair in pairs:
                self._add(pair)

    def _clear(self) -> None:
        self._by_langchain: dict[int, _Pair] = {}
        self._by_spec: dict[int, _Pair] = {}
        self._by_id: dict[str, _Pair] = {}
        self._longest = 0


current_conversion: ContextVar[Conversion | None] = ContextVar("agent_graph_current_conversion", default=None)
"""The run's `Conversion`, for a wrapped backend that is called through LangChain's interfaces, which have no place for it."""


@dataclass(slots=True, frozen=True)
class _Pair:
    """A LangChain message and its `Message`, with what both were when they were paired."""

    langchain: BaseMessage
    spec: Message
    blocks: object
    role: object
    content: str
    metadata: Any

    def stands_for(self, message: BaseMessage) -> bool:
        if self.langchain is message:
            return self.blocks is message.content
        return bool(self.langchain == message)

    def is_unchanged(self) -> bool:
        spec = self.spec
        if spec.role is not self.role or spec.content != self.content:
            return False
        return bool(spec.metadata == self.metadata) or bool(plain(spec.metadata) == self.metadata)


# --- LangChain -> specification ---------------------------------------------------------------------------------------------


def _to_spec(message: BaseMessage) -> Message:
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    role, content = _role_of(message), _text_of(message.content)
    kept = _kept_metadata(message)
    metadata = _written(message) if kept is None else kept
    extras = _missing(message, Message(role, content, metadata), ignored=() if kept is None else _OWN_TO_BACKENDS)
    if extras:
        metadata[EXTRAS] = {**_mapping(metadata.get(EXTRAS)), **plain(extras)}
    return Message(role, content, metadata)


def _role_of(message: BaseMessage) -> MessageRole:
    if message.type not in _CLASSES:
        raise ContractError(
            f"{type(message).__name__} is no message of a conversation; system, human, ai, tool or chat was due."
        )
    if isinstance(message, ChatMessage):
        return _ROLE_OF_TYPE.get(message.role.lower(), MessageRole.USER)
    return _ROLE_OF_TYPE[message.type]


def _text_of(content: str | Iterable[Any]) -> str:
    """Return what a reader would read: the text blocks, joined as LangChain's `.text` joins them."""
    if isinstance(content, str):
        return content
    return "".join(block if isinstance(block, str) else block["text"] for block in content if _is_text(block))


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or (
        isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)
    )


def _written(message: BaseMessage) -> dict[str, Any]:
    """Return the metadata in our documented layout; empty for most messages."""
    if isinstance(message, AIMessage):
        return {key: value for key, value in _written_reply(message) if value not in (None, [])}
    if isinstance(message, ToolMessage):
        name = {} if message.name is None else {"name": message.name}
        return {"tool_call_id": message.tool_call_id, **name}
    return {}


def _written_reply(message: AIMessage) -> Iterable[tuple[str, Any]]:
    calls: list[Mapping[str, Any]] = [*message.tool_calls, *message.invalid_tool_calls]
    about = message.response_metadata
    yield "tool_calls", [plain({"id": call["id"], "name": call["name"], "args": call["args"]}) for call in calls]
    yield "usage", plain(message.usage_metadata)
    yield "model", plain(about.get("model_name"))
    yield "finish_reason", plain(about.get("finish_reason"))
    yield "cost_usd", plain(about.get("cost_usd"))


def _missing(message: BaseMessage, spec: Message, *, ignored: Collection[str]) -> dict[str, Any]:
    """Return the fields of `message` that `spec` alone would not bring back."""
    kind, expected = _fields_from(spec, ())
    extras = {
        name: value
        for name, value in _fields_of(message).items()
        if name not in ignored and not _holds(expected, name, value)
    }
    if str(extras.get("id") or MADE_UP).startswith(MADE_UP):
        extras.pop("id", None)
    if "artifact" in extras and not _is_plain(extras["artifact"]):
        del extras["artifact"]
    return extras if kind == message.type else {"type": message.type, **extras}


def _holds(fields: Mapping[str, Any], name: str, value: Any) -> bool:
    return bool(fields[name] == value) if name in fields else value in (None, {}, [], "success")


def _fields_of(message: BaseMessage) -> dict[str, Any]:
    fields = {**message.__dict__, **(message.model_extra or {})}
    del fields["type"]
    if NATIVE in message.response_metadata:
        fields["response_metadata"] = {
            name: value for name, value in message.response_metadata.items() if name != NATIVE
        }
    return fields


# --- specification -> LangChain ---------------------------------------------------------------------------------------------


def _to_langchain(message: Message, answers: Sequence[_Answer]) -> BaseMessage:
    if not isinstance(message.content, str):
        raise ContractError(f"Message.content is {type(message.content).__name__}; a str was due.")
    built = _build(*_fields_from(message, answers)) or _build(*_fields_from(_without_extras(message), answers))
    assert built is not None, "a message without extras always builds"
    if not _same(_to_spec(built), message):
        keep_metadata(built, message.metadata)
    return built


def _build(kind: str, fields: dict[str, Any]) -> BaseMessage | None:
    """Return the message, or None where extras of a foreign hand do not fit LangChain's class."""
    try:
        return _CLASSES[kind](**fields)
    except (ValueError, TypeError):
        return None


def _fields_from(message: Message, answers: Sequence[_Answer]) -> tuple[str, dict[str, Any]]:
    """Return the LangChain type and fields that `message` stands for."""
    role, metadata = _known_role(message), _mapping(message.metadata)
    extras = {
        name: value for name, value in _mapping(metadata.get(EXTRAS)).items() if name not in ("type", "content_blocks")
    }
    kind = _mapping(metadata.get(EXTRAS)).get("type", "")
    kind = kind if kind in _CLASSES else _TYPE_OF_ROLE[role]
    fields = {"content": message.content, **_derived(kind, message, metadata, answers), **plain(extras)}
    fields["content"] = _with_text(fields["content"], message.content)
    return kind, fields


def _derived(kind: str, message: Message, metadata: Mapping[str, Any], answers: Sequence[_Answer]) -> dict[str, Any]:
    if kind == "ai":
        return _derived_reply(message, metadata, answers)
    if kind == "tool":
        name = _first_text(metadata, "name", "tool_name")
        return {
            "tool_call_id": _first_text(metadata, "tool_call_id", "call_id", "id") or "",
            **({"name": name} if name else {}),
        }
    return {}


def _derived_reply(message: Message, metadata: Mapping[str, Any], answers: Sequence[_Answer]) -> dict[str, Any]:
    try:
        names = {answer.name for answer in answers if answer.name}
        reply = read_reply(message, tool_names=names, step=0, json_content=bool(names))
    except AgentGraphError:
        return {}  # metadata of someone else's making; it is kept as it is
    valid, invalid = split_calls(_adopt_ids(reply.calls, answers))
    about = {"model_name": reply.model, "finish_reason": reply.finish_reason, "cost_usd": _text_or_none(reply.cost_usd)}
    return {
        "tool_calls": valid,
        "invalid_tool_calls": invalid,
        "usage_metadata": langchain_usage(reply.usage, metadata.get("usage")),
        "response_metadata": {name: value for name, value in about.items() if value is not None},
    }


@dataclass(slots=True, frozen=True)
class _Answer:
    """A tool message's word on which call it answers."""

    call_id: str | None
    name: str | None


def _answers_after(messages: Sequence[Message], index: int) -> list[_Answer]:
    """Return what the tool messages directly after `index` answer; empty unless an assistant's message stands there."""
    answers: list[_Answer] = []
    if _known_role(messages[index]) is MessageRole.ASSISTANT:
        for message in messages[index + 1 :]:
            if _known_role(message) is not MessageRole.TOOL:
                break
            fields = _derived("tool", message, _mapping(message.metadata), ())
            answers.append(_Answer(fields["tool_call_id"] or None, fields.get("name")))
    return answers


def _adopt_ids(calls: Sequence[Call], answers: Sequence[_Answer]) -> list[Call]:
    """Give calls without an id of their own (step 0 made one up) the id under which they were answered, by position."""
    ids = [answer.call_id for answer in answers] + [None] * len(calls)
    return [
        Call(id=given, name=call.name, args=call.args, problem=call.problem)
        if given and call.id == f"call_0_{index}"
        else call
        for index, (call, given) in enumerate(zip(calls, ids, strict=False))
    ]


def _with_text(content: Any, text: str) -> Any:
    """Return the content blocks, with `text` in place of theirs if somebody has changed it since they were written."""
    if not isinstance(content, list) or _text_of(content) == text:
        return content if isinstance(content, str | list) else text
    first = next((index for index, block in enumerate(content) if _is_text(block)), len(content))
    others = [block for block in content[first:] if not _is_text(block)]
    return [*content[:first], {"type": "text", "text": text}, *others]


def _without_extras(message: Message) -> Message:
    return Message(
        message.role, message.content, {name: value for name, value in message.metadata.items() if name != EXTRAS}
    )


def _same(ours: Message, theirs: Message) -> bool:
    return ours.content == theirs.content and bool(ours.metadata == theirs.metadata)


def _known_role(message: Message) -> MessageRole:
    value = getattr(message.role, "value", message.role)
    try:
        return MessageRole(value)
    except ValueError:
        raise ContractError(f"Message.role is {value!r}; one of system, user, assistant, tool was due.") from None


# --- shared with the wrapped backends ---------------------------------------------------------------------------------------


def split_calls(calls: Iterable[Call]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return LangChain's `tool_calls` and `invalid_tool_calls` for what was read from a reply."""
    valid: list[dict[str, Any]] = []
    invalid: list[dict[str, Any]] = []
    for call in calls:
        if call.args is None:
            invalid.append(
                {"type": "invalid_tool_call", "id": call.id, "name": call.name, "args": None, "error": call.problem}
            )
        else:
            valid.append({"type": "tool_call", "id": call.id, "name": call.name, "args": call.args})
    return valid, invalid


def langchain_usage(usage: Usage | None, written: object = None) -> dict[str, Any] | None:
    """Return LangChain's `usage_metadata`: `written` itself if it already is one, else built from `usage`; None if unknown."""
    if isinstance(written, Mapping) and all(
        type(written.get(f"{kind}_tokens")) is int for kind in ("input", "output", "total")
    ):
        return dict(plain(written))
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


def _details(name: str, counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    known = {kind: count for kind, count in counts.items() if count}
    return {name: known} if known else {}


def keep_metadata(message: BaseMessage, metadata: object) -> None:
    """Keep a backend's own `metadata` on `message`, so that it comes back unchanged when `message` becomes a `Message` again."""
    kept: dict[str, Any] = {"metadata": plain(metadata)}
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        kept["calls"] = _digest(message)
    message.response_metadata = {**message.response_metadata, NATIVE: kept}


def _kept_metadata(message: BaseMessage) -> dict[str, Any] | None:
    """Return a copy of the kept metadata, or None. Where somebody changed the calls since, they are written anew."""
    kept = message.response_metadata.get(NATIVE)
    if not isinstance(kept, dict) or not isinstance(kept.get("metadata"), dict):
        return None
    metadata: dict[str, Any] = plain(kept["metadata"])
    if isinstance(message, AIMessage) and kept.get("calls") != _digest(message):
        metadata.pop("tool_call", None)
        metadata["tool_calls"] = _written(message).get("tool_calls", [])
    return metadata


def _digest(message: AIMessage) -> str | None:
    """Return what tells whether the calls are still the same ones. (Of malformed ones LangChain's streaming keeps only the names.)"""
    calls = [[call["id"], call["name"], plain(call["args"])] for call in message.tool_calls]
    malformed = [[call["id"], call["name"]] for call in message.invalid_tool_calls]
    if not calls and not malformed:
        return None
    text = json.dumps([calls, malformed], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# --- small readers ----------------------------------------------------------------------------------------------------------


def _is_plain(value: Any) -> bool:
    return bool(plain(value) == value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_text(metadata: Mapping[str, Any], *names: str) -> str | None:
    return next((value for name in names if isinstance(value := metadata.get(name), str) and value), None)


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
