"""Usage: the same call as the providers report it, part by part, and never counted too low."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_graph.decisions.usage import Usage, read_usage


class Sdk(pydantic.BaseModel):
    prompt_tokens: int
    completion_tokens: int


def of(input_tokens: int, output_tokens: int, **parts: Any) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens, **parts)


REPORTS = {
    "langchain-core": (
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_token_details": {"cache_read": 40, "cache_creation": 30, "audio": 5},
            "output_token_details": {"reasoning": 8, "audio": 2},
        },
        of(100, 20, cache_read=40, cache_write=30, reasoning=8, audio_input=5, audio_output=2),
    ),
    "langchain-anthropic, an hour's cache": (
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_token_details": {"cache_creation": 0, "ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30},
        },
        of(100, 20, cache_write=40, cache_write_1h=30),
    ),
    "langchain-openai, another service tier": (
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_token_details": {"flex": 60, "flex_cache_read": 40},
            "output_token_details": {"flex": 12, "flex_reasoning": 8},
        },
        of(100, 20, cache_read=40, reasoning=8),
    ),
    "OpenAI Chat": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 30, "audio_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 2},
        },
        of(100, 20, cache_read=40, cache_write=30, reasoning=8, audio_input=5, audio_output=2),
    ),
    "OpenAI Responses": (
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "total_tokens": 120,
            "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 30},
            "output_tokens_details": {"reasoning_tokens": 8},
        },
        of(100, 20, cache_read=40, cache_write=30, reasoning=8),
    ),
    "Anthropic counts its cache beside its input": (
        {
            "input_tokens": 30,
            "output_tokens": 20,
            "cache_read_input_tokens": 40,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        },
        of(100, 20, cache_read=40, cache_write=30, cache_write_1h=20),
    ),
    "a proxy that repeats Anthropic's keys": (
        {"prompt_tokens": 100, "completion_tokens": 20, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 30},
        of(100, 20, cache_read=40, cache_write=30),
    ),
    "Bedrock": (
        {"inputTokens": 60, "outputTokens": 20, "totalTokens": 120, "cacheReadInputTokens": 40},
        of(100, 20, cache_read=40),
    ),
    "Gemini counts its thoughts beside its output": (
        {
            "prompt_token_count": 100,
            "candidates_token_count": 12,
            "thoughts_token_count": 8,
            "total_token_count": 120,
            "cached_content_token_count": 40,
        },
        of(100, 20, cache_read=40, reasoning=8),
    ),
    "Gemini over HTTP": (
        {"promptTokenCount": 100, "candidatesTokenCount": 12, "thoughtsTokenCount": 8, "totalTokenCount": 120},
        of(100, 20, reasoning=8),
    ),
    "Grok: the thoughts are in the total only": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 12,
            "total_tokens": 120,
            "completion_tokens_details": {"reasoning_tokens": 8},
        },
        of(100, 20, reasoning=8),
    ),
    "DeepSeek": ({"prompt_tokens": 100, "completion_tokens": 20, "prompt_cache_hit_tokens": 40}, of(100, 20, cache_read=40)),
    "Ollama": ({"prompt_eval_count": 100, "eval_count": 20}, of(100, 20)),
    "no total": ({"input_tokens": 100, "output_tokens": 20}, of(100, 20)),
    "a total too small": ({"input_tokens": 100, "output_tokens": 20, "total_tokens": 5}, of(100, 20)),
    "output and total": ({"output_tokens": 20, "total_tokens": 120}, of(0, 120)),
    "input and total": ({"input_tokens": 100, "total_tokens": 120}, of(100, 20)),
    "a total": ({"total_tokens": 120}, of(0, 120)),
    "a number": (120, of(0, 120)),
    "parts larger than the whole": ({"input_tokens": 10, "input_token_details": {"cache_read": 40}}, of(40, 0, cache_read=30)),
    "parts larger than the whole, written ones too": (
        {"input_tokens": 100, "input_token_details": {"cache_read": 50, "cache_creation": 80}},
        of(130, 0, cache_write=80),
    ),
    "cached, and nothing of a whole": ({"output_tokens": 5, "input_token_details": {"cache_read": 40}}, of(40, 5, cache_read=40)),
    "floats": ({"input_tokens": 100.0, "output_tokens": 20.0}, of(100, 20)),
    "nones": ({"input_tokens": 100, "output_tokens": 20, "total_tokens": None, "input_token_details": None}, of(100, 20)),
    "an object": (SimpleNamespace(input_tokens=100, output_tokens=20), of(100, 20)),
    "an SDK's object": (Sdk(prompt_tokens=100, completion_tokens=20), of(100, 20)),
    "only zeros are unknown": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
    "zero": (0, None),
    "nothing": ({}, None),
    "None": (None, None),
    "True": (True, None),
    "text": ("120", None),
    "below zero": ({"input_tokens": -5}, None),
    "nan": ({"input_tokens": float("nan")}, None),
}


@pytest.mark.parametrize(("report", "expected"), REPORTS.values(), ids=REPORTS.keys())
def test_reports(report: Any, expected: Usage | None) -> None:
    assert read_usage(report) == expected


COUNTS = st.integers(0, 10**9) | st.none()


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "input_tokens": COUNTS,
            "output_tokens": COUNTS,
            "total_tokens": COUNTS,
            "input_token_details": st.dictionaries(
                st.sampled_from(["cache_read", "cache_creation", "ephemeral_1h_input_tokens", "audio"]), COUNTS
            ),
            "output_token_details": st.dictionaries(st.sampled_from(["reasoning", "audio"]), COUNTS),
            "cache_read_input_tokens": COUNTS,
        },
    )
)
def test_every_part_lies_within_its_whole_and_nothing_told_is_lost(report: dict[str, Any]) -> None:
    usage = read_usage(report)
    told = [report.get(key) or 0 for key in ("input_tokens", "output_tokens")]
    if usage is None:
        assert not any(told)
        return
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens >= max(sum(told), report.get("total_tokens") or 0)
    assert usage.input_tokens >= told[0]
    assert usage.output_tokens >= told[1]
    assert usage.cache_read + usage.cache_write <= usage.input_tokens
    assert usage.input_tokens - usage.cache_read >= told[0] or not usage.contradiction, "what contradicts itself gets no discount"
    assert usage.cache_write_1h <= usage.cache_write
    assert usage.audio_input <= usage.input_tokens
    assert usage.reasoning <= usage.output_tokens
    assert usage.audio_output <= usage.output_tokens
