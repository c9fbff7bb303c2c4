"""A `MemoryBackend` as LangChain's chat history, and a chat history or a LangGraph store as a `MemoryBackend`.

The port loads and saves a whole conversation; a chat history adds to one. So adding is loading, appending and saving: one writer
at a time, as with every history of LangChain. The other way round, saving compares first: what the history already begins with
stays, and only what follows is added; where the beginning differs (after a compression) it is cleared and written anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast, overload

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langgraph.store.base import BaseStore
from typing_extensions import override

from agent_graph.config import validate_run_id
from agent_graph.decisions.plain import plain
from agent_graph.errors import ConfigError, ContractError
from agent_graph.messages import Conversion
from agent_graph.ports import MemoryBackend
from agent_graph.runtime.sync import run_sync
from agent_graph.types import Message, MessageRole

__all__ = ["BackendHistory", "HistoryMemory", "StoreMemory", "as_chat_history", "as_memory_backend"]

NAMESPACE = ("agent_graph", "memory")
"""Where a store keeps the conversations; the key is the run_id."""


@overload
def as_chat_history(memory: MemoryBackend) -> Callable[[str], BaseChatMessageHistory]: ...
@overload
def as_chat_history(memory: MemoryBackend, run_id: str) -> BaseChatMessageHistory: ...
def as_chat_history(memory: MemoryBackend, run_id: str | None = None) -> BaseChatMessageHistory | Callable[[str], BaseChatMessageHistory]:
    """Return the conversation `run_id` of `memory` as a chat history; without a run_id, the function from a session's name to it.

    ```python
    chain = RunnableWithMessageHistory(prompt | model, as_chat_history(memory), history_messages_key="history")
    ```

    Raises ConfigError for what is no MemoryBackend, and for a run_id that cannot be.
    """
    missing = [method for method in ("load", "save") if not callable(getattr(memory, method, None))]
    if missing or isinstance(memory, type):
        lacks = f" (without {', '.join(f'{method}()' for method in missing)})" if missing else ""
        raise ConfigError(f"memory: {memory!r} is no MemoryBackend{lacks}.")
    if run_id is not None:
        return BackendHistory(memory, run_id)

    def history_of(session_id: str) -> BaseChatMessageHistory:
        return BackendHistory(memory, session_id)

    return history_of


@overload
def as_memory_backend(history: BaseChatMessageHistory, /) -> MemoryBackend: ...
@overload
def as_memory_backend(store: BaseStore, /, *, namespace: tuple[str, ...] = ...) -> MemoryBackend: ...
@overload
def as_memory_backend(history_of: Callable[[str], Any], /) -> MemoryBackend: ...
def as_memory_backend(given: Any, /, *, namespace: tuple[str, ...] = NAMESPACE) -> MemoryBackend:
    """Return a LangGraph store, or LangChain's chat histories, as a `MemoryBackend`.

    ```python
    agent = ProductionAgent(..., memory=as_memory_backend(lambda run_id: SQLChatMessageHistory(run_id, "sqlite:///chats.db")), ...)
    ```

    Args:
        given: a store, whose values are plain JSON; or what `RunnableWithMessageHistory` takes, a function from a session's name to
            its history. One history alone serves one run, the first that asks, and no other.
        namespace: where in a store the conversations are kept.

    Raises ConfigError for anything else.
    """
    if isinstance(given, BaseStore):
        return StoreMemory(given, namespace)
    if isinstance(given, BaseChatMessageHistory):
        return HistoryMemory(_OneRun(given))
    if callable(given) and not isinstance(given, type):
        return HistoryMemory(given)
    raise ConfigError(
        f"memory: {given!r} is neither a LangGraph store (langgraph.store.base.BaseStore) nor a chat history nor a function that"
        " returns one."
    )


class BackendHistory(BaseChatMessageHistory):
    """One conversation of a `MemoryBackend`."""

    def __init__(self, memory: MemoryBackend, run_id: str) -> None:
        self._memory, self.run_id = memory, validate_run_id(run_id)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain's own histories make it a property too
        """The conversation."""
        return run_sync(self.aget_messages())

    @override
    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        run_sync(self.aadd_messages(messages))

    @override
    def clear(self) -> None:
        run_sync(self.aclear())

    @override
    async def aget_messages(self) -> list[BaseMessage]:
        return Conversion().to_langchain(await self._memory.load(self.run_id))

    @override
    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        known = await self._memory.load(self.run_id)
        await self._memory.save(self.run_id, [*known, *Conversion().to_spec(messages)])

    @override
    async def aclear(self) -> None:
        await self._memory.save(self.run_id, [])


class HistoryMemory(MemoryBackend):
    """The conversations of LangChain's chat histories."""

    def __init__(self, history_of: Callable[[str], Any]) -> None:
        self._history_of = history_of

    async def load(self, run_id: str) -> list[Message]:
        """Return what the history of `run_id` holds."""
        return Conversion().to_spec(await (await self._history(run_id)).aget_messages())

    async def save(self, run_id: str, messages: list[Message]) -> None:
        """Add what is new; write anew what has changed."""
        history = await self._history(run_id)
        known = Conversion().to_spec(await history.aget_messages())
        begins = len(known) <= len(messages) and all(map(_same, known, messages))
        if not begins:
            await history.aclear()
        new = messages[len(known) :] if begins else messages
        if new:
            await history.aadd_messages(Conversion().to_langchain(new))

    async def _history(self, run_id: str) -> BaseChatMessageHistory:
        made = self._history_of(run_id)
        history = await made if inspect.isawaitable(made) else made
        if not isinstance(history, BaseChatMessageHistory):
            raise ContractError(f"memory: a BaseChatMessageHistory was due for run {run_id!r}, not {type(history).__name__}.")
        return history


class _OneRun:
    """A history that belongs to the first run that asks for it: two conversations in one would be read as one."""

    def __init__(self, history: BaseChatMessageHistory) -> None:
        self._history, self._run_id = history, cast("str | None", None)

    def __call__(self, run_id: str) -> BaseChatMessageHistory:
        if self._run_id is None:
            self._run_id = run_id
        if run_id != self._run_id:
            raise ConfigError(
                f"memory: this chat history is that of run {self._run_id!r}, so run {run_id!r} cannot use it. "
                "Give a function that returns each run's own: as_memory_backend(lambda run_id: ...)."
            )
        return self._history


class StoreMemory(MemoryBackend):
    """Conversations in a LangGraph store, each one item."""

    def __init__(self, store: BaseStore, namespace: tuple[str, ...]) -> None:
        self._store, self._namespace = store, namespace

    async def load(self, run_id: str) -> list[Message]:
        """Return what is stored under `run_id`."""
        item = await self._store.aget(self._namespace, run_id)
        stored: list[dict[str, Any]] = [] if item is None else item.value["messages"]
        return [Message(MessageRole(entry["role"]), entry["content"], plain(entry["metadata"])) for entry in stored]  # type: ignore[arg-type]  # plain() of a mapping is one

    async def save(self, run_id: str, messages: list[Message]) -> None:
        """Replace what is stored under `run_id`."""
        stored = [{"role": message.role.value, "content": message.content, "metadata": plain(message.metadata)} for message in messages]
        await self._store.aput(self._namespace, run_id, {"messages": stored}, index=False)


def _same(one: Message, other: Message) -> bool:
    return (one.role, one.content, plain(one.metadata)) == (other.role, other.content, plain(other.metadata))
