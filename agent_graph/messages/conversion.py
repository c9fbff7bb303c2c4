"""Converting the messages of a run, each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from langchain_core.messages import BaseMessage

from agent_graph.decisions.plain import plain
from agent_graph.messages.fields import answers_after
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

    __slots__ = ("_by_id", "_by_langchain", "_by_spec", "_longest")

    def __init__(self) -> None:
        self._by_langchain: dict[int, _Pair] = {}
        self._by_spec: dict[int, _Pair] = {}
        self._by_id: dict[str, _Pair] = {}
        self._longest = 0

    def to_spec(self, messages: Sequence[BaseMessage]) -> list[Message]:
        """Return the specification's messages. ContractError for what is no message of a conversation (RemoveMessage)."""
        pairs = [self._pair_of(message) for message in messages]
        self._forget_all_but(pairs)
        return [pair.spec for pair in pairs]

    def to_langchain(self, messages: Sequence[Message]) -> list[BaseMessage]:
        """Return LangChain's messages, ids kept (None where there was none: see `ensure_id`).

        ContractError for an unknown role, or content that is no text.
        """
        pairs = [self._pair_for(message, messages, index) for index, message in enumerate(messages)]
        self._forget_all_but(pairs)
        return [pair.langchain for pair in pairs]

    def remember(self, langchain: BaseMessage, spec: Message) -> None:
        """Take `spec` for the very message that `langchain` stands for, as when a backend's reply has just been wrapped."""
        self._add(langchain, spec)

    def _pair_of(self, message: BaseMessage) -> _Pair:
        pair = self._by_langchain.get(id(message))
        if pair is None and message.id:
            pair = self._by_id.get(message.id)
        if pair is not None and pair.stands_for(message) and pair.is_unchanged():
            return pair
        return self._add(message, to_spec(message))

    def _pair_for(self, message: Message, messages: Sequence[Message], index: int) -> _Pair:
        pair = self._by_spec.get(id(message))
        if pair is not None and pair.is_unchanged():
            return pair
        langchain = to_langchain(message, answers_after(messages, index))
        if pair is not None and langchain.id is None:
            langchain.id = pair.langchain.id
        return self._add(langchain, message)

    def _add(self, langchain: BaseMessage, spec: Message) -> _Pair:
        pair = _Pair(langchain, langchain.content, spec, spec.role, spec.content, plain(spec.metadata))
        self._enter(pair)
        return pair

    def _enter(self, pair: _Pair) -> None:
        self._by_langchain[id(pair.langchain)] = pair
        self._by_spec[id(pair.spec)] = pair
        if pair.langchain.id:
            self._by_id[pair.langchain.id] = pair

    def _forget_all_but(self, pairs: list[_Pair]) -> None:
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
        return bool(spec.metadata == self.metadata or plain(spec.metadata) == self.metadata)
