"""What a running tool may ask about its own call, without taking it as an argument.

```python
async def pay(payee: str, amount: float) -> str:
    response = await client.post("/payments", json=..., headers={"Idempotency-Key": idempotency_key() or uuid4().hex})
```

Whoever runs a tool sets `current_call` around it; a thread that runs a synchronous tool gets a copy of the context.
"""

from __future__ import annotations

from contextvars import ContextVar

from agent_graph.types import ToolCall

__all__ = ["current_call", "idempotency_key"]

current_call: ContextVar[ToolCall | None] = ContextVar("agent_graph_current_call", default=None)
"""The tool call that is running here, or None outside a tool."""


def idempotency_key() -> str | None:
    """Return the key of the tool call that is running here: constant over its attempts and restarts.

    None outside a tool, and in a call that belongs to no turn.
    """
    call = current_call.get()
    return None if call is None else getattr(call, "idempotency_key", None)
