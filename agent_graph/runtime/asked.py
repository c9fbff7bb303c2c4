"""What a caller asks of the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from agent_graph.events import Event

__all__ = ["Asked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller of `run`, `stream` or `resume` asked for."""

    run_id: str
    input: str | None
    """None: go on with what is unfinished."""
    request_id: str | None = None
    deadline_at: float | None = None
    force: bool = False
    add_budget: Mapping[str, Any] | None = None
    """What is added to which limit; also takes up again a turn that ended at a limit."""
    sink: Callable[[Event], None] | None = None
    messages: Sequence[BaseMessage] | None = None
    """The history and the input, in the place of what the memory holds; None: the memory is loaded."""
    on_unfinished: Literal["conflict", "close"] | None = None
    """None: as the agent's configuration says."""
    config: Mapping[str, Any] | None = None
    """The caller's RunnableConfig: callbacks, tags, metadata and the like reach the graph."""
    context: Any = None
    """What tools see as their runtime's `context`. It lives as long as the call: a turn that goes on in another process has none."""
    modes: Sequence[str] = ()
    """LangGraph's stream modes to hand to `relay`."""
    relay: Callable[[str, Any], None] | None = None
    """Called with each chunk of LangGraph's stream: its mode and what it holds."""
