"""A landing that is shown less: where its input does not fit the limits any more, its tool results are cut until it does.

One step may bring more than was kept for the landing behind it: a result of 50,000 tokens, twenty calls at once. To answer from the
beginnings and ends of the results is better than to end with nothing. Only what the model is shown is cut, with a mark in the middle
of each result; the turn's messages stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_core.messages import BaseMessage

from agent_graph.decisions.budget import Normal
from agent_graph.decisions.compression import gradually

if TYPE_CHECKING:
    from agent_graph.runtime.candidate import Candidate
    from agent_graph.runtime.model_call import ModelCall
    from agent_graph.runtime.turn import Turn
    from agent_graph.types import Message

__all__ = ["OF_SIZE", "Shortened", "shortened", "with_texts"]

OF_SIZE = frozenset({"max_tokens", "max_cost_usd", "budget"})
"""The limits that a call with a smaller input may still keep."""


@dataclass(frozen=True, slots=True)
class Shortened:
    """A landing that fits."""

    call: ModelCall
    shown: list[BaseMessage]
    """What the model is shown."""
    spec: list[Message]
    """The same, as the specification has it."""
    most: int
    """Tokens that a tool result may have in it."""


async def shortened(turn: Turn, messages: Sequence[BaseMessage], *, step: int, without: Collection[Candidate] = ()) -> Shortened | None:
    """Return the landing that shows as much of the tool results in `messages` as the limits hold; None where they hold none."""
    agent, whole = turn.agent, turn.conversion.to_spec(messages)
    fits: Shortened | None = None
    for most, spec in gradually(whole, size=agent.size):
        call = agent.governor.call(turn, input_tokens=agent.count_bound(turn, spec), step=step, landing=True, without=without)
        if not isinstance(await call.admission(), Normal):
            break
        fits = Shortened(call, with_texts(messages, whole, spec), spec, most)
    return fits


def with_texts(messages: Sequence[BaseMessage], before: Sequence[Message], after: Sequence[Message]) -> list[BaseMessage]:
    """Return LangChain's messages with the texts of `after`, where those are other messages than in `before`."""
    return [
        message if new is old else message.model_copy(update={"content": new.content})
        for message, old, new in zip(messages, before, after, strict=True)
    ]
