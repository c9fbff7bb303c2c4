"""An agent as a tool: of ours, of LangChain's, and killed in the middle."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage

from agent_graph import ConfigError, ProductionAgent, as_tool, create_production_agent
from agent_graph.testing import ScriptedChatModel


def agent_of(*replies: Any, tools: Any = (), **options: Any) -> ProductionAgent:
    prices = {"scripted": {"input": 1, "output": 1}}
    return create_production_agent(ScriptedChatModel(replies, usage=(1000, 100)), tools, prices=prices, **options)


def asking(*questions: str) -> AIMessage:
    calls = [{"id": f"c{n}", "name": "research", "args": {"input": question}} for n, question in enumerate(questions)]
    return AIMessage("", tool_calls=calls)


async def test_its_answer_is_the_result_and_its_bill_the_parents() -> None:
    research = agent_of("42", name="research")
    lead = agent_of(asking("What?"), "It is 42.", tools=[as_tool(research, description="Finds out.")])
    run = await lead.run("q", "parent")
    assert (run.output, run.tool_calls[0].result, run.steps) == ("It is 42.", "42", 2)
    assert Decimal(str(run.total_cost_usd)) == Decimal("0.0033"), "three calls of $0.0011"
    [child] = [row for row in await research.runs() if row.key.run_id != "parent"]
    assert (child.key.run_id.startswith("parent/"), child.input) == (True, "What?")


async def test_the_same_question_twice_is_two_runs_and_parallel_calls_do_not_wait_for_each_other() -> None:
    research = agent_of("1", "2", name="research")
    lead = agent_of(asking("What?", "What?"), "done", tools=[as_tool(research, description="Finds out.")])
    run = await lead.run("q", "parent")
    assert sorted(str(call.result) for call in run.tool_calls) == ["1", "2"]


async def test_a_failed_sub_agent_is_a_failed_call() -> None:
    research = agent_of("never", name="research", max_steps=0)
    lead = agent_of(asking("What?"), "I do not know.", tools=[as_tool(research, description="Finds out.")])
    run = await lead.run("q")
    assert run.status == "complete"
    assert str(run.tool_calls[0].error).startswith("no answer (failed): max_steps")


async def test_it_cannot_spend_more_than_its_parent_has() -> None:
    research = agent_of("never", name="research", max_cost_usd=None)
    lead = agent_of(
        asking("What?"), "done", tools=[as_tool(research, description="Finds out.")], max_cost_usd=0.0065, max_output_tokens=256
    )
    run = await lead.run("q")
    assert Decimal(str(run.total_cost_usd)) <= Decimal("0.0065")


async def test_a_sub_agent_that_would_wait_for_its_ancestor_is_told_at_once() -> None:
    holder: list[ProductionAgent] = []

    async def climb(question: str) -> str:
        """Ask the run above."""
        return str((await holder[0].run("q", "parent")).output)

    climbing = AIMessage("", tool_calls=[{"id": "up", "name": "climb", "args": {"question": "x"}}])
    research = agent_of(climbing, "It cannot be asked.", tools=[climb], name="research")
    holder.append(agent_of(asking("What?"), "done", tools=[as_tool(research, description="Finds out.")]))
    run = await asyncio.wait_for(holder[0].run("q", "parent"), 60)
    assert (run.status, run.tool_calls[0].result) == ("complete", "It cannot be asked.")
    [child] = [row for row in await research.runs() if row.key.run_id != "parent"]
    assert "is the very run that this call is made from" in str((await research.get(child.key.run_id)).tool_calls[0].error)


def test_it_is_a_tool_like_any_other() -> None:
    tool = as_tool(agent_of("42", "43"), name="ask", description="Finds out.")
    assert (tool.name, tool.description, list(tool.args)) == ("ask", "Finds out.", ["input"])
    assert tool.invoke({"input": "What?"}) == "42"
    assert asyncio.run(tool.ainvoke({"input": "What?"})) == "43"


async def test_in_a_create_agent_app() -> None:
    research = agent_of("42", name="research")
    app = create_agent(ScriptedChatModel([asking("What?"), "It is 42."]), [as_tool(research, description="Finds out.")])
    out = await app.ainvoke({"messages": [("user", "q")]})
    assert [message.text for message in out["messages"][1:]] == ["", "42", "It is 42."]


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ("agent", {"description": "x"}, "a ProductionAgent is due, not str"),
        (None, {"description": ""}, "description: a text"),
        (None, {"description": None}, "description: a text"),
        *(
            (None, {"description": "x", "name": name}, "no provider takes a tool of that name")
            for name in (" ", "", 3, "ä", "a.b", "-a", "1a")
        ),
        (None, {"description": "x", "name": "x" * 65}, "name='x{64}'"),
        (None, {"description": "x", "name": "ask a lawyer"}, "name is 'ask a lawyer'.* Name the tool: as_tool.agent, name='ask_a_lawyer'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(given: Any, options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        as_tool(given if given is not None else agent_of("x"), **options)


def test_an_agent_whose_name_is_no_tool_s_has_to_name_the_tool() -> None:
    """OpenAI refused it in the middle of a turn: "string does not match pattern"."""
    agent = agent_of("x", name="my agent")
    with pytest.raises(ConfigError, match=r"the agent's name is 'my agent'.* Name the tool: as_tool\(agent, name='my_agent', \.\.\.\)"):
        as_tool(agent, description="x")
    assert as_tool(agent, name="my_agent", description="x").name == "my_agent"


PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from langchain_core.messages import AIMessage, ToolMessage
from agent_graph import as_tool, create_production_agent
from agent_graph.testing import ScriptedChatModel

folder, dies = Path(sys.argv[1]), sys.argv[2] == "dies"

def call(name, **args):
    return AIMessage("", tool_calls=[{"id": f"call_{name}", "name": name, "args": args}])

def research_says(messages):
    if not isinstance(messages[-1], ToolMessage):
        return call("dig", depth=3)
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"found {messages[-1].text}"

def lead_says(messages):
    return f"The lead says: {messages[-1].text}" if isinstance(messages[-1], ToolMessage) else call("research", input="What is there?")

def dig(depth: int) -> str:
    "Dig; it cannot be undone."
    with (folder / "world").open("a") as world:
        world.write(f"dug {depth}\\n")
    return "gold"

def agent_of(says, tools, name):
    return create_production_agent(ScriptedChatModel([says], last_forever=True), tools, name=name, storage=folder / "runs.db")

async def main():
    research = agent_of(research_says, [dig], "research")
    lead = agent_of(lead_says, [as_tool(research, description="Finds out.")], "lead")
    if dies:
        await lead.run("What is there?", "parent")
    print(await lead.unfinished(), await research.unfinished())
    run = await lead.resume("parent")
    print(run.status, run.output, sorted(row.key.run_id[:7] for row in await lead.runs()))
    await lead.aclose()
    await research.aclose()

asyncio.run(main())
"""


@pytest.mark.crash
def test_killed_inside_the_sub_agent_the_parent_resumes_it(tmp_path: Path) -> None:
    """The sub-agent had acted when the process died. It goes on where it was: the world is changed once."""
    program = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    died = subprocess.run([*program, "dies"], capture_output=True, text=True, timeout=60, check=False)
    assert died.returncode == -9, died.stderr
    assert (tmp_path / "world").read_text() == "dug 3\n"
    lived = subprocess.run([*program, "lives"], capture_output=True, text=True, timeout=60, check=True)
    unfinished, end = lived.stdout.splitlines()
    assert unfinished == "['parent'] []", "the sub-agent's turn is its parent's to take up"
    assert end == "complete The lead says: found gold ['parent', 'parent/']"
    assert (tmp_path / "world").read_text() == "dug 3\n"
