"""What a person, or the tool itself, says of a call that waits: the values that `agent.resolve` and a tool's `reconcile` give.

Of a call whose outcome is in doubt: `Done(result)`, `NotDone()`, `Unknown()`.
Of something that a guardrail wants a person to see: `Approve()`, `Edit(...)`, `Reject(reason)`, `Respond(text)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from agent_graph.errors import ConfigError

__all__ = ["FIELDS", "KINDS", "Approve", "Done", "Edit", "NotDone", "Reject", "Resolution", "Respond", "Unknown", "from_json", "to_json"]


@dataclass(frozen=True, slots=True)
class Done:
    """It happened; `result` is what the tool would have returned."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class NotDone:
    """It did not happen: the call may run (again)."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell: the model is told that the outcome is unknown, and the call is not run again."""


@dataclass(frozen=True, slots=True)
class Approve:
    """Go on as it is."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Go on with this instead."""

    value: Any
    """The call's arguments (a dict), or the text."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Do not go on: a tool call does not run and the model is told why; a text goes no further and the turn fails."""

    reason: str = "rejected by a person"


@dataclass(frozen=True, slots=True)
class Respond:
    """Do not run the call: `text` is its result."""

    text: str


Resolution: TypeAlias = Done | NotDone | Unknown | Approve | Edit | Reject | Respond

KINDS: dict[str, type[Resolution]] = {
    "done": Done,
    "not_done": NotDone,
    "unknown": Unknown,
    "approve": Approve,
    "edit": Edit,
    "reject": Reject,
    "respond": Respond,
}
FIELDS = {"done": "result", "edit": "value", "reject": "reason", "respond": "text"}
"""The field of each kind that carries something."""


def to_json(resolution: Resolution) -> dict[str, Any]:
    """Return a resolution as plain JSON: `{"type": "done", "result": ...}`."""
    kind = next(kind for kind, cls in KINDS.items() if isinstance(resolution, cls))
    field = FIELDS.get(kind)
    return {"type": kind} if field is None else {"type": kind, field: getattr(resolution, field)}


def from_json(value: object) -> Resolution:
    """Return the resolution that `value` is or stands for. Raises ConfigError, which names what is due.

    Also reads the answers that LangChain's HumanInTheLoopMiddleware takes, one decision each:
    `{"decisions": [{"type": "edit", "edited_action": {"args": ...}}]}`.
    """
    if isinstance(value, Done | NotDone | Unknown | Approve | Edit | Reject | Respond):
        return value
    given = value
    if isinstance(value, Mapping) and isinstance(value.get("decisions"), list) and len(value["decisions"]) == 1:
        value = value["decisions"][0]
    if isinstance(value, str):
        value = {"type": value}
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or kind not in KINDS:
        raise ConfigError(f"outcome: one of {', '.join(cls.__name__ for cls in KINDS.values())} is due, not {given!r}.")
    return _built(str(kind), value)


def _built(kind: str, value: Mapping[str, Any]) -> Resolution:
    if kind == "edit" and "edited_action" in value:
        return Edit(value["edited_action"]["args"])
    if kind in ("reject", "respond") and "message" in value:
        return Reject(value["message"]) if kind == "reject" else Respond(value["message"])
    field = FIELDS.get(kind)
    given = {field: value[field]} if field is not None and field in value else {}
    try:
        return KINDS[kind](**given)
    except TypeError:
        raise ConfigError(f"outcome: {kind!r} needs {field!r}.") from None
