"""FakeTools, DictMemory, ListObservability: the specification's other three backends, in memory.

Each keeps copies of what it is given and gives copies of what it keeps, as a backend behind a network would; each may be used
from several threads and event loops at once.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent_graph.errors import ConfigError
from agent_graph.ports import MemoryBackend, ObservabilityBackend, ToolBackend
from agent_graph.types import AgentRun, Message, ToolCall

__all__ = ["DictMemory", "FakeTools", "ListObservability"]


class FakeTools(ToolBackend):
    """Runs tools that are functions: `FakeTools({"weather": lambda city: "21 degrees"})`.

    A handler is called with the call's args as keywords, and may be plain or async. What it returns is the result (a ToolCall is
    returned as it is), what it raises is raised. A tool without a handler is a returned error.

    Raises:
        ConfigError: something else than a mapping of names to functions.
    """

    def __init__(self, handlers: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.handlers = _handlers(handlers)
        self.calls: list[ToolCall] = []
        """Every attempt so far, in order of arrival, as it came in."""

    async def execute(self, call: ToolCall) -> ToolCall:
        """Run the handler of `call.tool_name`."""
        self.calls.append(copy.deepcopy(call))  # list.append is atomic
        handler = self.handlers.get(call.tool_name)
        if handler is None:
            return replace(call, error=f"no tool is named {call.tool_name!r}")
        result = handler(**call.args)
        if inspect.isawaitable(result):
            result = await result
        return result if isinstance(result, ToolCall) else replace(call, result=result)


def _handlers(given: object) -> dict[str, Callable[..., Any]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(callable(handler) for handler in given.values()):
        raise ConfigError(f"handlers: tools by their names are due, FakeTools({{'weather': function}}), not {given!r}.")
    return dict(given)


class DictMemory(MemoryBackend):
    """Remembers in a dict."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.saved: dict[str, list[Message]] = {}
        """What is remembered, by run_id."""
        self.loads: list[str] = []
        """The run_id of every load, in order."""
        self.saves: list[tuple[str, list[Message]]] = []
        """Every save, in order."""

    async def load(self, run_id: str) -> list[Message]:
        """Return what was last saved; an empty list for an unknown run."""
        with self._lock:
            self.loads.append(run_id)
            return copy.deepcopy(self.saved.get(run_id, []))

    async def save(self, run_id: str, messages: list[Message]) -> None:
        """Replace what is remembered of `run_id`."""
        with self._lock:
            self.saved[run_id] = copy.deepcopy(messages)
            self.saves.append((run_id, copy.deepcopy(messages)))


class ListObservability(ObservabilityBackend):
    """Keeps what it is told in lists."""

    def __init__(self) -> None:
        self.runs: list[AgentRun] = []
        """Every record_run, in order."""
        self.calls: list[tuple[ToolCall, str]] = []
        """Every record_tool_call, in order: the call and its run_id."""

    def record_run(self, run: AgentRun) -> None:
        """Keep a shallow copy: results may be objects that cannot be copied."""
        self.runs.append(copy.copy(run))

    def record_tool_call(self, call: ToolCall, run_id: str) -> None:
        """Keep a shallow copy."""
        self.calls.append((copy.copy(call), run_id))

    def calls_of(self, run_id: str) -> list[ToolCall]:
        """Return the recorded calls of one run, in order."""
        return [call for call, owner in self.calls if owner == run_id]
