"""load_memory: what the turn starts from.

The MemoryBackend alone decides what a new turn knows: its messages replace whatever the graph holds. The default memory *is* what the
graph holds, so there a turn only adds its input. Where the caller gave the messages (`as_runnable`), or the graph runs inside another
one, they are the history instead. A resumed turn never comes here again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Overwrite

from agent_graph.errors import ContractError
from agent_graph.guardrails import Block
from agent_graph.messages import ensure_id
from agent_graph.nodes import hooked, outcome
from agent_graph.runtime.judging import judged, withheld
from agent_graph.runtime.transcript import repaired, update_of
from agent_graph.state import Outcome, RunState, agent_of

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["load_memory"]


async def load_memory(state: RunState, config: RunnableConfig) -> Command[Literal["call_model", "finish"]]:
    """Load the history, append the input, and let the rails look at it."""
    agent = agent_of(config)
    turn: Turn = await agent.driver.hosting.enter(state, config)
    known: list[BaseMessage] = list(state.get("messages") or ())
    messages, end, ended_by = [*known, HumanMessage(turn.run.input)], None, None
    first: int | None = None
    with turn.at_work():
        try:
            messages = await _history(turn, state, known)
            end = await _input_judged(turn, messages)
            if end is None and turn.agent.hooks is not None:
                messages, first, ended_by = await hooked.before_agent(turn, messages, _position_of_input(messages))
        except outcome.PASSES:
            raise
        except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
            end = outcome.of_error(error, turn)
    update = _written(turn, state, known, messages, _position_of_input(messages) if first is None else first)
    if ended_by is not None:
        update["ended_by"] = ended_by
    if end is not None:
        update["outcome"] = end
    return Command(update=update, goto="finish" if end else "call_model")


def _written(turn: Turn, state: RunState, known: list[BaseMessage], messages: list[BaseMessage], first: int) -> dict[str, Any]:
    """Return what makes the state that of a new turn, which begins with `messages`, its input at `first`."""
    for message in messages:
        ensure_id(message)
    return {
        "messages": Overwrite(messages) if turn.direct else update_of(known, messages),
        "run_id": turn.key.run_id,
        "turn": turn.key.turn,
        "step": 0,
        "first": first,
        # A channel that was never written takes no room in any checkpoint, so it is not written to stay as it is.
        **{key: value for key, value in _RESET.items() if key in state},
    }


_RESET: dict[str, Any] = {
    "given": None,
    "compressed_at": -1,
    "hooked": -1,
    "landing": None,
    "stop": None,
    "revisions": {},
    "kept": "",
    "ended_by": None,
    "outcome": None,
}
"""What the last turn left, as it was before it."""


async def _history(turn: Turn, state: RunState, known: list[BaseMessage]) -> list[BaseMessage]:
    given = known if turn.direct else (state.get("given") or [HumanMessage(turn.run.input)])
    if turn.direct or len(given) > 1:
        turn.loaded = True
        return list(repaired(given))
    loaded = await turn.agent.driver.load(turn)
    if loaded is not None and not isinstance(loaded, list | tuple):
        raise ContractError(f"MemoryBackend.load returned {type(loaded).__name__}; a list of Message was due.")
    history = known if loaded is None else turn.conversion.to_langchain(loaded)
    turn.loaded = True
    ids = {message.id for message in history}  # the same message once more is one of its own, else it would take the earlier one's place
    asked = [message.model_copy(update={"id": None}) if message.id in ids else message for message in given]
    return [*repaired(history), *asked]


def _position_of_input(messages: list[BaseMessage]) -> int:
    """Return where the turn's input stands: an embedding graph may have put messages of its own after it."""
    return next((at for at in range(len(messages) - 1, -1, -1) if isinstance(messages[at], HumanMessage)), len(messages) - 1)


async def _input_judged(turn: Turn, messages: list[BaseMessage]) -> Outcome | None:
    judgement = await judged(turn, "input", turn.run.input, step=0)
    at = _position_of_input(messages)
    if judgement.decisive is None:
        if judgement.payload != turn.run.input:
            messages[at] = messages[at].model_copy(update={"content": judgement.payload})
        return None
    last = judgement.findings[-1]
    question = messages[at]
    if isinstance(question, HumanMessage):
        messages[at] = withheld(question, last)  # the next turn begins with this one's messages
    word = "blocked" if isinstance(judgement.decisive, Block) else "refused"
    return outcome.ended("failed", f"guardrails: {last.rail} {word} the input: {last.reason}", "blocked")
