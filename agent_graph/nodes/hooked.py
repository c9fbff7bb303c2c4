"""Hooks of others (`middleware=`) before and after the agent and the model: run inside the node, their messages part of its update.

`hooked` in the state is the step before which `before_model` has run, so that a node that leaves (for `check_budget`, `compress`) and
is entered again does not run it twice. `ended_by` names the hook that ended the turn: no model or tool is called any more, and
what stands there as the answer is judged by every rail. A hook's time is the turn's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command, Overwrite

from agent_graph.errors import ContractError
from agent_graph.messages import ensure_id
from agent_graph.runtime.deadline import Expired, within
from agent_graph.runtime.model_call import TimeIsUp
from agent_graph.runtime.transcript import answerable, last_reply, repaired, update_of
from agent_graph.state import RunState, append_messages

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["after_agent", "after_model", "before_agent", "before_model", "merged"]


async def before_agent(turn: Turn, messages: list[BaseMessage], first: int) -> tuple[list[BaseMessage], int, str | None]:
    """Return what the turn starts from, where its input stands in it, and the hook that ended the turn, or None."""
    for message in messages:
        ensure_id(message)
    result, ended_by = await _through(turn, "before_agent", messages)
    return result, _first_in(result, messages, first), ended_by


async def before_model(turn: Turn, state: RunState) -> RunState:
    """Return the state as the hooks before the model leave it; they run once per step."""
    if state.get("ended_by") is not None or state.get("hooked", -1) == state["step"]:
        return state
    messages, ended_by = await _through(turn, "before_model", state["messages"])
    first = _first_in(messages, state["messages"], state.get("first", 0))
    return cast(RunState, {**state, "messages": messages, "first": first, "ended_by": ended_by})


async def after_model(turn: Turn, known: Sequence[BaseMessage], reply: AIMessage, step: int) -> tuple[AIMessage, Any, str | None]:
    """Return the reply as the hooks after the model leave it, the write that brings `known` there, and the hook that ended the turn."""
    ensure_id(reply)
    messages, ended_by = await _through(turn, "after_model", [*known, reply])
    newest = last_reply(messages)
    if newest is None or newest.id in {message.id for message in known}:
        raise ContractError("middleware: after_model took the reply away; replace it by another AIMessage, or jump to the end with one.")
    calls = bool(newest.tool_calls or newest.invalid_tool_calls)
    if calls and ended_by is None and messages[-1] is not newest:
        raise ContractError(
            "middleware: after_model added messages behind a reply that calls tools, where only the results may stand. Add them in "
            "before_model; answer a call in awrap_tool_call."
        )
    return answerable(newest, step), update_of(known, messages), ended_by


async def after_agent(turn: Turn, messages: Sequence[BaseMessage], first: int) -> tuple[Sequence[BaseMessage], int]:
    """Return the conversation as the hooks after the agent leave it, and where the turn begins in it."""
    if not turn.agent.hooks.has("after_agent"):
        return messages, first
    result, _ = await _through(turn, "after_agent", messages)
    return result, _first_in(result, messages, first)


def merged(state: RunState, shown: RunState, command: Command[Any]) -> Command[Any]:
    """Return `command` with what the hooks wrote: they saw `state`, and what followed saw `shown`."""
    update: dict[str, Any] = dict(cast("dict[str, Any]", command.update or {}))
    written = update.pop("messages", [])
    known, messages = state["messages"], shown["messages"]
    messages = list(written.value) if isinstance(written, Overwrite) else [*messages, *written]
    if len(messages) != len(known) or any(one is not other for one, other in zip(messages, known, strict=True)):
        update["messages"] = update_of(known, messages)
        first = _first_in(messages, known, state.get("first", 0))
        update |= {"first": first} if first != state.get("first", 0) else {}
    if shown.get("ended_by") != state.get("ended_by"):
        update["ended_by"] = shown.get("ended_by")
    return Command(update={**update, "hooked": state["step"]}, goto=command.goto)


async def _through(turn: Turn, where: str, messages: Sequence[BaseMessage]) -> tuple[list[BaseMessage], str | None]:
    if not turn.agent.hooks.has(where):
        return list(messages), None
    try:
        result, ended_by = await within(turn.time_left_s, turn.agent.hooks.run(where, messages, _applied))
    except Expired:
        raise TimeIsUp(turn.time_is_up()) from None
    return (list(repaired(result)) if where != "after_model" else result), ended_by


def _applied(messages: list[BaseMessage], written: Any) -> list[BaseMessage]:
    """Return `messages` after a write, by the state's reducer."""
    new = list(written) if isinstance(written, list) else [written]
    alls = [at for at, message in enumerate(new) if isinstance(message, RemoveMessage) and message.id == REMOVE_ALL_MESSAGES]
    known, new = ([], new[alls[-1] + 1 :]) if alls else (messages, new)
    result = append_messages(known, [new])
    for message in result:
        ensure_id(message)
    return result


def _first_in(messages: Sequence[BaseMessage], known: Sequence[BaseMessage], first: int) -> int:
    """Return where the turn begins that began at `first` of `known`: at its input, or, should a hook have removed that, behind what was
    before it."""
    if len(known) > first:
        place = next((at for at, message in enumerate(messages) if message.id == known[first].id), None)
        if place is not None:
            return place
    old = {message.id for message in known[:first]}
    return max((at + 1 for at, message in enumerate(messages) if message.id in old), default=0)
