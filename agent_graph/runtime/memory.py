"""What the turn does with the MemoryBackend: one load at its beginning, a save after each step that ran tools and at its end.

The default memory needs neither: the conversation is in the run's checkpoints, as the turn left it, and each step of it is there
already. It keeps a list of its own only of what no checkpoint of ours holds: the messages of a turn that ran inside another graph, and
of a turn that was closed before its end. Such a list is what the next turn begins with, and is forgotten when that turn has ended.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, ToolMessage

from agent_graph.decisions.retry import classify, next_delay
from agent_graph.errors import ContractError, NotDurable, StorageError, blamed, describe
from agent_graph.failpoints import failpoint
from agent_graph.runtime.deadline import Expired, within
from agent_graph.runtime.foreign import called
from agent_graph.runtime.history import conversation
from agent_graph.runtime.model_call import TimeIsUp
from agent_graph.storage.port import thread_id_of

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn
    from agent_graph.storage.port import Storage
    from agent_graph.types import Message

__all__ = ["StoredMemory", "load", "save"]

SAVE_S = 5.0
"""How long a save may take, in seconds; the turn's own time may be over already."""


class StoredMemory:
    """The default MemoryBackend: what the run's checkpoints hold, or a list of its own in the same file where they do not have it."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    async def load(self, run_id: str) -> list[Message]:
        """Return the conversation as the run's last turn left it; an empty list for an unknown run."""
        return await self.kept(run_id) or await conversation(self._agent.graph, thread_id_of(self._agent.namespace, run_id))

    async def kept(self, run_id: str) -> list[Message]:
        """Return the list of its own; empty where the checkpoints have the conversation."""
        storage: Storage = self._agent.storage
        return await storage.load_memory(self._agent.namespace, run_id)

    async def save(self, run_id: str, messages: list[Message]) -> None:
        """Keep `messages`; on disk with the next barrier."""
        await self._agent.storage.save_memory(self._agent.namespace, run_id, messages)


async def load(turn: Turn, memory: Any) -> Any:
    """Return `memory.load(run_id)`, tried again as the policy says; None: what the graph's state holds.

    Raises the last error, or TimeIsUp.
    """
    failpoint("memory.before_load")
    run_id = turn.key.run_id
    with blamed("memory.load"):
        if isinstance(memory, StoredMemory):
            return await _tried(turn, lambda: memory.kept(run_id), limit_s=None) or None
        return await _tried(turn, lambda: memory.load(run_id), limit_s=None)


async def save(turn: Turn, memory: Any, messages: Sequence[BaseMessage], *, at_end: bool) -> None:
    """Save the whole list where one is due. A save that fails leaves the turn standing, with a warning."""
    if not turn.loaded or _mark(messages) == turn.saved_messages:
        return
    if not at_end and (turn.config.save_memory == "end" or not isinstance(messages[-1], ToolMessage)):
        return
    in_state = isinstance(memory, StoredMemory) and not turn.direct
    if in_state and not at_end:
        return
    spec = [] if in_state else turn.conversion.to_spec(messages)
    failpoint("memory.before_save")
    try:
        with blamed("memory.save"):
            await _tried(turn, lambda: memory.save(turn.key.run_id, list(spec)), limit_s=SAVE_S)
    except (StorageError, NotDurable):
        raise
    except Exception as error:  # noqa: BLE001  the port's border: the answer is worth more than its memory
        turn.warn(f"{describe(error)}; the next turn will not know this one.")
    else:
        failpoint("memory.saved")
        turn.saved_messages = _mark(messages)


async def _tried(turn: Turn, act: Callable[[], Awaitable[Any]], *, limit_s: float | None) -> Any:
    attempt = 0
    while True:
        attempt += 1
        limit = turn.time_left_s if limit_s is None else limit_s
        try:
            return await within(limit, called(act))
        except Expired:
            raise (TimeIsUp(turn.time_is_up()) if limit_s is None else TimeoutError(f"no answer within {limit_s:g} s")) from None
        except Exception as error:
            failure = classify(error, spec_backend=True, now=turn.clock.time())
            delay = next_delay(failure, attempt=attempt, attempts=turn.config.attempts, time_left_s=limit, draw=random.random())
            if delay is None or isinstance(error, ContractError | StorageError | NotDurable):
                raise
        await turn.clock.sleep(delay)


def _mark(messages: Sequence[BaseMessage]) -> tuple[int, str | None]:
    return len(messages), messages[-1].id if messages else None
