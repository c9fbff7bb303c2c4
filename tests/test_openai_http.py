"""The agent with the real ChatOpenAI, over HTTP, against an OpenAI-compatible server that others wrote (llmock, by its own fixture).

Our own server, with every fault and a bill, is in tests/test_openai_faults.py; a mistake that we made twice would not show there.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from agent_graph import AgentRun, ProductionAgent, RunFinished, TextDelta, create_production_agent

if TYPE_CHECKING:
    from llmock.pytest_plugin import LLMock

pytestmark = pytest.mark.server


@tool(extras={"idempotent": True})
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


def agent_at(server: LLMock, **options: Any) -> ProductionAgent:
    key: Any = "k"
    model = ChatOpenAI(model="gpt-4o-mini", base_url=server.base_url(), api_key=key, stream_usage=True)
    return create_production_agent(model, [weather], **options)


async def streamed(agent: ProductionAgent, question: str) -> tuple[AgentRun, str]:
    text, run = "", None
    async for event in agent.stream(question):
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, RunFinished):
            run = event.run
    assert run is not None
    return run, text


async def test_a_tool_loop(llmock: LLMock) -> None:
    async with agent_at(llmock) as agent:
        run = await agent.run("What is the weather in Paris?")
    assert (run.status, run.error) == ("complete", None)
    assert [call.tool_name for call in run.tool_calls] == ["weather"]
    assert run.steps == len(llmock.requests) == 2
    assert run.total_tokens > 0
    assert run.output
    llmock.assert_resilient()


async def test_streaming_gives_the_same_answer_and_counts_its_tokens(llmock: LLMock) -> None:
    """Behind a custom base URL a naive stream has no usage, and a naive agent thinks that it costs nothing."""
    async with agent_at(llmock) as agent:
        run, text = await streamed(agent, "What is the weather in Paris?")
        [turn] = await agent.runs()
        ledger = await agent.storage.ledger(turn.key)
    assert run.status == "complete"
    assert text.endswith(str(run.output))
    assert run.total_tokens > 0
    assert len(ledger) == run.steps == len(llmock.requests)


@pytest.mark.parametrize(
    ("fault", "times", "asked"),
    [
        (lambda server: server.fail(429, retry_after=0.2), 1, 2),
        (lambda server: server.fail(503, times=2), 2, 3),
        (lambda server: server.truncate(after_chunks=2), 1, 2),
        (lambda server: server.disconnect(after_chunks=2), 1, 2),
        (lambda server: server.corrupt(after_chunks=2), 1, 2),
    ],
    ids=["429 with Retry-After", "503 twice", "truncated stream", "disconnected stream", "malformed stream"],
)
async def test_a_fault_that_passes_is_survived(llmock: LLMock, fault: Any, times: int, asked: int) -> None:
    fault(llmock.tool_mode("off"))
    async with agent_at(llmock) as agent:
        run, _ = await streamed(agent, "hello")
    assert (run.status, run.error) == ("complete", None)
    assert len(llmock.requests) == asked == times + 1
    assert run.steps == 1
    llmock.assert_resilient()


@pytest.mark.parametrize(("status", "asked"), [(400, 1), (401, 1), (503, 3)], ids=["400", "401", "503"])
async def test_a_fault_that_stays_ends_the_turn(llmock: LLMock, status: int, asked: int) -> None:
    """A wrong request is asked once; a server that is down exactly retry_attempts times, by us alone."""
    llmock.outage(status=status)
    async with agent_at(llmock) as agent:
        run = await agent.run("hello")
    assert run.status == "failed"
    assert str(status) in str(run.error)
    assert len(llmock.requests) == asked
    assert run.total_cost_usd == 0


async def test_a_reply_that_takes_too_long_ends_in_time(llmock: LLMock) -> None:
    llmock.delay(5)
    async with agent_at(llmock, timeout_s=0.5) as agent:
        run = await agent.run("hello")
    assert run.status == "timeout"
    assert str(run.error).startswith("timeout_s: 0.5")
    assert run.latency_ms < 5_000, "it did not wait for the server"
    assert run.cost_uncertain_usd > 0


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
async def test_a_model_that_calls_tools_wrongly_is_told(llmock: LLMock, kind: str) -> None:
    llmock.break_tool_call(kind)
    async with agent_at(llmock, max_steps=4) as agent:
        run = await agent.run("What is the weather in Paris?")
    assert run.status in ("complete", "failed")
    assert run.tool_calls[0].error is not None
    assert run.tool_calls[0].error.startswith(("InvalidArguments", "ToolNotFound"))


def test_two_successive_loops(llmock: LLMock) -> None:
    """A user's second `asyncio.run` failed with "Event loop is closed": the connections were the first loop's."""
    agent = agent_at(llmock)
    for _ in range(2):
        assert asyncio.run(agent.run("hello")).status == "complete"
    assert agent.run_sync("hello").status == "complete"
    asyncio.run(agent.aclose())  # run_sync's loop does not end: its client is closed here


def test_four_threads_with_loops_of_their_own(llmock: LLMock) -> None:
    agent = agent_at(llmock)

    async def several() -> list[AgentRun]:
        return await asyncio.gather(*(agent.run("What is the weather in Paris?") for _ in range(3)))

    with ThreadPoolExecutor(4) as threads:
        runs = [run for batch in threads.map(lambda _: asyncio.run(several()), range(4)) for run in batch]
    assert [run.error for run in runs if run.status != "complete"] == []
    assert len(runs) == 12
