"""The verbs: run, run_sync, resume, get, history; many at once, from several loops; misuse."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from agent_graph import (
    AgentConfig,
    ConfigError,
    LeaseLost,
    Message,
    MessageRole,
    ProductionAgent,
    RunConflict,
    RunInProgress,
    RunNotFound,
    StorageError,
    create_production_agent,
)
from agent_graph.testing import DictMemory, FakeClock, FakeTools, ListObservability, ScriptedChatModel, ScriptedLLM, call, calls, hang
from tests.scripted import WEATHER, agent_of


def forever(reply: Any) -> Any:
    """A model that answers every question: a tool call, then the answer."""

    def answer(messages: list[Message], tools: Any) -> Any:
        return reply if messages[-1].role is MessageRole.USER else f"It is {messages[-1].content}."

    return [answer] * 1_000


def hangs(asked: asyncio.Event) -> Any:
    """A reply that never comes; `asked` is set once the model waits for it."""

    async def wait(messages: list[Message], tools: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    return wait


# -- the table of turns --------------------------------------------------------------------------------------------------------


async def test_another_input_closes_a_stopped_turn() -> None:
    asked = asyncio.Event()
    agent = agent_of(call("weather", city="Paris"), hangs(asked), "Fine.")
    task = asyncio.ensure_future(agent.run("q", "r"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    run = await agent.run("something else", "r")
    assert (run.status, run.turn, run.output) == ("complete", 2, "Fine.")
    assert [row.status for row in await agent.storage.turns("default", "r")] == ["closed", "complete"]
    contents = [entry.content for entry in await agent.memory.load("r")]
    assert contents == ["q", "", "sunny in Paris", "something else", "Fine."]


async def test_a_delivered_turn_is_followed_by_the_next() -> None:
    agent = agent_of("one", "two")
    assert [(await agent.run("q", "r")).turn, (await agent.run("q", "r")).turn] == [1, 2]


async def test_a_request_id_makes_a_call_safe_to_repeat() -> None:
    agent = agent_of("one", "never")
    first = await agent.run("q", "r", request_id="job-7")
    again = await agent.run("q", "r", request_id="job-7")
    assert again == first
    with pytest.raises(RunConflict, match="job-7"):
        await agent.run("other", "r", request_id="job-7")


async def test_a_request_without_a_run_id_names_its_run() -> None:
    """The same request without a run_id was run twice, under two made-up names."""
    agent = agent_of("one", "two")
    first = await agent.run("q", request_id="job-7")
    assert await agent.run("q", request_id="job-7") == first
    assert (await agent.run("q", request_id="job-8")).run_id != first.run_id


async def test_who_waits_gets_the_result_of_who_runs() -> None:
    release = asyncio.Event()

    async def wait(messages: Any, tools: Any) -> str:
        await release.wait()
        return "once"

    agent = agent_of(wait, "never")
    both = [asyncio.ensure_future(agent.run("q", "r")) for _ in range(2)]
    await asyncio.sleep(0.2)
    release.set()
    first, second = await asyncio.gather(*both)
    assert first.output == second.output == "once"
    assert first.turn == second.turn == 1


async def test_busy_may_be_an_error() -> None:
    asked = asyncio.Event()
    agent = agent_of(hangs(asked), on_busy="raise")
    task = asyncio.ensure_future(agent.run("q", "r"))
    await asked.wait()
    with pytest.raises(RunInProgress):
        await agent.run("q", "r")
    with pytest.raises(RunConflict):
        await agent.run("other", "r")
    with pytest.raises(RunInProgress):
        await agent.delete("r")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_tool_that_waits_for_its_own_run_is_told_at_once() -> None:
    seen: list[str] = []

    async def recurse(city: str) -> str:
        try:
            await agent.run("q", "r")
        except RunInProgress as error:
            seen.append(str(error))
        return "tried"

    agent = agent_of(call("weather", city="x"), "done", tools={"weather": recurse})
    assert (await agent.run("q", "r")).status == "complete"
    assert "the very run that this call is made from" in seen[0]


async def test_an_agent_inside_a_tool_has_a_run_of_its_own() -> None:
    inner = agent_of("inner answer", name="inner")

    async def ask(city: str) -> str | None:
        return (await inner.run(city, "inner-run")).output

    agent = agent_of(call("weather", city="x"), "done", tools={"weather": ask})
    run = await agent.run("q", "r")
    assert (run.status, run.tool_calls[0].result) == ("complete", "inner answer")
    assert (await inner.get("inner-run")).status == "complete"


# -- many at once -----------------------------------------------------------------------------------------------------------------


async def test_a_hundred_runs_on_one_agent() -> None:
    agent = agent_of(*forever(calls(call("weather", city="Paris"), call("weather", city="Rome"))))
    runs = await asyncio.gather(*(agent.run(f"q{number}", f"r{number}") for number in range(100)))
    assert {run.status for run in runs} == {"complete"}
    assert {run.run_id for run in runs} == {f"r{number}" for number in range(100)}
    assert all(len(run.tool_calls) == 2 and run.steps == 2 for run in runs)
    assert len({call.idempotency_key for run in runs for call in run.tool_calls}) == 200
    assert isinstance(agent.observability, ListObservability)
    assert len(agent.observability.runs) == 100


def test_loops_and_threads_share_one_agent() -> None:
    agent = agent_of(*forever(call("weather", city="Paris")))
    results: list[Any] = []

    async def several(name: str) -> Any:
        return await asyncio.gather(*(agent.run("q", f"{name}-{number}") for number in range(5)))

    def work(name: str) -> None:
        for turn in range(2):
            results.extend(asyncio.run(several(f"{name}-{turn}")))

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert {run.status for run in results} == {"complete"}


async def test_no_io_on_the_event_loop() -> None:
    """The loop is never blocked by a file or a socket: blockbuster raises where one is touched on it."""
    agent = agent_of(*forever(call("weather", city="Paris")))
    await agent.run("warm", "warm")
    with blockbuster_ctx():
        runs = await asyncio.gather(*(agent.run("q", f"r{number}") for number in range(20)))
    assert [run.error for run in runs if run.status != "complete"] == []


@pytest.mark.slow
async def test_the_event_loop_never_stalls() -> None:
    """Fifty milliseconds are what a person notices; the longest gap between two ticks of the loop, I/O included, stays under it."""
    agent = agent_of(*forever(call("weather", city="Paris")))
    await agent.run("warm", "warm")
    # Another program may take the processor for a while, a stall of our own is there each time: one good round of ten proves it.
    for number in range(10):
        if (longest := await _longest_gap(agent, number)) < 0.05:
            break
    assert longest < 0.05


async def _longest_gap(agent: ProductionAgent, round_: int) -> float:
    """Between two ticks of the loop during twenty runs, less the longest hundredth."""
    gaps: list[float] = []
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            gaps.append(loop.time() - before)

    ticker = asyncio.ensure_future(tick())
    for number in range(20):
        await agent.run("q", f"r{round_}-{number}")
    ticker.cancel()
    gaps.sort()
    return gaps[int(len(gaps) * 0.99)]


# -- sync --------------------------------------------------------------------------------------------------------------------------


def test_run_sync_without_a_loop() -> None:
    agent = agent_of("one", "two")
    assert agent.run_sync("q").output == "one"
    assert agent.run_sync("q").output == "two"


async def test_run_sync_with_a_running_loop() -> None:
    """As in a notebook's cell."""
    assert agent_of("one").run_sync("q").output == "one"


def test_run_sync_inside_run_sync_says_what_to_do() -> None:
    def recurse(city: str) -> str:
        return str(agent.run_sync("q").output)

    agent = agent_of(call("weather", city="x"), "done", tools={"weather": recurse}, retry_attempts=1)
    run = agent.run_sync("q")
    assert "await agent.run" in str(run.tool_calls[0].error)


# -- limits and time ----------------------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_a_turn() -> None:
    agent = agent_of(hang)
    run = await agent.run("q", deadline_at=datetime.now(UTC) + timedelta(seconds=0.2))
    assert run.status == "timeout"
    assert run.error is not None
    assert run.error.startswith("timeout_s: deadline_at")


async def test_time_that_is_over_names_no_deadline_that_nobody_set() -> None:
    """A loop's clock that was a little ahead of the turn's own made it say that `deadline_at` was reached."""
    run = await agent_of(hang, timeout_s=0.2, clock=FakeClock()).run("q")
    assert (run.status, run.error) == ("timeout", "timeout_s: 0.2 s are over")


async def test_landing_answers_from_what_is_known() -> None:
    agent = agent_of(call("weather", city="Paris"), "It was sunny.", max_steps=2)
    run = await agent.run("q")
    assert (run.status, run.landed, run.output, run.steps) == ("complete", "max_steps", "It was sunny.", 2)
    assert isinstance(agent.llm, ScriptedLLM)
    assert agent.llm.requests[-1].tools == []


async def test_a_landing_that_only_asks_for_tools_fails_and_names_the_limit() -> None:
    agent = agent_of(*[call("weather", city="Paris")] * 2, max_steps=2)
    run = await agent.run("q", "r")
    assert (run.status, run.error, run.steps) == ("failed", "max_steps: 2 of 2", 2)
    saved = await agent.memory.load("r")
    assert [message.role.value for message in saved] == ["user", "assistant", "tool", "assistant", "tool"], "each call has its answer"


# -- misuse -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run_id", ["", "a" * 256, "a\nb", "\ud800", 7, b"r"], ids=["empty", "long", "control", "surrogate", "int", "bytes"]
)
async def test_a_bad_run_id_is_refused_before_any_io(run_id: Any, tmp_path: Path) -> None:
    agent = agent_of("never", storage=tmp_path / "sub" / "runs.db")
    with pytest.raises(ConfigError, match="run_id"):
        await agent.run("q", run_id)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("question", ["", "  \n", 7, None, b"q"])
async def test_a_bad_question_is_refused(question: Any) -> None:
    with pytest.raises(ConfigError, match="user_input"):
        await agent_of("never").run(question)


async def test_a_run_that_has_ended_is_not_called_unknown() -> None:
    agent = agent_of("Hello.")
    await agent.run("q", "r")
    with pytest.raises(RunNotFound, match=r"nothing of this name is unfinished\. Turn 1 ended complete; `get` returns its account\."):
        await agent.resume("r")


@pytest.mark.parametrize("run_id", ["unknown"])
async def test_an_unknown_run(run_id: str) -> None:
    agent = agent_of("never")
    for verb in (agent.get, agent.history, agent.resume):
        with pytest.raises(RunNotFound, match="unknown"):
            await verb(run_id)
    assert await agent.unfinished() == []
    assert await agent.runs() == []


async def test_a_storage_that_the_user_named_never_falls_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        await agent_of("never", storage=tmp_path / "file" / "runs.db").run("q")


async def test_a_call_in_doubt_took_its_time() -> None:
    async def fails_late(city: str) -> str:
        await asyncio.sleep(0.02)
        raise ConnectionError("reset")

    once = {**WEATHER, "idempotent": False}
    llm, tools = ScriptedLLM([call("weather", city="Paris"), "Unclear."]), FakeTools({"weather": fails_late})
    agent = ProductionAgent(llm, [once], tools, DictMemory(), ListObservability(), {})
    run = await agent.run("q")
    assert str(run.tool_calls[0].error).startswith("OutcomeUnknown")
    assert run.tool_calls[0].latency_ms >= 10


# -- create_production_agent ----------------------------------------------------------------------------------------------------------


@tool
async def pay(amount: int) -> str:
    """Pay an amount."""
    raise RuntimeError("the line went dead")


async def test_an_unmarked_langchain_tool_is_called_once_and_named(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedChatModel([AIMessage("", tool_calls=[{"name": "pay", "args": {"amount": 5}, "id": "c1"}]), AIMessage("Unclear.")])
    agent = create_production_agent(model, [pay])
    assert "pay" in caplog.text
    run = await agent.run("pay 5")
    assert run.status == "complete"
    assert str(run.tool_calls[0].error).startswith("OutcomeUnknown")


async def test_the_conversation_is_remembered_in_the_storage(tmp_path: Path) -> None:
    first = create_production_agent(ScriptedChatModel([AIMessage("Hello Bob.")]), storage=tmp_path / "runs.db")
    await first.run("I am Bob.", "r")
    await first.aclose()
    model = ScriptedChatModel([AIMessage("Bob.")])
    async with create_production_agent(model, storage=tmp_path / "runs.db") as second:
        await second.run("Who am I?", "r")
        assert [message.text for message in model.requests[0][0][1:]] == ["I am Bob.", "Hello Bob.", "Who am I?"]
        assert [entry.message.content for entry in await second.history("r")] == ["I am Bob.", "Hello Bob.", "Who am I?", "Bob."]


async def test_a_fallback_is_asked_when_the_model_has_failed() -> None:
    agent = agent_of(*[RuntimeError("down")] * 3, fallbacks=[ScriptedLLM(["from the other"])])
    run = await agent.run("q")
    assert (run.status, run.output) == ("complete", "from the other")
    assert any("down" in warning for warning in run.warnings)


async def test_changed_tools_are_named_at_resume() -> None:
    asked = asyncio.Event()
    agent = agent_of(hangs(asked))
    task = asyncio.ensure_future(agent.run("q", "r"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other = ProductionAgent(
        ScriptedLLM(["fine"]), [{"name": "other"}], FakeTools({}), DictMemory(), ListObservability(), {}, storage=agent.storage
    )
    with pytest.raises(RunConflict, match="other tools"):
        await other.resume("r")
    with pytest.raises(RunConflict, match="added: other; removed: "):
        await other.run("q", "r")
    assert (await other.resume("r", force=True)).status == "complete"


async def test_delete_forgets_a_run() -> None:
    agent = agent_of("one")
    await agent.run("q", "r")
    await agent.delete("r")
    with pytest.raises(RunNotFound):
        await agent.get("r")


async def test_an_override_that_fails_is_a_result() -> None:
    class Broken(ProductionAgent):
        async def _check_budgets(self, run: Any) -> str | None:
            raise ZeroDivisionError("in the override")

    agent = Broken(ScriptedLLM(["never"]), [], FakeTools({}), DictMemory(), ListObservability(), {})
    run = await agent.run("q")
    assert (run.status, run.error) == ("failed", "_check_budgets: ZeroDivisionError: in the override")


def test_guarantees_tell_the_truth() -> None:
    lines = [str(promise) for promise in agent_of("x", max_cost_usd=None).guarantees()]
    assert any("max_cost_usd is None" in line for line in lines)
    assert any(line.startswith("[yes] tools: weather") for line in lines)
    assert any("best effort" in line and "ScriptedLLM" in line for line in map(str, agent_of("x").guarantees()))


def test_no_limit_is_promised_that_a_model_without_a_price_cannot_keep() -> None:
    """ "[yes] max_cost_usd" stood two lines above "[no] money: unpriced", and "[yes]" before runs that end with the process."""
    model = ScriptedChatModel(["Hello."], model_name="m")
    for prices, holds in (({}, "no"), ({"m": {"input": 1, "output": 1}}, "yes")):
        promises = create_production_agent(model, storage=":memory:", prices=prices).guarantees()
        assert [promise.holds for promise in promises if promise.text.startswith("max_cost_usd = ")] == [holds]
        assert [promise.holds for promise in promises if promise.subject == "storage"] == ["no"]


def test_config_is_copied() -> None:
    config = {"max_steps": 3}
    agent = ProductionAgent(ScriptedLLM([]), [], FakeTools({}), DictMemory(), ListObservability(), config)
    config["max_steps"] = 99
    assert agent.config.max_steps == 3
    assert AgentConfig.from_mapping({"max_cost_usd": 0.05}).max_cost_usd == Decimal("0.05")


def test_errors_say_which_run() -> None:
    assert LeaseLost("x", run_id="r").run_id == "r"
