"""`before_agent`, `before_model`, `after_model` and `after_agent` of others' middleware, run inside our nodes: no superstep is added.

In `create_agent` each such hook is a node. Here a node runs them in place, in the same order (`before_*` as given, `after_*` in
reverse), on the same `{"messages": [...]}`, and what they return is part of that node's own update. So a hook and what it hooks reach
the disk together: after a crash both are made again, and the state has the effect of one. What a hook does elsewhere may thus be done
twice by a crash, as a model call may. What `after_agent` writes is in the state at most once: the turn's end is on disk before its last
checkpoint, and where the process dies between the two, the answer stands and these messages are lost.

Of an update the agent has a place for `messages` (added, replaced by id, removed) and `jump_to="end"`; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from langchain_core.messages import BaseMessage
from langgraph.errors import GraphBubbleUp

from agent_graph.errors import ConfigError, ContractError, blamed
from agent_graph_adapters.langchain.blocking import in_thread
from agent_graph_adapters.langchain.injected import around

__all__ = ["StepHooks", "has"]

WHERE: Final = ("before_agent", "before_model", "after_model", "after_agent")
Apply: TypeAlias = Callable[[list[BaseMessage], Any], list[BaseMessage]]
"""Returns the messages after a write to them."""


class StepHooks:
    """The hooks of one agent that stand before or after something."""

    def __init__(self, middleware: Sequence[Any], base: type) -> None:
        for one in middleware:
            _refuse(one)
        self._hooks = {where: [_called(one, where, base) for one in middleware if _hooked(one, where, base)] for where in WHERE}
        for where in ("after_model", "after_agent"):
            self._hooks[where].reverse()

    def has(self, where: str) -> bool:
        """Return whether there is a hook at this place."""
        return bool(self._hooks[where])

    def __bool__(self) -> bool:
        return any(self._hooks.values())

    async def run(self, where: str, messages: Sequence[BaseMessage], apply: Apply) -> tuple[list[BaseMessage], str | None]:
        """Return the messages as the hooks leave them, and the name of the hook that ended the turn, or None.

        Raises what a hook raises, and ContractError for an update that the agent has no place for.
        """
        result = list(messages)
        for name, hook in self._hooks[where]:
            update = await _updated(name, hook, result)
            if update.get("messages") is not None:
                result = apply(result, update["messages"])
            if update.get("jump_to") == "end":
                return result, name
        return result, None


def has(one: Any, hook: str, base: type) -> bool:
    """Return whether a middleware overrides `hook`."""
    return getattr(type(one), hook, None) is not getattr(base, hook, None)


def _hooked(one: Any, where: str, base: type) -> bool:
    return has(one, where, base) or has(one, f"a{where}", base)


def _refuse(one: Any) -> None:
    kind = type(one).__name__
    for where in WHERE:
        declared = [getattr(getattr(type(one), name), "__can_jump_to__", ()) for name in (where, f"a{where}")]
        other = sorted({jump for jumps in declared for jump in jumps} - {"end"})
        if other:
            raise ConfigError(f"middleware: {kind} declares can_jump_to={other} for {where}; this agent's hooks may jump to 'end' only.")


def _called(one: Any, where: str, base: type) -> tuple[str, Any]:
    """Return a hook's name and the hook; an asynchronous one is preferred, a synchronous one runs in a thread, as in `create_agent`."""
    name = f"{one.name}.{where}"
    if has(one, f"a{where}", base):
        return name, getattr(one, f"a{where}")
    blocking = getattr(one, where)

    async def in_its_thread(state: Any, runtime: Any) -> Any:
        return await in_thread(partial(blocking, state, runtime), name=name)

    return name, in_its_thread


async def _updated(name: str, hook: Any, messages: list[BaseMessage]) -> dict[str, Any]:
    try:
        with blamed(f"middleware: {name}"):
            update = await hook({"messages": list(messages)}, around())
    except GraphBubbleUp as error:
        raise ContractError(
            f"middleware: {name} raised {type(error).__name__}; a hook cannot wait for a person here. Ask by a guardrail."
        ) from error
    if update is None:
        return {}
    if not isinstance(update, dict):
        raise ContractError(f"middleware: {name} returned a {type(update).__name__}; None or a dict was due.")
    other = sorted(str(key) for key in update if key not in ("messages", "jump_to"))
    if other:
        raise ContractError(f"middleware: {name} wrote {', '.join(other)}; this agent's state takes messages and jump_to from a hook.")
    if update.get("jump_to") not in (None, "end"):
        raise ContractError(f"middleware: {name} jumped to {update['jump_to']!r}; this agent's hooks may jump to 'end' only.")
    return update
