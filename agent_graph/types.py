"""The specification's core types: `MessageRole`, `Message`, `ToolCall`, `AgentRun`.

Names, order and defaults of the specification's fields are kept exactly; fields of ours stand only after them, each with a
default, so that code written against the specification alone keeps working. These four stay mutable, because the
specification's backends mutate them; everything else in this package is frozen.

Standard library only: implementing a backend must not cost the import of LangGraph.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Dict, List, Optional  # the specification's own spelling

__all__ = ["AgentRun", "Message", "MessageRole", "ToolCall"]


class MessageRole(Enum):
    """Who speaks in a `Message`."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"

    def __eq__(self, other: object) -> bool:
        """Return whether `other` is this role: this enum's, or that of a pasted copy of the specification's starter code."""
        if self is other or type(other).__name__ != "MessageRole":
            return self is other
        return self.value == getattr(other, "value", None)

    def __hash__(self) -> int:
        return hash(self.name)  # as every enum's: equal roles have equal names


@dataclass
class Message:
    """One message of a conversation.

    `metadata` of an assistant's reply may hold `tool_calls`, `usage`, `model`, `cost_usd` and `finish_reason`; of a tool's
    message `tool_call_id` and `name`. The layouts that are read are in docs/backends.md. It comes back unchanged in the next request.
    """

    role: MessageRole
    content: str
    metadata: Dict = field(default_factory=dict)  # type: ignore[type-arg]  # the specification's own annotation


@dataclass
class ToolCall:
    """One call of a tool: what was asked, and (once it ran) what came back."""

    tool_name: str
    args: Dict  # type: ignore[type-arg]  # the specification's own annotation
    call_id: str
    result: Optional[Any] = None
    error: Optional[str] = None
    latency_ms: float = 0.0
    idempotency_key: Optional[str] = None
    """Constant over the attempts and restarts of one call; 32 hexadecimal digits. Hand it to APIs that take one. None outside a turn."""


@dataclass
class AgentRun:
    """The account of one turn of a run: what was asked, answered, called and spent."""

    run_id: str
    input: str
    output: Optional[str] = None
    steps: int = 0
    tool_calls: List[ToolCall] = field(default_factory=list)
    total_tokens: int = 0
    total_cost_usd: float = 0.0
    latency_ms: float = 0.0
    status: str = "running"  # running|complete|failed|timeout
    error: Optional[str] = None
    turn: int = 0
    """The turn's number within its run, from 1; 0 before a turn has been taken."""
    stop_reason: Optional[str] = None
    """Why the turn ended: "answer", a limit's key, "blocked", "error", "closed", "waiting"."""
    landed: Optional[str] = None
    """The limit whose nearness made the last call a landing (an answer without further tools); "error" where the model failed and
    another was asked to land; None where no landing was made. On a failed turn: one was made, and gave no answer."""
    cost_uncertain_usd: float = 0.0
    """Upper bound, in USD, of model calls whose bill is unknown (the process died, or the call was cut)."""
    pending: List[Dict[str, Any]] = field(default_factory=list)
    """What waits for a person: `{"call_id", "tool_name", "args", "reason", "allowed", "idempotency_key", ...}` each; empty unless
    `status` is "running"."""
    structured: Optional[Any] = None
    """The answer as an object, where a response format was asked for."""
    warnings: List[str] = field(default_factory=list)
    """What did not stop the turn but should be known, in plain words."""
