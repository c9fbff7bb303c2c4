"""An afternoon with the starter code: the specification's methods, alone and overridden, and its classes, pasted instead of imported."""

from __future__ import annotations

import asyncio
import copy
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_graph import AgentRun, Message, MessageRole, ProductionAgent, ToolCall
from tests.starter import (
    ASSISTANT,
    PARIS,
    PAY,
    QUESTION,
    SYSTEM,
    TOOL,
    USER,
    WEATHER,
    Memory,
    Tools,
    ask,
    asks,
    make,
    raising,
    roles,
    said,
    told,
)

pytestmark = pytest.mark.usefixtures("at_home")


# -- alone ---------------------------------------------------------------------------------------------------------------------------


def alone(awaitable):
    async def awaited():
        return await awaitable

    return asyncio.run(awaited())


@pytest.mark.usefixtures("no_file")
def test_execute_tool_alone_runs_retries_and_does_a_thing_once():
    it = make("Hello.", tools=Tools(get_weather=raising(1)))
    done = alone(it.agent._execute_tool(ToolCall("get_weather", dict(PARIS), "c1")))
    assert (done.tool_name, done.args, done.call_id, done.result, done.error) == ("get_weather", PARIS, "c1", "sunny", None)
    assert done.latency_ms > 0
    again = alone(it.agent._execute_tool(ToolCall("get_weather", dict(PARIS), "c1")))
    assert (again.result, len(it.tools.calls)) == ("sunny", 2)
    alone(it.agent._execute_tool(ToolCall("get_weather", dict(PARIS), "c2")))
    assert len(it.tools.calls) == 3


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize(("tool", "attempts"), [("get_weather", 3), ("pay", 1)])
def test_execute_tool_alone_gives_a_failure_as_an_error(tool, attempts):
    it = make("Hello.", tools=Tools(**{tool: raising(99)}))
    done = alone(it.agent._execute_tool(ToolCall(tool, dict(PARIS), "c1")))
    assert done.error
    assert len(it.tools.calls) == attempts


@pytest.mark.usefixtures("no_file")
def test_execute_tool_alone_keeps_the_time():
    it = make("Hello.", tools=Tools(pay=lambda call: asyncio.sleep(60)), given=[{**PAY, "timeout_s": 0.1}])
    begun = time.perf_counter()
    done = alone(it.agent._execute_tool(ToolCall("pay", dict(PARIS), "c1")))
    assert done.error
    assert time.perf_counter() - begun < 30  # half of what the call takes


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, None),
        ({"steps": 9, "total_tokens": 49_999, "total_cost_usd": 0.0499, "latency_ms": 29_999}, None),
        ({"steps": 10}, "max_steps: 10 of 10"),
        ({"total_tokens": 60_000}, "max_tokens: 60000 of 50000"),
        ({"total_cost_usd": 0.05}, "max_cost_usd: 0.05 of 0.05"),
        ({"latency_ms": 31_000}, "timeout_s: 31 of 30"),
    ],
)
def test_check_budgets_alone(figures, expected):
    assert alone(make("Hello.").agent._check_budgets(AgentRun("run_001", QUESTION, **figures))) == expected


@pytest.mark.usefixtures("no_file")
def test_build_system_prompt_alone_names_each_tool_and_never_changes():
    agent = make("Hello.").agent
    prompt = agent._build_system_prompt([WEATHER, PAY])
    assert all(tool["name"] in prompt and tool["description"] in prompt for tool in (WEATHER, PAY))
    assert agent._build_system_prompt([dict(reversed(WEATHER.items())), PAY]) == prompt
    assert agent._build_system_prompt([]).strip()


def long_conversation(rounds=30):
    messages = [Message(SYSTEM, "You are a weather service.")]
    for i in range(rounds):
        call = {"id": f"c{i}", "name": "get_weather", "args": {"city": f"city {i}"}}
        messages += [
            Message(USER, f"What about city {i}? " + "Please be thorough. " * 10),
            Message(ASSISTANT, "", {"tool_calls": [call]}),
            Message(TOOL, f"sunny in city {i} " * 20, {"tool_call_id": f"c{i}", "name": "get_weather"}),
            Message(ASSISTANT, f"City {i} is sunny. " * 10),
        ]
    return [*messages, Message(USER, "And which was the sunniest?")]


@pytest.mark.usefixtures("no_file")
def test_compress_if_needed_alone_leaves_a_short_list_as_it_is():
    it = make("A summary.")
    messages = [Message(USER, QUESTION)]
    assert alone(it.agent._compress_if_needed(messages)) is messages
    assert it.llm.requests == []


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize(
    "reply", ["They talked about sunny cities.", RuntimeError("the model is down"), "long " * 5000], ids=["short", "down", "long"]
)
def test_compress_if_needed_alone_ends_under_the_threshold_with_pairs_whole(reply):
    it = make(reply, config={"compression_threshold": 1_000, "retry_attempts": 1})
    before = long_conversation()
    kept = copy.deepcopy(before)
    after = alone(it.agent._compress_if_needed(before))
    assert it.llm.count_tokens(before) > 1_000
    assert it.llm.count_tokens(after) <= 1_000
    assert before == kept, "the caller's list is the caller's"
    assert (after[0].role, "You are a weather service." in after[0].content) == (SYSTEM, True)
    assert after[-1].content == "And which was the sunniest?"
    assert pairs_are_whole(after)


def pairs_are_whole(messages):
    """Each call is answered directly after its reply, in order, and each answer has its call."""
    due = []
    for message in messages:
        if message.role is TOOL:
            if not due or due.pop(0) != message.metadata["tool_call_id"]:
                return False
        elif due:
            return False
        else:
            due = [call["id"] for call in message.metadata.get("tool_calls", ())]
    return not due


def test_a_run_compresses_before_it_exceeds_the_threshold():
    def model(messages, tools):
        if not tools:
            return said("They looked at cities.")
        done = sum(m.role is TOOL for m in messages)
        return asks(f"city {len(it.tools.calls)}") if len(it.tools.calls) < 8 else said(f"Done, {done} in sight.")

    it = make(model, tools=Tools(get_weather=lambda call: "sunny " * 300), config={"compression_threshold": 1_500, "max_steps": 20})
    run = ask(it)
    assert (run.status, len(it.tools.calls)) == ("complete", 8)
    assert all(it.llm.count_tokens(request) <= 1_500 for request, tools in zip(it.llm.requests, it.llm.tools, strict=True) if tools)
    assert all(pairs_are_whole(request) for request in it.llm.requests)


# -- overridden ----------------------------------------------------------------------------------------------------------------------


def test_an_overridden_execute_tool_takes_effect():
    class Mine(ProductionAgent):
        async def _execute_tool(self, call):
            call.result = "mine"
            return call

    it = make(asks(), "Sunny.", agent=Mine)
    assert [call.result for call in ask(it).tool_calls] == ["mine"]
    assert it.tools.calls == []
    assert told(it) == "mine"


@pytest.mark.parametrize(("text", "status"), [("my own rule: enough", "failed"), ("timeout_s: I am tired", "timeout")])
def test_an_overridden_check_budgets_takes_effect(text, status):
    class Mine(ProductionAgent):
        async def _check_budgets(self, run):
            return text if run.steps >= 2 else await super()._check_budgets(run)

    run = ask(make(lambda m, t: asks(f"city {len(m)}"), agent=Mine))
    assert (run.steps, run.status, run.error) == (2, status, text)


def test_an_overridden_build_system_prompt_takes_effect():
    class Mine(ProductionAgent):
        def _build_system_prompt(self, tools):
            return f"You have {len(tools)} tools."

    it = make("Hello.", agent=Mine)
    ask(it)
    assert it.llm.requests[0][0] == Message(SYSTEM, "You have 2 tools.")


def test_an_overridden_compress_if_needed_takes_effect_at_every_step():
    seen = []

    class Mine(ProductionAgent):
        async def _compress_if_needed(self, messages):
            seen.append(roles(messages))
            return [m for m in messages if "forget me" not in m.content]

    it = make(asks(), "Sunny.", agent=Mine, memory=Memory())
    it.memory.saved["run_001"] = [Message(USER, "forget me"), Message(ASSISTANT, "Fine.")]
    assert ask(it).status == "complete"
    assert seen[0] == ["system", "user", "assistant", "user"]
    assert len(seen) == 2
    assert all("forget me" not in m.content for request in it.llm.requests for m in request)


@pytest.mark.parametrize("said", [True, 1, ["max_steps"]])
def test_a_violation_that_is_no_text_names_what_was_due(said):
    class Strange(ProductionAgent):
        async def _check_budgets(self, run):
            return said

    run = ask(make("Hello.", agent=Strange))
    assert (run.status, run.error.split(":")[0]) == ("failed", "ContractError")
    assert "_check_budgets" in run.error


# -- the starter code, pasted instead of imported ------------------------------------------------------------------------------------


def test_a_role_equals_the_same_role_of_a_pasted_copy():
    """A pasted backend that looked for its own MessageRole.TOOL never found it, and asked for the tool until its steps were used up."""
    theirs = runpy.run_path(str(Path(__file__).parent / "data" / "starter_code.py"))["MessageRole"]
    for role in MessageRole:
        assert [other == role for other in theirs] == [role == other for other in theirs] == [other.value == role.value for other in theirs]
        assert {theirs(role.value): "found"}[role] == {role: "found"}[theirs(role.value)] == "found"
        assert role != role.value


def test_the_starter_codes_own_classes_work_in_place_of_ours():
    pasted = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "data" / "starter_code.py")))

    class PastedLLM(pasted.LLMBackend):
        async def complete(self, messages, tools):
            if any(m.role == pasted.MessageRole.TOOL for m in messages):  # its own enum: it is all that it knows
                return pasted.Message(pasted.MessageRole.ASSISTANT, "Sunny.", {"cost_usd": 0.001})
            call = pasted.ToolCall("get_weather", dict(PARIS), "c1")
            return pasted.Message(pasted.MessageRole.ASSISTANT, "", {"tool_calls": [call], "cost_usd": 0.001})

        def count_tokens(self, messages):
            return sum(len(m.content) for m in messages) // 4

    class PastedTools(pasted.ToolBackend):
        async def execute(self, call):
            return pasted.ToolCall(call.tool_name, call.args, call.call_id, result="sunny", latency_ms=12.0)

    class PastedMemory(pasted.MemoryBackend):
        async def load(self, run_id):
            return [pasted.Message(pasted.MessageRole.USER, "Hello?"), pasted.Message(pasted.MessageRole.ASSISTANT, "Hello.")]

        async def save(self, run_id, messages):
            self.saved = messages

    class PastedObservability(pasted.ObservabilityBackend):
        runs, calls = [], []

        def record_run(self, run):
            self.runs.append(run)

        def record_tool_call(self, call, run_id):
            self.calls.append(call)

    it = make(llm=PastedLLM(), tools=PastedTools(), memory=PastedMemory(), obs=PastedObservability())
    run = ask(it)
    assert (run.status, run.output, run.steps, run.total_cost_usd) == ("complete", "Sunny.", 2, 0.002)
    assert [(call.call_id, call.result) for call in run.tool_calls] == [("c1", "sunny")]
    assert roles(it.memory.saved) == ["user", "assistant", "user", "assistant", "tool", "assistant"]
    assert (len(it.obs.runs), len(it.obs.calls)) == (1, 1)
