"""The agent that the kill tests work on: two replies with three parallel calls each, half of them not idempotent, then the answer.

Its model has a price that is known beforehand, so that its account has to be exact; a call takes a few milliseconds, so that kills
fall inside it, before and after the instant at which it touches the world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from langchain_core.messages import AIMessage

from agent_graph import ProductionAgent, ToolBackend, ToolCall
from agent_graph.testing import ListObservability, World

TASK = "Look around and pay."
TOOLS: list[dict[str, Any]] = [{"name": "look", "idempotent": True}, {"name": "pay", "idempotent": False}]
COST_USD = Decimal("0.002")
PRICES = {"scripted": {"input": 1, "output": 10}}
CALL_S = 0.002


def calls(*named: str) -> AIMessage:
    """Return a reply that makes these calls: `calls("look-1", "pay-2")`."""
    return AIMessage("", tool_calls=[{"name": name.partition("-")[0], "args": {"what": name}, "id": name} for name in named])


SCRIPT = [calls("look-1", "pay-2", "look-3"), calls("pay-4", "look-5", "pay-6"), AIMessage("All is looked at and paid.")]


class Tools(ToolBackend):
    def __init__(self, world: World) -> None:
        self._world = world

    async def execute(self, call: ToolCall) -> ToolCall:
        await asyncio.sleep(CALL_S)
        call.result = f"{call.args['what']} is done"
        self._world.effect(result=call.result)
        await asyncio.sleep(CALL_S)
        return call


def make_agent(world: World, *, script: Sequence[AIMessage] = SCRIPT, **options: Any) -> ProductionAgent:
    """Return the agent, in whatever process this is."""
    model = world.chat_model(script, cost_usd=COST_USD, latency_s=CALL_S, tells_cost=False)
    options = {"prices": PRICES, "storage": world.storage, "max_cost_usd": 0.5, **options}
    return ProductionAgent(model, TOOLS, Tools(world), None, ListObservability(), {}, **options)  # type: ignore[arg-type]  # a chat model is taken too, and no memory is the default one
