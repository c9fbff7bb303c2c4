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
from agent_graph.decisions.compression import apply_cuts

if TYPE_CHECKING:
    from agent_graph.runtime.candidate import Candidate
    from agent_graph.runtime.model_call import ModelCall
    from agent_graph.runtime.turn import Turn
    from agent_graph.types import Message

__all__ = ["Shortened", "shortened"]

LEAST_TOKENS = 64
"""A tool result is not cut below this."""
FINER = 4
"""Of the sizes that are tried each is so many times the one before."""


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
    whole = turn.conversion.to_spec(messages)
    fits: Shortened | None = None
    most, last = LEAST_TOKENS, None
    while last is None or last.spec != whole:
        last = _cut(turn, messages, whole, most, step=step, without=without)
        if not isinstance(await last.call.admission(), Normal):
            break
        fits, most = last, most * FINER
    return fits


def _cut(
    turn: Turn, messages: Sequence[BaseMessage], whole: Sequence[Message], most: int, *, step: int, without: Collection[Candidate]
) -> Shortened:
    agent = turn.agent
    spec = apply_cuts(whole, size=agent.size, max_tokens=most)
    tokens = agent.count_bound(turn, spec)
    call = agent.governor.call(turn, input_tokens=tokens, step=step, landing=True, without=without)
    shown = [
        message if new is old else message.model_copy(update={"content": new.content})
        for message, old, new in zip(messages, whole, spec, strict=True)
    ]
    return Shortened(call, shown, spec, most)
