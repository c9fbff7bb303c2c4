"""What an agent cannot be made of is refused when it is made, by the name under which it was given."""

from __future__ import annotations

from typing import Any

import pytest

from agent_graph import (
    Allow,
    ConfigError,
    ProductionAgent,
    create_production_agent,
    guardrail,
)
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM
from tests.scripted import WEATHER, agent_of


@guardrail
async def no_secrets(stage: str, payload: Any, run: Any) -> Any:
    return Allow()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_stepz": 3}, "max_steps"),
        ({"max_steps": -1}, "negative"),
        ({"max_cost_usd": float("nan")}, "NaN"),
        ({"timeout_s": True}, "number"),
        ({"on_busy": "rise"}, "raise"),
        ({"guardrails": [object()]}, "guardrail"),
        ({"name": ""}, "name"),
        ({"fallbacks": [7]}, "model"),
        ({"fallbacks": "offline"}, r"fallbacks: a list of models is due, not 'offline'\. Put it into one: fallbacks=\['offline'\]"),
        ({"fallbacks": ScriptedLLM(["x"])}, r"not ScriptedLLM\. Put it into one: fallbacks=\[model\]"),
        ({"fallbacks": None}, "fallbacks: a list of models is due, not NoneType"),
        ({"fallbacks": [None]}, "fallbacks: None is no model"),
        ({"guardrails": "no_secrets"}, "guardrails: a list of guardrails is due, not 'no_secrets'"),
        ({"store": 3}, "store: LangGraph's store is due"),
        ({"guardrails": no_secrets}, "guardrails: a list"),
        ({"system_prompt": 5}, "system_prompt: a string"),
        ({"redact": 5}, "redact: a function"),
        ({"clock": 5}, "clock: 5 is no Clock"),
    ],
)
def test_bad_settings_are_refused_at_construction(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        agent_of("never", **options)


@pytest.mark.parametrize(("position", "argument"), [(0, "llm"), (2, "tool_backend"), (3, "memory"), (4, "observability")], ids=str)
def test_a_backend_of_the_wrong_shape_is_named(position: int, argument: str) -> None:
    parts: list[Any] = [ScriptedLLM([]), [WEATHER], FakeTools({}), DictMemory(), ListObservability(), {}]
    parts[position] = object()
    with pytest.raises(ConfigError, match=argument if position else "model"):
        ProductionAgent(*parts)


def test_a_class_instead_of_an_object() -> None:
    with pytest.raises(ConfigError, match="class"):
        ProductionAgent(ScriptedLLM([]), [WEATHER], FakeTools, DictMemory(), ListObservability(), {})  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigError, match="ScriptedLLM is a class"):
        create_production_agent(ScriptedLLM)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("tools", [None, pytest, "weather", {"name": "weather"}], ids=["None", "module", "text", "one dict"])
def test_tools_that_are_no_list(tools: Any) -> None:
    with pytest.raises(ConfigError, match="tools: a list"):
        create_production_agent("offline", tools)
    with pytest.raises(ConfigError, match="tools: a list"):
        ProductionAgent(ScriptedLLM([]), tools, FakeTools({}), DictMemory(), ListObservability(), {})


def test_an_observer_that_would_never_be_awaited() -> None:
    """Its records were lost without a word."""

    class Async(ListObservability):
        async def record_run(self, run: Any) -> None:  # type: ignore[override]  # the mistake
            raise AssertionError

    with pytest.raises(ConfigError, match="record_run is `async`"):
        ProductionAgent(ScriptedLLM([]), [], FakeTools({}), DictMemory(), Async(), {})
