"""The answer as an object: `response_format=` and `AgentRun.structured`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agent_graph import ConfigError, ProductionAgent, as_runnable, create_production_agent
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedChatModel, ScriptedLLM, call

WEATHER = {"name": "weather", "description": "Weather.", "parameters": {"city": {"type": "string"}}, "idempotent": True}
FITS = '{"city": "Paris", "celsius": 18}'


class Weather(BaseModel):
    city: str
    celsius: float


def agent_of(*replies: Any, **options: Any) -> ProductionAgent:
    tools = FakeTools({"weather": lambda city: 18})
    options = {"response_format": Weather, **options}
    return ProductionAgent(ScriptedLLM(replies), [WEATHER], tools, DictMemory(), ListObservability(), {}, **options)


async def test_the_answer_is_an_object(tmp_path: Path) -> None:
    agent = agent_of(call("weather", city="Paris"), FITS, storage=tmp_path / "runs.db")
    run = await agent.run("Paris?", "r")
    assert run.structured == Weather(city="Paris", celsius=18)
    assert (run.output, run.status, run.steps) == (FITS, "complete", 2)
    assert isinstance((await agent.get("r")).structured, Weather), "from the storage too"
    asked: Any = agent.llm.requests[0]  # type: ignore[attr-defined]  # the scripted backend
    assert '"celsius"' in asked.messages[0].content
    await agent.aclose()


async def test_an_answer_that_does_not_fit_goes_back_with_the_reason() -> None:
    agent = agent_of("It is warm.", '{"city": "Paris"}', FITS)
    run = await agent.run("Paris?")
    assert (run.structured, run.steps) == (Weather(city="Paris", celsius=18), 3)
    told = [request.messages[-1].content for request in agent.llm.requests[1:]]  # type: ignore[attr-defined]  # the scripted model
    assert "it is not JSON" in told[0]
    assert "celsius: Field required" in told[1]


async def test_the_repairs_are_bounded() -> None:
    agent = agent_of(*["It is warm."] * 5)
    run = await agent.run("Paris?")
    assert (run.status, run.structured, run.steps) == ("failed", None, 3)
    assert str(run.error).startswith("guardrails: response_format: Your answer does not fit")
    assert run.output is None, "what was blocked does not leave"


async def test_a_landing_answers_in_the_format_too() -> None:
    agent = agent_of(call("weather", city="Paris"), FITS, max_steps=2)
    run = await agent.run("Paris?")
    assert (run.landed, run.structured) == ("max_steps", Weather(city="Paris", celsius=18))


async def test_a_rail_that_lets_everything_pass_makes_no_answer_of_it() -> None:
    class Lenient:
        name = "response_format"

        async def check(self, stage: str, payload: Any, run: Any) -> Any:
            from agent_graph import Allow

            return Allow()

    run = await agent_of("It is warm.", guardrails=[Lenient()]).run("Paris?")
    assert (run.status, run.structured) == ("failed", None)
    assert str(run.error).startswith("response_format: it is not JSON")


async def test_a_json_schema_with_a_langchain_model_in_a_chain() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    agent = create_production_agent(ScriptedChatModel(['{"n": 1}', '```json\n{"n": 2}\n```', '{"n": 3}']), response_format=schema)
    assert (await agent.run("q")).structured == {"n": 1}
    out = await as_runnable(agent).ainvoke({"messages": [("user", "q")]})
    assert out["structured_response"] == {"n": 2}
    chunks = [chunk async for chunk in as_runnable(agent).astream({"messages": [("user", "q")]})]
    assert chunks[-1] == {"structured_response": {"n": 3}}


async def test_without_a_format_there_is_no_object() -> None:
    assert (await agent_of(FITS, response_format=None).run("q")).structured is None


def test_a_wrong_format_is_refused_at_construction() -> None:
    with pytest.raises(ConfigError, match="response_format: "):
        agent_of(response_format="json")
