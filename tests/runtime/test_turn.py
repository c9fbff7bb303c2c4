"""What a turn leaves in memory once it has ended: nothing."""

import gc
import weakref
from typing import Any

import pytest
from langchain_core.tools import tool

from agent_graph import Allow, Budget, create_production_agent, guardrail
from agent_graph.runtime.turn import Turn, current_turn
from agent_graph.testing import ScriptedLLM, call


@tool
async def look(where: str) -> str:
    """Look somewhere."""
    return f"nothing at {where}"


@pytest.mark.parametrize("options", [{}, {"budget": Budget("team", max_cost_usd=1.0, per="day")}], ids=["alone", "with a shared budget"])
async def test_a_turn_that_has_ended_is_let_go_without_the_garbage_collector(options: dict[str, Any]) -> None:
    """It holds the whole conversation; in a cycle it would lie about until the collector's slow round."""
    seen: list[weakref.ref[Turn]] = []

    @guardrail(stages=["reply"], pure=True)
    async def watching(stage: str, payload: Any, run: Any) -> Allow:
        turn = current_turn.get()
        assert turn is not None
        seen.append(weakref.ref(turn))
        return Allow()

    model = ScriptedLLM([call("look", where="here"), "Nothing."])
    async with create_production_agent(model, tools=[look], guardrails=[watching], storage=":memory:", **options) as agent:
        gc.collect()
        gc.disable()
        try:
            run = await agent.run("Is there anything?")
            assert [turn() for turn in seen] == [None, None]
        finally:
            gc.enable()
        assert run.output == "Nothing."
