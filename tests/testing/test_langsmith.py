"""What a person sees in LangSmith, by environment variables alone: the real SDK, a whole program, a LangSmith on loopback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agent_graph.testing import LangSmithServer

PROGRAM = """
import asyncio
from langchain_core.messages import AIMessage
from agent_graph import ProductionAgent, as_runnable, as_tool, create_production_agent
from agent_graph.testing import DictMemory, ListObservability, ScriptedChatModel, ScriptedLLM, FakeTools, call

def weather(city: str) -> str:
    "Weather in a city."
    if city == "Atlantis":
        raise ValueError("no such city")
    return f"sunny in {city}"

def calls(name, **args):
    return AIMessage("", tool_calls=[{"id": f"c_{len(str(args))}", "name": name, "args": args}])

PRICES = {"scripted": {"input": 1, "output": 4}}

async def main():
    research = create_production_agent(ScriptedChatModel(["42"], usage=(7, 3)), name="research", storage=":memory:")
    replies = [calls("weather", city="Paris"), calls("weather", city="Atlantis"), calls("research", input="x"), "It is sunny."]
    tools = [weather, as_tool(research, description="Finds out.")]
    lead = create_production_agent(ScriptedChatModel(replies, usage=(100, 20)), tools, name="lead", storage=":memory:", prices=PRICES)
    spec = ProductionAgent(ScriptedLLM(["hello"], cost_usd=0.25), [], None, DictMemory(), ListObservability(), {}, storage=":memory:")
    async with research, lead, spec:
        await lead.run("q", "run_001")
        await as_runnable(spec).ainvoke("q", {"run_name": "greet", "tags": ["vip"], "configurable": {"thread_id": "run_002"}})

asyncio.run(main())
"""

TREE = """\
chain lead
  chain load_memory
  chain call_model
    llm ScriptedChatModel
  chain run_tool
    tool weather
  chain call_model
    llm ScriptedChatModel
  chain run_tool
    tool weather !
  chain call_model
    llm ScriptedChatModel
  chain run_tool
    tool research
      chain research
        chain load_memory
        chain call_model
          llm ScriptedChatModel
        chain finish
  chain call_model
    llm ScriptedChatModel
  chain finish
chain greet
  chain load_memory
  chain call_model
    llm BackendChatModel
  chain finish"""


@pytest.mark.slow
def test_environment_variables_alone_give_a_proper_tree() -> None:
    with LangSmithServer() as langsmith:
        environment = {**os.environ, **langsmith.environment}
        subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], env=environment, check=True, timeout=100, capture_output=True)
        runs, tree = langsmith.runs, langsmith.tree()
        lead, greet = langsmith.children(None)
    assert tree == TREE
    models = [run for run in runs if run.kind == "llm"]
    tokens = [(run.usage or {}).get("total_tokens") for run in models]
    assert tokens[:5] == [120, 120, 120, 10, 120], "each call once, with what it used"
    costs = [(run.usage or {}).get("total_cost") for run in models]
    assert costs == [0.00018, 0.00018, 0.00018, None, 0.00018, 0.25], "what the ledger has; nothing for a model without a price"
    assert {run.metadata["thread_id"] for run in runs if run.fields["trace_id"] == greet.id} == {"run_002"}
    assert lead.metadata["thread_id"] == "run_001"
    assert greet.fields["tags"] == ["vip"]
    assert {run.metadata["ls_model_name"] for run in models} == {"scripted", "ScriptedLLM"}
    weather = next(run for run in runs if run.name == "weather")
    assert weather.fields["inputs"] == {"city": "Paris"}
    assert "sunny in Paris" in str(weather.fields["outputs"])
    failed = [run for run in runs if run.fields.get("error")]
    assert [run.name for run in failed] == ["weather"]
    assert "no such city" in failed[0].fields["error"]
    assert all(run.fields.get("end_time") for run in runs)


def test_what_is_not_asked_for_is_not_kept() -> None:
    with LangSmithServer() as langsmith:
        langsmith.take(
            "multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="feedback.1"\r\n\r\n{}\r\n--x--\r\n'
        )
        assert (langsmith.runs, langsmith.tree(), langsmith.children(None)) == ([], "", [])
