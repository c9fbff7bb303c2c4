"""What replies cost, in the shapes in which LangChain gives them, and that a trace is told the same."""

from __future__ import annotations

import json
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.context import register_configure_hook
from langchain_core.tracers.schemas import Run

from agent_graph import AgentRun, ProductionAgent, RunFinished, create_production_agent
from agent_graph.decisions.pricing import PriceBook
from agent_graph.runtime.billing import Bill, bill, usage_of
from agent_graph.runtime.candidate import Candidate
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedChatModel, ScriptedLLM, call

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def no_model() -> Any:
    raise AssertionError("nobody is asked")


def billed(reply: AIMessage, asked: str, provider: str | None = None, *, base_url: str | None = None, prices: Any = None) -> Bill:
    candidate = Candidate(source=no_model, name=asked, tools=(), provider=provider, base_url=base_url)
    return bill(PriceBook(prices, now=lambda: NOW), candidate, reply, input_tokens=1_000, count_text=len)


def usage(input_tokens: int, output_tokens: int, inside: Any = None, out: Any = None) -> Any:
    told = {"input_tokens": input_tokens, "output_tokens": output_tokens, "total_tokens": input_tokens + output_tokens}
    return told | ({"input_token_details": inside} if inside else {}) | ({"output_token_details": out} if out else {})


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A reply as an integration of LangChain writes it, and what it cost."""

    provider: str
    model: str
    usd: str
    usage: Any
    about: dict[str, Any] = field(default_factory=dict)
    content: Any = "Hi."


def blocks(*kinds: str) -> list[Any]:
    return [{"type": "web_search_call", "id": f"ws_{number}", "action": {"type": kind}} for number, kind in enumerate(kinds)]


OPENAI = usage(10_000, 700, {"audio": 0, "cache_read": 8_000}, {"audio": 0, "reasoning": 640})
FLEX = usage(10_000, 700, {"flex_cache_read": 8_000, "flex": 2_000}, {"flex_reasoning": 640, "flex": 60})
OPENAI_RAW = {
    "prompt_tokens": 10_000,
    "completion_tokens": 700,
    "total_tokens": 10_700,
    "prompt_tokens_details": {"cached_tokens": 8_000, "audio_tokens": 0, "cache_write_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 640, "audio_tokens": 0},
}
CLAUDE = usage(
    10_000, 700, {"cache_read": 5_000, "cache_creation": 0, "ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 2_000}
)
CLAUDE_RAW = {
    "input_tokens": 2_000,
    "output_tokens": 700,
    "cache_read_input_tokens": 5_000,
    "cache_creation_input_tokens": 3_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 2_000},
    "server_tool_use": {"web_search_requests": 2},
}
CLAUDE_SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
SONNET = "claude-sonnet-4-5-20250929"
SIMPLE = usage(10_000, 700)
SIMPLE_RAW = {"prompt_tokens": 10_000, "completion_tokens": 700, "total_tokens": 10_700}

# Read in the integrations' source: langchain-openai 1.7.3, -anthropic 1.7.10, -google-genai 4.4.2, -aws 1.9.1, -mistralai 1.1.6, -groq
# 1.1.3, -xai 1.3.0, -deepseek 1.1.1, -openrouter 0.2.9, -perplexity 1.4.2. OpenAI's come over HTTP too: tests/test_openai_faults.py.
SHAPES = {
    # (10,000 - 8,000) * 0.25 + 8,000 * 0.025 + 700 * 2 = 2,100 per million
    "openai chat": Shape(
        provider="openai", model="gpt-5-mini", usd="0.0021", usage=OPENAI,
        about={"token_usage": OPENAI_RAW, "model_name": "gpt-5-mini-2025-08-07", "service_tier": "default"},
    ),
    "openai chat, streamed": Shape(
        provider="openai", model="gpt-5-mini", usd="0.0021", usage=OPENAI, about={"model_name": "gpt-5-mini-2025-08-07"}
    ),
    "openai chat, flex": Shape(
        provider="openai", model="gpt-5-mini", usd="0.00105", usage=FLEX, about={"model_name": "gpt-5-mini", "service_tier": "flex"}
    ),
    "openai responses": Shape(
        provider="openai", model="gpt-5-mini", usd="0.0021", usage=OPENAI, about={"model": "gpt-5-mini-2025-08-07", "status": "completed"}
    ),
    "openai responses, three searches and a page opened": Shape(  # 2 * 0.01 + 0.0025
        provider="openai", model="gpt-5-mini", usd="0.0246", usage=OPENAI, about={"model_name": "gpt-5-mini"},
        content=[*blocks("search", "open_page", "search"), {"type": "file_search_call", "id": "fs"}, {"type": "text", "text": "Hi."}],
    ),
    # 2,000 * 3 + 5,000 * 0.30 + 1,000 * 3.75 + 2,000 * 6 + 700 * 15 = 33,750; two searches 0.02
    "anthropic messages": Shape(
        provider="anthropic", model="claude-sonnet-4-5", usd="0.05375", usage=CLAUDE, about={"usage": CLAUDE_RAW, "model_name": SONNET}
    ),
    "anthropic messages, streamed": Shape(
        provider="anthropic", model="claude-sonnet-4-5", usd="0.05375", usage=CLAUDE, about={"model_name": SONNET},
        content=[CLAUDE_SEARCH, {"type": "text", "text": "Hi."}, {**CLAUDE_SEARCH, "id": "t"}],
    ),
    # 6,000 * 0.30 + 4,000 * 0.03 + 700 * 2.50
    "google": Shape(
        provider="google_genai", model="gemini-2.5-flash", usd="0.00367", about={"model_name": "gemini-2.5-flash"},
        usage=usage(10_000, 700, {"cache_read": 4_000}, {"reasoning": 640}),
    ),
    # above 200,000: 200,001 * 2.50 + 700 * 15
    "google, a long prompt": Shape(
        provider="google_genai", model="gemini-2.5-pro", usd="0.5105025", usage=usage(200_001, 700), about={"model_name": "gemini-2.5-pro"}
    ),
    "bedrock": Shape(  # 6,000 * 0.80 + 4,000 * 0.20 + 700 * 3.20
        provider="amazon_bedrock", model="amazon.nova-pro-v1:0", usd="0.00784", usage=usage(10_000, 700, {"cache_read": 4_000}),
        about={"model_name": "amazon.nova-pro-v1:0"},
    ),
    "mistral": Shape(  # 10,000 * 0.30 + 700 * 0.90
        provider="mistral", model="codestral-latest", usd="0.00363", usage=SIMPLE,
        about={"token_usage": SIMPLE_RAW, "model_name": "codestral-latest"},
    ),
    "mistral, cached, which LangChain's usage does not say": Shape(  # 2,000 * 0.15 + 8,000 * 0.015 + 700 * 0.60
        provider="mistral", model="mistral-small-latest", usd="0.00084", usage=SIMPLE,
        about={"token_usage": SIMPLE_RAW | {"prompt_tokens_details": {"cached_tokens": 8_000}}, "model_name": "mistral-small-latest"},
    ),
    "groq": Shape(  # 2,000 * 0.15 + 8,000 * 0.075 + 700 * 0.60
        provider="groq", model="openai/gpt-oss-120b", usd="0.00132", usage=usage(10_000, 700, {"cache_read": 8_000}, {"reasoning": 640}),
        about={"model_name": "openai/gpt-oss-120b"},
    ),
    "xai": Shape(  # 2,000 * 3 + 8,000 * 0.75 + 700 * 15
        provider="xai", model="grok-4", usd="0.0225", usage=usage(10_000, 700, {"cache_read": 8_000}, {"reasoning": 640}),
        about={"model_name": "grok-4-0709"},
    ),
    "deepseek": Shape(  # by day: 2,000 * 0.27 + 8,000 * 0.07 + 700 * 1.10
        provider="deepseek", model="deepseek-chat", usd="0.00187", usage=usage(10_000, 700, {"cache_read": 8_000}),
        about={"token_usage": SIMPLE_RAW | {"prompt_cache_hit_tokens": 8_000}, "model_name": "deepseek-chat"},
    ),
    "openrouter tells its cost": Shape(
        provider="openrouter", model="openai/gpt-5-mini", usd="0.00123", usage=OPENAI,
        about={"cost": 0.00123, "cost_details": {"upstream_inference_cost": None}, "model_name": "openai/gpt-5-mini"},
    ),
    "openrouter through ChatOpenAI": Shape(
        provider="openai", model="openai/gpt-5-mini", usd="0.00123", usage=OPENAI,
        about={"token_usage": OPENAI_RAW | {"cost": 0.00123}, "model_name": "openai/gpt-5-mini"},
    ),
    # 10,000 * 2 + 700 * 8 + reasoning beside it 20,000 * 3; 30 searches at 5 per thousand
    "perplexity": Shape(
        provider="perplexity", model="sonar-deep-research", usd="0.2356", usage=usage(10_000, 700, None, {"reasoning": 20_000}),
        about={"model_name": "sonar-deep-research", "num_search_queries": 30},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_reply_of_each_provider_costs_what_its_price_list_says(shape: Shape) -> None:
    made = billed(AIMessage(shape.content, usage_metadata=shape.usage, response_metadata=shape.about), shape.model, shape.provider)
    assert (made.cost_usd, made.warnings) == (Decimal(shape.usd), ())
    assert made.told is not None
    assert "estimated" not in made.facts
    assert made.facts["price_source"] in ("genai-prices", "reported by the provider")


# -- whose price ---------------------------------------------------------------------------------------------------------------

ONE = {"input": 1, "output": 1}
TWO = {"input": 2, "output": 2}
REPLIED = "gpt-4o-mini-2024-07-18"  # 10,000 * 0.15 + 700 * 0.60 = 0.00192 by the list


@pytest.mark.parametrize(
    ("asked", "told", "prices", "usd"),
    [
        ("gpt-4o-mini", REPLIED, None, "0.00192"),
        ("router", REPLIED, None, "0.00192"),
        ("router", REPLIED, {"router": ONE}, "0.0107"),
        ("router", REPLIED, {"gpt-4o-mini": TWO, "router": ONE}, "0.0214"),
        ("gpt-4o-mini", "my-tuned-model", None, "0.00192"),
        ("gpt-4o-mini", None, None, "0.00192"),
        ("router", "unheard-of", None, "0"),
    ],
)
def test_the_users_price_then_the_lists_for_the_model_that_replied_then_for_the_one_asked(
    asked: str, told: str | None, prices: Any, usd: str
) -> None:
    about = {"model_name": told} if told else {}
    made = billed(AIMessage("Hi.", usage_metadata=SIMPLE, response_metadata=about), asked, base_url="http://127.0.0.1/v1", prices=prices)
    assert made.cost_usd == Decimal(usd)
    assert made.model == (told or asked)
    assert (made.facts.get("unpriced") is True) == (usd == "0")


@pytest.mark.parametrize(
    ("about", "usd"),
    [
        ({"cost_usd": "0.5"}, "0.5"),
        ({"cost": 0}, "0"),
        ({"cost": {"total_cost": 0.25, "currency": "USD"}}, "0.25"),
        ({"token_usage": {"cost": 0.25}}, "0.25"),
        ({"cost_usd": "nan"}, "0.00192"),
        ({"cost_usd": -1}, "0.00192"),
        ({"cost_usd": "much"}, "0.00192"),
        ({"cost_usd": True}, "0.00192"),
        ({"cost_usd": None}, "0.00192"),
    ],
    ids=str,
)
def test_a_cost_that_the_provider_reports_wins_if_it_is_one(about: dict[str, Any], usd: str) -> None:
    made = billed(AIMessage("Hi.", usage_metadata=SIMPLE, response_metadata=about), "gpt-4o-mini")
    assert made.cost_usd == Decimal(usd)


def test_a_reply_without_usage_is_estimated_tool_calls_and_all() -> None:
    made = billed(AIMessage("Hello", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "c"}]), "gpt-4o-mini")
    assert made.told is None
    assert made.facts["estimated"] is True
    assert made.facts["output_tokens"] == len("Hello" + "weather" + "{'city': 'Paris'}")
    assert made.cost_usd == (Decimal(1_000) * Decimal("0.15") + made.facts["output_tokens"] * Decimal("0.60")) / 10**6


def test_what_has_no_price_is_left_out_and_said() -> None:
    """Billed as text, speech came out sixteen times too cheap, and nobody was told."""
    heard = usage(1_000, 500, {"audio": 800}, {"audio": 300})
    made = billed(AIMessage("Hi.", usage_metadata=heard), "gpt-4o-audio-preview", "openai")
    assert made.cost_usd == Decimal("0.0075")
    assert made.facts["unpriced"] == ["audio_input", "audio_output"]
    [warning] = made.warnings
    assert "no price is known for audio_input, audio_output" in warning


def test_usage_that_contradicts_itself_is_said_and_billed_as_if_both_figures_were_right() -> None:
    """40 cached of 10 came to half of what 10 cost that are not cached: a larger figure, and less money."""
    odd = usage(10, 700, {"cache_read": 40})
    made = billed(AIMessage("Hi.", usage_metadata=odd), "gpt-4o-mini")
    assert made.cost_usd == (10 * Decimal("0.15") + 30 * Decimal("0.075") + 700 * Decimal("0.60")) / 10**6
    [warning] = made.warnings
    assert warning.startswith("gpt-4o-mini reported usage that contradicts itself (40 cached of 10 input tokens)")


def test_raw_usage_of_another_call_is_not_mixed_in() -> None:
    about = {"token_usage": {"prompt_tokens": 99, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 50}}}
    told = usage_of(AIMessage("Hi.", usage_metadata=SIMPLE, response_metadata=about))
    assert told is not None
    assert (told.input_tokens, told.cache_read) == (10_000, 0)


# -- the trace -----------------------------------------------------------------------------------------------------------------


PRICES = {"scripted": {"input": 1, "output": 4}}


def script() -> list[AIMessage]:
    return [AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "c"}]), AIMessage("Done.")]


def look() -> str:
    """Look."""
    return "seen"


class Recorder(BaseTracer):
    """Has the usage of each model run as a tracer finds it when the run ends."""

    run_inline = True  # as LangSmith's: it is called in its turn, not after all that are

    def __init__(self) -> None:
        super().__init__()
        self.usages: list[Any] = []

    def _on_llm_end(self, run: Run) -> None:
        assert run.outputs is not None
        self.usages.append(run.outputs["generations"][0][0]["message"]["kwargs"]["usage_metadata"])

    def _persist_run(self, run: Run) -> None:
        """Nothing is sent."""


recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)
register_configure_hook(recorder, inheritable=True)  # as LangChain's own get_usage_metadata_callback listens


async def traced(agent: ProductionAgent, *, streamed: bool) -> tuple[AgentRun, list[Any]]:
    """Return the account of a turn, and the usage of each model run as a tracer has it."""
    recorder.set(listening := Recorder())
    if streamed:
        run = [event.run async for event in agent.stream("Hi") if isinstance(event, RunFinished)][-1]
    else:
        run = await agent.run("Hi")
    assert (run.status, run.error) == ("complete", None)
    return run, listening.usages


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_trace_is_told_the_cost_that_the_account_has(streamed: bool) -> None:
    model = ScriptedChatModel(script(), usage=(1_000, 50))
    async with create_production_agent(model, [look], prices=PRICES, storage=":memory:") as agent:
        run, usages = await traced(agent, streamed=streamed)
    assert [told["total_cost"] for told in usages] == [0.0012, 0.0012]
    assert [told["input_tokens"] for told in usages] == [1_000, 1_000]
    assert run.total_cost_usd == 0.0024


async def test_a_recorder_is_always_called_after_the_cost_is_there() -> None:
    """A bound model merged the callbacks in the order of a set, so that LangSmith had the cost of some calls and not of others."""
    for _ in range(12):
        model = ScriptedChatModel(script(), usage=(1_000, 50))
        async with create_production_agent(model, [look], prices=PRICES, storage=":memory:") as agent:
            _, usages = await traced(agent, streamed=False)
        assert [told.get("total_cost") for told in usages] == [0.0012, 0.0012]


async def test_a_model_that_a_backend_asks_is_not_billed_as_the_backend() -> None:
    class Wrapper(ScriptedLLM):
        async def complete(self, messages: Any, tools: Any) -> Any:
            await ScriptedChatModel(["inner"], usage=(7, 3)).ainvoke("Hi")
            return await super().complete(messages, tools)

    llm = Wrapper(["Done."], cost_usd=0.001, usage=(100, 20))
    agent = ProductionAgent(llm, [], FakeTools({}), DictMemory(), ListObservability(), {}, storage=":memory:")
    async with agent:
        _, usages = await traced(agent, streamed=False)
    assert sorted((told["total_tokens"], told.get("total_cost")) for told in usages) == [(10, None), (120, 0.001)]


async def test_a_trace_of_a_backend_is_told_what_the_backend_says_it_cost() -> None:
    llm = ScriptedLLM([call("look"), "Done."], cost_usd=0.001, usage=(100, 20))
    tools = [{"name": "look", "description": "Look.", "idempotent": True}]
    agent = ProductionAgent(llm, tools, FakeTools({"look": look}), DictMemory(), ListObservability(), {}, storage=":memory:")
    async with agent:
        run, usages = await traced(agent, streamed=False)
    assert [told["total_cost"] for told in usages] == [0.001, 0.001]
    assert run.total_cost_usd == 0.002


async def test_a_trace_without_usage_is_told_the_estimate_and_the_ledger_that_it_is_one() -> None:
    async with create_production_agent(ScriptedChatModel(["Done."]), prices=PRICES, storage=":memory:") as agent:
        run, [told] = await traced(agent, streamed=False)
        [row] = await agent.storage.ledger((await agent.runs())[0].key)
    assert told["total_cost"] == run.total_cost_usd > 0
    assert json.loads(row.usage)["estimated"] is True


async def test_a_trace_of_an_unpriced_model_is_told_no_cost() -> None:
    async with create_production_agent(ScriptedChatModel(["Done."], usage=(10, 2)), storage=":memory:") as agent:
        run, [told] = await traced(agent, streamed=False)
    assert "total_cost" not in told
    assert run.total_cost_usd == 0


async def test_a_warning_about_the_figures_stands_in_the_account() -> None:
    odd = AIMessage("Done.", usage_metadata=usage(10, 2, {"cache_read": 40}))
    async with create_production_agent(ScriptedChatModel([odd]), prices=PRICES, storage=":memory:") as agent:
        run = await agent.run("Hi")
    [warning] = run.warnings
    assert warning.startswith("scripted reported usage that contradicts itself (40 cached of 10 input tokens)")
