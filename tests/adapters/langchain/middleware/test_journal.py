"""ToolJournalMiddleware in somebody's `create_agent`: what is run, what is given back, what is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.types import Command, interrupt

from agent_graph import ConfigError, SqliteStorage, ToolNotExecuted, idempotency_key
from agent_graph.resolutions import Done, NotDone, Unknown
from agent_graph.testing import ScriptedChatModel
from agent_graph_adapters.langchain import ToolJournalMiddleware
from tests.adapters.langchain.middleware.somebodys import THREAD, Died, calls

Invoke = Callable[..., Any]
New = Callable[[], SqliteStorage]

PAY = calls(("pay", {"usd": 5}))
RECEIPT = {"type": "done", "result": "receipt 7"}
HELLO = {"messages": [("user", "Pay 5.")]}


class World:
    """What the tools did, under which keys, and what they do next."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []
        self.then: list[Any] = []

    def does(self) -> str:
        self.keys.append(idempotency_key())
        what = self.then.pop(0) if self.then else "paid"
        if isinstance(what, BaseException):
            raise what
        return str(what)


def payment(world: World, **extras: Any) -> Any:
    @tool(extras=extras)
    def pay(usd: int) -> str:
        """Pay."""
        return world.does()

    return pay


def agent_of(storage: SqliteStorage, pay: Any, *replies: Any, **options: Any) -> Any:
    journal = ToolJournalMiddleware(storage=storage, **options)
    return create_agent(ScriptedChatModel(replies or ["done"]), [pay], middleware=[journal], checkpointer=storage.checkpointer)


def told(state: Any) -> list[str]:
    return [message.text for message in state["messages"] if isinstance(message, ToolMessage)]


async def died(invoke: Invoke, new_storage: New, pay: Any, **options: Any) -> None:
    """Let an agent die in the middle of a payment."""
    with pytest.raises(Died):
        await invoke(agent_of(new_storage(), pay, PAY, **options), HELLO)


async def test_what_ran_is_on_record_with_its_key(invoke: Invoke, new_storage: New) -> None:
    world, storage = World(), new_storage()
    state = await invoke(agent_of(storage, payment(world, idempotent=False), PAY, "done"), HELLO)
    assert told(state) == ["paid"]
    (run,) = await storage.runs("create_agent")
    (row,) = await storage.journal(run.key)
    assert (row.tool, row.state, row.result, row.call_id, row.idempotent) == ("pay", "succeeded", '"paid"', "pay_0", False)
    assert world.keys == [row.call_key]
    assert run.status == "complete", "the last reply ends the turn"


async def test_a_payment_whose_end_is_unknown_is_told(invoke: Invoke, new_storage: New) -> None:
    world = World()
    world.then = [Died()]
    await died(invoke, new_storage, payment(world, idempotent=False))
    state = await invoke(agent_of(new_storage(), payment(world, idempotent=False)), None)
    assert len(world.keys) == 1
    assert "outcome of this call is unknown" in told(state)[0]
    assert state["messages"][-1].text == "done"


async def test_an_idempotent_call_runs_again_under_its_key(invoke: Invoke, new_storage: New) -> None:
    world = World()
    world.then = [Died()]
    await died(invoke, new_storage, payment(world, idempotent=True))
    state = await invoke(agent_of(new_storage(), payment(world, idempotent=True)), None)
    assert told(state) == ["paid"]
    assert len(world.keys) == 2
    assert len(set(world.keys)) == 1


@pytest.mark.parametrize(
    ("word", "expected", "times"), [(Done("receipt 7"), "receipt 7", 1), (NotDone(), "paid", 2), (Unknown(), "unknown", 1)]
)
async def test_the_tool_itself_is_asked_first(invoke: Invoke, new_storage: New, word: Any, expected: str, times: int) -> None:
    world, asked = World(), list[str]()

    def reconcile(key: str) -> Any:
        asked.append(key)
        return word

    world.then = [Died()]
    pay = payment(world, idempotent=False, reconcile=reconcile)
    await died(invoke, new_storage, pay)
    state = await invoke(agent_of(new_storage(), pay), None)
    assert expected in told(state)[0]
    assert len(world.keys) == times
    assert asked == [world.keys[0]]


@pytest.mark.parametrize(
    ("word", "expected", "times"),
    [({"type": "done", "result": "receipt 7"}, "receipt 7", 1), ("not_done", "paid", 2)],
)
async def test_a_person_is_asked_where_the_policy_says_so(invoke: Invoke, new_storage: New, word: Any, expected: str, times: int) -> None:
    world = World()
    world.then = [Died()]
    pay = payment(world, idempotent=False)
    await died(invoke, new_storage, pay, on_doubt="ask")
    agent = agent_of(new_storage(), pay, on_doubt="ask")
    (waiting,) = (await invoke(agent, None))["__interrupt__"]
    assert waiting.value["action_requests"][0]["name"] == "pay"
    state = await invoke(agent, Command(resume=word))
    assert told(state) == [expected]
    assert len(world.keys) == times


async def test_a_person_s_word_is_on_one_attempt(invoke: Invoke, new_storage: New) -> None:
    """LangGraph gives a node that is run again the same answer again: "it was not done" must not stand for the attempt after it."""
    world = World()
    world.then = [Died(), Died()]
    pay = payment(world, idempotent=False)
    await died(invoke, new_storage, pay, on_doubt="ask")
    agent = agent_of(new_storage(), pay, on_doubt="ask")
    await invoke(agent, None)
    with pytest.raises(Died):
        await invoke(agent, Command(resume="not_done"))
    state = await invoke(agent_of(new_storage(), pay, on_doubt="ask"), None)
    assert "unknown" in told(state)[0]
    assert len(world.keys) == 2


async def test_an_exception_leaves_a_payment_in_doubt(invoke: Invoke, new_storage: New) -> None:
    world = World()
    world.then = [RuntimeError("connection reset")]
    state = await invoke(agent_of(new_storage(), payment(world, idempotent=False), PAY, "done"), HELLO)
    assert "outcome of this call is unknown" in told(state)[0]
    assert "connection reset" in told(state)[0]
    assert len(world.keys) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("idempotent", "error"), [(True, RuntimeError("busy")), (False, ToolNotExecuted("closed today"))])
async def test_what_may_be_repeated_is_tried_again(invoke: Invoke, new_storage: New, idempotent: bool, error: Exception) -> None:
    world = World()
    world.then = [error, error, "paid at last"]
    state = await invoke(agent_of(new_storage(), payment(world, idempotent=idempotent), PAY, "done"), HELLO)
    assert told(state) == ["paid at last"]
    assert len(set(world.keys)) == 1


@pytest.mark.slow
async def test_the_last_attempt_is_told(invoke: Invoke, new_storage: New) -> None:
    world = World()
    world.then = [ToolNotExecuted("closed today")] * 9
    state = await invoke(agent_of(new_storage(), payment(world, idempotent=False), PAY, "done", retry_attempts=2), HELLO)
    assert told(state) == ["Error: ToolNotExecuted: closed today"]
    assert len(world.keys) == 2


async def test_the_same_call_in_another_step_and_another_turn_is_another_call(invoke: Invoke, new_storage: New) -> None:
    world = World()
    agent = agent_of(new_storage(), payment(world, idempotent=False), PAY, PAY, "done", PAY, "done")
    await invoke(agent, HELLO)
    await invoke(agent, HELLO)
    assert len(set(world.keys)) == 3


async def test_a_fork_gives_back_what_was_done(invoke: Invoke, new_storage: New) -> None:
    world, storage = World(), new_storage()
    agent = agent_of(storage, payment(world, idempotent=False), PAY, "done", "done again")
    await invoke(agent, HELLO)
    before = [state async for state in agent.aget_state_history(THREAD) if state.next == ("tools",)]
    state = await invoke(agent, None, before[0].config)
    assert state["messages"][-1].text == "done again"
    assert told(state) == ["paid"]
    assert len(world.keys) == 1


async def test_whatever_a_tool_gives_comes_back_from_the_record(invoke: Invoke, new_storage: New) -> None:
    """A node that ran and whose writes were lost is run again; here by a second call of the same hook."""

    @tool(response_format="content_and_artifact", extras={"idempotent": False})
    def pay(usd: int) -> Any:
        """Pay."""
        return "paid", {"receipt": [1, 2]}

    @tool(extras={"idempotent": False})
    def move(usd: int, call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Pay, and say so to the graph."""
        return Command(update={"messages": [ToolMessage("moved", tool_call_id=call_id)]})

    storage, seen = new_storage(), dict[str, bool]()

    def twice(request: Any) -> Any:
        pytest.fail("run twice")

    class Twice(ToolJournalMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            first = super().wrap_tool_call(request, handler)
            seen[request.tool_call["name"]] = repr(super().wrap_tool_call(request, twice)) == repr(first)
            return first

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            first = await super().awrap_tool_call(request, handler)
            seen[request.tool_call["name"]] = repr(await super().awrap_tool_call(request, twice)) == repr(first)
            return first

    model = ScriptedChatModel([calls(("pay", {"usd": 1}), ("move", {"usd": 2})), "done"])
    await invoke(create_agent(model, [pay, move], middleware=[Twice(storage=storage)], checkpointer=storage.checkpointer), HELLO)
    assert seen == {"pay": True, "move": True}


async def test_a_tool_that_waits_for_a_person_is_run_again_by_its_own_word(invoke: Invoke, new_storage: New) -> None:
    world = World()

    @tool(extras={"idempotent": False})
    def pay(usd: int) -> str:
        """Pay, if a person agrees."""
        answer = interrupt("really?")
        return f"{world.does()}: {answer}"

    agent = agent_of(new_storage(), pay, PAY, "done")
    await invoke(agent, HELLO)
    state = await invoke(agent, Command(resume="yes"))
    assert told(state) == ["paid: yes"]
    assert len(world.keys) == 1


@pytest.mark.slow
async def test_a_tool_that_says_nothing_of_itself_is_run_once_and_named(
    invoke: Invoke, new_storage: New, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.then = [Died()]
    with caplog.at_level(logging.WARNING, logger="agent_graph"):
        await died(invoke, new_storage, payment(world))
    assert 'extras={"idempotent": True}' in caplog.text
    state = await invoke(agent_of(new_storage(), payment(world)), None)
    assert "unknown" in told(state)[0]
    again = agent_of(new_storage(), payment(world), PAY, "done", unmarked_tools="retry")
    world.then = [RuntimeError("busy"), "paid"]
    assert told(await invoke(again, HELLO))[-1] == "paid"


async def test_two_that_name_one_path_share_a_storage(tmp_path: Any) -> None:
    one, two = ToolJournalMiddleware(storage=tmp_path / "a.db"), ToolJournalMiddleware(storage=str(tmp_path / "a.db"))
    assert one.storage is two.storage
    assert one.turns is two.turns


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"on_doubt": "guess"}, "on_doubt"),
        ({"retry_attempts": -1}, "retry_attempts"),
        ({"unmarked_tools": "twice"}, "unmarked_tools"),
        ({"storage": 7}, "storage"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ToolJournalMiddleware(**options)
