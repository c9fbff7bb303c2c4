"""The ports: the specification's four backends, exactly as it writes them, and the clock.

A backend may be written against these classes or against the specification's own starter code: they are recognised by shape,
not by `isinstance`. Standard library only.
"""

from abc import ABC, abstractmethod
from typing import Dict, List, Protocol, runtime_checkable  # the specification's own spelling

from agent_graph.types import AgentRun, Message, ToolCall

__all__ = ["Clock", "LLMBackend", "MemoryBackend", "ObservabilityBackend", "ToolBackend"]


class LLMBackend(ABC):
    """A language model. One object may be called from several tasks, threads and event loops at once."""

    @abstractmethod
    async def complete(self, messages: List[Message], tools: List[Dict]) -> Message:  # type: ignore[type-arg]  # the specification's annotation
        """Return the model's reply to `messages`.

        `tools` holds the very dicts given to the agent's constructor, or nothing where the model must answer without tools.
        Tool calls, usage and cost go into the reply's `metadata` (docs/backends.md). Any exception is retried, unless it has
        `retryable = False` or a permanent status code.
        """

    @abstractmethod
    def count_tokens(self, messages: List[Message]) -> int:
        """Return the number of tokens of `messages`: pure computation, no network, fast enough for every step."""


class ToolBackend(ABC):
    """Runs tools."""

    @abstractmethod
    async def execute(self, call: ToolCall) -> ToolCall:
        """Run `call` and return it (or another ToolCall) with `result` or `error` set.

        A returned `error` is a known failure: the model is told and nothing is retried. An exception leaves the outcome unknown,
        except `ToolNotExecuted`, the tool's own word that nothing happened. `call.idempotency_key` is constant over attempts.
        """


class MemoryBackend(ABC):
    """Remembers the messages of a run between its turns."""

    @abstractmethod
    async def load(self, run_id: str) -> List[Message]:
        """Return the messages that the next turn of `run_id` starts from; an empty list for an unknown run."""

    @abstractmethod
    async def save(self, run_id: str, messages: List[Message]) -> None:
        """Replace what is remembered of `run_id` by `messages` (the whole list, without the agent's own system prompt)."""


class ObservabilityBackend(ABC):
    """Is told of every finished tool call and of every end of a turn, from one thread, in order; it can never fail a run."""

    @abstractmethod
    def record_run(self, run: AgentRun) -> None:
        """Take note of a turn's end; failed and timed-out turns too.

        Called once per end, and again for the same end only where the process died just then: (run_id, turn) is the same, and the
        later record holds. A turn that was continued by `resume` after it had ended ends again, under the same (run_id, turn).
        """

    @abstractmethod
    def record_tool_call(self, call: ToolCall, run_id: str) -> None:
        """Take note of a finished tool call, successful or not; once, or not at all where the process died just then.

        `AgentRun.tool_calls` of the turn's `record_run` has every call.
        """


@runtime_checkable
class Clock(Protocol):
    """Where time comes from, so that a test may own it."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        ...
