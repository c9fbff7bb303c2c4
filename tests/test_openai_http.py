"""The agent with the real ChatOpenAI, over HTTP, against an OpenAI-compatible server that others wrote (llmock)."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from agent_graph import ProductionAgent, TextDelta, create_production_agent

_spec = importlib.util.spec_from_file_location("llmock_server", Path(__file__).with_name("llmock_server.py"))
assert _spec is not None
assert _spec.loader is not None
llmock = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(llmock)

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llmock.running() as url:
        yield url


@tool(extras={"idempotent": True})
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


def agent_at(server: str, **options: Any) -> ProductionAgent:
    key: Any = "k"
    model = ChatOpenAI(model="gpt-4o-mini", base_url=f"{server}/v1", api_key=key, stream_usage=True)
    return create_production_agent(model, [weather], **options)


async def test_a_tool_loop(server: str) -> None:
    llmock.script(server)
    agent = agent_at(server)
    run = await agent.run("What is the weather in Paris?")
    assert (run.status, run.error) == ("complete", None)
    assert [call.tool_name for call in run.tool_calls] == ["weather"]
    assert run.steps == 2
    assert run.total_tokens > 0
    assert run.output
    await agent.aclose()


async def test_streaming_gives_the_same_answer_and_counts_its_tokens(server: str) -> None:
    """Behind a custom base URL a naive stream has no usage, and a naive agent thinks that it costs nothing."""
    llmock.script(server)
    agent = agent_at(server)
    events = [event async for event in agent.stream("What is the weather in Paris?")]
    run = events[-1].run  # type: ignore[union-attr]  # the last event is a RunFinished
    assert run.status == "complete"
    assert "".join(event.text for event in events if isinstance(event, TextDelta)).endswith(run.output)
    assert run.total_tokens > 0
    assert len(await agent.storage.ledger((await agent.runs())[0].key)) == run.steps
    await agent.aclose()


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        ({"type": "fail", "status": 429, "retry_after": 0.2, "times": 1}, 2),
        ({"type": "fail", "status": 503, "times": 2}, 3),
        ({"type": "stream_fault", "kind": "truncate", "after_chunks": 2, "times": 1}, 2),
        ({"type": "stream_fault", "kind": "disconnect", "after_chunks": 2, "times": 1}, 2),
        ({"type": "stream_fault", "kind": "malformed", "after_chunks": 2, "times": 1}, 2),
    ],
    ids=["429 with Retry-After", "503 twice", "truncated stream", "disconnected stream", "malformed stream"],
)
async def test_a_fault_that_passes_is_survived(server: str, fault: dict[str, Any], asked: int) -> None:
    agent = agent_at(server)
    llmock.script(server, fault)
    run = [event async for event in agent.stream("hello")][-1].run  # type: ignore[union-attr]  # the last event is a RunFinished
    assert (run.status, run.error) == ("complete", None)
    assert len(llmock.requests(server)) == asked
    assert run.steps == 1
    await agent.aclose()


@pytest.mark.parametrize(("status", "asked"), [(400, 1), (401, 1), (503, 3)], ids=["400", "401", "503"])
async def test_a_fault_that_stays_ends_the_turn(server: str, status: int, asked: int) -> None:
    """A wrong request is asked once; a server that is down exactly retry_attempts times, by us alone."""
    agent = agent_at(server)
    llmock.script(server, {"type": "fail", "status": status, "times": 20})
    run = await agent.run("hello")
    assert run.status == "failed"
    assert str(status) in str(run.error)
    assert len(llmock.requests(server)) == asked
    assert run.total_cost_usd == 0
    await agent.aclose()


async def test_a_reply_that_takes_too_long_ends_in_time(server: str) -> None:
    agent = agent_at(server, timeout_s=0.5)
    llmock.script(server, {"type": "delay", "seconds": 20})
    run = await agent.run("hello")
    assert run.status == "timeout"
    assert run.latency_ms < 1_000
    assert run.cost_uncertain_usd >= 0
    await agent.aclose()


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
async def test_a_model_that_calls_tools_wrongly_is_told(server: str, kind: str) -> None:
    agent = agent_at(server, max_steps=4)
    llmock.script(server, {"type": "tool_fault", "kind": kind, "times": 1})
    run = await agent.run("What is the weather in Paris?")
    assert run.status in ("complete", "failed")
    assert run.tool_calls[0].error is not None
    assert run.tool_calls[0].error.startswith(("InvalidArguments", "ToolNotFound"))
    await agent.aclose()


def test_two_successive_loops(server: str) -> None:
    """A user's second `asyncio.run` failed with "Event loop is closed": the connections were the first loop's."""
    llmock.script(server)
    agent = agent_at(server)
    for _ in range(2):
        assert asyncio.run(agent.run("hello")).status == "complete"
    assert agent.run_sync("hello").status == "complete"


def test_four_threads_with_loops_of_their_own(server: str) -> None:
    llmock.script(server)
    agent = agent_at(server)

    async def several() -> list[Any]:
        return await asyncio.gather(*(agent.run("What is the weather in Paris?") for _ in range(3)))

    with ThreadPoolExecutor(4) as threads:
        runs = [run for batch in threads.map(lambda _: asyncio.run(several()), range(4)) for run in batch]
    assert [run.error for run in runs if run.status != "complete"] == []
    assert len(runs) == 12
