"""Whose error it is: a hook around a call is named where it raised, and is not blamed for what only passed through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import AgentMiddleware
from langchain_core.tools import tool

from agent_graph import AgentRun, create_production_agent
from agent_graph.testing import ScriptedChatModel
from tests.adapters.langchain.middleware.somebodys import calls


class Through(AgentMiddleware[Any, Any, Any]):
    """Hands everything on."""

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


class Odd(AgentMiddleware[Any, Any, Any]):
    """Does `does` around calls of one kind."""

    def __init__(self, around: str, does: Any) -> None:
        super().__init__()
        self._around, self._does = around, does

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await (self._does(request, handler) if self._around == "model" else handler(request))

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await (self._does(request, handler) if self._around == "tool" else handler(request))


class Above(Through):
    """Another name, outside."""


class Below(Through):
    """Another name, inside."""


async def before(request: Any, handler: Any) -> Any:
    raise KeyError("k")


async def after(request: Any, handler: Any) -> Any:
    await handler(request)
    raise KeyError("k")


async def junk(request: Any, handler: Any) -> Any:
    return 7


async def other_tools(request: Any, handler: Any) -> Any:
    return await handler(request.override(tools=[]))


async def other_tool(request: Any, handler: Any) -> Any:
    return await handler(request.override(tool_call={**request.tool_call, "name": "pay"}))


async def swallowed(request: Any, handler: Any) -> Any:
    try:
        return await handler(request)
    except TimeoutError:
        return 7


async def run_of(folder: Path, middleware: list[Any], *, fails: bool = False, idempotent: bool = True) -> AgentRun:
    @tool(extras={"idempotent": idempotent})
    def look(at: str) -> str:
        """Look at something."""
        if fails:
            raise TimeoutError("the line went dead")
        return "it"

    model = ScriptedChatModel([calls(("look", {"at": "it"})), "Fine."])
    options: dict[str, Any] = {"middleware": middleware, "retry_attempts": 1, "storage": folder / "runs.db"}
    async with create_production_agent(model, [look], **options) as agent:
        return await agent.run("go")


@pytest.mark.parametrize(
    ("does", "error"),
    [
        (before, "middleware: Odd.wrap_model_call: KeyError: 'k'"),
        (after, "middleware: Odd.wrap_model_call: KeyError: 'k'"),
        (junk, "ContractError: middleware: Odd.wrap_model_call returned 7; one AIMessage was due."),
        (other_tools, "ContractError: middleware: Odd.wrap_model_call changed the tools, which this agent cannot honour."),
    ],
)
async def test_a_hook_around_the_model_is_named(tmp_path: Path, does: Any, error: str) -> None:
    """`run.error` was "KeyError: 'k'", with nothing to say whose."""
    run = await run_of(tmp_path, [Above(), Odd("model", does), Below()])
    assert (run.status, run.error) == ("failed", error)


@pytest.mark.parametrize(
    ("does", "error"),
    [
        (before, "middleware: Odd.wrap_tool_call: KeyError: 'k'"),
        (after, "middleware: Odd.wrap_tool_call: KeyError: 'k'"),
        (junk, "ContractError: middleware: Odd.wrap_tool_call returned a int; this agent takes a ToolMessage only."),
        (other_tool, "ContractError: middleware: Odd.wrap_tool_call asked for another tool than look; the journal holds this call."),
    ],
)
async def test_a_hook_around_a_tool_is_named(tmp_path: Path, does: Any, error: str) -> None:
    run = await run_of(tmp_path, [Above(), Odd("tool", does), Below()])
    assert run.tool_calls[0].error == error


async def test_a_tool_s_own_error_is_no_hook_s(tmp_path: Path) -> None:
    run = await run_of(tmp_path, [Above(), Below()], fails=True)
    assert run.tool_calls[0].error == "TimeoutError: the line went dead"


async def test_a_hook_that_swallows_a_doubt_and_returns_junk_makes_no_failure_of_it(tmp_path: Path) -> None:
    run = await run_of(tmp_path, [Odd("tool", swallowed)], fails=True, idempotent=False)
    assert run.status == "complete"
    assert (run.tool_calls[0].error or "").startswith("OutcomeUnknown")


async def test_a_model_s_own_error_is_no_hook_s(tmp_path: Path) -> None:
    model = ScriptedChatModel([OSError("net")])
    options: dict[str, Any] = {"middleware": [Above()], "retry_attempts": 1, "storage": tmp_path / "runs.db"}
    async with create_production_agent(model, [], **options) as agent:
        run = await agent.run("go")
    assert "OSError: net" in (run.error or "")
    assert "middleware" not in (run.error or "")
