"""A user's afternoon with nothing but the starter code.

Only the specification's own names are imported, and every backend is written here, as somebody would who has read the
specification and nothing else: no `async with`, no storage named, no keyword of ours. Ground truth is what the backends saw.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import runpy
import threading
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_graph import (
    AgentRun,
    LLMBackend,
    MemoryBackend,
    Message,
    MessageRole,
    ObservabilityBackend,
    ProductionAgent,
    ToolBackend,
    ToolCall,
)

USER, ASSISTANT, TOOL, SYSTEM = MessageRole.USER, MessageRole.ASSISTANT, MessageRole.TOOL, MessageRole.SYSTEM
QUESTION = "What is the weather in Paris?"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather in a city.", "parameters": CITY, "idempotent": True}
PAY = {"name": "pay", "description": "Pay somebody.", "parameters": CITY, "idempotent": False}
FULL = {
    "max_steps": 10,
    "max_tokens": 50_000,
    "max_cost_usd": 0.05,
    "timeout_s": 30,
    "retry_attempts": 3,
    "compression_threshold": 32_000,
}


@pytest.fixture(autouse=True)
def _at_home(tmp_path, monkeypatch):
    """Work in an empty folder, in a home of one's own, with nothing configured."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    for name in ("AGENT_GRAPH_STORAGE", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")


# -- what a user writes -----------------------------------------------------------------------------------------------------------


class LLM(LLMBackend):
    """Says its replies in order, the last one for ever; a reply may be an exception or a function of the messages and tools."""

    def __init__(self, *replies):
        self.replies = replies
        self.requests = []
        self.tools = []

    async def complete(self, messages, tools):
        reply = self.replies[min(len(self.requests), len(self.replies) - 1)]
        self.requests.append(copy.deepcopy(messages))
        self.tools.append(tools)
        if callable(reply):
            reply = reply(messages, tools)
            reply = await reply if asyncio.iscoroutine(reply) else reply
        if isinstance(reply, Exception):
            raise reply
        return Message(ASSISTANT, reply) if isinstance(reply, str) else reply

    def count_tokens(self, messages):
        return sum(4 + len(m.content) // 4 for m in messages)


class Tools(ToolBackend):
    """Runs functions of the call; counts how often."""

    def __init__(self, **functions):
        self.functions = {"get_weather": lambda call: f"sunny in {call.args['city']}", "pay": lambda call: "paid"} | functions
        self.calls = []

    async def execute(self, call):
        self.calls.append(copy.deepcopy(call))
        result = self.functions[call.tool_name](call)
        result = await result if asyncio.iscoroutine(result) else result
        if result is None or hasattr(result, "tool_name"):
            return result
        call.result = result
        return call


class Memory(MemoryBackend):
    def __init__(self):
        self.saved = {}

    async def load(self, run_id):
        return list(self.saved.get(run_id, []))

    async def save(self, run_id, messages):
        self.saved[run_id] = list(messages)


class Observability(ObservabilityBackend):
    def __init__(self):
        self.runs = []
        self.calls = []

    def record_run(self, run):
        self.runs.append(run)

    def record_tool_call(self, call, run_id):
        self.calls.append((call.call_id, run_id))


def said(content="", *, calls=(), **metadata):
    """Return an assistant's message, with tool calls `(name, args)` in the layout of the documentation."""
    entries = [{"id": f"c{i}", "name": name, "args": args} for i, (name, args) in enumerate(calls, 1)]
    return Message(ASSISTANT, content, {**({"tool_calls": entries} if entries else {}), **metadata})


def asks(city="Paris", tool="get_weather", **metadata):
    return said(calls=[(tool, {"city": city})], **metadata)


def make(*replies, agent=ProductionAgent, given=(WEATHER, PAY), config=None, **ports):
    """Return an agent and its backends; `given` are the tools that it is told of."""
    it = SimpleNamespace(llm=LLM(*replies), tools=Tools(), memory=Memory(), obs=Observability())
    vars(it).update(ports)
    it.agent = agent(it.llm, list(given), it.tools, it.memory, it.obs, FULL if config is None else config)
    return it


def ask(it, question=QUESTION, run_id="run_001"):
    return asyncio.run(it.agent.run(question, run_id=run_id))


def told(it, request=-1):
    """Return what the tools' messages in a request of the model say, joined."""
    return "\n".join(m.content for m in it.llm.requests[request] if m.role is TOOL)


def roles(messages):
    return [m.role.value for m in messages]


# -- the example ------------------------------------------------------------------------------------------------------------------


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
    it = make(asks(), lambda messages, tools: asyncio.sleep(60), "Sunny.")

    async def impatient():
        await asyncio.wait_for(it.agent.run(QUESTION, run_id="run_001"), 0.5)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    run = ask(it)
    assert (run.status, run.output, run.steps) == ("complete", "Sunny.", 2)
    assert len(it.tools.calls) == 1


# -- what a model may say -----------------------------------------------------------------------------------------------------------

PARIS = {"city": "Paris"}
OPENAI = {"id": "x", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps(PARIS)}}
LAYOUTS = {
    "id, name, args": {"tool_calls": [{"id": "x", "name": "get_weather", "args": PARIS}]},
    "one tool_call": {"tool_call": {"id": "x", "name": "get_weather", "args": PARIS}},
    "a list under tool_call": {"tool_call": [{"id": "x", "name": "get_weather", "args": PARIS}]},
    "a dict under tool_calls": {"tool_calls": {"id": "x", "name": "get_weather", "args": PARIS}},
    "a ToolCall": {"tool_calls": [ToolCall("get_weather", PARIS, "x")]},
    "one ToolCall": {"tool_call": ToolCall("get_weather", PARIS, "x")},
    "call_id, tool_name": {"tool_calls": [{"call_id": "x", "tool_name": "get_weather", "args": PARIS}]},
    "arguments": {"tool_calls": [{"id": "x", "name": "get_weather", "arguments": PARIS}]},
    "arguments as JSON text": {"tool_calls": [{"id": "x", "name": "get_weather", "arguments": json.dumps(PARIS)}]},
    "args as JSON text": {"tool_calls": [{"id": "x", "name": "get_weather", "args": json.dumps(PARIS)}]},
    "Anthropic": {"tool_calls": [{"id": "x", "type": "tool_use", "name": "get_weather", "input": PARIS}]},
    "OpenAI": {"tool_calls": [OPENAI]},
    "OpenAI, arguments as an object": {"tool_calls": [{"id": "x", "function": {"name": "get_weather", "arguments": PARIS}}]},
}


@pytest.mark.parametrize("metadata", LAYOUTS.values(), ids=LAYOUTS)
def test_tool_calls_are_read_in_every_layout(metadata):
    it = make(Message(ASSISTANT, "", copy.deepcopy(metadata)), "Sunny.")
    run = ask(it)
    assert (run.status, run.steps, run.output) == ("complete", 2, "Sunny.")
    assert [(c.tool_name, c.args, c.call_id) for c in run.tool_calls] == [("get_weather", PARIS, "x")]
    [answer] = [m for m in it.llm.requests[1] if m.role is TOOL]
    assert (answer.metadata["tool_call_id"], answer.metadata["name"], answer.content) == ("x", "get_weather", "sunny in Paris")
    assert it.llm.requests[1][2].metadata == metadata, "metadata comes back unchanged"


@pytest.mark.parametrize(
    "content",
    ['{"tool": "get_weather", "args": {"city": "Paris"}}', '```json\n{"tool": "get_weather", "args": {"city": "Paris"}}\n```'],
    ids=["bare", "fenced"],
)
def test_a_tool_call_may_stand_in_the_content(content):
    run = ask(make(content, "Sunny."))
    assert [(c.tool_name, c.args, c.result) for c in run.tool_calls] == [("get_weather", PARIS, "sunny in Paris")]
    assert run.output == "Sunny."


@pytest.mark.parametrize("content", ['{"tool": "unknown", "args": {}}', 'Use {"tool": "get_weather", "args": {}}', '{"city": "Paris"}'])
def test_json_that_calls_no_tool_is_an_answer(content):
    run = ask(make(content))
    assert (run.status, run.output, run.tool_calls) == ("complete", content, [])


def test_a_call_without_an_id_is_given_one():
    it = make(said(tool_calls=[{"name": "get_weather", "args": PARIS}]), "Sunny.")
    assert [c.call_id for c in ask(it).tool_calls] == ["call_1_0"]
    assert [m.metadata["tool_call_id"] for m in it.llm.requests[1] if m.role is TOOL] == ["call_1_0"]


def test_an_id_repeated_inside_a_reply_is_rewritten():
    entries = [{"id": "x", "name": "get_weather", "args": {"city": city}} for city in ("Paris", "Rome")]
    run = ask(make(said(tool_calls=entries), "Sunny."))
    first, second = run.tool_calls
    assert (first.call_id, first.result, second.result) == ("x", "sunny in Paris", "sunny in Rome")
    assert second.call_id != "x"


def test_several_calls_of_one_reply_are_answered_in_their_order():
    async def slow_first(call):
        await asyncio.sleep(0.05 if call.args["city"] == "Paris" else 0)
        return call.args["city"]

    it = make(said(calls=[("get_weather", {"city": c}) for c in ("Paris", "Rome", "Oslo")]), "Done.", tools=Tools(get_weather=slow_first))
    run = ask(it)
    assert [c.result for c in run.tool_calls] == ["Paris", "Rome", "Oslo"]
    assert [m.content for m in it.llm.requests[1] if m.role is TOOL] == ["Paris", "Rome", "Oslo"]


# -- what it costs ------------------------------------------------------------------------------------------------------------------

USAGES = {
    "usage": {"usage": {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}},
    "usage_metadata": {"usage_metadata": {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}},
    "token_usage": {"token_usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}},
    "prompt and completion tokens": {"usage": {"prompt_tokens": 12, "completion_tokens": 5}},
    "without a total": {"usage": {"input_tokens": 12, "output_tokens": 5}},
    "a bare total": {"usage": {"total_tokens": 17}},
}


@pytest.mark.parametrize("metadata", USAGES.values(), ids=USAGES)
def test_usage_is_read_in_every_layout(metadata):
    assert ask(make(asks(**metadata), said("Sunny.", **metadata))).total_tokens == 34


def test_usage_that_no_reply_tells_is_estimated_and_never_zero():
    run = ask(make(asks(), "Sunny."))
    assert run.total_tokens > 0
    assert run.total_cost_usd == 0.0


@pytest.mark.parametrize("cost", [0.001, Decimal("0.001"), "0.001"], ids=["float", "Decimal", "text"])
@pytest.mark.parametrize("key", ["cost_usd", "cost", "total_cost"])
def test_cost_is_read_under_every_name(key, cost):
    run = ask(make(asks(**{key: cost}), said("Sunny.", **{key: cost})))
    assert run.total_cost_usd == pytest.approx(0.002, abs=1e-12)


def test_many_small_costs_are_summed_without_rounding():
    run = ask(
        make(lambda m, t: asks(f"city {len(m)}", cost_usd=0.1) if len(m) < 12 else said("Done.", cost_usd=0.1), config={"max_cost_usd": 5})
    )
    assert (run.steps, run.total_cost_usd) == (6, 0.6)  # six times 0.1 is 0.6 exactly, not 0.6 and a bit


def test_the_cost_limit_acts():
    it = make(lambda m, t: asks(f"city {len(m)}", cost_usd=0.02), config={"max_cost_usd": 0.05, "max_steps": 50})
    run = ask(it)
    assert (run.status, run.error.split(":")[0]) == ("failed", "max_cost_usd")
    assert 0 < run.total_cost_usd <= 0.05
    assert len(it.llm.requests) <= 2


def test_the_token_limit_acts():
    usage = {"input_tokens": 900, "output_tokens": 100, "total_tokens": 1000}
    it = make(lambda m, t: asks(f"city {len(m)}", usage=usage), config={"max_tokens": 3500, "max_steps": 50})
    run = ask(it)
    assert (run.status, run.error.split(":")[0]) == ("failed", "max_tokens")
    assert 0 < run.total_tokens <= 3500


def test_a_model_that_calls_tools_for_ever_is_stopped_at_max_steps():
    it = make(lambda m, t: asks(f"city {len(m)}"), config={"max_steps": 4})
    run = ask(it)
    assert (run.steps, run.status, run.error.split(":")[0]) == (4, "failed", "max_steps")
    assert len(it.llm.requests) == 4
    assert len(it.tools.calls) == 3, "what the last step asks for could not be used any more"


def test_before_a_limit_is_reached_the_model_may_answer_from_what_it_knows():
    run = ask(make(lambda m, t: asks(f"city {len(m)}") if t else said("As far as I know: sunny."), config={"max_steps": 3}))
    assert (run.status, run.output, run.steps, run.error) == ("complete", "As far as I know: sunny.", 3, None)


@pytest.mark.parametrize("key", ["max_steps", "max_tokens", "max_cost_usd", "timeout_s"])
def test_a_limit_of_zero_calls_no_model(key):
    it = make("Hello.", config={key: 0})
    run = ask(it)
    assert (run.status, run.error.split(":")[0]) == ("timeout" if key == "timeout_s" else "failed", key)
    assert it.llm.requests == []


# -- when the model fails -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_model_that_fails_one_time_less_than_allowed_answers(attempts):
    it = make(*[RuntimeError("the model is down")] * (attempts - 1), "Hello.", config={"retry_attempts": attempts})
    run = ask(it)
    assert (run.status, run.output, run.steps, len(it.llm.requests)) == ("complete", "Hello.", 1, attempts)


@pytest.mark.parametrize(("attempts", "called"), [(0, 1), (1, 1), (2, 2)])
def test_a_model_that_always_fails_ends_the_run_after_its_attempts(attempts, called):
    it = make(RuntimeError("the model is down"), config={"retry_attempts": attempts})
    run = ask(it)
    assert (run.status, run.steps, len(it.llm.requests)) == ("failed", 0, called)
    assert "the model is down" in run.error
    assert [r.status for r in it.obs.runs] == ["failed"]


def test_what_was_known_when_the_model_failed_is_kept():
    run = ask(make(asks(cost_usd=0.001), ValueError("broken"), config={"retry_attempts": 1}))
    assert (run.status, run.steps, len(run.tool_calls)) == ("failed", 1, 1)
    assert run.total_cost_usd == pytest.approx(0.001)


@pytest.mark.parametrize("attributes", [{"retryable": False}, {"status_code": 401}, {"status_code": 400}], ids=repr)
def test_an_error_that_says_so_is_not_retried(attributes):
    error = RuntimeError("bad key")
    vars(error).update(attributes)
    it = make(error)
    assert ask(it).status == "failed"
    assert len(it.llm.requests) == 1


def test_a_model_that_hangs_ends_in_time():
    it = make(lambda m, t: asyncio.sleep(60), config={"timeout_s": 0.3})
    ask(make("Hello."), run_id="warm")
    begun = time.perf_counter()
    run = ask(it)
    assert time.perf_counter() - begun < 0.3 + 0.5
    assert (run.status, run.error.split(":")[0]) == ("timeout", "timeout_s")
    assert [r.status for r in it.obs.runs] == ["timeout"]


@pytest.mark.parametrize("wrong", [lambda m, t: None, lambda m, t: {"content": "Hello."}], ids=["None", "dict"])
def test_a_reply_that_is_no_message_names_what_was_due(wrong):
    it = make(wrong)
    run = ask(it)
    assert (run.status, run.error.split(":")[0]) == ("failed", "ContractError")
    assert "LLMBackend.complete" in run.error
    assert "Message" in run.error
    assert len(it.llm.requests) == 1


def test_no_text_beside_tool_calls_is_what_many_providers_send():
    it = make(dataclasses.replace(asks(), content=None), "Sunny.")
    run = ask(it)
    assert (run.status, run.output, len(run.tool_calls)) == ("complete", "Sunny.", 1)


def test_an_empty_answer_is_asked_for_again_and_not_for_ever():
    run = ask(make("", "Hello."))
    assert (run.status, run.output) == ("complete", "Hello.")
    it = make("")
    run = ask(it)
    assert run.status == "failed"
    assert run.error
    assert len(it.llm.requests) == 2


# -- when a tool fails ----------------------------------------------------------------------------------------------------------------


def raising(times, then="sunny"):
    """Return a function that raises `times` times."""
    left = iter(range(times))

    def function(call):
        if next(left, None) is not None:
            raise ConnectionError("the line is dead")
        return then

    return function


def test_an_idempotent_tool_that_raises_is_tried_again_with_the_same_key():
    it = make(asks(), "Sunny.", tools=Tools(get_weather=raising(2)))
    run = ask(it)
    assert (run.status, run.tool_calls[0].result, run.tool_calls[0].error) == ("complete", "sunny", None)
    assert len(it.tools.calls) == 3
    assert len({call.idempotency_key for call in it.tools.calls}) == 1
    assert it.tools.calls[0].idempotency_key


def test_an_idempotent_tool_that_always_raises_is_told_to_the_model():
    it = make(asks(), "I do not know.", tools=Tools(get_weather=raising(99)))
    run = ask(it)
    assert (run.status, run.output, len(it.tools.calls)) == ("complete", "I do not know.", 3)
    assert "the line is dead" in run.tool_calls[0].error
    assert "the line is dead" in told(it)


def test_a_tool_marked_non_idempotent_runs_once_and_its_outcome_is_unknown():
    it = make(asks(tool="pay"), "I cannot tell.", tools=Tools(pay=raising(99)))
    run = ask(it)
    assert (run.status, len(it.tools.calls)) == ("complete", 1)
    assert "unknown" in told(it)
    assert "unknown" in run.tool_calls[0].error


@pytest.mark.parametrize(("tool", "attempts"), [("get_weather", 2), ("pay", 1)])
def test_a_tool_that_sleeps_past_its_time_is_cut_off(tool, attempts):
    slow = Tools(**{tool: lambda call: asyncio.sleep(60)})
    it = make(
        asks(tool=tool),
        "No idea.",
        tools=slow,
        given=[{**WEATHER, "timeout_s": 0.1}, {**PAY, "timeout_s": 0.1}],
        config={"retry_attempts": 2},
    )
    begun = time.perf_counter()
    run = ask(it)
    assert time.perf_counter() - begun < 5
    assert (run.status, run.output, len(it.tools.calls)) == ("complete", "No idea.", attempts)
    assert run.tool_calls[0].error
    assert told(it)


def test_an_error_that_a_tool_returns_is_told_and_not_retried():
    it = make(asks(), "No such city.", tools=Tools(get_weather=lambda call: dataclasses.replace(call, error="no such city")))
    run = ask(it)
    assert (run.status, run.tool_calls[0].error, len(it.tools.calls)) == ("complete", "no such city", 1)
    assert "no such city" in told(it)


def mutating(call):
    call.args["city"] = "Rome"
    call.tool_name, call.call_id, call.result = "other", "other", "sunny"
    return call


@pytest.mark.parametrize(
    "function",
    [mutating, lambda call: ToolCall("other", {"city": "Rome"}, "other", result="sunny")],
    ids=["the same call, changed", "another object"],
)
def test_name_args_and_id_of_the_record_are_ours(function):
    it = make(asks(), "Sunny.", tools=Tools(get_weather=function))
    [call] = ask(it).tool_calls
    assert (call.tool_name, call.args, call.call_id, call.result) == ("get_weather", PARIS, "c1", "sunny")
    assert it.llm.requests[1][2].metadata["tool_calls"][0]["args"] == PARIS


def test_a_tool_backend_that_returns_nothing_names_what_was_due():
    run = ask(make(asks(), "Sunny.", tools=Tools(get_weather=lambda call: None)))
    assert (run.status, run.error.split(":")[0]) == ("failed", "ContractError")
    assert "ToolBackend.execute" in run.error
    assert "ToolCall" in run.error


WRONG_CALLS = {
    "an unknown tool": {"name": "get_wether", "args": PARIS},
    "arguments that are no JSON": {"name": "get_weather", "args": "{'city': "},
    "arguments that are no object": {"name": "get_weather", "args": ["Paris"]},
    "a wrong type": {"name": "get_weather", "args": {"city": 5}},
    "a missing argument": {"name": "get_weather", "args": {}},
}


@pytest.mark.parametrize("entry", WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_call_that_cannot_be_made_is_told_to_the_model_which_may_repair_it(entry):
    it = make(said(tool_calls=[{"id": "c0", **entry}]), asks(), "Sunny.")
    run = ask(it)
    assert (run.status, run.output, run.steps) == ("complete", "Sunny.", 3)
    assert [call.args for call in it.tools.calls] == [PARIS], "only the repaired call reached the backend"
    assert [bool(call.error) for call in run.tool_calls] == [True, False]
    assert told(it, 1)
    assert len(it.obs.calls) == 2


@pytest.mark.parametrize(
    "result",
    [float("nan"), {1, 2}, b"\xff", 2**80, "\ud800", object(), {"a": [{"b": ({},)}]}, "x" * 1_000_000],
    ids=lambda r: type(r).__name__,
)
def test_any_result_reaches_the_model_and_the_record(result):
    it = make(asks(), "Done.", tools=Tools(get_weather=lambda call: result))
    run = ask(it)
    assert (run.status, run.output) == ("complete", "Done.")
    assert run.tool_calls[0].result is result
    assert told(it)


# -- memory and observability -----------------------------------------------------------------------------------------------------------


def test_memory_holds_question_call_result_and_answer_in_order():
    it = make(asks(), "Sunny.")
    ask(it)
    saved = it.memory.saved["run_001"]
    assert roles(saved) == ["user", "assistant", "tool", "assistant"]
    assert [m.content for m in saved] == [QUESTION, "", "sunny in Paris", "Sunny."]


def test_memory_is_saved_for_a_failed_run_too():
    it = make(asks(), ValueError("broken"), config={"retry_attempts": 1})
    ask(it)
    assert roles(it.memory.saved["run_001"])[:3] == ["user", "assistant", "tool"]


class Broken(Memory):
    def __init__(self, **what):
        super().__init__()
        self.what = what

    async def load(self, run_id):
        return self._answer("load", [])

    async def save(self, run_id, messages):
        self._answer("save", None)

    def _answer(self, method, usual):
        answer = self.what.get(method, usual)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_memory_that_cannot_load_ends_the_run_before_any_model_call():
    it = make("Hello.", memory=Broken(load=OSError("no disk")))
    run = ask(it)
    assert run.status == "failed"
    assert "no disk" in run.error
    assert it.llm.requests == []
    assert len(it.obs.runs) == 1


def test_a_memory_that_loads_nothing_at_all_names_what_was_due():
    run = ask(make("Hello.", memory=Broken(load="nothing")))
    assert (run.status, run.error.split(":")[0]) == ("failed", "ContractError")
    assert "MemoryBackend.load" in run.error


def test_a_memory_that_cannot_save_leaves_the_answer_standing():
    run = ask(make("Hello.", memory=Broken(save=OSError("no disk"))))
    assert (run.status, run.output) == ("complete", "Hello.")
    assert any("no disk" in warning for warning in run.warnings)


@pytest.mark.parametrize(
    ("replies", "status", "calls"),
    [
        ((asks(), "Sunny."), "complete", ["c1"]),
        ((said(calls=[("get_weather", PARIS), ("pay", PARIS)]), "Done."), "complete", ["c1", "c2"]),
        ((asks(), ValueError("broken")), "failed", ["c1"]),
    ],
    ids=["one call", "two calls", "failed"],
)
def test_observability_has_been_told_everything_when_run_returns(replies, status, calls):
    it = make(*replies, config={"retry_attempts": 1})
    run = ask(it)
    assert sorted(it.obs.calls) == [(call_id, "run_001") for call_id in calls]
    assert [(r.run_id, r.status, r.steps) for r in it.obs.runs] == [("run_001", status, run.steps)]


def test_observability_that_raises_never_changes_a_run():
    class Raising(ObservabilityBackend):
        def record_run(self, run):
            raise RuntimeError("the collector is down")

        def record_tool_call(self, call, run_id):
            raise RuntimeError("the collector is down")

    run = ask(make(asks(), "Sunny.", obs=Raising()))
    assert (run.status, run.output, run.error) == ("complete", "Sunny.", None)


def test_a_run_is_plain_values_all_the_way_down():
    run = dataclasses.asdict(ask(make(asks(), "Sunny.")))
    assert (run["run_id"], run["status"], run["tool_calls"][0]["result"]) == ("run_001", "complete", "sunny in Paris")
    assert json.loads(json.dumps(run))["output"] == "Sunny."


# -- the methods of the specification, alone --------------------------------------------------------------------------------------------


@pytest.fixture
def _no_file(tmp_path):
    """Nothing may be written."""
    yield
    assert [str(path) for path in tmp_path.rglob("*") if path.is_file()] == []


def alone(awaitable):
    async def awaited():
        return await awaitable

    return asyncio.run(awaited())


@pytest.mark.usefixtures("_no_file")
def test_execute_tool_alone_runs_retries_and_does_a_thing_once():
    it = make("Hello.", tools=Tools(get_weather=raising(1)))
    done = alone(it.agent._execute_tool(ToolCall("get_weather", dict(PARIS), "c1")))
    assert (done.tool_name, done.args, done.call_id, done.result, done.error) == ("get_weather", PARIS, "c1", "sunny", None)
    assert done.latency_ms > 0
    again = alone(it.agent._execute_tool(ToolCall("get_weather", dict(PARIS), "c1")))
    assert (again.result, len(it.tools.calls)) == ("sunny", 2)
    alone(it.agent._execute_tool(ToolCall("get_weather", dict(PARIS), "c2")))
    assert len(it.tools.calls) == 3


@pytest.mark.usefixtures("_no_file")
@pytest.mark.parametrize(("tool", "attempts"), [("get_weather", 3), ("pay", 1)])
def test_execute_tool_alone_gives_a_failure_as_an_error(tool, attempts):
    it = make("Hello.", tools=Tools(**{tool: raising(99)}))
    done = alone(it.agent._execute_tool(ToolCall(tool, dict(PARIS), "c1")))
    assert done.error
    assert len(it.tools.calls) == attempts


@pytest.mark.usefixtures("_no_file")
def test_execute_tool_alone_keeps_the_time():
    it = make("Hello.", tools=Tools(pay=lambda call: asyncio.sleep(60)), given=[{**PAY, "timeout_s": 0.1}])
    begun = time.perf_counter()
    done = alone(it.agent._execute_tool(ToolCall("pay", dict(PARIS), "c1")))
    assert done.error
    assert time.perf_counter() - begun < 5


@pytest.mark.usefixtures("_no_file")
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


@pytest.mark.usefixtures("_no_file")
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


@pytest.mark.usefixtures("_no_file")
def test_compress_if_needed_alone_leaves_a_short_list_as_it_is():
    it = make("A summary.")
    messages = [Message(USER, QUESTION)]
    assert alone(it.agent._compress_if_needed(messages)) is messages
    assert it.llm.requests == []


@pytest.mark.usefixtures("_no_file")
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


# -- the methods of the specification, overridden ---------------------------------------------------------------------------------------


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


# -- the starter code, pasted instead of imported -----------------------------------------------------------------------------------------


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


# -- what cannot be meant ---------------------------------------------------------------------------------------------------------------


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


@pytest.mark.usefixtures("_no_file")
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
    assert time.perf_counter() - begun < 5
    assert run.status == "failed"
    assert "5,000,000" in run.error
    assert it.llm.requests == []
    assert len(it.obs.runs) == 1
