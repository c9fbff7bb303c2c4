"""One tool call: attempts, time, and what a failure means."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_graph.context import idempotency_key
from agent_graph.decisions.tools import read_tools
from agent_graph.errors import ContractError, ToolNotExecuted
from agent_graph.ports import ToolBackend
from agent_graph.runtime.tools import Tools
from agent_graph.testing import FakeClock
from agent_graph.types import ToolCall

ONCE = {"name": "pay", "idempotent": False}
AGAIN = {"name": "look", "idempotent": True}
UNMARKED = {"name": "unmarked"}


class Backend(ToolBackend):
    """Does what its script says, one entry a call: an exception is raised, a function is awaited, anything else is the result."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.calls: list[ToolCall] = []

    async def execute(self, call: ToolCall) -> ToolCall:
        self.calls.append(call)
        entry = self.script.pop(0)
        if isinstance(entry, BaseException):
            raise entry
        if callable(entry):
            return await entry(call)  # type: ignore[no-any-return]  # a script may break the port on purpose
        call.result = entry
        return call


def tools_of(backend: Any, *, attempts: int = 3, unmarked_idempotent: bool = True, **spec: Any) -> Tools:
    specs = read_tools([ONCE | spec, AGAIN | spec, UNMARKED | spec])
    return Tools(backend, specs, attempts=attempts, unmarked_idempotent=unmarked_idempotent, clock=FakeClock(auto=True))


@pytest.mark.parametrize(
    ("tool", "script", "calls", "result", "error"),
    [
        ("look", ["fine"], 1, "fine", None),
        ("look", [ValueError("x"), ValueError("x"), "fine"], 3, "fine", None),
        ("look", [ValueError("x")] * 3, 3, None, "ValueError: x"),
        ("pay", [ValueError("x"), "never"], 1, None, "OutcomeUnknown: ValueError: x"),
        ("pay", [ToolNotExecuted("refused"), "paid"], 2, "paid", None),
        ("pay", [ToolNotExecuted("refused")] * 3, 3, None, "ToolNotExecuted: refused"),
        ("missing", [], 0, None, "ToolNotFound: there is no tool 'missing'."),
    ],
    ids=[
        "result",
        "idempotent: again",
        "idempotent: attempts in all",
        "once: never again",
        "once, but its word that nothing happened",
        "its word, attempts in all",
        "unknown tool",
    ],
)
async def test_attempts(tool: str, script: list[Any], calls: int, result: Any, error: str | None) -> None:
    backend = Backend(*script)
    done = await tools_of(backend).execute(ToolCall(tool, {}, "c"), None)
    assert (done.result, done.error, len(backend.calls)) == (result, error, calls)


@pytest.mark.parametrize(("policy", "calls"), [(True, 3), (False, 1)], ids=["unmarked: retry", "unmarked: once"])
async def test_an_unmarked_tool_is_as_the_policy_says(policy: bool, calls: int) -> None:
    backend = Backend(*[ValueError("x")] * 3)
    await tools_of(backend, unmarked_idempotent=policy).execute(ToolCall("unmarked", {}, "c"), None)
    assert len(backend.calls) == calls


async def test_a_returned_error_is_known_and_final() -> None:
    async def fail(call: ToolCall) -> ToolCall:
        call.error = "no such city"
        return call

    backend = Backend(fail, "never")
    done = await tools_of(backend).execute(ToolCall("look", {}, "c"), None)
    assert (done.error, len(backend.calls)) == ("no such city", 1)


@pytest.mark.parametrize(("tool", "error"), [("look", "ToolTimeout: look did not"), ("pay", "OutcomeUnknown: ToolTimeout: pay did not")])
async def test_a_tool_that_sleeps_past_its_time(tool: str, error: str) -> None:
    async def sleep(call: ToolCall) -> ToolCall:
        await asyncio.sleep(30)
        return call

    backend = Backend(*[sleep] * 3)
    done = await tools_of(backend, attempts=2, timeout_s=0.02).execute(ToolCall(tool, {}, "c"), None)
    assert done.error is not None
    assert done.error.startswith(error)


async def test_the_record_is_ours_whatever_the_backend_does() -> None:
    async def other(call: ToolCall) -> ToolCall:
        call.args["city"] = "Rome"
        return ToolCall("other", {"x": 1}, "other", result="fine", latency_ms=1e9)

    asked = ToolCall("look", {"city": "Paris"}, "c1")
    done = await tools_of(Backend(other)).execute(asked, None)
    assert (done.tool_name, done.args, done.call_id, done.result) == ("look", {"city": "Paris"}, "c1", "fine")
    assert 0 < done.latency_ms < 1e9
    assert asked.result is None


@pytest.mark.parametrize("returned", [None, "text", {"result": 1}], ids=["None", "text", "dict"])
async def test_a_broken_port_is_a_contract_error(returned: Any) -> None:
    async def broken(call: ToolCall) -> Any:
        return returned

    with pytest.raises(ContractError, match=r"ToolBackend\.execute returned .* for .*; the ToolCall with result or error set was due"):
        await tools_of(Backend(broken)).execute(ToolCall("look", {}, "c"), None)


async def test_alone_the_same_call_gives_its_result_again() -> None:
    backend = Backend("one", "two")
    tools = tools_of(backend)
    first = await tools.execute(ToolCall("pay", {"a": 1, "b": 2}, "c"), None)
    again = await tools.execute(ToolCall("pay", {"b": 2, "a": 1}, "c"), None)
    other = await tools.execute(ToolCall("pay", {"a": 1, "b": 3}, "c"), None)
    assert (first.result, again.result, other.result) == ("one", "one", "two")


async def test_alone_a_failure_is_not_remembered() -> None:
    backend = Backend(ValueError("x"), "fine")
    tools = tools_of(backend, attempts=1)
    assert (await tools.execute(ToolCall("look", {}, "c"), None)).error
    assert (await tools.execute(ToolCall("look", {}, "c"), None)).result == "fine"


async def test_the_tool_can_ask_for_its_key() -> None:
    seen: list[str | None] = []

    async def ask(call: ToolCall) -> ToolCall:
        seen.append(idempotency_key())
        call.result = 1
        return call

    await tools_of(Backend(ask)).execute(ToolCall("look", {}, "c", idempotency_key="k" * 32), None)
    assert seen == ["k" * 32]
    assert idempotency_key() is None
