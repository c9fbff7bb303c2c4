"""How many tokens a list of messages has.

An `LLMBackend` counts for itself. A LangChain model gets an anchored counter: the last reply said what its input really was, so only
what came since is estimated, scaled by how far the estimate was off. No counter ever touches the network (tokenizers that download
their vocabulary fail offline, after seconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_graph.decisions.tokens import Anchor, anchored, estimate_json, estimate_message, estimate_text
from agent_graph.decisions.tools import ToolSpec
from agent_graph.errors import ContractError

if TYPE_CHECKING:
    from agent_graph.ports import LLMBackend
    from agent_graph.runtime.turn import Turn
    from agent_graph.types import Message

__all__ = ["Counter"]


class Counter:
    """Counts for one agent; what it learns about a conversation it keeps in the turn."""

    def __init__(self, backend: LLMBackend | None, specs: Sequence[ToolSpec]) -> None:
        self._backend = backend
        self._tools_tokens = sum(estimate_json([s.name, s.description, s.parameters]) for s in specs)

    def count(self, messages: Sequence[Message], turn: Turn | None) -> int:
        """Return the tokens of `messages`. Raises ContractError where the backend's own count is no whole number from 0."""
        if self._backend is not None:
            return _checked(self._backend.count_tokens(list(messages)))
        estimated = self._estimated(messages, turn)
        if turn is not None:
            turn.counted = (messages, estimated)
        anchor = None if turn is None else turn.anchor
        return estimated if anchor is None else anchored(anchor, anchor.estimated, estimated)

    def count_text(self, text: str) -> int:
        """Return the estimated tokens of one reply's text."""
        return estimate_text(text)

    def learn(self, turn: Turn, messages: Sequence[Message]) -> None:
        """Take what the newest reply said of its input as the anchor of the next counts."""
        usage = None if self._backend is not None else turn.last_usage
        if usage is not None and usage.input_tokens > 0:
            counted, estimated = turn.counted
            turn.anchor = Anchor(real=usage.input_tokens, estimated=estimated if counted is messages else self._estimated(messages, turn))

    def _estimated(self, messages: Sequence[Message], turn: Turn | None) -> int:
        known = {} if turn is None else turn.estimates
        return self._tools_tokens + sum(_estimate(message, known) for message in messages)


def _estimate(message: Message, known: dict[int, tuple[Message, str, int]]) -> int:
    entry = known.get(id(message))
    if entry is not None and entry[0] is message and entry[1] is message.content:
        return entry[2]
    tokens = estimate_message(message)
    known[id(message)] = (message, message.content, tokens)
    return tokens


def _checked(count: object) -> int:
    if isinstance(count, bool) or not isinstance(count, int | float) or count < 0:
        raise ContractError(f"LLMBackend.count_tokens returned {count!r}; a whole number from 0 was due.")
    return int(count)
