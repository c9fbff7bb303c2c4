"""The world: one line an event, known to be inside a call, readable after any death; scripts that go on where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from agent_graph import ConfigError, Message, MessageRole, ProductionAgent, ToolCall, create_production_agent
from agent_graph.resolutions import Done, NotDone
from agent_graph.testing import DictMemory, ListObservability, World, call
from agent_graph.testing.crash.world import Bill, Effect, read_events

TOOL_CALL = {"id": "c1", "name": "pay", "args": {}}
VALID = [HumanMessage("go"), AIMessage("", tool_calls=[TOOL_CALL]), ToolMessage("ok", tool_call_id="c1")]


def test_a_world_in_which_nothing_happened_is_empty(tmp_path: Path) -> None:
    assert read_events(World(tmp_path).ledger) == ()


async def test_an_effect_inside_a_tool_knows_its_call(tmp_path: Path) -> None:
    world = World(tmp_path, attempt=3)

    class Tools:
        async def execute(self, call: ToolCall) -> ToolCall:
            world.effect()
            world.effect("receipt")
            call.result = "ok"
            return call

    agent = ProductionAgent(
        world.llm([call("pay", call_id="c7", amount=5), "Paid."], cost_usd=0.002),
        [{"name": "pay", "idempotent": False}],
        Tools(),  # type: ignore[arg-type]  # by shape
        DictMemory(),
        ListObservability(),
        {},
    )
    run = await agent.run("pay", "r")
    key = run.tool_calls[0].idempotency_key or ""
    effect = Effect(attempt=3, tool="pay", key=key, call_id="c7", args='{"amount": 5}')
    first = Bill(attempt=3, cost_usd="0.002", replies=0)
    second = Bill(attempt=3, cost_usd="0.002", replies=1, answered=("c7",))
    receipt = Effect(attempt=3, tool="pay", key=key, call_id="c7", args='{"amount": 5}', what="receipt")
    assert read_events(world.ledger) == (first, effect, receipt, second)
    assert run.total_cost_usd == 0.004
    assert world.happened(key)
    assert isinstance(world.reconcile(key), Done)
    assert isinstance(world.reconcile("other"), NotDone)
    await agent.aclose()


def test_an_effect_outside_a_tool_has_to_name_the_call(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no tool call is running here"):
        World(tmp_path).effect()
    World(tmp_path).effect(tool="pay", key="k", call_id="c")
    assert read_events(World(tmp_path).ledger) == (Effect(attempt=1, tool="pay", key="k", call_id="c", args="{}"),)


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (VALID, ""),
        (VALID[:2], "no answer to c1"),
        ([VALID[0], VALID[2]], "message 1 answers no call"),
        ([*VALID, VALID[2]], "message 3 answers no call"),
        (
            [
                AIMessage("", tool_calls=[TOOL_CALL, {**TOOL_CALL, "id": "c2"}]),
                ToolMessage("b", tool_call_id="c2"),
                ToolMessage("a", tool_call_id="c1"),
            ],
            "the answer to c2 stands out of its order",
        ),
        ([Message(MessageRole.ASSISTANT, "", {"tool_calls": [TOOL_CALL]})], "no answer to c1"),
    ],
)
def test_a_bill_says_why_a_provider_would_refuse_the_request(tmp_path: Path, messages: list[Any], says: str) -> None:
    World(tmp_path).bill("0.001", messages)
    (bill,) = read_events(World(tmp_path).ledger)
    assert isinstance(bill, Bill)
    assert says in bill.problem
    assert bool(bill.problem) == bool(says)


async def test_a_script_goes_on_with_the_reply_that_is_due(tmp_path: Path) -> None:
    """A process that resumes makes a new model: it has to say what comes next, not what came first."""
    for _ in range(2):
        model = World(tmp_path).chat_model(["first", AIMessage("second")], cost_usd=0.002)
        said = await model.ainvoke([HumanMessage("go"), AIMessage("first"), HumanMessage("on")])
        assert said.text == "second"
    backend = World(tmp_path).llm(["first", lambda messages, tools: "second"])
    reply = await backend.complete([Message(MessageRole.USER, "go"), Message(MessageRole.ASSISTANT, "first")], [])
    assert reply.content == "second"
    with pytest.raises(AssertionError, match="the script no more than 2"):
        await model.ainvoke([AIMessage("1"), AIMessage("2")])
    assert len(read_events(World(tmp_path).ledger)) == 4, "a request that no reply is due for is billed as well"


async def test_a_chat_model_is_billed_whichever_way_it_is_asked(tmp_path: Path) -> None:
    """A stream was free."""
    world = World(tmp_path)
    model = world.chat_model(["one two"] * 2, cost_usd=0.002)
    texts = [
        (await model.ainvoke("Hi")).text,
        "".join([chunk.text async for chunk in model.astream("Hi")]),
        model.invoke("Hi").text,
        "".join(chunk.text for chunk in model.stream("Hi")),
    ]
    assert texts == ["one two"] * 4
    assert [event.cost_usd for event in read_events(world.ledger) if isinstance(event, Bill)] == ["0.002"] * 4


@pytest.mark.parametrize("make", [World.llm, World.chat_model], ids=["llm", "chat_model"])
def test_a_single_reply_is_no_script(tmp_path: Path, make: Any) -> None:
    with pytest.raises(ConfigError, match="replies: a list is due"):
        make(World(tmp_path), "Hello", cost_usd=0)


async def test_a_langchain_tool_knows_its_call_too(tmp_path: Path) -> None:
    world = World(tmp_path)

    def pay(invoice: str) -> str:
        """Pay an invoice."""
        world.effect()
        return f"{invoice} is paid"

    agent = create_production_agent(world.llm([call("pay", invoice="A-17"), "Paid."]), tools=[pay])
    run = await agent.run("pay", "r")
    assert run.status == "complete"
    assert [event.tool for event in read_events(world.ledger) if isinstance(event, Effect)] == ["pay"]
    await agent.aclose()
