"""Every message that a run ever held, read from what each superstep wrote: compression takes messages from the model, not from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import Overwrite

from agent_graph.messages import Conversion
from agent_graph.types import Message

__all__ = ["Entry", "conversation", "history"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a run."""

    turn: int
    """The turn that it entered in, from 1."""
    step: int
    """The step that it belongs to; 0 for what a turn began with."""
    message: Message


async def conversation(graph: Any, thread_id: str) -> list[Message]:
    """Return the messages that a thread's newest checkpoint holds: what its last turn left."""
    state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
    return Conversion().to_spec(state.values.get("messages", []))


async def history(saver: Any, thread_id: str) -> list[Entry]:
    """Return the messages of a thread in the order in which they were written, each once."""
    checkpoints = [item async for item in saver.alist({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})]
    conversion, seen, entries = Conversion(), set[str](), list[Entry]()
    turn = 0
    for item in reversed(checkpoints):
        step = item.checkpoint["channel_values"].get("step", 0)
        turn = item.checkpoint["channel_values"].get("turn", turn)
        own = {channel: value for _, channel, value in item.pending_writes or () if channel in ("step", "turn", "first")}
        turn, step = own.get("turn", turn), own.get("step", step)
        for _, channel, value in item.pending_writes or ():
            if channel == "messages":
                known = _known(own, turn) if isinstance(value, Overwrite) else 0
                fresh = [message for message in _messages(value)[known:] if not message.id or message.id not in seen]
                seen.update(message.id for message in fresh if message.id)
                entries += [Entry(turn, step, spec) for spec in conversion.to_spec(fresh)]
    return entries


def _known(own: dict[str, Any], turn: int) -> int:
    """Return how many of the messages that a later turn begins with were loaded from the memory: earlier turns have shown them."""
    return own.get("first", 0) if turn > 1 and own.get("step") == 0 else 0


def _messages(value: Any) -> list[BaseMessage]:
    if isinstance(value, Overwrite):
        value = value.value
    return list(value) if isinstance(value, list | tuple) else [value]
