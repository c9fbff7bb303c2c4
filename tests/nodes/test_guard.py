"""What a rail blocked goes nowhere: not to the caller, not into the memory, not to the model in the next turn."""

from __future__ import annotations

from typing import Any

import pytest

from agent_graph import AgentRun, Allow, Block, Guardrail, ProductionAgent, Revise, guardrail
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM

SECRET = "the password is hunter2"


def _speaks_of_it(payload: Any) -> bool:
    return "hunter2" in (payload if isinstance(payload, str) else payload.content)


@guardrail(stages=["output"])
async def blocks_answers(stage: str, payload: Any, run: AgentRun) -> Any:
    return Block("it tells a password") if _speaks_of_it(payload) else Allow()


@guardrail(stages=["reply"], pure=True)
async def blocks_replies(stage: str, payload: Any, run: AgentRun) -> Any:
    return Block("it tells a password") if _speaks_of_it(payload) else Allow()


@guardrail(stages=["input"])
async def blocks_questions(stage: str, payload: Any, run: AgentRun) -> Any:
    return Block("it tells a password") if _speaks_of_it(payload) else Allow()


@guardrail(stages=["output"])
async def never_content(stage: str, payload: Any, run: AgentRun) -> Any:
    return Revise("say no passwords") if _speaks_of_it(payload) else Allow()


@guardrail(stages=["output"])
async def broken(stage: str, payload: Any, run: AgentRun) -> Any:
    if _speaks_of_it(payload):
        raise RuntimeError("the rail's own fault")
    return Allow()


@pytest.mark.parametrize("rail", [blocks_answers, blocks_replies, never_content, broken], ids=lambda rail: rail.name)
async def test_a_blocked_answer_is_seen_by_nobody(rail: Guardrail) -> None:
    """The account said `failed` and held the very text that had been blocked, and the next turn was shown it."""
    llm, memory, seen = ScriptedLLM([SECRET, SECRET, "Good day."]), DictMemory(), ListObservability()
    agent = ProductionAgent(llm, [], FakeTools({}), memory, seen, {}, guardrails=[rail], storage=":memory:")
    run = await agent.run("what is it?", "r")
    assert (run.status, run.stop_reason, run.output) == ("failed", "blocked", None)
    assert rail.name in (run.error or "")
    assert [told.output for told in seen.runs] == [None]
    assert memory.saved["r"][-1].content == f"(withheld by the guardrail {rail.name}: {(run.error or '').split(': ', 2)[2]})"
    if rail is not never_content:  # what was sent back for revision is the model's own to see
        assert SECRET not in str(memory.saved)
        llm.requests.clear()
        await agent.run("and now?", "r")
        assert SECRET not in str(llm.requests)
    await agent.aclose()


async def test_a_blocked_question_is_not_remembered() -> None:
    llm, memory = ScriptedLLM(["Good day."]), DictMemory()
    agent = ProductionAgent(llm, [], FakeTools({}), memory, ListObservability(), {}, guardrails=[blocks_questions], storage=":memory:")
    run = await agent.run(SECRET, "r")
    assert (run.status, run.input, run.output) == ("failed", SECRET, None)
    assert (await agent.run("hello", "r")).status == "complete"
    assert SECRET not in str(memory.saved)
    assert SECRET not in str(llm.requests)
    await agent.aclose()
