"""What names a turn, a step and a call in a graph that is not ours.

A *turn* is begun by a human message: its name is the thread's id and that message's. Both are in the checkpoint, so a graph that is
resumed goes on under the same name, in whichever process; a thread's next question begins another turn. Summaries that LangChain's
SummarizationMiddleware puts in as human messages begin nothing. Without a thread (no checkpointer) the message alone is the name.

A *call* is named by the reply that asked for it, its place therein, the tool and the arguments. The reply's own id stands beside its
number: middleware may take messages out of the list, and a number would then come again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import ensure_config

from agent_graph.config import validate_run_id
from agent_graph.errors import ConfigError

if TYPE_CHECKING:
    from langchain.agents.middleware import ModelResponse

__all__ = ["Asking", "Begun", "Purpose", "asking_of", "begun", "begun_by", "is_last", "messages_in", "purpose", "since"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A turn of somebody's graph."""

    run_id: str
    """Its name in the storage: "<thread_id>/<id of the human message>"."""
    thread_id: str | None
    input: str
    """The human message's text."""
    agent: str
    """The graph's name, "create_agent" where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a model call is for, where it is no step: a summary has to leave enough for the call that it is made for."""

    kind: Literal["summary", "judge"]
    next_tokens: int
    """Input of the call that follows."""


purpose: ContextVar[Purpose | None] = ContextVar("agent_graph_purpose", default=None)
"""What the model call that is being made is for; None: a step of the loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Where a tool call stands."""

    reply_id: str
    step: int
    """The reply's number in its turn, from 1, as far as the list still shows it."""
    index: int
    """The call's place in its reply, from 0."""


def messages_in(state: Any) -> Sequence[BaseMessage]:
    """Return the messages of a graph's state: a mapping, an object, or the bare list."""
    found = state if isinstance(state, list) else state.get("messages") if isinstance(state, Mapping) else getattr(state, "messages", None)
    return [message for message in found or () if isinstance(message, BaseMessage)]


def begun_by(messages: Sequence[BaseMessage]) -> BaseMessage | None:
    """Return the human message that began the turn: the last one that is no summary; None where there is none."""
    humans = (message for message in reversed(messages) if isinstance(message, HumanMessage))
    return next((message for message in humans if message.additional_kwargs.get("lc_source") != "summarization"), None)


def since(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """Return what the list still shows of the turn: all after the message that began it."""
    first = begun_by(messages)
    return messages if first is None else messages[next(at for at, message in enumerate(messages) if message is first) + 1 :]


def begun(messages: Sequence[BaseMessage], config: Mapping[str, Any] | None = None, *, known: str | None = None) -> Begun:
    """Return the turn that a hook works for.

    Args:
        messages: the state's, not a request's: those may have been changed on their way.
        config: the RunnableConfig; None for that of the running node.
        known: the id of the human message that began the turn, where the list may not hold it any more.
    """
    config = ensure_config() if config is None else config
    thread_id = (config.get("configurable") or {}).get("thread_id")
    first = begun_by(messages) or next(iter(messages), None)
    message_id = known or _id_of(first)
    return Begun(
        run_id=_name(message_id if thread_id is None else f"{thread_id}/{message_id}"),
        thread_id=None if thread_id is None else str(thread_id),
        input=first.text if first is not None else "",
        agent=str((config.get("metadata") or {}).get("lc_agent_name") or "create_agent"),
    )


def asking_of(messages: Sequence[BaseMessage], call_id: str) -> Asking:
    """Return where the call of this id stands. A call that no reply in the list asked for is named by its own id."""
    replies = [message for message in since(messages) if isinstance(message, AIMessage)]
    for step in range(len(replies), 0, -1):
        for index, call in enumerate(replies[step - 1].tool_calls):
            if call["id"] == call_id:
                return Asking(reply_id=replies[step - 1].id or f"call/{call_id}", step=step, index=index)
    return Asking(reply_id=f"call/{call_id}", step=max(len(replies), 1), index=0)


def is_last(response: ModelResponse[Any]) -> bool:
    """Return whether a model's response asks for no tool, which ends the turn."""
    replies = [message for message in response.result if isinstance(message, AIMessage)]
    return bool(replies) and not any(reply.tool_calls for reply in replies)


def _id_of(message: BaseMessage | None) -> str:
    if message is None:
        return "nobody"
    return message.id or hashlib.sha256(message.text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _name(text: str) -> str:
    """Return `text` if it can name a run in the storage, else a hash of it."""
    try:
        return validate_run_id(text)
    except ConfigError:
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
