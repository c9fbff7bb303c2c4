"""What a checkpoint holds, and how a node finds its agent.

`RunState` is small on purpose: whatever grows is not rewritten at each step. Messages sit in a channel that stores only what each
superstep adds; tool calls and model calls are rows of the journal and the ledger, not state. It holds plain JSON types and LangChain
messages only: a dataclass that is not on the serializer's list would come back as a dict.

Nodes are module-level functions (so that any durable engine can import them by name), hence they cannot close over the agent. They
find it under `agent_key` in the configuration: LangGraph's `Runtime` context does not reach a subgraph under another context schema.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from langchain_core.messages import AnyMessage, BaseMessage, RemoveMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.channels import BinaryOperatorAggregate
from langgraph.channels.base import BaseChannel
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic, which draws the graph's schemas, takes no other before Python 3.12

from agent_graph.errors import ConfigError

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["AgentKey", "Call", "Conversation", "Outcome", "RunState", "agent_of", "turn_of"]

logger = logging.getLogger("agent_graph")

SNAPSHOT_FREQUENCY = 1_000
"""A full copy every so many updates: 50 or the default 100 bring quadratic growth back (12 and 7.4 KB a step against 5.2)."""


def append_messages(messages: list[Any], writes: Sequence[Any]) -> list[BaseMessage]:
    """Return `messages` with what `writes` hold appended, in order; a message whose id is already there replaces it.

    Deterministic and indifferent to how the writes are batched, as DeltaChannel demands of a reducer.
    """
    written = [message for write in writes for message in (write if isinstance(write, list) else [write])]
    new = [_message(message) for message in written]
    if messages and not isinstance(messages[0], BaseMessage):
        messages = [_message(message) for message in messages]
    ids = {message.id for message in new if not isinstance(message, RemoveMessage)} - {None}
    if len(ids) == len(new) and ids.isdisjoint([message.id for message in messages]):
        return [*messages, *new]  # as nearly always: nothing is replaced, so nothing has to be looked up
    return _placed(list(messages), new)


def _placed(result: list[BaseMessage], new: list[BaseMessage]) -> list[BaseMessage]:
    position: dict[str | None, int] = {message.id: at for at, message in enumerate(result) if message.id}
    for message in new:
        at = position.get(message.id) if message.id else None
        if at is not None:
            result[at] = message
        elif not isinstance(message, RemoveMessage):
            position[message.id] = len(result)
            result.append(message)
        if isinstance(message, RemoveMessage):
            position.pop(message.id, None)  # should it come back, it comes last, as it would in a later batch
    return [message for message in result if not isinstance(message, RemoveMessage)]


def _message(given: Any) -> BaseMessage:
    """Return a message in whatever form it was written.

    An embedding graph, or a client over HTTP, may write ("user", "hi") or {"role": ...}, as everywhere in LangChain; a saver of
    another's (that of `langgraph dev`) may bring back what stood in an Overwrite as plain JSON.
    """
    if isinstance(given, BaseMessage):
        return given
    if isinstance(given, dict) and "type" in given and "role" not in given:
        with contextlib.suppress(ValidationError):
            return _whole_messages().validate_python(given)
    return convert_to_messages([given])[0]


@functools.cache
def _whole_messages() -> TypeAdapter[BaseMessage]:
    return TypeAdapter(AnyMessage)


def messages_channel() -> BaseChannel[Any, Any, Any]:
    """Return the channel of the messages: the one place that names DeltaChannel, which is beta (tests/test_state.py holds its contract).

    A LangGraph that has it no more, or makes it otherwise, gets a plain channel and a warning: the same list, whole in each checkpoint.
    """
    try:
        from langgraph.channels.delta import DeltaChannel

        return DeltaChannel(append_messages, snapshot_frequency=SNAPSHOT_FREQUENCY)
    except (ImportError, TypeError) as error:
        logger.warning("this LangGraph has no DeltaChannel as agent_graph knows it (%s): each step stores the whole conversation", error)
        return plain_channel()


def plain_channel() -> BaseChannel[Any, Any, Any]:
    """Return a channel that does what `messages_channel` does, and writes the whole list at each step."""
    return BinaryOperatorAggregate(list, lambda messages, write: append_messages(messages, [write]))


class Outcome(TypedDict):
    """How a turn ends, as decided before `finish`."""

    status: str
    """complete | failed | timeout | running (it waits for a person)."""
    error: str | None
    stop_reason: str


def keep_first(old: Outcome | None, new: Outcome | None) -> Outcome | None:
    """Several parallel calls may end a turn at once: the first word stands, until the next turn clears it with None."""
    return new if new is None else (old or new)


class Conversation(TypedDict):
    """What leaves the graph: an outer graph keeps its own keys, whatever they are called."""

    messages: Annotated[list[AnyMessage], messages_channel()]
    """Without our system prompt."""


class RunState(Conversation, total=False):
    """The state of the graph; every key but `messages` belongs to the current turn and is reset when the next one begins."""

    run_id: str
    turn: int
    given: list[AnyMessage] | None
    """The messages that this turn's caller gave, its input in them, until `load_memory` has put them into `messages`."""
    step: int
    """Steps used so far in this turn."""
    first: int
    """Position in `messages` of the first message of this turn (its input)."""
    compressed_at: int
    """The step before which the messages have been compressed, so that a pass which cannot help is not repeated; -1 for never."""
    hooked: int
    """The step before which the hooks of others (`before_model`) have run; -1 for never."""
    landing: str | None
    """The limit whose nearness makes the next model call a landing."""
    stop: str | None
    """A violation that `call_model` found and `check_budget` is to judge."""
    revisions: dict[str, int]
    """How often each guardrail sent a reply back in this turn."""
    kept: str
    """Text that was cut off and is being continued: it comes before the next reply's."""
    ended_by: str | None
    """The hook of others that ended the turn (`jump_to="end"`), or None."""
    outcome: Annotated[Outcome | None, keep_first]


class Call(TypedDict):
    """What one `Send` carries to `run_tool`: the call alone, never the state."""

    run_id: str
    turn: int
    step: int
    index: int
    id: str
    name: str
    args: Any
    problem: str | None
    """Why the call cannot be run (malformed arguments), or None."""


_agents: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


class AgentKey(str):
    """The name of an agent in this process: a plain string to everyone else, which keeps its agent alive.

    A graph is bound to its agent by this key alone; so that `create_production_agent(...).graph` works as a node of another graph
    although nobody keeps the agent, the key holds it.
    """

    __slots__ = ("agent",)

    agent: Any

    @classmethod
    def of(cls, agent: Any, name: str) -> AgentKey:
        """Register `agent` and return its key."""
        key = cls(f"{name}-{uuid4().hex[:12]}")
        key.agent = agent
        _agents[str(key)] = agent
        return key


def agent_of(config: RunnableConfig) -> Any:
    """Return the agent that `config` is bound to. Raises ConfigError where the graph runs unbound."""
    key = (config.get("configurable") or {}).get("agent_key")
    if isinstance(key, AgentKey):
        return key.agent
    agent = _agents.get(key) if isinstance(key, str) else None
    if agent is None:
        raise ConfigError(
            f"agent_key: {key!r} names no agent of this process. Use `agent.graph`, or "
            "build_graph().compile().with_config(configurable={'agent_key': agent.key})."
        )
    return agent


async def turn_of(state: RunState | Call, config: RunnableConfig) -> Turn:
    """Return the live turn that this node works for; after a crash of an embedding graph it is reopened from the storage."""
    turn: Turn = await agent_of(config).attend(state["run_id"], state["turn"])
    return turn
