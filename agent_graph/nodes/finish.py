"""finish: the turn's end, whatever it was: the answer or the error, the memory saved, the account written and told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig

from agent_graph.decisions.budget import violation
from agent_graph.decisions.structured import Misfit
from agent_graph.errors import ContractError
from agent_graph.nodes import hooked, outcome
from agent_graph.runtime.transcript import last_reply, repaired, text_of, update_of
from agent_graph.state import Outcome, RunState, turn_of

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["finish"]


async def finish(state: RunState, config: RunnableConfig) -> dict[str, Any]:
    """Close the account: status, output, error; save the memory; tell the observability backend."""
    turn = await turn_of(state, config)
    with turn.at_work():
        messages = repaired(state["messages"])  # a landing's tool calls are not run, and yet each needs an answer
        end = state.get("outcome") or _answered(turn, state)
        run = turn.refresh()
        blocked = end["stop_reason"] == "blocked"  # what stands there then is not the model's text but the note that it was withheld
        run.output = None if blocked else _last_text(messages, state.get("first", 0), state.get("kept", ""))
        end, first = _with_object(turn, end), state.get("first", 0)
        if turn.agent.hooks is not None and end["status"] == "complete":
            messages, first, end = await _hooked(turn, state, messages, end)
        run.status, run.error, run.stop_reason = end["status"], end["error"], end["stop_reason"]
        run.landed = state.get("landing")
        await turn.agent.remember(turn, messages, at_end=True)
        turn.refresh()
        await turn.agent.driver.conclude(turn)
        update: dict[str, Any] = {"outcome": end}
        if messages is not state["messages"]:
            update["messages"] = update_of(state["messages"], messages)
        if first != state.get("first", 0):
            update["first"] = first
        return update


async def _hooked(turn: Turn, state: RunState, messages: Sequence[BaseMessage], end: Outcome) -> tuple[Sequence[BaseMessage], int, Outcome]:
    """Run the hooks of others after the agent. The answer stands: it has been judged, and told."""
    first, kept = state.get("first", 0), state.get("kept", "")
    try:
        left, place = await hooked.after_agent(turn, messages, first)
        if _last_text(left, place, kept) != turn.run.output:
            raise ContractError("middleware: after_agent changed the answer, which has been judged and told. Change it in after_model.")
    except outcome.PASSES:
        raise
    except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
        return messages, first, outcome.of_error(error, turn)
    return left, place, end


def _answered(turn: Turn, state: RunState) -> Outcome:
    """Return the end of a turn that nothing stopped: complete, if there is an answer."""
    newest, ended_by = last_reply(state["messages"][state.get("first", 0) :]), state.get("ended_by")
    if newest is not None and text_of(newest).strip():
        return outcome.ended("complete", None, "answer")
    if ended_by is not None:
        return outcome.ended("failed", f"middleware: {ended_by} ended the turn before there was an answer.", "error")
    landing = state.get("landing")
    if landing is None:
        return outcome.ended("failed", "LLMError: the model gave no answer: its last reply was empty.", "error")
    if landing == "error":
        return outcome.ended("failed", "LLMError: the model failed, and another one gave no answer from what was known.", "error")
    reached = violation(turn.limits, turn.spent)
    text = reached if reached is not None and reached.startswith(landing) else f"{landing}: the last call that it could pay gave no answer"
    return outcome.of_stop(text)


def _with_object(turn: Turn, end: Outcome) -> Outcome:
    """Enter the answer as an object into the account, where one was asked for; without it the turn has no answer."""
    if turn.agent.response_format is None or end["status"] != "complete":
        return end
    value = turn.agent.response_format.read(turn.run.output)
    if isinstance(value, Misfit):  # the rail is another's, or let it pass
        return outcome.ended("failed", f"response_format: {value.reason}", "error")
    turn.run.structured = value
    return end


def _last_text(messages: Sequence[BaseMessage], first: int, kept: str) -> str | None:
    """Return the last text that the model gave in this turn, after the cut-off text that it continues; or None."""
    for message in reversed(messages[first:]):
        if isinstance(message, AIMessage) and text_of(message).strip():
            text = text_of(message)
            return text if kept.endswith(text) else kept + text
    return None
