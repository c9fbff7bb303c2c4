"""What a running tool may ask about its own call."""

import asyncio

from agent_graph.context import current_call, idempotency_key
from agent_graph.types import ToolCall


async def test_each_task_has_its_own_call() -> None:
    async def tool(key: str | None) -> str | None:
        current_call.set(ToolCall("pay", {}, "c1", idempotency_key=key))
        await asyncio.sleep(0)
        return idempotency_key()

    assert await asyncio.gather(tool("k1"), tool("k2"), tool(None)) == ["k1", "k2", None]
    assert idempotency_key() is None
