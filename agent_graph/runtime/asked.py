"""What a caller asks of the driver, and how the words of `run`, `stream` and `resume` become that: checked before any I/O."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from agent_graph.config import added, validate_name, validate_run_id
from agent_graph.errors import ConfigError
from agent_graph.runtime import lineage

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from agent_graph.events import Event

__all__ = ["Asked", "for_input", "to_go_on"]


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


def for_input(agent: Any, user_input: object, run_id: object, request_id: object, deadline_at: object) -> Asked:
    """Return what `run` and `stream` ask for. Raises ConfigError."""
    if not isinstance(user_input, str):
        raise ConfigError(f"user_input: a string is due, not {type(user_input).__name__}.")
    if not user_input.strip():
        raise ConfigError("user_input: it is empty. Ask something.")
    request: str | None
    if request_id is None:  # inside a tool of another turn: the same call, run again, is the same request
        request = lineage.derived_name(agent.namespace, agent.name, user_input)
        run_id = request if run_id is None else run_id
    else:
        request = validate_name(request_id, "request_id")
    return Asked(
        run_id=_run_id_for(request) if run_id is None else validate_run_id(run_id),
        input=user_input,
        request_id=request,
        deadline_at=_moment(deadline_at),
    )


def to_go_on(agent: Any, run_id: object, force: bool, add_budget: Mapping[str, Any] | None) -> Asked:
    """Return what `resume` asks for. Raises ConfigError."""
    more = None if add_budget is None else added(add_budget, agent.config)
    return Asked(run_id=validate_run_id(run_id), input=None, force=force, add_budget=more)


def _moment(value: object) -> float | None:
    """Return a deadline as seconds since the epoch. Raises ConfigError."""
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigError("deadline_at: a datetime needs a time zone, such as datetime.now(UTC) + timedelta(minutes=1).")
        return value.timestamp()
    if isinstance(value, bool | str) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"deadline_at: seconds since the epoch or a datetime is due, not {value!r}.")
    return float(value)


def _run_id_for(request_id: str | None) -> str:
    """Return the name of a run that nobody named: always the same for the same request, else a new one."""
    if request_id is not None:
        return f"request-{hashlib.sha256(request_id.encode()).hexdigest()[:32]}"
    return _uuid7()


def _uuid7() -> str:
    """Return a new uuid7: sorts by time (RFC 9562, section 5.7)."""
    milliseconds, random_bits = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random_bits
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
