"""Other people's `AgentMiddleware` in our agent: what it may do, what it costs, and what is refused, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired

import pytest
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ModelCallLimitMiddleware,
    ModelRequest,
    TodoListMiddleware,
    ToolRetryMiddleware,
    dynamic_prompt,
    wrap_tool_call,
)
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool

from agent_graph import ConfigError, ProductionAgent, RunFinished, TextDelta, create_production_agent
from agent_graph.testing import FakeClock, ScriptedChatModel
from agent_graph_adapters.langchain import BudgetMiddleware
from tests.adapters.langchain.middleware.somebodys import calls

LOOK = calls(("look", {"at": "it"}))


@tool(extras={"idempotent": True})
def look(at: str) -> str:
    """Look at something."""
    return f"saw {at}"


def agent_of(tmp_path: Path, middleware: Any, *replies: Any, **options: Any) -> tuple[ScriptedChatModel, ProductionAgent]:
    model = ScriptedChatModel(replies, usage=(10, 10))
    return model, create_production_agent(model, [look], middleware=middleware, storage=tmp_path / "runs.db", **options)


class Model(AgentMiddleware[Any, Any, Any]):
    """A hook around model calls that does what the test says."""

    def __init__(self, does: Any) -> None:
        super().__init__()
        self.tools = []
        self.does = does

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """Do it."""
        return await self.does(request, handler)


class Tool(AgentMiddleware[Any, Any, Any]):
    """A hook around tool calls that does what the test says."""

    def __init__(self, does: Any) -> None:
        super().__init__()
        self.tools = []
        self.does = does

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        """Do it."""
        return await self.does(request, handler)


# -- the model ----------------------------------------------------------------------------------------------------------------------


async def test_a_hook_sees_and_changes_what_the_model_is_shown(tmp_path: Path) -> None:
    seen: list[ModelRequest[Any]] = []

    async def politely(request: Any, handler: Any) -> Any:
        seen.append(request)
        return await handler(request.override(messages=[*request.messages, HumanMessage("Please.")], system_message=SystemMessage("Own.")))

    model, agent = agent_of(tmp_path, [Model(politely)], "hi")
    async with agent:
        run = await agent.run("Hello.")
    assert (run.status, run.output, run.steps) == ("complete", "hi", 1)
    assert [message.text for message in model.requests[0][0]] == ["Own.", "Hello.", "Please."]
    assert [tool.name for tool in seen[0].tools] == ["look"]
    assert [message.text for message in seen[0].state["messages"]] == ["Hello."]


async def test_each_further_call_is_admitted_and_counted(tmp_path: Path) -> None:
    async def twice(request: Any, handler: Any) -> Any:
        await handler(request)
        return await handler(request)

    model, agent = agent_of(tmp_path, [Model(twice)], "first", "second", max_steps=2)
    async with agent:
        run = await agent.run("Hello.")
        rows = await agent.storage.ledger((await agent.runs())[0].key)
    assert run.output == "second"
    assert [row.state for row in rows] == ["settled", "settled"]
    assert run.total_tokens == 40
    assert len(model.requests) == 2


async def test_a_hook_may_answer_by_itself_or_change_the_answer(tmp_path: Path) -> None:
    async def cached(request: Any, handler: Any) -> Any:
        return AIMessage("known") if "again" in request.messages[-1].text else await handler(request)

    async def loudly(request: Any, handler: Any) -> Any:
        reply = (await handler(request)).result[0]
        return reply.model_copy(update={"content": reply.text.upper()})

    class Outer(Model):
        """Another class, another name."""

    model, agent = agent_of(tmp_path, [Outer(loudly), Model(cached)], "hello")
    async with agent:
        assert (await agent.run("Hi.", "r")).output == "HELLO"
        events = [event async for event in agent.stream("Hi again.", "r")]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "KNOWN", "streamed as the hook gave it"
    assert isinstance(events[-1], RunFinished)
    assert len(model.requests) == 1


async def test_langchain_s_own_hooks_work(tmp_path: Path) -> None:
    @dynamic_prompt
    async def prompt(request: ModelRequest[Any]) -> str:
        return f"There are {len(request.messages)} messages."

    @wrap_tool_call
    async def shout(request: Any, handler: Any) -> Any:
        message = await handler(request)
        return message.model_copy(update={"content": message.text.upper()})

    model, agent = agent_of(tmp_path, [prompt, shout], LOOK, "done")
    async with agent:
        run = await agent.run("Look.")
    assert [messages[0].text for messages, _ in model.requests] == ["There are 1 messages.", "There are 3 messages."]
    assert run.tool_calls[0].result == "SAW IT"


async def test_what_a_hook_asks_for_and_cannot_have_fails_the_turn_by_name(tmp_path: Path) -> None:
    async def greedy(request: Any, handler: Any) -> Any:
        return await handler(request.override(tools=[]))

    async def moody(request: Any, handler: Any) -> Any:
        return await handler(request.override(model_settings={"temperature": 2}))

    async def vague(request: Any, handler: Any) -> Any:
        return "text"

    for does, match in ((greedy, "changed the tools"), (moody, "changed model_settings"), (vague, "one AIMessage was due")):
        _, agent = agent_of(tmp_path, [Model(does)], "hi")
        async with agent:
            run = await agent.run("Hello.")
        assert run.status == "failed"
        assert match in str(run.error)


# -- tools --------------------------------------------------------------------------------------------------------------------------


async def test_hooks_around_a_tool_run_within_the_journaled_call(tmp_path: Path) -> None:
    order: list[str] = []

    async def there(request: Any, handler: Any) -> Any:
        order.append(f"outer {request.tool.name} {request.tool_call['args']} after {len(request.state['messages'])}")
        message = await handler(request.override(tool_call={**request.tool_call, "args": {"at": "that"}}))
        order.append(message.text)
        return message

    _, agent = agent_of(tmp_path, [Tool(there)], LOOK, "done")
    async with agent:
        run = await agent.run("Look.")
        (row,) = await agent.storage.journal((await agent.runs())[0].key)
    assert order == ["outer look {'at': 'it'} after 2", "saw that"]
    assert (row.state, row.result) == ("succeeded", '"saw that"')
    assert run.tool_calls[0].result == "saw that"


async def test_a_hook_may_answer_in_the_tool_s_place_and_call_it_twice(tmp_path: Path) -> None:
    async def instead(request: Any, handler: Any) -> Any:
        await handler(request)
        await handler(request)
        return ToolMessage("no", tool_call_id=request.tool_call["id"], status="error")

    _, agent = agent_of(tmp_path, [Tool(instead)], LOOK, "done")
    async with agent:
        run = await agent.run("Look.")
    assert run.tool_calls[0].error == "no"


async def test_tools_of_a_middleware_are_the_agent_s(tmp_path: Path) -> None:
    class Bringing(Tool):
        """It brings a tool."""

        def __init__(self) -> None:
            async def through(request: Any, handler: Any) -> Any:
                return await handler(request)

            super().__init__(through)
            self.tools = [look]

    model = ScriptedChatModel([LOOK, "done"])
    async with create_production_agent(model, [], middleware=[Bringing()], storage=tmp_path / "runs.db") as agent:
        assert (await agent.run("Look.")).tool_calls[0].result == "saw it"
    with pytest.raises(ConfigError, match="two tools are named 'look'"):
        create_production_agent(model, [look], middleware=[Bringing()])


# -- what is refused ------------------------------------------------------------------------------------------------------------------


class Stateful(AgentMiddleware[Any, Any, Any]):
    class State(AgentState[Any]):
        tally: NotRequired[int]

    state_schema = State

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


class Blocking(AgentMiddleware[Any, Any, Any]):
    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request)


class Transforming(AgentMiddleware[Any, Any, Any]):
    transformers = (lambda scope: scope,)  # type: ignore[assignment]  # it is never called

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


@pytest.mark.parametrize(
    ("middleware", "match"),
    [
        (
            [ModelCallLimitMiddleware(run_limit=3)],
            "ModelCallLimitMiddleware keeps run_model_call_count, thread_model_call_count in the state",
        ),
        ([TodoListMiddleware()], "TodoListMiddleware"),
        ([Stateful()], "Stateful keeps tally in the state"),
        ([Blocking()], "Blocking has wrap_tool_call and no awrap_tool_call"),
        ([Transforming()], "Transforming has stream transformers"),
        ([BudgetMiddleware(max_steps=3)], "what BudgetMiddleware does, this agent does itself: give it max_cost_usd"),
        ([Tool(None), Tool(None)], "two are named 'Tool'"),
        ([Tool], "is no AgentMiddleware object"),
        (Tool(None), "a list of AgentMiddleware is due"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_what_cannot_be_honoured_is_refused_when_the_agent_is_built(middleware: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        create_production_agent(ScriptedChatModel(["hi"]), [look], middleware=middleware)


@pytest.mark.parametrize(("idempotent", "times"), [(False, 1), (True, 2)])
async def test_a_hook_that_retries_runs_a_payment_once(tmp_path: Path, idempotent: bool, times: int) -> None:
    """A ToolRetryMiddleware made two payments of one, and told them as a success."""
    paid: list[int] = []

    @tool(extras={"idempotent": idempotent})
    def pay(usd: int) -> str:
        """Pay an amount."""
        paid.append(usd)
        if len(paid) == 1:
            raise TimeoutError("the line went dead")
        return "paid"

    asks = AIMessage("", tool_calls=[{"name": "pay", "args": {"usd": 5}, "id": "c1"}])
    retry = ToolRetryMiddleware(max_retries=2, initial_delay=0)
    model = ScriptedChatModel([asks, AIMessage("Done.")])
    async with create_production_agent(model, [pay], middleware=[retry], storage=tmp_path / "runs.db") as agent:
        run = await agent.run("pay 5")
    assert len(paid) == times
    assert (run.tool_calls[0].error or "").startswith("OutcomeUnknown") is not idempotent


async def test_a_call_that_a_hook_held_up_until_it_was_late_is_a_landing_and_nothing_is_uncertain() -> None:
    """It was judged before the hook began to wait; what was never sent must not be booked as if it might be billed."""
    clock, seen = FakeClock(), list[int]()

    class Slow(AgentMiddleware[Any, Any, Any]):
        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            seen.append(1)
            if len(seen) == 2:
                clock.advance(2.5)
            return await handler(request)

    model = ScriptedChatModel([LOOK, "landed"], usage=(10, 10))
    async with create_production_agent(
        model, [look], middleware=[Slow()], timeout_s=3.0, clock=clock, storage=":memory:", prices={"scripted": {"input": 1, "output": 10}}
    ) as agent:
        run = await agent.run("q")
    assert (run.status, run.output, run.landed, run.cost_uncertain_usd) == ("complete", "landed", "timeout_s", 0.0)
