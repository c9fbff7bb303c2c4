"""What a running tool may ask about its own call, without taking it as an argument.

```python
async def pay(payee: str, amount: float) -> str:
    response = await client.post("/payments", json=..., headers={"Idempotency-Key": idempotency_key() or uuid4().hex})
```

Whoever runs a tool sets `current_call` around it; a thread that runs a synchronous tool gets a copy of the context.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextvars import ContextVar

from agent_graph.types import ToolCall

__all__ = ["Begun", "begun_inside", "current_call", "idempotency_key"]


class Begun:
    """Counts the turns that one attempt at a tool call begins; a tool may begin several at once, in several threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next_number(self, name: str) -> int:
        """Return how many of `name` were begun before, and count one more."""
        with self._lock:
            self._counts[name] += 1
            return self._counts[name] - 1


current_call: ContextVar[ToolCall | None] = ContextVar("agent_graph_current_call", default=None)
"""The tool call that is running here, or None outside a tool."""
begun_inside: ContextVar[Begun | None] = ContextVar("agent_graph_begun_inside", default=None)
"""The turns that the running attempt at a tool call has begun, or None outside a tool."""


def idempotency_key() -> str | None:
    """Return the key of the tool call that is running here: constant over its attempts and restarts.

    None outside a tool, and in a call that belongs to no turn.
    """
    call = current_call.get()
    return None if call is None else getattr(call, "idempotency_key", None)
