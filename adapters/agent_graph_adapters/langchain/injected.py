"""Arguments of a LangChain tool that the model does not give: the call's id, the graph's state, the store, the runtime.

As under LangGraph's ToolNode, they come from the graph that runs the tool: ours, which may be a node of another, or another's that
runs a tool of ours. What is known when the agent is built is refused then (a key that the state does not have); what only the
graph knows (whether it has a store) fails the call before the tool runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Final, TypeAlias, get_args, get_origin

from langchain_core.runnables import ensure_config
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from langgraph.pregel._read import ChannelRead
from langgraph.runtime import Runtime, get_runtime
from pydantic import BaseModel
from typing_extensions import get_type_hints

from agent_graph.errors import ConfigError

__all__ = ["NotThere", "around", "hints", "injected", "runtime_of"]

KEYS: Final = ("messages", "run_id", "turn", "step")
"""What a tool sees of the state: the conversation up to the reply that calls it, and where in which run that is."""

Give: TypeAlias = Callable[[str], Any]
"""Returns the value for a call id. Raises NotThere."""


class NotThere(Exception):
    """What a tool wants injected is not there. The tool has not run."""


def injected(tool: BaseTool) -> dict[str, Give]:
    """Return, by argument, what gives its value. ConfigError for what cannot be given by anybody here."""
    gives: dict[str, Give] = {}
    for name, hint, optional in _arguments(tool):
        mark = _mark(hint)
        if mark is None or name in gives:
            continue
        give = _give(tool, name, mark)
        if give is not None:
            gives[name] = give
        elif not optional:
            kind = mark if isinstance(mark, type) else type(mark)
            raise ConfigError(f"tools: {tool.name} wants {kind.__name__} injected as {name!r}, which nobody here can give. Close over it.")
    return gives


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints of a function, as far as they can be resolved."""
    try:
        return get_type_hints(function.func if isinstance(function, partial) else function, include_extras=True)
    except Exception:  # noqa: BLE001  # a name that cannot be resolved: LangChain's schema has found out more
        return {}


def _give(tool: BaseTool, name: str, mark: Any) -> Give | None:
    kind = mark if isinstance(mark, type) else type(mark)
    if issubclass(kind, InjectedToolCallId):
        return _same
    if issubclass(kind, ToolRuntime):
        return partial(runtime_of, tool)
    if issubclass(kind, InjectedStore):
        return partial(_store, tool)
    if not issubclass(kind, InjectedState):
        return None
    key = getattr(mark, "field", None)
    if key is not None and key not in KEYS:
        raise ConfigError(f"tools: {tool.name} wants {key!r} of the state injected as {name!r}; the state has {', '.join(KEYS)}.")
    return partial(_state, tool, key)


def _arguments(tool: BaseTool) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, type hint and whether there is a default, of the function's parameters and of the schema's fields."""
    functions = [function for name in ("func", "coroutine") if (function := getattr(tool, name, None))]
    for function in functions or [tool._run, tool._arun]:
        parameters = inspect.signature(function).parameters
        yield from (
            (name, hint, parameters[name].default is not inspect.Parameter.empty)
            for name, hint in hints(function).items()
            if name in parameters
        )
    schema = tool.args_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        for name, field in schema.model_fields.items():
            yield (
                name,
                Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation,
                not field.is_required(),
            )


def _mark(hint: Any) -> Any:
    """Return the object or class that says what is to be injected, or None."""
    if get_origin(hint) is Annotated:
        marks = get_args(hint)[1:]
        found = next((mark for mark in marks if issubclass(mark if isinstance(mark, type) else type(mark), InjectedToolArg)), None)
        return found if found is not None else _mark(get_args(hint)[0])
    kind = get_origin(hint) or hint
    return kind if isinstance(kind, type) and issubclass(kind, ToolRuntime) else None


def _same(call_id: str) -> str:
    return call_id


def _state(tool: BaseTool, key: str | None, call_id: str) -> Any:
    state = _read(tool.name)
    if not state:
        raise NotThere(f"{tool.name} wants the graph's state, and is called outside of a graph.")
    return state if key is None else state[key]


def _store(tool: BaseTool, call_id: str) -> Any:
    store = around().store
    if store is None:
        raise NotThere(f"{tool.name} wants the graph's store, and it has none. Give the agent one: store=InMemoryStore().")
    return store


def runtime_of(tool: BaseTool, call_id: str) -> ToolRuntime[Any, Any]:
    """Return what a tool sees of the graph that runs it."""
    there = around()
    return ToolRuntime(
        state=_read(tool.name),
        context=there.context,
        config=ensure_config(),
        stream_writer=there.stream_writer,
        tool_call_id=call_id,
        store=there.store,
    )


def around() -> Runtime[Any]:
    """Return the runtime of the graph around; an empty one outside of a graph."""
    try:
        there: Runtime[Any] | None = get_runtime()
    except (RuntimeError, KeyError):  # called outside a graph
        there = None
    return Runtime() if there is None else there  # None: in a chain, whose configuration has no graph's runtime


class _State(dict[str, Any]):
    """What a tool sees of the state. A key that is not there is named, with those that are."""

    def __init__(self, tool: str, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._tool = tool

    def __missing__(self, key: str) -> Any:
        there = ", ".join(self) or "nothing, outside of a graph"
        raise ConfigError(f"tools: {self._tool} reads {key!r} of the graph's state, which has {there}. Take it as an argument.")


def _read(tool: str) -> _State:
    """Return the state of the graph around; empty outside of one. The list of messages is the tool's own."""
    try:
        values: dict[str, Any] = ChannelRead.do_read(ensure_config(), select=[*KEYS])
    except (RuntimeError, KeyError):
        values = {}
    if "messages" in values:
        values = {**values, "messages": list(values["messages"])}
    return _State(tool, values)
