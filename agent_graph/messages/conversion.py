"""Converting the messages of a run, each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from operator import is_
from typing import Any, cast
from uuid import uuid4

from langchain_core.messages import BaseMessage

from agent_graph.decisions.plain import plain
from agent_graph.messages.fields import answers_after, copied
from agent_graph.messages.langchain import to_langchain
from agent_graph.messages.spec import MADE_UP, to_spec
from agent_graph.types import Message

__all__ = ["Conversion", "current_conversion", "ensure_id"]

_SPARE = 256
"""Conversions that are kept beyond twice the longest list."""


def ensure_id(message: BaseMessage) -> BaseMessage:
    """Return `message`, with an id made up in place if it had none."""
    if not message.id:
        message.id = f"{MADE_UP}{uuid4()}"
    return message


class Conversion:
    """Converts the messages of one run, each of them once.

    The same LangChain object gives the same `Message` object again and the other way round, so that the cost of a step
    does not grow with the history. A `Message` that was changed since is converted anew and keeps its id. LangChain
    messages are taken as immutable, as LangGraph takes them (setting an id is fine). Belongs to one run; not for
    several threads at once.
    """

    __slots__ = ("_by_id", "_by_langchain", "_by_spec", "_last", "_longest")

    def __init__(self) -> None:
        self._by_langchain: dict[int, _Pair] = {}
        self._by_spec: dict[int, _Pair] = {}
        self._by_id: dict[str, _Pair] = {}
        self._longest = 0
        self._last = _Beginning([], [], [], [], [])

    def to_spec(self, messages: Sequence[BaseMessage]) -> list[Message]:
        """Return the specification's messages. ContractError for what is no message of a conversation (RemoveMessage)."""
        known = self._last.beginning_of(messages)
        if known is None:
            known = self._converted(messages)
        elif len(messages) > len(known.pairs):
            known = known.and_then(self._converted(messages[len(known.pairs) :]))
        if len(messages) > 1:  # one alone is a reply that is looked at, not a conversation
            self._last = known
        self._forget_all_but(known.pairs)
        return list(known.specs)

    def to_langchain(self, messages: Sequence[Message]) -> list[BaseMessage]:
        """Return LangChain's messages, ids kept (None where there was none: see `ensure_id`).

        ContractError for an unknown role, or content that is no text.
        """
        pairs = [self._pair_for(message, messages, index) for index, message in enumerate(messages)]
        self._forget_all_but(pairs)
        return [pair.langchain for pair in pairs]

    def remember(self, langchain: BaseMessage, spec: Message) -> None:
        """Take `spec` for the very message that `langchain` stands for, as when a backend's reply has just been wrapped.

        One whose content is no text (None beside tool calls, as many providers send it), or that has no metadata, is not shown to
        anybody again: the specification owes both, and a backend's `count_tokens` relies on it.
        """
        content, metadata = cast("tuple[object, object]", (spec.content, spec.metadata))
        if isinstance(content, str) and isinstance(metadata, dict):
            self._add(langchain, spec, plain(spec.metadata))

    def _converted(self, messages: Sequence[BaseMessage]) -> _Beginning:
        pairs = [self._pair_of(message) for message in messages]
        specs = [pair.spec for pair in pairs]
        contents, metadata = [spec.content for spec in specs], [spec.metadata for spec in specs]
        return _Beginning(list(messages), pairs, specs, contents, metadata)

    def _pair_of(self, message: BaseMessage) -> _Pair:
        pair = self._by_langchain.get(id(message))
        if pair is None and message.id:
            pair = self._by_id.get(message.id)
        if pair is not None and pair.stands_for(message) and pair.is_unchanged():
            return pair
        draft = to_spec(message)
        metadata = copied(draft.metadata)
        return self._add(message, Message(draft.role, draft.content, metadata), draft.metadata)

    def _pair_for(self, message: Message, messages: Sequence[Message], index: int) -> _Pair:
        pair = self._by_spec.get(id(message))
        if pair is not None and pair.is_unchanged():
            return pair
        copy = plain(message.metadata)
        langchain = to_langchain(Message(message.role, message.content, cast("dict[str, Any]", copy)), answers_after(messages, index))
        if pair is not None and langchain.id is None:
            langchain.id = pair.langchain.id
        return self._add(langchain, message, copy)

    def _add(self, langchain: BaseMessage, spec: Message, metadata: object) -> _Pair:
        """Enter a pair; `metadata` is what the message's own is compared with, and no part of it."""
        pair = _Pair(langchain, langchain.content, spec, (spec.content, spec.role, metadata))
        self._enter(pair)
        return pair

    def _enter(self, pair: _Pair) -> None:
        self._by_langchain[id(pair.langchain)] = pair
        self._by_spec[id(pair.spec)] = pair
        if pair.langchain.id:
            self._by_id[pair.langchain.id] = pair

    def _forget_all_but(self, pairs: Sequence[_Pair]) -> None:
        """Let go of what compression dropped, once it outweighs the longest list that was converted."""
        self._longest = max(self._longest, len(pairs))
        if len(self._by_spec) > 2 * self._longest + _SPARE:
            self._by_langchain, self._by_spec, self._by_id, self._longest = {}, {}, {}, 0
            for pair in pairs:
                self._enter(pair)


current_conversion: ContextVar[Conversion | None] = ContextVar("agent_graph_current_conversion", default=None)
"""The run's `Conversion`, for a wrapped backend: LangChain's interfaces, through which it is called, have no place for it."""


@dataclass(slots=True, frozen=True)
class _Pair:
    """A LangChain message and its `Message`, with what both held when they were paired."""

    langchain: BaseMessage
    blocks: object
    spec: Message
    held: tuple[object, object, object]
    """The `Message`'s content, role and metadata."""

    def stands_for(self, message: BaseMessage) -> bool:
        if self.langchain is message:
            return self.blocks is message.content
        return bool(self.langchain == message)

    def is_unchanged(self) -> bool:
        spec, (content, role, metadata) = self.spec, self.held
        if spec.role != role or spec.content != content:
            return False
        return bool(spec.metadata == metadata or plain(spec.metadata) == plain(metadata))


@dataclass(slots=True, frozen=True)
class _Beginning:
    """A list that was converted. The next one mostly begins with it, which is seen by comparing objects, not their contents.

    A `Message` whose text was changed meanwhile is noticed here; a change deep in its metadata is noticed when it comes back.
    """

    messages: list[BaseMessage]
    pairs: list[_Pair]
    specs: list[Message]
    contents: list[str]
    metadata: list[dict[Any, Any]]

    def beginning_of(self, messages: Sequence[BaseMessage]) -> _Beginning | None:
        """Return this if `messages` begin with it, unchanged."""
        if not self.pairs or len(messages) < len(self.pairs) or not all(map(is_, self.messages, messages)):
            return None
        same_text = all(map(is_, [spec.content for spec in self.specs], self.contents))
        return self if same_text and all(map(is_, [spec.metadata for spec in self.specs], self.metadata)) else None

    def and_then(self, more: _Beginning) -> _Beginning:
        """Return the list that goes on with `more`."""
        return _Beginning(
            self.messages + more.messages,
            self.pairs + more.pairs,
            self.specs + more.specs,
            self.contents + more.contents,
            self.metadata + more.metadata,
        )
