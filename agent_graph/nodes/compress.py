"""compress: entered when the message list is over its threshold, before a call would exceed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Overwrite

from agent_graph.errors import ContractError, blamed
from agent_graph.messages import ensure_id
from agent_graph.nodes import outcome
from agent_graph.runtime.transcript import repaired
from agent_graph.state import RunState, turn_of
from agent_graph.types import Message

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["compress"]


async def compress(state: RunState, config: RunnableConfig) -> dict[str, Any]:
    """Put the compressed list in the place of the messages; the originals stay in the storage (`agent.history`)."""
    turn = await turn_of(state, config)
    with turn.at_work():
        try:
            return await _compressed(turn, state)
        except outcome.PASSES:
            raise
        except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
            return {"outcome": outcome.of_error(error, turn)}


async def _compressed(turn: Turn, state: RunState) -> dict[str, Any]:
    messages, step = state["messages"], state["step"]
    before = turn.conversion.to_spec([turn.system_message(turn.system), *messages])
    with blamed("_compress_if_needed"):
        after: list[Message] = await turn.agent._compress_if_needed(before)
    if not isinstance(after, list):
        raise ContractError(f"_compress_if_needed returned {type(after).__name__}; a list of Message was due.")
    if after is before:
        return {"compressed_at": step}
    kept = list(repaired([message for message in turn.conversion.to_langchain(after) if not _is_ours(message, turn.system)]))
    for message in kept:
        ensure_id(message)
    turn.agent.shrunk(turn, after)
    turn.note("compression", {"messages": [len(before), len(after)]}, step=step)
    input_id = messages[state.get("first", 0)].id
    first = next((at for at, message in enumerate(kept) if message.id == input_id), 0)
    return {"messages": Overwrite(kept), "compressed_at": step, "first": first}


def _is_ours(message: BaseMessage, system: str) -> bool:
    return isinstance(message, SystemMessage) and message.text == system
