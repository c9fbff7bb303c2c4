"""Turns that wait for a person's word, and tools that say themselves what became of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agent_graph import (
    Allow,
    Ask,
    ConfigError,
    ProductionAgent,
    RunConflict,
    RunNotFound,
    ToolBackend,
    ToolCall,
    create_production_agent,
    guardrail,
)
from agent_graph.resolutions import Approve, Done, Edit, NotDone, Reject, Respond, Unknown, from_json, to_json
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedChatModel, ScriptedLLM, call, calls

PAY: dict[str, Any] = {"name": "pay", "parameters": {"amount": {"type": "integer"}}, "idempotent": False}


class Line(ToolBackend):
    """Pays over a line that goes dead: the first `dead` payments happen, or not, and nobody hears of them."""

    def __init__(self, dead: int = 1) -> None:
        self.dead = dead
        self.asked: list[dict[str, Any]] = []

    async def execute(self, call: ToolCall) -> ToolCall:
        self.asked.append(dict(call.args))
        if len(self.asked) <= self.dead:
            raise ConnectionError("the line went dead")
        call.result = f"receipt {len(self.asked)}"
        return call


def agent_of(*replies: Any, backend: Any = None, tools: Any = None, storage: Any = None, **options: Any) -> ProductionAgent:
    observability = ListObservability()
    return ProductionAgent(
        ScriptedLLM(replies), tools or [PAY], backend or Line(), DictMemory(), observability, {}, storage=storage, **options
    )


def told(agent: ProductionAgent) -> str:
    """What the model was last told by a tool."""
    assert isinstance(agent.llm, ScriptedLLM)
    return next(message.content for message in reversed(agent.llm.requests[-1].messages) if message.role.value == "tool")


# -- in doubt -----------------------------------------------------------------------------------------------------------------


async def test_by_default_the_model_is_told() -> None:
    agent = agent_of(call("pay", amount=5), "I do not know whether it was paid.")
    run = await agent.run("pay 5")
    assert run.status == "complete"
    assert "the outcome of this call is unknown" in told(agent)
    assert agent.tool_backend.asked == [{"amount": 5}]


def dead_line(amount: int) -> str:
    raise ConnectionError("the line went dead")


@guardrail(stages=["tool_result"], name="boss")
async def boss(stage: str, payload: Any, run: Any) -> Any:
    return Ask("may the model read it?")


@pytest.mark.parametrize(
    ("pay", "state", "reads"),
    [(dead_line, "in_doubt", "its outcome is unknown"), (lambda amount: "receipt 1", "succeeded", "was made and succeeded")],
)
async def test_what_the_next_turn_reads_of_a_payment_that_its_closed_turn_could_not_read(pay: Any, state: str, reads: str) -> None:
    """It read "This call was cancelled: it has no result", and the payment may have been made, or was."""
    both = calls(call("pay", call_id="paid", amount=5), call("look", call_id="seen"))
    backend = FakeTools({"pay": pay, "look": lambda: asyncio.get_running_loop().create_future()})
    agent = agent_of(both, "Fine.", tools=[PAY, {"name": "look"}], backend=backend, on_doubt="ask", guardrails=[boss])
    work = asyncio.ensure_future(agent.run("pay 5, and look", "r"))
    while await states(agent) != [state, "started"]:
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert (await agent.run("something else", "r")).output == "Fine."
    loaded = await agent.memory.load("r")
    read = {message.metadata["tool_call_id"]: message.content for message in loaded if "tool_call_id" in message.metadata}
    assert reads in read["paid"]
    assert "receipt" not in read["paid"], "nobody has said that the model may read it"
    assert read["seen"] == "This call was cancelled: it has no result."


async def states(agent: ProductionAgent) -> list[str]:
    """Return the states of the calls of the run's first turn."""
    turns = await agent.storage.turns("default", "r")
    return [row.state for row in await agent.storage.journal(turns[0].key)] if turns else []


@pytest.mark.parametrize(
    ("word", "asked", "heard"),
    [
        (Done("receipt 17"), 1, "receipt 17"),
        (NotDone(), 2, "receipt 2"),
        (Unknown(), 1, "unknown"),
        (Reject("leave it"), 1, "leave it"),
        ({"type": "done", "result": {"receipt": 17}}, 1, '{"receipt":17}'),
    ],
    ids=["done", "not done: run again, same key", "unknown", "rejected", "as JSON"],
)
async def test_a_person_settles_a_doubt(word: Any, asked: int, heard: str) -> None:
    agent = agent_of(call("pay", amount=5), "Settled.", on_doubt="ask")
    waiting = await agent.run("pay 5", "r")
    assert (waiting.status, waiting.stop_reason) == ("running", "waiting")
    [entry] = waiting.pending
    assert (entry["tool_name"], entry["args"]) == ("pay", {"amount": 5})
    assert "the line went dead" in entry["reason"]
    run = await agent.resolve("r", entry["call_id"], word)
    assert (run.status, run.output, run.pending) == ("complete", "Settled.", [])
    assert len(agent.tool_backend.asked) == asked
    assert heard in told(agent)
    assert isinstance(agent.observability, ListObservability)
    assert len(agent.observability.runs) == 1
    assert len(agent.observability.calls) == 1


async def test_while_it_waits(tmp_path: Path) -> None:
    """The table: the same input gives the waiting AgentRun, another one is a conflict; nothing is lost with the process."""
    agent = agent_of(call("pay", amount=5), on_doubt="ask", storage=tmp_path / "runs.db")
    waiting = await agent.run("pay 5", "r")
    assert await agent.run("pay 5", "r") == waiting
    assert await agent.resume("r") == waiting
    with pytest.raises(RunConflict, match="waits for a person"):
        await agent.run("other", "r")
    assert await agent.unfinished() == []
    call_id = waiting.pending[0]["call_id"]
    with pytest.raises(RunConflict, match=f"what waits: '{call_id}'"):
        await agent.resolve("r", "another", Done())
    with pytest.raises(ConfigError, match="makes no sense"):
        await agent.resolve("r", call_id, Approve())
    with pytest.raises(RunNotFound):
        await agent.resolve("unknown", call_id, Done())
    await agent.aclose()
    later = agent_of("Paid.", backend=Line(0), on_doubt="ask", storage=tmp_path / "runs.db")
    run = await later.resolve("r", call_id, Done("receipt 1"))
    assert (run.status, run.steps, later.tool_backend.asked) == ("complete", 2, [])
    with pytest.raises(RunConflict, match="what waits: nothing"):
        await later.resolve("r", call_id, Done("again"))
    await later.aclose()


async def test_two_doubts_are_settled_one_by_one() -> None:
    agent = agent_of(calls(call("pay", amount=1), call("pay", amount=2)), "Both.", backend=Line(2), on_doubt="ask")
    waiting = await agent.run("pay", "r")
    first, second = [entry["call_id"] for entry in waiting.pending]
    still = await agent.resolve("r", second, Done("b"))
    assert (still.status, [entry["call_id"] for entry in still.pending]) == ("running", [first])
    run = await agent.resolve("r", first, Done("a"))
    assert [call.result for call in run.tool_calls] == ["a", "b"]
    assert run.status == "complete"


async def test_of_two_words_at_once_one_is_taken() -> None:
    """A double click wrote "it goes on" over a turn that had ended meanwhile, and the turn was run again."""
    agent = agent_of(call("pay", amount=5), "Settled.", backend=Line(), on_doubt="ask", storage=":memory:")
    [entry] = (await agent.run("pay 5", "r")).pending
    words = [Done("receipt 1"), Done("receipt 2"), NotDone()]
    outcomes = await asyncio.gather(*(agent.resolve("r", entry["call_id"], word) for word in words), return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) in (["AgentRun", *rest] for rest in REFUSED)
    [run] = [one for one in outcomes if not isinstance(one, BaseException)]
    assert (run.status, run.output) == ("complete", "Settled.")
    assert (await agent.get("r")) == run
    assert len(agent.llm.requests) == 2  # type: ignore[attr-defined]  # the scripted model
    await agent.aclose()


REFUSED = [["RunConflict", "RunConflict"], ["RunConflict", "RunInProgress"], ["RunInProgress", "RunInProgress"]]


async def test_whoever_gave_a_word_is_heard_whatever_the_policy_is_by_now(tmp_path: Path) -> None:
    """An agent that tells the model of a doubt, as the command line's does, once dropped the word of the person who was asked."""
    asking = agent_of(call("pay", amount=5), on_doubt="ask", storage=tmp_path / "runs.db")
    [entry] = (await asking.run("pay 5", "r")).pending
    await asking.aclose()
    telling = agent_of("Settled.", backend=Line(0), storage=tmp_path / "runs.db")
    run = await telling.resolve("r", entry["call_id"], Done("receipt 17"))
    assert (run.status, run.tool_calls[0].result, telling.tool_backend.asked) == ("complete", "receipt 17", [])
    await telling.aclose()


class SlowLine(Line):
    """The second payment never ends."""

    async def execute(self, call: ToolCall) -> ToolCall:
        if len(self.asked) == 1:
            self.asked.append(dict(call.args))
            await asyncio.Event().wait()
        return await super().execute(call)


async def cancelled_when(backend: Line, asked: int, work: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.ensure_future(work)
    while len(backend.asked) < asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_word_is_on_one_attempt(tmp_path: Path) -> None:
    """ "It was not done" let the call run again; interrupted in that attempt, it ran a third time for the same word."""
    first = agent_of(call("pay", amount=5), backend=SlowLine(), on_doubt="ask", storage=tmp_path / "runs.db")
    [entry] = (await first.run("pay 5", "r")).pending
    await cancelled_when(first.tool_backend, 2, first.resolve("r", entry["call_id"], NotDone()))
    await first.aclose()
    later = agent_of("I do not know.", backend=Line(0), on_doubt="ask", storage=tmp_path / "runs.db")
    run = await later.resume("r")
    assert later.tool_backend.asked == []
    assert run.status == "complete"
    assert "outcome of this call is unknown" in told(later)
    await later.aclose()


@pytest.mark.parametrize("nonsense", ["sure", True, {"decisions": []}, {"type": "approve"}])
async def test_an_answer_that_makes_no_sense_is_asked_for_again(nonsense: Any, tmp_path: Path) -> None:
    """It ended the turn `failed`, with nothing left to resolve."""
    agent = agent_of(call("pay", amount=5), "Done.", backend=Line(), on_doubt="ask", storage=tmp_path / "runs.db")
    config: Any = {"configurable": {"thread_id": "t"}}
    await agent.graph.ainvoke({"messages": [("user", "pay 5")]}, config, durability="sync")
    again = await agent.graph.ainvoke(Command(resume=nonsense), config, durability="sync")
    assert "outcome" in again["__interrupt__"][0].value["problem"]
    answered = await agent.graph.ainvoke(Command(resume={"type": "done", "result": "receipt"}), config, durability="sync")
    assert answered["messages"][-1].text == "Done."
    await agent.aclose()


async def test_a_word_that_comes_with_a_command_is_on_one_attempt_too(tmp_path: Path) -> None:
    """LangGraph gives a node that runs again the answer that it was given before."""

    def embedded(agent: ProductionAgent) -> Any:
        builder = StateGraph(MessagesState)
        builder.add_node("agent", agent.graph)
        builder.add_edge(START, "agent")
        return builder.compile(checkpointer=agent.storage.checkpointer)

    config: Any = {"configurable": {"thread_id": "outer"}}
    first = agent_of(call("pay", amount=5), backend=SlowLine(), on_doubt="ask", storage=tmp_path / "runs.db")
    waiting = await embedded(first).ainvoke({"messages": [("user", "pay 5")]}, config, durability="sync")
    assert waiting["__interrupt__"]
    answered = embedded(first).ainvoke(Command(resume={"type": "not_done"}), config, durability="sync")
    await cancelled_when(first.tool_backend, 2, answered)
    await first.aclose()
    later = agent_of("I do not know.", backend=Line(0), on_doubt="ask", storage=tmp_path / "runs.db")
    await embedded(later).ainvoke(None, config, durability="sync")
    assert later.tool_backend.asked == []
    await later.aclose()


async def test_a_guardrails_answer_needs_the_guardrail() -> None:
    """Without it nobody hears a "reject", and what was refused is done."""

    @guardrail(stages=["tool_args"])
    async def look(stage: str, payload: Any, run: Any) -> Any:
        return Ask("is this meant?")

    agent = agent_of(call("pay", amount=5), backend=Line(0), guardrails=[look])
    [entry] = (await agent.run("pay 5", "r")).pending
    assert entry["guardrail"] == "look"
    other = agent_of("Fine.", backend=Line(0), storage=agent.storage)
    with pytest.raises(ConfigError, match="guardrail 'look' asked"):
        await other.resolve("r", entry["call_id"], Reject("no"))
    assert (await agent.get("r")).pending == [entry]


async def test_waiting_for_people_is_no_working_time() -> None:
    from agent_graph.testing import FakeClock

    clock = FakeClock(auto=True)
    agent = agent_of(call("pay", amount=5), "Settled.", on_doubt="ask", clock=clock, timeout_s=60)
    waiting = await agent.run("pay 5", "r")
    clock.advance(3_600)
    run = await agent.resolve("r", waiting.pending[0]["call_id"], Done("r"))
    assert run.status == "complete"
    assert run.latency_ms < 60_000


# -- the tool's own word --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "asked", "heard"),
    [
        (Done("receipt 17"), 1, "receipt 17"),
        (NotDone(), 2, "receipt 2"),
        (Unknown(), 1, "unknown"),
        (ValueError("no answer"), 1, "unknown"),
    ],
    ids=["done", "not done", "unknown", "no answer"],
)
@pytest.mark.parametrize("where", ["the tool's entry", "the backend"])
async def test_a_tool_is_asked_before_anybody_else(where: str, word: Any, asked: int, heard: str) -> None:
    keys: list[Any] = []

    def answer(subject: Any) -> Any:
        keys.append(subject if isinstance(subject, str) else subject.idempotency_key)
        if isinstance(word, Exception):
            raise word
        return word

    backend = Line()
    if where == "the backend":
        backend.reconcile = answer  # type: ignore[attr-defined]  # an optional ability, found by shape
    tools = [{**PAY, "reconcile": answer}] if where == "the tool's entry" else [PAY]
    agent = agent_of(call("pay", amount=5), "Settled.", backend=backend, tools=tools)
    run = await agent.run("pay 5")
    assert run.status == "complete"
    assert len(backend.asked) == asked
    assert heard in told(agent)
    assert keys == [run.tool_calls[0].idempotency_key]


# -- guardrails that ask ---------------------------------------------------------------------------------------------------------


@guardrail(stages=["tool_args"])
async def large_payments(stage: str, payload: Any, run: Any) -> Any:
    return Ask(f"{payload.args['amount']} is a lot") if payload.args["amount"] > 100 else Allow()


@guardrail(stages=["output"], pure=True)
async def promises(stage: str, payload: Any, run: Any) -> Any:
    return Ask("it promises something") if "promise" in payload else Allow()


@pytest.mark.parametrize(
    ("word", "asked", "heard"),
    [
        (Approve(), [{"amount": 500}], "receipt 1"),
        (Edit({"amount": 50}), [{"amount": 50}], "receipt 1"),
        (Edit({"amount": "much"}), [], "InvalidArguments"),
        (Reject("too much"), [], "Refused: too much"),
        (Respond("paid by hand"), [], "paid by hand"),
    ],
    ids=["approve", "edit", "edit, but wrong", "reject", "respond"],
)
async def test_a_person_looks_at_a_call_before_it_runs(word: Any, asked: list[Any], heard: str) -> None:
    agent = agent_of(call("pay", amount=500), "Done.", backend=Line(0), guardrails=[large_payments])
    waiting = await agent.run("pay", "r")
    assert (waiting.pending[0]["reason"], agent.tool_backend.asked) == ("500 is a lot", [])
    run = await agent.resolve("r", waiting.pending[0]["call_id"], word)
    assert run.status == "complete"
    assert agent.tool_backend.asked == asked
    assert heard in told(agent)


@pytest.mark.parametrize(
    ("word", "status", "output"),
    [(Approve(), "complete", "I promise."), (Edit("I cannot say."), "complete", "I cannot say."), (Reject("no"), "failed", "I promise.")],
    ids=["approve", "edit", "reject"],
)
async def test_a_person_looks_at_an_answer_before_it_leaves(word: Any, status: str, output: str) -> None:
    agent = agent_of("I promise.", guardrails=[promises])
    waiting = await agent.run("q", "r")
    assert waiting.pending[0]["call_id"] == "output:1"
    run = await agent.resolve("r", "output:1", word)
    assert run.status == status
    if status == "complete":
        assert run.output == output


async def test_a_person_looks_at_a_result_and_the_call_is_not_made_again() -> None:
    @guardrail(stages=["tool_result"])
    async def look(stage: str, payload: Any, run: Any) -> Any:
        return Ask("a result") if payload.result else Allow()

    agent = agent_of(call("pay", amount=5), "Done.", backend=Line(0), guardrails=[look])
    waiting = await agent.run("pay", "r")
    run = await agent.resolve("r", waiting.pending[0]["call_id"], Edit("receipt, blackened"))
    assert run.status == "complete"
    assert agent.tool_backend.asked == [{"amount": 5}]
    assert told(agent) == "receipt, blackened"


@pytest.mark.parametrize(
    "word", [Done(1), NotDone(), Unknown(), Approve(), Edit({"a": 1}), Reject("x"), Respond("x")], ids=lambda w: type(w).__name__
)
def test_words_survive_json(word: Any) -> None:
    assert from_json(to_json(word)) == word


@pytest.mark.parametrize("wrong", [None, 7, "maybe", {"type": "maybe"}, {"type": "edit"}, {"decisions": []}])
def test_a_word_that_is_none_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="outcome"):
        from_json(wrong)


def test_langchains_decisions_are_read() -> None:
    assert from_json({"decisions": [{"type": "edit", "edited_action": {"name": "pay", "args": {"amount": 1}}}]}) == Edit({"amount": 1})
    assert from_json({"decisions": [{"type": "reject", "message": "no"}]}) == Reject("no")
    assert from_json({"decisions": [{"type": "approve"}]}) == Approve()


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_tool_that_interrupts_waits_where_the_graph_is_driven(idempotent: bool, tmp_path: Path) -> None:
    """The model was told of a GraphInterrupt, and the turn went on without the answer."""

    @tool(extras={"idempotent": idempotent})
    async def book(room: str) -> str:
        """Book a room."""
        return f"booked {room}: {interrupt({'room': room})}"

    def made() -> ProductionAgent:
        asks = AIMessage("", tool_calls=[{"name": "book", "args": {"room": "7"}, "id": "1"}])
        return create_production_agent(ScriptedChatModel([asks, AIMessage("Done.")]), [book], storage=tmp_path / "runs.db")

    config: Any = {"configurable": {"thread_id": "t"}}
    async with made() as agent:
        waiting = await agent.graph.ainvoke({"messages": [("user", "book 7")]}, config, durability="sync")
        assert [pause.value for pause in waiting["__interrupt__"]] == [{"room": "7"}]
        answered = await agent.graph.ainvoke(Command(resume="with a view"), config, durability="sync")
        assert [message.text for message in answered["messages"][-2:]] == ["booked 7: with a view", "Done."]
    async with made() as agent:
        run = await agent.run("book 7", "r")
        assert run.status == "failed"
        assert "interrupt()" in (run.error or "")
