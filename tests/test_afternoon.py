"""A user's afternoon with nothing but the starter code: the specification's example, many runs at once, and what cannot be meant.

The backends are those of tests/starter.py. What a model may say, what it costs, what fails, what is remembered and the
specification's own methods have files of their own beside this one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from decimal import Decimal

import pytest

from agent_graph import AgentRun
from tests.starter import ASSISTANT, FULL, PAY, QUESTION, USER, WEATHER, ask, asks, make, roles, said

pytestmark = pytest.mark.usefixtures("at_home")


# -- the example ---------------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_specification():
    it = make(asks(cost_usd=0.001), said("The weather in Paris is sunny.", cost_usd=0.001))
    run = ask(it)
    assert isinstance(run, AgentRun)
    assert (run.run_id, run.input, run.output) == ("run_001", QUESTION, "The weather in Paris is sunny.")
    assert (run.steps, run.status, run.error) == (2, "complete", None)
    assert run.total_cost_usd == pytest.approx(0.002, abs=1e-12)
    assert run.latency_ms > 0
    [call] = run.tool_calls
    assert (call.tool_name, call.args, call.call_id, call.result, call.error) == (
        "get_weather",
        {"city": "Paris"},
        "c1",
        "sunny in Paris",
        None,
    )
    assert call.latency_ms > 0


def test_the_first_request_is_a_system_prompt_and_the_question_with_the_very_tools():
    it = make("Hello.")
    ask(it)
    assert roles(it.llm.requests[0]) == ["system", "user"]
    assert it.llm.requests[0][1].content == QUESTION
    assert [tool is given for tool, given in zip(it.llm.tools[0], (WEATHER, PAY), strict=True)] == [True, True]


@pytest.mark.parametrize("config", [{}, {"max_steps": 3}, dict.fromkeys(FULL), {**FULL, "max_cost_usd": Decimal("0.05")}], ids=repr)
def test_config_may_be_empty_partial_or_unlimited(config):
    run = ask(make(asks(), "Sunny.", config=config))
    assert (run.status, run.steps, run.output) == ("complete", 2, "Sunny.")


def test_without_a_run_id_each_run_gets_its_own():
    it = make("Hello.")
    first, second = (asyncio.run(it.agent.run("Hi")) for _ in range(2))
    assert first.run_id
    assert second.run_id
    assert first.run_id != second.run_id
    assert set(it.memory.saved) == {first.run_id, second.run_id}


def test_the_second_turn_of_a_run_sees_the_first():
    it = make(asks(), "Sunny.", "You asked about Paris.")
    ask(it)
    run = ask(it, "What did I ask?")
    assert run.output == "You asked about Paris."
    assert (run.steps, run.tool_calls) == (1, [])
    assert [m.content for m in it.llm.requests[-1] if m.role in (USER, ASSISTANT)] == [QUESTION, "", "Sunny.", "What did I ask?"]
    assert roles(it.llm.requests[-1]) == ["system", "user", "assistant", "tool", "assistant", "user"]


def answering_by_question(messages, tools):
    """A model without a script: calls the tool with the question as the city, then says what came back."""
    last = messages[-1]
    return asks(last.content) if last.role is USER else said(last.content)


def test_fifty_runs_at_once_on_one_agent():
    it = make(answering_by_question)

    async def all_at_once():
        return await asyncio.gather(*(it.agent.run(f"city {i}", run_id=f"run_{i}") for i in range(50)))

    runs = asyncio.run(all_at_once())
    assert [(run.run_id, run.status, run.output) for run in runs] == [(f"run_{i}", "complete", f"sunny in city {i}") for i in range(50)]
    assert sorted(run.run_id for run in it.obs.runs) == sorted(f"run_{i}" for i in range(50))
    assert [len(it.memory.saved[f"run_{i}"]) for i in range(50)] == [4] * 50


def test_runs_in_several_threads_at_once_on_one_agent():
    it = make(answering_by_question)
    runs = {}

    def work(i):
        runs[i] = ask(it, f"city {i}", f"run_{i}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {i: run.output for i, run in runs.items()} == {i: f"sunny in city {i}" for i in range(8)}


def test_one_agent_lives_through_two_event_loops():
    it = make(answering_by_question)
    assert [ask(it, "Rome", f"run_{i}").output for i in range(2)] == ["sunny in Rome"] * 2


def test_a_working_directory_that_cannot_be_written_to(tmp_path):
    (tmp_path / "work" / ".agent_graph").write_text("in the way")  # root may write into any folder, but not through a file
    (tmp_path / "work").chmod(0o555)
    try:
        run = ask(make(asks(), "Sunny."))
    finally:
        (tmp_path / "work").chmod(0o755)
    assert run.status == "complete"
    assert (tmp_path / "work" / ".agent_graph").read_text() == "in the way"


def test_a_run_that_its_caller_cancelled_goes_on_when_asked_again():
    asked = threading.Event()

    async def hangs(messages, tools):
        asked.set()
        await asyncio.sleep(60)

    it = make(asks(), hangs, "Sunny.")

    async def impatient():
        task = asyncio.ensure_future(it.agent.run(QUESTION, run_id="run_001"))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(impatient())
    run = ask(it)
    assert (run.status, run.output, run.steps) == ("complete", "Sunny.", 2)
    assert len(it.tools.calls) == 1


# -- what cannot be meant ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"max_step": 3}, "max_steps"),
        ({"timeout": 3}, "timeout_s"),
        ({"max_steps": -1}, "max_steps"),
        ({"max_cost_usd": -0.01}, "max_cost_usd"),
        ({"max_tokens": True}, "max_tokens"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"max_steps": "ten"}, "max_steps"),
        ({"retry_attempts": 1.5}, "retry_attempts"),
    ],
    ids=repr,
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(config, named):
    with pytest.raises(ValueError, match=named) as caught:
        make("Hello.", config=config)
    assert type(caught.value).__name__ == "ConfigError"


@pytest.mark.parametrize(
    "given",
    [[WEATHER, WEATHER], [{"description": "no name"}], ["get_weather"], [{**WEATHER, "timeout_s": -1}]],
    ids=["twice", "nameless", "text", "time"],
)
def test_tools_that_cannot_be_meant_are_refused(given):
    with pytest.raises(ValueError, match=r"tool|get_weather") as caught:
        make("Hello.", given=given)
    assert type(caught.value).__name__ == "ConfigError"


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize("run_id", ["", "x" * 256, "a\nb", "a\x00b", "\ud800", 5, b"run"], ids=ascii)
def test_a_run_id_that_cannot_be_is_refused_before_anything_is_touched(run_id):
    it = make("Hello.")
    with pytest.raises(ValueError, match="run_id") as caught:
        ask(it, run_id=run_id)
    assert type(caught.value).__name__ == "ConfigError"
    assert it.llm.requests == []


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "a/b\\c", "with space", "Zürich 東京", "x" * 255, "%s'; --", "CON"])
def test_any_other_run_id_will_do(run_id, tmp_path):
    it = make("Hello.")
    assert ask(it, run_id=run_id).status == "complete"
    assert list(it.memory.saved) == [run_id]
    assert not [path for path in tmp_path.rglob("*") if "passwd" in path.name or "CON" in path.name]


def test_an_empty_question_is_refused_by_name():
    it = make("What can I do for you?")
    with pytest.raises(ValueError, match="user_input"):
        ask(it, "")
    assert it.llm.requests == []


def test_a_question_of_five_megabytes_gets_a_clear_refusal():
    it = make("Hello.")
    begun = time.perf_counter()
    run = ask(it, "why? " * 1_000_000)
    assert time.perf_counter() - begun < 60
    assert run.status == "failed"
    assert "5,000,000" in run.error
    assert it.llm.requests == []
    assert len(it.obs.runs) == 1
