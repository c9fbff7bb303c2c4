"""How many tokens a list of messages has.

An `LLMBackend` counts for itself. A LangChain model gets an anchored counter: the last reply said what its input really was, so only
what came since is estimated, scaled by how far the estimate was off. Where the model's own tokenizer is on the machine, texts are
counted by it instead of estimated. No counter ever touches the network (tokenizers that download their vocabulary fail offline, after
seconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING

from agent_graph.decisions.tokens import Anchor, CountText, anchored, bound, estimate_json, estimate_message, estimate_text
from agent_graph.decisions.tools import ToolSpec
from agent_graph.errors import ContractError, blamed

if TYPE_CHECKING:
    from agent_graph.decisions.usage import Usage
    from agent_graph.ports import LLMBackend
    from agent_graph.types import Message

__all__ = ["Counter", "Learned"]

MOST_GONE = 256
"""Estimates of messages that are gone which may be kept beside those of a list: each holds its message."""


@dataclass(slots=True)
class Learned:
    """What a turn has learned of the tokens of its conversation."""

    anchor: Anchor | None = None
    """What the newest reply said of its input."""
    usage: Usage | None = None
    """What the newest reply said of itself; None where it said nothing."""
    window: int | None = None
    """The model's context window in tokens, where a call has shown that it is smaller than was thought."""
    estimates: dict[int, tuple[Message, str, int]] = field(default_factory=dict)
    """The estimate of each message, by the id of the object: the object itself, its text, its tokens."""
    counted: tuple[Sequence[Message], Sequence[str], int] = ((), (), 0)
    """The list that was estimated last, its texts, its tokens."""


class Counter:
    """Counts for one agent; what it learns about a conversation is the turn's (`Learned`)."""

    def __init__(self, backend: LLMBackend | None, specs: Sequence[ToolSpec], *, exact: CountText | None = None) -> None:
        """`exact` counts a text as the model does."""
        self._backend = backend
        self._count = exact or estimate_text
        self._tools_tokens = sum(estimate_json([s.name, s.description, s.parameters], self._count) for s in specs)

    def count(self, messages: Sequence[Message], learned: Learned | None) -> int:
        """Return the tokens of `messages`. Raises ContractError where the backend's own count is no whole number from 0."""
        if self._backend is not None:
            with blamed("llm.count_tokens"):
                return _checked(self._backend.count_tokens(list(messages)))
        if learned is None:
            return self._tools_tokens + sum(estimate_message(message, self._count) for message in messages)
        estimated = self._estimated(messages, learned)
        anchor = learned.anchor
        return estimated if anchor is None else anchored(anchor, anchor.estimated, estimated)

    def bound(self, messages: Sequence[Message], learned: Learned) -> int:
        """Return the tokens that a call which shows `messages` reserves, where they have been made smaller since the last reply."""
        return self.count(messages, learned) if self._backend is not None else bound(learned.anchor, self._estimated(messages, learned))

    def shrunk(self, learned: Learned, messages: Sequence[Message]) -> None:
        """Anchor the next counts at `messages`, which has been made smaller since the last reply."""
        if learned.anchor is not None:
            estimated = self._estimated(messages, learned)
            learned.anchor = Anchor(real=bound(learned.anchor, estimated), estimated=estimated)

    def size(self, message: Message) -> int:
        """Return the tokens that one message adds to a list."""
        if self._backend is not None:
            with blamed("llm.count_tokens"):
                return _checked(self._backend.count_tokens([message]))
        return estimate_message(message, self._count)

    def count_text(self, text: str) -> int:
        """Return the tokens of one reply's text."""
        return self._count(text)

    def learn(self, learned: Learned, messages: Sequence[Message]) -> None:
        """Take what the newest reply said of its input as the anchor of the next counts."""
        usage = None if self._backend is not None else learned.usage
        if usage is not None and usage.input_tokens > 0:
            learned.anchor = Anchor(real=usage.input_tokens, estimated=self._estimated(messages, learned))

    def _estimated(self, messages: Sequence[Message], learned: Learned) -> int:
        """Return the estimate of a list that mostly goes on where the last one ended, which is seen by comparing objects."""
        last, texts, tokens = learned.counted
        goes_on = len(messages) >= len(last) and all(map(is_, last, messages)) and all(map(is_, texts, _texts(last)))
        if goes_on and len(messages) == len(last):
            return self._tools_tokens + tokens
        more = messages[len(last) :] if goes_on else messages
        tokens = sum((_estimate(message, learned.estimates, self._count) for message in more), tokens if goes_on else 0)
        learned.counted = (tuple(messages), _texts(messages), tokens)
        if len(learned.estimates) > 2 * len(messages) + MOST_GONE:
            learned.estimates = {id(message): learned.estimates[id(message)] for message in messages}
        return self._tools_tokens + tokens


def _texts(messages: Sequence[Message]) -> list[str]:
    return [message.content for message in messages]


def _estimate(message: Message, known: dict[int, tuple[Message, str, int]], count: CountText) -> int:
    entry = known.get(id(message))
    if entry is not None and entry[0] is message and entry[1] is message.content:
        return entry[2]
    tokens = estimate_message(message, count)
    known[id(message)] = (message, message.content, tokens)
    return tokens


def _checked(count: object) -> int:
    if isinstance(count, bool) or not isinstance(count, int | float) or count < 0:
        raise ContractError(f"LLMBackend.count_tokens returned {count!r}; a whole number from 0 was due.")
    return int(count)
