"""Hooks before and after the agent and the model, in our agent: as in `create_agent`, without a superstep, once in effect, judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, PIIMiddleware, SummarizationMiddleware, before_model, hook_config
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import interrupt

from agent_graph import AgentRun, Block, ConfigError, ProductionAgent, RunFinished, TextDelta, create_production_agent, guardrail
from agent_graph.testing import ScriptedChatModel
from tests.adapters.langchain.middleware.somebodys import calls
from tests.test_cancelling import cancelled_at

LOOK = calls(("look", {"at": "it"}))
SCRIPT = (LOOK, "done")


@tool(extras={"idempotent": True})
def look(at: str) -> str:
    """Look at something."""
    return f"saw {at}"


class Told(AgentMiddleware[Any, Any, Any]):
    """Writes down where it was called on which messages, and does what the test says."""

    def __init__(self, log: list[Any], name: str = "one", **does: Any) -> None:
        super().__init__()
        self.tools, self.log, self.does, self.own_name = [], log, does, name

    @property
    def name(self) -> str:
        """Its own, so that there may be two."""
        return self.own_name

    def _do(self, where: str, state: Any) -> Any:
        self.log.append((self.own_name, where, brief(state["messages"])))
        does = self.does.get(where)
        return does(state["messages"]) if does else None


class Steps(Told):
    """Asynchronous hooks."""

    @hook_config(can_jump_to=["end"])
    async def abefore_agent(self, state: Any, runtime: Any) -> Any:
        """Do it."""
        return self._do("before_agent", state)

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: Any, runtime: Any) -> Any:
        """Do it."""
        return self._do("before_model", state)

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: Any, runtime: Any) -> Any:
        """Do it."""
        return self._do("after_model", state)

    @hook_config(can_jump_to=["end"])
    async def aafter_agent(self, state: Any, runtime: Any) -> Any:
        """Do it."""
        return self._do("after_agent", state)


class Blocking(Told):
    """Synchronous hooks, which run in a thread."""

    def before_model(self, state: Any, runtime: Any) -> Any:
        """Do it."""
        return self._do("before_model", state)

    def after_model(self, state: Any, runtime: Any) -> Any:
        """Do it."""
        return self._do("after_model", state)


def brief(messages: list[AnyMessage] | list[BaseMessage]) -> list[str]:
    return [f"{message.type}: {message.text}" for message in messages]


def agent_of(middleware: Any, *replies: Any, **options: Any) -> tuple[ScriptedChatModel, ProductionAgent]:
    model = ScriptedChatModel(replies or SCRIPT, usage=(10, 10))
    return model, create_production_agent(model, [look], middleware=middleware, **{"storage": ":memory:", **options})


def say(text: str) -> Any:
    return lambda messages: {"messages": [HumanMessage(text)]}


def replaced(messages: list[BaseMessage]) -> Any:
    return {"messages": [messages[-1].model_copy(update={"content": messages[-1].text.upper()})]}


def replaced_first(messages: list[BaseMessage]) -> Any:
    return {"messages": [messages[0].model_copy(update={"content": "(asked)"})]}


def only_at_first(update: Any) -> Any:
    return lambda messages: update(messages) if len(messages) == 1 else None


def without_all(messages: list[BaseMessage]) -> Any:
    return {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), HumanMessage("A summary."), messages[-1]]}


def ended(messages: list[BaseMessage]) -> Any:
    return {"messages": [AIMessage("That is enough.")], "jump_to": "end"}


# -- as in create_agent ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "middleware",
    [
        lambda log: [Steps(log), Steps(log, "two")],
        lambda log: [Blocking(log), Steps(log, "two")],
        lambda log: [Steps(log, before_agent=say("From the start.")), Steps(log, "two", before_agent=replaced)],
        lambda log: [Steps(log, before_model=say("Please.")), Blocking(log, "two", before_model=replaced)],
        lambda log: [Steps(log, before_model=only_at_first(without_all))],
        lambda log: [Steps(log, before_model=lambda messages: {"messages": ("user", "As a pair.")})],
        lambda log: [Steps(log, after_model=lambda messages: None if messages[-1].tool_calls else replaced(messages))],
        lambda log: [Steps(log, before_model=ended), Steps(log, "two")],
        lambda log: [Steps(log, before_agent=ended), Steps(log, "two")],
        lambda log: [Steps(log), Steps(log, "two", after_model=lambda messages: None if messages[-1].tool_calls else ended(messages))],
        lambda log: [Steps(log, before_model=lambda messages: ended(messages) if len(messages) > 1 else None)],
        lambda log: [PIIMiddleware("email"), Steps(log)],
        lambda log: [Steps(log, after_agent=say("Bye.")), Steps(log, "two", after_agent=replaced_first)],
    ],
)
async def test_the_hooks_are_called_and_the_messages_become_as_in_create_agent(middleware: Any) -> None:
    ours: list[Any] = []
    theirs: list[Any] = []
    question = "Look at me@example.com."
    stock = create_agent(ScriptedChatModel(SCRIPT), [look], middleware=middleware(theirs))
    state = await stock.ainvoke({"messages": [HumanMessage(question)]})
    _, agent = agent_of(middleware(ours))
    async with agent:
        run = await agent.run(question, "r")
        held = await agent.graph.aget_state({"configurable": {"thread_id": "r"}})
    assert theirs
    assert ours == theirs
    assert brief(held.values["messages"]) == brief(state["messages"])
    assert (run.status, run.output) == ("complete", next(message.text for message in reversed(state["messages"]) if message.type == "ai"))
    assert all(message.id for message in held.values["messages"])


async def test_the_model_is_shown_what_the_hooks_wrote_and_the_next_turn_knows_it() -> None:
    log: list[Any] = []
    model, agent = agent_of([Steps(log, before_model=only_at_first(say("Please.")))], "one", "two")
    async with agent:
        await agent.run("First?", "r")
        await agent.run("Second?", "r")
    assert [brief(messages[1:]) for messages, _ in model.requests] == [
        ["human: First?", "human: Please."],
        ["human: First?", "human: Please.", "ai: one", "human: Second?"],
    ]


async def test_a_turn_knows_nothing_of_the_hooks_of_the_last() -> None:
    log: list[Any] = []
    model, agent = agent_of([Steps(log, before_model=lambda messages: ended(messages) if len(log) < 3 else None)], "one", "two")
    async with agent:
        assert (await agent.run("First?", "r")).output == "That is enough."
        assert [(await agent.run(text, "r")).output for text in ("Second?", "Third?")] == ["one", "two"]
    assert [where for _, where, _ in log].count("before_model") == 3
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    ("forget", "first"),
    [
        (lambda messages: {"messages": [RemoveMessage(id=message.id) for message in messages[:-1]]}, 0),
        (lambda messages: {"messages": [RemoveMessage(id=messages[-1].id), HumanMessage("In other words?")]}, 2),
        (without_all, 1),
    ],
)
async def test_where_the_turn_begins_is_known_after_messages_were_removed(forget: Any, first: int) -> None:
    hooks = Steps([], before_model=lambda messages: forget(messages) if len(messages) == 3 else None)
    _, agent = agent_of([hooks], "one", "two")
    async with agent:
        await agent.run("First?", "r")
        run = await agent.run("Second?", "r")
        held = await agent.graph.aget_state({"configurable": {"thread_id": "r"}})
    assert (run.output, held.values["first"]) == ("two", first)
    assert held.values["messages"][first].type == "human"


async def test_no_superstep_is_added() -> None:
    log: list[Any] = []
    counts = []
    for middleware in ([], [Steps(log, before_agent=say("a"), before_model=say("b")), Blocking(log, "two")]):
        _, agent = agent_of(middleware)
        async with agent:
            await agent.run("Look.", "r")
            counts.append(len([state async for state in agent.graph.aget_state_history({"configurable": {"thread_id": "r"}})]))
    assert log
    assert counts[0] == counts[1]


# -- once, whatever happens -------------------------------------------------------------------------------------------------------------


async def test_hooks_run_once_for_a_call_that_is_compressed_for_and_lands() -> None:
    log: list[Any] = []
    hooks = Steps(log, before_model=say("Please."))
    _, agent = agent_of([hooks], LOOK, "A summary.", "done", max_steps=2, compression_threshold=60)
    async with agent:
        run = await agent.run("Look. " + "word " * 80, "r")
        states = [state async for state in agent.graph.aget_state_history({"configurable": {"thread_id": "r"}})]
        kept = [entry.message.content for entry in await agent.history("r")]
    assert run.status == "complete", run.error
    assert {"compress", "check_budget"} <= {node for state in states for node in state.next}, "both detours were made"
    assert [where for _, where, _ in log].count("before_model") == run.steps == 2
    assert kept.count("Please.") == 2


async def test_a_turn_that_was_cut_off_anywhere_goes_on_to_the_same_messages() -> None:
    expected = ["human: Look.", "human: a", "human: b", "ai: ", "tool: saw it", "human: b", "ai: DONE"]
    for n in range(1, 1_000):
        hooks = Steps(
            [],
            before_agent=say("a"),
            before_model=say("b"),
            after_agent=say("c"),
            after_model=lambda messages: None if messages[-1].tool_calls else replaced(messages),
        )
        model = ScriptedChatModel([lambda messages, *_: "done" if any(m.type == "tool" for m in messages) else LOOK], last_forever=True)
        async with create_production_agent(model, [look], middleware=[hooks], storage=":memory:") as agent:
            first = await cancelled_at(n, lambda agent=agent: agent.run("Look.", "r"))  # type: ignore[misc]  # the default binds the loop's own agent
            run: AgentRun = first or await agent.run("Look.", "r")
            held = await agent.graph.aget_state({"configurable": {"thread_id": "r"}})
        assert (run.status, run.output, run.turn) == ("complete", "DONE", 1), f"cancelled at await {n}"
        last = [["human: c"]] if first else [["human: c"], []]  # lost where the turn's end was on disk, and its last checkpoint not
        assert brief(held.values["messages"]) in [[*expected, *end] for end in last], f"cancelled at await {n}"
        if first is not None:
            break
    assert n > 20


# -- streaming, rails, limits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hold_text", [True, False])
@pytest.mark.parametrize("where", ["before_agent", "before_model", "after_model"])
async def test_an_answer_of_a_hook_s_is_streamed_and_judged(where: str, hold_text: bool) -> None:
    @guardrail(stages=["output"])
    async def never_enough(stage: Any, text: Any, run: Any) -> Any:
        return Block("it says so") if "enough" in text else None

    for rails, status, output in (([], "complete", "That is enough."), ([never_enough], "failed", None)):
        _, agent = agent_of([Steps([], **{where: ended})], "hi", guardrails=rails, hold_text=hold_text)
        async with agent:
            events = [event async for event in agent.stream("Hello.", "r")]
        last = events[-1]
        assert isinstance(last, RunFinished)
        assert (last.run.status, last.run.output) == (status, output), last.run.error
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == (
            output or ("" if hold_text else "That is enough.")
        )


@pytest.mark.parametrize("hold_text", [True, False])
async def test_text_that_was_told_is_not_told_again_by_a_jump_to_the_end(hold_text: bool) -> None:
    hooks = Steps([], before_model=lambda messages: {"jump_to": "end"} if len(messages) > 1 else None)
    look_first = LOOK.model_copy(update={"content": "I shall look."})
    _, agent = agent_of([hooks], look_first, hold_text=hold_text)
    async with agent:
        events = [event async for event in agent.stream("Look.", "r")]
    assert [event.text for event in events if isinstance(event, TextDelta) and event.text] == ["I shall look."]
    assert isinstance(events[-1], RunFinished)
    assert (events[-1].run.status, events[-1].run.output) == ("complete", "I shall look.")


async def test_a_reply_is_streamed_as_the_hooks_leave_it() -> None:
    _, agent = agent_of([Steps([], after_model=replaced)], "hello")
    async with agent:
        events = [event async for event in agent.stream("Hello.", "r")]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["HELLO"]


async def test_a_hook_has_no_more_time_than_the_turn() -> None:
    import asyncio

    class Endless(AgentMiddleware[Any, Any, Any]):
        async def abefore_model(self, state: Any, runtime: Any) -> Any:
            await asyncio.Event().wait()

    _, agent = agent_of([Endless()], "hi", timeout_s=0.3)
    async with agent:
        run = await agent.run("Hello.")
    assert (run.status, run.stop_reason) == ("timeout", "timeout_s")


# -- what fails and what is refused -------------------------------------------------------------------------------------------------------


def raising(messages: Any) -> Any:
    raise LookupError("no such thing")


@pytest.mark.parametrize(
    ("does", "error"),
    [
        (raising, "LookupError: no such thing"),
        (lambda messages: {"tally": 1}, "wrote tally"),
        (lambda messages: {"jump_to": "model"}, "jumped to 'model'"),
        (lambda messages: "text", "returned a str"),
        (lambda messages: interrupt("wait"), "cannot wait for a person here"),
    ],
)
@pytest.mark.parametrize("where", ["before_agent", "before_model", "after_model", "after_agent"])
async def test_what_goes_wrong_in_a_hook_fails_the_turn(where: str, does: Any, error: str) -> None:
    _, agent = agent_of([Steps([], **{where: does})], "hi")
    async with agent:
        run = await agent.run("Hello.")
    assert (run.status, run.output) == ("failed", "hi" if where == "after_agent" else None)
    assert error in str(run.error)


@pytest.mark.parametrize(
    ("does", "error"),
    [
        (lambda messages: {"messages": [RemoveMessage(id=messages[-1].id)]}, "took the reply away"),
        (lambda messages: {"messages": [ToolMessage("mine", tool_call_id="look_0")]}, "behind a reply that calls tools"),
    ],
)
async def test_what_hooks_may_not_do_to_a_reply(does: Any, error: str) -> None:
    _, agent = agent_of([Steps([], after_model=does)])
    async with agent:
        run = await agent.run("Look.")
    assert run.status == "failed"
    assert error in str(run.error)


def changed_in_place(messages: list[BaseMessage]) -> None:
    messages[-1].content = "Hello, unjudged."


@pytest.mark.parametrize("does", [replaced, changed_in_place, lambda messages: {"messages": [RemoveMessage(id=messages[-1].id)]}])
async def test_the_answer_stands_after_it_was_judged(does: Any) -> None:
    _, agent = agent_of([Steps([], after_agent=does)], "hi")
    async with agent:
        run = await agent.run("Hello.")
    assert (run.status, run.output) == ("failed", "hi")
    assert "after_agent changed the answer" in str(run.error)


async def test_after_agent_is_for_turns_that_have_an_answer_and_the_next_turn_knows_what_it_wrote() -> None:
    log: list[Any] = []
    model, agent = agent_of([Steps(log, after_agent=say("Noted."))], ValueError("no"), "one", "two")
    async with agent:
        assert (await agent.run("First?", "other")).status == "failed"
        assert all(where != "after_agent" for _, where, _ in log)
        await agent.run("First?", "r")
        await agent.run("Second?", "r")
    assert brief(model.requests[-1][0][1:]) == ["human: First?", "ai: one", "human: Noted.", "human: Second?"]


async def test_an_end_without_an_answer_is_none() -> None:
    _, agent = agent_of([Steps([], before_model=lambda messages: {"jump_to": "end"})])
    async with agent:
        run = await agent.run("Look.")
    assert (run.status, run.error) == ("failed", "middleware: one.before_model ended the turn before there was an answer.")


async def test_pii_that_is_to_be_blocked_ends_the_turn(tmp_path: Path) -> None:
    model, agent = agent_of([PIIMiddleware("email", strategy="block")], "hi")
    async with agent:
        run = await agent.run("I am me@example.com.")
    assert run.status == "failed"
    assert str(run.error).startswith("middleware: PIIMiddleware[email].before_model: PIIDetectionError: ")
    assert not model.requests


@before_model(can_jump_to=["end", "tools"])
async def to_the_tools(state: Any, runtime: Any) -> None:
    """Elsewhere."""


@pytest.mark.parametrize(
    ("one", "match"),
    [
        (to_the_tools, r"to_the_tools declares can_jump_to=\['tools'\] for before_model"),
        (PIIMiddleware("email", apply_to_output=True), "PIIMiddleware has stream transformers"),
        (SummarizationMiddleware(ScriptedChatModel([])), "SummarizationMiddleware has stream transformers"),
    ],
)
def test_what_cannot_be_honoured_is_refused_when_the_agent_is_built(one: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        create_production_agent(ScriptedChatModel(["hi"]), [look], middleware=[one])
