"""Foreign code that ends itself ends nothing else."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from agent_graph import LLMBackend, Message, MessageRole, ProductionAgent, ToolBackend, ToolCall, create_production_agent
from agent_graph.runtime.foreign import called
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call


async def cancelled_within() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(inner.cancel)
    await inner


def exits() -> None:
    sys.exit(3)


async def exits_later() -> None:
    await asyncio.sleep(0)
    sys.exit("because")


@pytest.mark.parametrize(
    ("function", "said"),
    [(exits, "sys.exit(3)"), (exits_later, "sys.exit('because')"), (cancelled_within, "cancelled from within")],
)
async def test_what_asyncio_would_misread_is_an_ordinary_error(function: Any, said: str) -> None:
    with pytest.raises(RuntimeError) as found:
        await called(function)
    assert said in str(found.value)


async def test_our_own_cancellation_passes() -> None:
    task = asyncio.ensure_future(called(asyncio.sleep, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("function", [exits, cancelled_within], ids=lambda function: function.__name__)
def test_a_turn_survives_a_tool_that_ends_itself(function: Any, idempotent: bool) -> None:
    """`run_sync` hung for ever after a tool's sys.exit(): it had ended the loop's thread."""
    llm = ScriptedLLM([call("leave"), "Still here."])
    tools = [{"name": "leave", "idempotent": idempotent}]
    agent = ProductionAgent(
        llm, tools, FakeTools({"leave": function}), DictMemory(), ListObservability(), {"retry_attempts": 1}, storage=":memory:"
    )
    run = agent.run_sync("go")
    assert (run.status, run.output) == ("complete", "Still here.")
    assert (run.tool_calls[0].error or "").startswith("RuntimeError" if idempotent else "OutcomeUnknown")
    assert agent.run_sync("go", "another").status in ("complete", "failed")


def test_the_shared_loop_survives_an_exit() -> None:
    """A model's client may raise SystemExit too, and so may a subclass: whoever waits is told, and the next caller is served."""

    class Exits(ProductionAgent):
        def _build_system_prompt(self, tools: Any) -> str:
            sys.exit(4)

    agent = Exits(ScriptedLLM(["hi"]), [], FakeTools({}), DictMemory(), ListObservability(), {}, storage=":memory:")
    with pytest.raises(SystemExit):
        agent.run_sync("go")
    assert create_production_agent("offline", storage=":memory:").run_sync("hello").status == "complete"


class PlainTools(ToolBackend):
    """Written without `async`, against the port."""

    def __init__(self) -> None:
        self.paid = 0

    def execute(self, call: ToolCall) -> ToolCall:  # type: ignore[override]  # the point of the test
        self.paid += 1
        call.result = "paid"
        return call


class PlainModel(LLMBackend):
    def complete(self, messages: list[Message], tools: list[Any]) -> Message:  # type: ignore[override]  # the point of the test
        paid = messages[-1].role is MessageRole.TOOL
        return Message(MessageRole.ASSISTANT, "Done." if paid else "", {} if paid else {"tool_calls": [{"name": "pay", "args": {}}]})

    def count_tokens(self, messages: list[Message]) -> int:
        return len(messages)


async def test_a_port_written_without_async_is_called_once() -> None:
    """Three payments were made, and then reported as a failure: what `execute` returned could not be awaited."""
    tools = PlainTools()
    agent = ProductionAgent(PlainModel(), [{"name": "pay"}], tools, DictMemory(), ListObservability(), {}, storage=":memory:")
    run = await agent.run("pay Bob")
    assert (run.status, run.output, tools.paid) == ("complete", "Done.", 1)
    await agent.aclose()


async def test_a_reply_without_metadata() -> None:
    nothing: Any = None
    llm = ScriptedLLM([Message(MessageRole.ASSISTANT, "hi", nothing)])
    agent = ProductionAgent(llm, [], FakeTools({}), DictMemory(), ListObservability(), {}, storage=":memory:")
    assert (await agent.run("hello")).output == "hi"
    await agent.aclose()
