"""An afternoon with the starter code: the model fails, a tool fails."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from agent_graph import ToolCall
from tests.starter import PARIS, PAY, WEATHER, Tools, ask, asks, make, raising, said, told

pytestmark = pytest.mark.usefixtures("at_home")


# -- when the model fails ------------------------------------------------------------------------------------------------------------


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
    assert time.perf_counter() - begun < 30  # half of what the model takes
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


# -- when a tool fails ---------------------------------------------------------------------------------------------------------------


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
    assert time.perf_counter() - begun < 30  # half of what one call takes
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
