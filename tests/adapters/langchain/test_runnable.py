"""The agent in chains, batches and graphs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from agent_graph import Ask, ConfigError, NoAnswer, ProductionAgent, RunConflict, create_production_agent, guardrail
from agent_graph.runtime.sync import run_sync
from agent_graph.storage.port import TurnRequest
from agent_graph.testing import DictMemory, FakeTools, ScriptedChatModel, ScriptedLLM, call
from agent_graph_adapters.langchain import as_runnable

WEATHER = {"name": "weather", "description": "Weather in a city.", "parameters": {"city": {"type": "string"}}, "idempotent": True}
CALL = AIMessage("", tool_calls=[{"id": "c1", "name": "weather", "args": {"city": "Paris"}}])


def weather(city: str) -> str:
    """Weather in a city."""
    return f"sunny in {city}"


def agent_of(*replies: Any, **options: Any) -> ProductionAgent:
    return create_production_agent(ScriptedChatModel(replies, usage=(10, 5)), [weather], unmarked_tools="retry", **options)


def spec_agent(*replies: Any) -> ProductionAgent:
    tools = FakeTools({"weather": weather})
    return ProductionAgent(ScriptedLLM(replies), [WEATHER], tools, DictMemory(), None, {"retry_attempts": 1})  # type: ignore[arg-type]  # nobody is told


THREAD: Any = {"configurable": {"thread_id": "t"}}
CHAT = [SystemMessage("Be brief."), HumanMessage("Hello", id="h1"), AIMessage("Hi!", id="a1"), HumanMessage("Paris?", id="h2")]


@pytest.mark.parametrize(
    "given",
    ["Paris?", [("user", "Paris?")], HumanMessage("Paris?"), PromptTemplate.from_template("{city}?").invoke({"city": "Paris"})],
    ids=["a string", "messages", "one message", "a prompt value"],
)
async def test_a_question_in_any_form_gives_the_final_message(given: Any) -> None:
    answer = await as_runnable(agent_of(CALL, "It is sunny.")).ainvoke(given)
    assert isinstance(answer, AIMessage)
    assert (answer.text, answer.usage_metadata and answer.usage_metadata["total_tokens"]) == ("It is sunny.", 15)


async def test_a_chat_prompt_is_the_whole_conversation() -> None:
    agent = agent_of("It is sunny.")
    chain = ChatPromptTemplate([("system", "Be brief."), ("placeholder", "{history}"), ("user", "{city}?")]) | as_runnable(agent)
    chain_out = await (chain | StrOutputParser()).ainvoke({"city": "Paris", "history": [("user", "Hello"), ("ai", "Hi!")]})
    assert chain_out == "It is sunny."
    asked, _ = agent.llm.requests[0]  # type: ignore[attr-defined]  # the scripted model
    assert [message.type for message in asked] == ["system", "human", "ai", "human"]
    assert "Be brief." in asked[0].text


async def test_messages_in_and_this_turns_new_messages_out() -> None:
    agent = agent_of(CALL, "It is sunny.")
    out = await as_runnable(agent).ainvoke({"messages": CHAT}, {"configurable": {"thread_id": "t"}})
    assert [message.type for message in out["messages"]] == ["ai", "tool", "ai"]
    kept = (await agent.graph.aget_state({"configurable": {"thread_id": "t"}})).values["messages"]
    assert [message.id for message in kept[:4]] == [message.id for message in CHAT]
    assert [message.id for message in kept[4:]] == [message.id for message in out["messages"]]
    assert (await agent.get("t")).input == "Paris?"


async def test_messages_before_the_input_replace_the_memory_for_that_turn() -> None:
    agent = agent_of("first", "second", "third")
    runnable, config = as_runnable(agent), THREAD
    await runnable.ainvoke("Remember 17.", config)
    await runnable.ainvoke({"messages": CHAT}, config)
    await runnable.ainvoke({"messages": [("user", "And now?")]}, config)
    texts = [[message.text for message in asked[1:]] for asked, _ in agent.llm.requests]  # type: ignore[attr-defined]  # the scripted model
    assert texts[1] == ["Hello", "Hi!", "Paris?"]
    assert texts[2] == ["Hello", "Hi!", "Paris?", "second", "And now?"], "a question alone goes on from the memory"
    assert [entry.message.content for entry in await agent.history("t")] == [
        "Remember 17.", "first", "Paris?", "second", "And now?", "third",
    ]  # fmt: skip


async def test_blocks_and_ids_of_the_input_are_kept() -> None:
    image = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    agent = agent_of("A cat.")
    await as_runnable(agent).ainvoke([HumanMessage([image], id="h")], {"configurable": {"thread_id": "t"}})
    asked, _ = agent.llm.requests[0]  # type: ignore[attr-defined]  # the scripted model
    assert (asked[-1].id, asked[-1].content) == ("h", [image])
    assert (await agent.get("t")).input == "[image]"


async def test_messages_after_the_last_question_are_kept_and_not_given_back() -> None:
    """As a supervisor hands over: its own call and the call's answer stand after the question."""
    handover = [AIMessage("", tool_calls=[{"id": "x", "name": "go", "args": {}}]), ToolMessage("gone", tool_call_id="x")]
    out = await as_runnable(agent_of("done")).ainvoke({"messages": [HumanMessage("q"), *handover]})
    assert [message.text for message in out["messages"]] == ["done"]


# -- the configuration ---------------------------------------------------------------------------------------------------------


class Names(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[tuple[str, list[str], dict[str, Any]]] = []

    async def on_chain_start(self, serialized: Any, inputs: Any, *, tags: Any = None, metadata: Any = None, **kwargs: Any) -> None:
        if kwargs.get("parent_run_id") is None:
            self.seen.append((kwargs["name"], list(tags or []), dict(metadata or {})))


async def test_the_configuration_reaches_the_graph() -> None:
    names = Names()
    config: Any = {"callbacks": [names], "tags": ["vip"], "metadata": {"user": "u1"}, "run_name": "ask", "configurable": {"thread_id": "t"}}
    await as_runnable(agent_of("hi")).with_config(config).ainvoke("q")
    [(name, tags, metadata)] = names.seen
    assert (name, metadata["user"], metadata["thread_id"]) == ("ask", "u1", "t")
    assert "vip" in tags


@pytest.mark.parametrize("configurable", [{}, {"thread_id": "t"}, {"run_id": "t"}, {"thread_id": "t", "run_id": "t"}], ids=str)
async def test_the_thread_is_the_run(configurable: Any) -> None:
    agent = agent_of("hi")
    await as_runnable(agent).ainvoke("q", {"configurable": configurable})
    [row] = await agent.runs()
    assert (row.key.run_id == "t") is bool(configurable)


async def test_a_thread_id_that_differs_from_the_run_id_is_refused() -> None:
    with pytest.raises(ConfigError, match="thread_id: it is 'a', but run_id is 'b'"):
        await as_runnable(agent_of("hi")).ainvoke("q", {"configurable": {"thread_id": "a", "run_id": "b"}})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "it is empty"),
        ([], "at least one human message"),
        ({"messages": [AIMessage("hi")]}, "at least one human message"),
        ({"question": "hi"}, "input: dict is nothing to ask"),
        (17, "input: int is nothing to ask"),
        ({"messages": [object()]}, "messages: "),
        ({"messages": None}, "input: NoneType"),
    ],
    ids=repr,
)
async def test_a_bad_input_is_refused_before_any_call(given: Any, words: str) -> None:
    agent = agent_of("hi")
    with pytest.raises(ConfigError, match=words):
        await as_runnable(agent).ainvoke(given)
    assert agent.llm.requests == []  # type: ignore[attr-defined]  # the scripted model


def test_what_is_no_agent_is_refused() -> None:
    with pytest.raises(ConfigError, match="a ProductionAgent is due, not str"):
        as_runnable("agent")  # type: ignore[arg-type]  # that is the point


# -- ends ------------------------------------------------------------------------------------------------------------------------


async def test_a_turn_without_an_answer_is_an_error_that_a_fallback_catches() -> None:
    failing = as_runnable(spec_agent(RuntimeError("down")))
    with pytest.raises(NoAnswer, match=r"turn 1 ended without an answer \(failed\): llm.complete: RuntimeError: down") as raised:
        await failing.ainvoke("q", {"configurable": {"thread_id": "t"}})
    assert (raised.value.run_id, raised.value.run.status) == ("t", "failed")
    rescued = as_runnable(spec_agent(RuntimeError("down"))).with_fallbacks([RunnableLambda(lambda _: "rescued")])
    assert await rescued.ainvoke("q") == "rescued"


class Owner:
    """Of a lease; once it is collected, its turn is nobody's."""


@guardrail(stages={"tool_args"})
async def ask(stage: str, payload: Any, run: Any) -> Any:
    return Ask("are you sure?")


@pytest.mark.parametrize("resume", [{"decisions": [{"type": "approve"}]}, {"type": "approve"}, "approve"], ids=str)
async def test_a_turn_that_waits_is_answered_by_a_command(resume: Any) -> None:
    runnable, config = as_runnable(agent_of(CALL, "It is sunny.", guardrails=[ask])), THREAD
    with pytest.raises(NoAnswer, match=r"waits for a person's word: .*'c1'.*are you sure\?") as raised:
        await runnable.ainvoke("q", config)
    assert raised.value.run.pending[0]["call_id"] == "c1"
    assert (await runnable.ainvoke(Command(resume=resume), config)).text == "It is sunny."


async def test_the_answer_to_a_command_streams_as_one_chunk() -> None:
    runnable, config = as_runnable(agent_of(CALL, "It is sunny.", guardrails=[ask])), THREAD
    with pytest.raises(NoAnswer):
        await runnable.ainvoke("q", config)
    [chunk] = [chunk async for chunk in runnable.astream(Command(resume="approve"), config)]
    assert (type(chunk), chunk.text) == (AIMessageChunk, "It is sunny.")


async def test_a_word_that_nobody_waits_for_is_refused() -> None:
    runnable = as_runnable(agent_of(CALL, "It is sunny.", guardrails=[ask]))
    with pytest.raises(ConfigError, match="thread_id: "):
        await runnable.ainvoke(Command(resume="approve"))
    config: Any = {"configurable": {"thread_id": "t"}}
    with pytest.raises(NoAnswer):
        await runnable.ainvoke("q", config)
    with pytest.raises(ConfigError, match="2 decisions were given; run 't' waits for a word on 'c1', one each"):
        await runnable.ainvoke(Command(resume={"decisions": ["approve", "approve"]}), config)
    await runnable.ainvoke(Command(resume="approve"), config)
    with pytest.raises(ConfigError, match="waits for a word on nothing"):
        await runnable.ainvoke(Command(resume="approve"), config)


async def test_an_unfinished_turn_is_closed_by_another_input() -> None:
    agent = spec_agent("second")
    request = TurnRequest(
        namespace="default", run_id="t", agent="agent", input="first?", request_id=None, fingerprint="", on_unfinished="conflict"
    )
    await agent.storage.claim(request, Owner())
    gc.collect()
    with pytest.raises(RunConflict):
        await agent.run("second?", "t")
    assert (await as_runnable(agent).ainvoke("second?", {"configurable": {"thread_id": "t"}})).text == "second"


# -- sync, streams, batches ----------------------------------------------------------------------------------------------------


def test_invoke_stream_and_batch_without_a_loop() -> None:
    runnable = as_runnable(agent_of("one two", "one two", "x", "x"))
    assert runnable.invoke("q").text == "one two"
    assert "".join(chunk.text for chunk in runnable.stream("q")) == "one two"
    assert [answer.text for answer in runnable.batch(["a", "b"])] == ["x", "x"]


async def test_invoke_inside_a_running_loop() -> None:
    """As in a notebook."""
    assert as_runnable(agent_of("hi")).invoke("q").text == "hi"


async def test_the_chunks_of_a_text_add_up_to_the_answer() -> None:
    whole: Any = None
    count = 0
    async for chunk in as_runnable(agent_of(CALL, "It is sunny today.")).astream("q"):
        assert isinstance(chunk, AIMessageChunk)
        whole, count = chunk if whole is None else whole + chunk, count + 1
    assert count > 2
    assert (whole.text, whole.usage_metadata["total_tokens"], whole.tool_calls) == ("It is sunny today.", 15, [])


async def test_the_chunks_of_messages_are_the_new_messages_each_once() -> None:
    agent = agent_of(CALL, "It is sunny.")
    whole: Any = None
    count = 0
    async for chunk in as_runnable(agent).astream({"messages": CHAT}, {"configurable": {"thread_id": "t"}}):
        whole, count = chunk if whole is None else whole + chunk, count + 1
    assert count == 3
    assert [message.type for message in whole["messages"]] == ["ai", "tool", "ai"]


async def test_langgraphs_stream_modes() -> None:
    seen = [item async for item in as_runnable(agent_of(CALL, "It is sunny.")).astream("q", stream_mode=["updates", "messages"])]
    nodes = [node for mode, chunk in seen if mode == "updates" for node in chunk]
    assert nodes == ["load_memory", "call_model", "run_tool", "call_model", "finish"]
    texts = [chunk[0].text for mode, chunk in seen if mode == "messages" and isinstance(chunk[0], AIMessageChunk)]
    assert "".join(texts) == "It is sunny."
    values = [value async for value in as_runnable(agent_of("hi")).astream("q", stream_mode="values")]
    assert values[-1]["messages"][-1].text == "hi"


async def test_a_closed_stream_stops_the_turn_and_the_same_question_goes_on(tmp_path: Path) -> None:
    agent = agent_of(CALL, "It is sunny.", storage=tmp_path / "runs.db")
    runnable, config = as_runnable(agent), THREAD
    stream = runnable.astream({"messages": [("user", "q")]}, config)
    assert [message.type for message in (await anext(stream))["messages"]] == ["ai"]
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator, by the name of an iterator
    out = await runnable.ainvoke({"messages": [("user", "q")]}, config)
    assert [message.type for message in out["messages"]] == ["ai", "tool", "ai"]
    assert (await agent.get("t")).turn == 1


async def test_the_conversation_that_was_given_is_the_turns_also_after_a_crash(tmp_path: Path) -> None:
    """Taken up by somebody who was not given it: `resume`, by another agent object, as in another process."""
    first = agent_of(CALL, storage=tmp_path / "runs.db")
    stream = as_runnable(first).astream({"messages": CHAT}, {"configurable": {"thread_id": "t"}})
    assert [message.type for message in (await anext(stream))["messages"]] == ["ai"]
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator, by the name of an iterator
    await first.aclose()
    async with agent_of("It is sunny.", storage=tmp_path / "runs.db") as second:
        assert (await second.resume("t")).output == "It is sunny."
        asked, _ = second.llm.requests[0]  # type: ignore[attr-defined]  # the scripted model
    assert [message.text for message in asked[1:4]] == ["Hello", "Hi!", "Paris?"]
    assert "Be brief." in asked[0].text


def test_a_synchronous_stream_that_is_left_stops_the_turn(tmp_path: Path) -> None:
    agent = agent_of(CALL, "It is sunny.", storage=tmp_path / "runs.db")
    runnable, config = as_runnable(agent), THREAD
    for chunk in runnable.stream({"messages": [("user", "q")]}, config):
        assert [message.type for message in chunk["messages"]] == ["ai"]
        break
    assert runnable.invoke("q", config).text == "It is sunny."
    run_sync(agent.aclose())


def test_what_langchain_asks_a_runnable_about_itself() -> None:
    runnable = as_runnable(agent_of("hi"))
    assert runnable.get_input_jsonschema()["anyOf"][0] == {"type": "string"}
    assert "call_model" in (ChatPromptTemplate([("user", "{q}")]) | runnable).get_graph().draw_mermaid()
    assert (runnable.get_name(), repr(runnable)) == ("agent", "as_runnable('agent')")


async def test_a_failing_stream_raises() -> None:
    for given in ("q", {"messages": [("user", "q")]}):
        with pytest.raises(NoAnswer):
            _ = [chunk async for chunk in as_runnable(spec_agent(RuntimeError("down"))).astream(given)]


async def test_events_are_seen_through_the_chain() -> None:
    events = [event["event"] async for event in as_runnable(agent_of(CALL, "It is sunny.")).astream_events("q", version="v2")]
    assert {"on_chat_model_start", "on_chat_model_end", "on_tool_start", "on_tool_end"} <= set(events)


# -- inside another graph --------------------------------------------------------------------------------------------------------


async def test_as_nodes_of_one_graph_two_agents_have_two_conversations(tmp_path: Path) -> None:
    storage = tmp_path / "runs.db"
    one, two = agent_of("one", storage=storage, name="one"), agent_of("two", storage=storage, name="two")
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    graph.add_node("one", as_runnable(one))
    graph.add_node("two", as_runnable(two))
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.add_edge("two", END)
    app = graph.compile(checkpointer=InMemorySaver())
    out = await app.ainvoke({"messages": [("user", "q")]}, {"configurable": {"thread_id": "t"}})
    assert [message.text for message in out["messages"]] == ["q", "one", "two"]
    assert sorted(row.key.run_id for row in await one.runs()) == ["t/one", "t/two"]
    for agent in (one, two):
        await agent.aclose()


async def test_inside_a_tool_each_call_is_a_run_of_its_own() -> None:
    inner = agent_of("4", "6")

    async def double(number: int) -> str:
        """Double a number."""
        return str((await as_runnable(inner).ainvoke(f"double {number}")).text)

    calls = AIMessage("", tool_calls=[{"id": f"c{n}", "name": "double", "args": {"number": n}} for n in (2, 3)])
    outer = create_production_agent(ScriptedChatModel([calls, "done"]), [double])
    run = await outer.run("q", "parent")
    assert [call.error for call in run.tool_calls] == [None, None]
    children = [row.key.run_id for row in await inner.runs() if row.key.run_id != "parent"]
    assert len(set(children)) == 2
    assert all(name.startswith("parent/") for name in children)


async def test_a_scripted_backend_works_alike() -> None:
    assert (await as_runnable(spec_agent(call("weather", city="Paris"), "sunny")).ainvoke("q")).text == "sunny"


def paying_app(paid: list[float], fails_after: int, *replies: Any) -> Any:
    """A graph of somebody's whose node raises after the agent has answered, so many times."""

    @tool(extras={"idempotent": False})
    def pay(usd: float) -> str:
        """Pay an amount."""
        paid.append(usd)
        return "paid"

    runnable = as_runnable(create_production_agent(ScriptedChatModel(replies), [pay], storage=":memory:"))
    left = [fails_after]

    async def node(state: MessagesState) -> Any:
        result = await runnable.ainvoke(state)
        if left[0]:
            left[0] -= 1
            raise RuntimeError("after the payment")
        return result

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    graph.add_node("agent", node)
    graph.add_edge(START, "agent")
    return graph.compile(checkpointer=InMemorySaver())


def payment(number: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "pay", "args": {"usd": number}, "id": f"c{number}"}])


async def test_a_node_that_runs_again_is_given_the_answer_that_it_had() -> None:
    """What had been asked and paid for was asked, and paid, once more."""
    paid: list[float] = []
    app = paying_app(paid, 2, payment(1), AIMessage("Done."), payment(2), AIMessage("Done again."))
    config: Any = {"configurable": {"thread_id": "t"}}
    with pytest.raises(RuntimeError):
        await app.ainvoke({"messages": [("user", "pay")]}, config, durability="sync")
    with pytest.raises(RuntimeError):
        await app.ainvoke(None, config, durability="sync")
    result = await app.ainvoke(None, config, durability="sync")
    assert paid == [1]
    assert [message.type for message in result["messages"]] == ["human", "ai", "tool", "ai"]
    again = await app.ainvoke({"messages": [("user", "pay")]}, config, durability="sync")  # the node's next visit is another request
    assert paid == [1, 2]
    assert again["messages"][-1].text == "Done again."


async def test_a_node_that_got_no_answer_asks_anew() -> None:
    app = paying_app([], 0, RuntimeError("down"), AIMessage("Here."))
    config: Any = {"configurable": {"thread_id": "t"}}
    with pytest.raises(NoAnswer):
        await app.ainvoke({"messages": [("user", "hello?")]}, config, durability="sync")
    assert (await app.ainvoke(None, config, durability="sync"))["messages"][-1].text == "Here."


async def test_the_same_message_once_more_is_a_message_of_its_own() -> None:
    """The earlier one's place was taken, and the reply that had called the tool was missing from the result."""
    asks = [AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": number}]) for number in "12"]
    agent = agent_of(asks[0], AIMessage("One."), asks[1], AIMessage("Two."))
    config: Any = {"configurable": {"thread_id": "t"}}
    question = {"messages": [HumanMessage("again", id="H")]}
    for _ in range(2):
        result = await as_runnable(agent).ainvoke(question, config)
        assert [message.type for message in result["messages"]] == ["ai", "tool", "ai"]
