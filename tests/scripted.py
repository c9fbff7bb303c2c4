"""An agent of the specification whose model says what a script says."""

from __future__ import annotations

from typing import Any

from agent_graph import ProductionAgent
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM

WEATHER = {"name": "weather", "description": "Weather in a city.", "parameters": {"city": {"type": "string"}}}


def agent_of(*replies: Any, tools: Any = None, **options: Any) -> ProductionAgent:
    """Return an agent whose model gives `replies` in order; `tools`: what runs the calls, where it is not sunny."""
    handlers = {"weather": lambda city: f"sunny in {city}"} if tools is None else tools
    return ProductionAgent(ScriptedLLM(replies), [WEATHER], FakeTools(handlers), DictMemory(), ListObservability(), {}, **options)
