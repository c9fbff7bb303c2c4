"""The graph as LangGraph's users look at it: its state, its history, its streams, its interrupts, and forks from an earlier step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.config import get_stream_writer
from langgraph.types import Command

from agent_graph import Allow, Ask, ProductionAgent, RunConflict, create_production_agent, guardrail
from agent_graph.testing import ScriptedChatModel

CONFIG: Any = {"configurable": {"thread_id": "r"}}


class Bank:
    """Where the money goes: what no program can take back."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def agent(self, *replies: Any, storage: Path, **options: Any) -> ProductionAgent:
        def pay(amount: int) -> str:
            """Pay an amount."""
            get_stream_writer()({"paying": amount})
            self.paid.append(amount)
            return f"receipt {len(self.paid)}"

        return create_production_agent(ScriptedChatModel(replies, usage=(10, 5)), [pay], storage=storage, **options)


def paying(amount: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"id": f"pay_{amount}", "name": "pay", "args": {"amount": amount}}])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def test_the_state_and_its_history(path: Path) -> None:
    async with Bank().agent(paying(5), "done", storage=path) as agent:
        await agent.run("pay 5", "r")
        state = await agent.graph.aget_state(CONFIG)
        history = [item async for item in agent.graph.aget_state_history(CONFIG)]
        assert (state.next, state.values["step"], state.values["outcome"]["status"]) == ((), 2, "complete")
        assert [item.next for item in reversed(history)] == [
            ("__start__",), ("load_memory",), ("call_model",), ("run_tool",), ("call_model",), ("finish",), (),
        ]  # fmt: skip
        assert agent.graph.get_state(CONFIG).config == state.config, "without a loop too"


@pytest.mark.parametrize("node", ["call_model", "run_tool"])
async def test_a_fork_uses_again_what_was_done(path: Path, node: str) -> None:
    """From before the reply or from before the tool: the money is not paid twice, and what was spent stays in the account."""
    bank = Bank()
    async with bank.agent(paying(5), "done", paying(5), "done again", storage=path) as agent:
        first = await agent.run("pay 5", "r")
        earlier = [item async for item in agent.graph.aget_state_history(CONFIG) if item.next == (node,)][-1]
        replies = agent.llm.requests  # type: ignore[attr-defined]  # the scripted model
        if node == "run_tool":
            replies.append(replies[0])  # the script goes on behind the reply that is not asked for again
        forked = await agent.graph.ainvoke(None, earlier.config, durability="sync")
        run = await agent.get("r")
    assert bank.paid == [5]
    assert forked["messages"][-1].text == "done again"
    assert forked["messages"][-2].content == "receipt 1"
    assert (run.status, run.output, run.turn) == ("complete", "done again", 1)
    assert run.total_tokens > first.total_tokens
    assert [call.result for call in run.tool_calls] == ["receipt 1"]


async def test_a_fork_in_another_process_uses_again_what_was_done(path: Path) -> None:
    bank = Bank()
    async with bank.agent(paying(5), "done", storage=path) as agent:
        await agent.run("pay 5", "r")
    async with bank.agent("done again", storage=path) as agent:
        earlier = [item async for item in agent.graph.aget_state_history(CONFIG) if item.next == ("run_tool",)][-1]
        await agent.graph.ainvoke(None, earlier.config, durability="sync")
        assert (await agent.get("r")).output == "done again"
    assert bank.paid == [5]


async def test_another_decision_in_a_fork_is_another_effect(path: Path) -> None:
    bank = Bank()
    async with bank.agent(paying(5), "done", paying(7), "done again", storage=path) as agent:
        await agent.run("pay 5", "r")
        earlier = [item async for item in agent.graph.aget_state_history(CONFIG) if item.next == ("call_model",)][-1]
        await agent.graph.ainvoke(None, earlier.config, durability="sync")
        run = await agent.get("r")
    assert bank.paid == [5, 7]
    assert [call.args for call in run.tool_calls] == [{"amount": 5}, {"amount": 7}], "the account says what happened"


async def test_only_the_newest_turn_can_be_gone_back_in(path: Path) -> None:
    async with Bank().agent("one", "two", "three", storage=path) as agent:
        await agent.run("1?", "r")
        earlier = [item async for item in agent.graph.aget_state_history(CONFIG) if item.next == ("call_model",)][-1]
        await agent.run("2?", "r")
        with pytest.raises(RunConflict, match="turn 1 cannot go on; its newest turn is 2"):
            await agent.graph.ainvoke(None, earlier.config, durability="sync")
        assert (await agent.run("3?", "r")).output == "three"


async def test_every_stream_mode(path: Path) -> None:
    seen: dict[str, list[Any]] = {"updates": [], "messages": [], "custom": [], "values": []}
    async with Bank().agent(paying(5), "All is paid.", storage=path) as agent:
        given = {"messages": [HumanMessage("pay 5")]}
        async for mode, chunk in agent.graph.astream(given, CONFIG, stream_mode=list(seen), durability="sync"):  # type: ignore[arg-type]  # modes
            seen[mode].append(chunk)
    assert [node for chunk in seen["updates"] for node in chunk] == ["load_memory", "call_model", "run_tool", "call_model", "finish"]
    assert seen["custom"] == [{"paying": 5}]
    pieces = [chunk.text for chunk, about in seen["messages"] if isinstance(chunk, AIMessageChunk) and about["langgraph_step"] > 2]
    assert pieces[:3] == ["All ", "is ", "paid."]
    assert seen["values"][-1]["messages"][-1].text == "All is paid."


@guardrail(stages={"tool_args"})
async def ask(stage: str, payload: Any, run: Any) -> Any:
    return Ask("money leaves") if payload.args["amount"] > 1 else Allow()


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ({"decisions": [{"type": "approve"}]}, [5]),
        ({"decisions": [{"type": "edit", "edited_action": {"name": "pay", "args": {"amount": 1}}}]}, [1]),
        ({"decisions": [{"type": "reject", "message": "no"}]}, []),
    ],
    ids=["approve", "edit", "reject"],
)
async def test_a_person_is_asked_and_answers_as_under_langchains_middleware(path: Path, answer: Any, paid: list[int]) -> None:
    bank = Bank()
    async with bank.agent(paying(5), "ok", storage=path, guardrails=[ask]) as agent:
        waiting = await agent.graph.ainvoke({"messages": [HumanMessage("pay 5")]}, CONFIG, durability="sync")
        [interrupt] = waiting["__interrupt__"]
        [request], [review] = interrupt.value["action_requests"], interrupt.value["review_configs"]
        assert (request["name"], request["args"], request["description"]) == ("pay", {"amount": 5}, "money leaves")
        assert review["action_name"] == "pay"
        assert set(review["allowed_decisions"]) >= {"approve", "edit", "reject"}
        assert (await agent.graph.aget_state(CONFIG)).interrupts == (interrupt,)
        done = await agent.graph.ainvoke(Command(resume=answer), CONFIG, durability="sync")
    assert done["messages"][-1].text == "ok"
    assert bank.paid == paid
