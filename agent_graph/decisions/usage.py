"""What one model call used, read from the layouts in which providers report it.

The layouts differ in names, and in what is inside of what. Here every part is *inside* its whole: cached, written and audio input
inside `input_tokens`; reasoning and audio output inside `output_tokens`. Anthropic counts its cache beside its input; Gemini, Grok
and Perplexity their reasoning beside their output: both are added in. Where a report contradicts itself, the larger figure holds, and
of more cached tokens than input only what exceeds it counts as cached, so that money is never under-counted, whichever figure is right;
a report of nothing but zeros is unknown, not free.

Sources (read November 2026): OpenAI's `CompletionUsage` and `ResponseUsage` (openai 3.54), langchain-core's `UsageMetadata` (1.7),
docs.anthropic.com/en/api/messages (usage), ai.google.dev/api/generate-content (UsageMetadata), docs.ollama.com/api (prompt_eval_count).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Usage", "read_usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one model call."""

    input_tokens: int
    """All of the input, whatever its price."""
    output_tokens: int
    """All of the output, reasoning included."""
    total_tokens: int
    """Input + output."""
    cache_read: int = 0
    """Of the input: read from a cache."""
    cache_write: int = 0
    """Of the input: written to a cache, for however long."""
    cache_write_1h: int = 0
    """Of `cache_write`: to be kept for an hour."""
    reasoning: int = 0
    """Of the output: thought, not shown."""
    audio_input: int = 0
    """Of the input."""
    audio_output: int = 0
    """Of the output."""
    web_searches: int = 0
    """Searches that the provider made for the reply and bills one by one."""
    file_searches: int = 0
    """The same in the caller's stored files."""
    contradiction: str = field(default="", compare=False)
    """What cannot be in the report, "120 cached of 100 input tokens"; the larger figures hold then. "": nothing."""


_INPUT: Final = ("input_tokens", "prompt_tokens", "prompt_token_count", "promptTokenCount", "inputTokens", "prompt_eval_count")
_OUTPUT: Final = ("output_tokens", "completion_tokens", "candidates_token_count", "candidatesTokenCount", "outputTokens", "eval_count")
_TOTAL: Final = ("total_tokens", "total_token_count", "totalTokenCount", "totalTokens", "tokens", "total")
_INPUT_DETAILS: Final = ("input_token_details", "input_tokens_details", "prompt_tokens_details")
_OUTPUT_DETAILS: Final = ("output_token_details", "output_tokens_details", "completion_tokens_details")
_CACHE_READ: Final = ("cache_read", "cached_tokens", "prompt_cache_hit_tokens", "cached_content_token_count", "cachedContentTokenCount")
_CACHE_WRITE: Final = ("cache_creation", "cache_write_tokens", "cache_creation_tokens")
_BESIDE_READ: Final = ("cache_read_input_tokens", "cacheReadInputTokens")
_BESIDE_WRITE: Final = ("cache_creation_input_tokens", "cacheWriteInputTokens")
_WRITE_5M: Final = ("ephemeral_5m_input_tokens",)
_WRITE_1H: Final = ("ephemeral_1h_input_tokens",)
_THOUGHTS: Final = ("thoughts_token_count", "thoughtsTokenCount")
_REASONING: Final = ("reasoning", "reasoning_tokens", "thinking_tokens")
_SEARCHES: Final = ("web_search_requests", "num_search_queries", "web_searches")
_FILE_SEARCHES: Final = ("file_search_requests", "file_searches")
_AUDIO: Final = ("audio", "audio_tokens")
_TIERS: Final = ("priority_", "flex_")


def read_usage(usage: object) -> Usage | None:
    """Return the usage told by a mapping, by an object that can be read as one, or by a bare total; None where it tells nothing.

    A bare total stands as output, the dearer side.
    """
    total = _count(usage)
    table = {"total_tokens": total} if total is not None else _table(usage)
    return _with_details(table) if table else None


def _with_details(table: Mapping[str, Any]) -> Usage | None:
    inner = _details(table, _INPUT_DETAILS)
    outer = _details(table, _OUTPUT_DETAILS)
    input_sources = (inner, table, *_nested(table, "cache_creation"))
    beside = _sum_beside(table, input_sources)
    read = max(_first(input_sources, _CACHE_READ), _first(input_sources, _BESIDE_READ))
    written_1h = _first(input_sources, _WRITE_1H)
    by_ttl = written_1h + _first(input_sources, _WRITE_5M)
    written = max(_first(input_sources, _CACHE_WRITE), _first(input_sources, _BESIDE_WRITE), by_ttl)
    thoughts = _first((table,), _THOUGHTS)
    audio_in, audio_out = _first((inner,), _AUDIO), _first((outer,), _AUDIO)
    reasoning = max(_first((outer, table), _REASONING), thoughts)
    plain_input, plain_output = _first((table,), _INPUT) + beside, _first((table,), _OUTPUT) + thoughts
    beside_output = reasoning if reasoning > plain_output else 0  # it cannot be inside: Perplexity counts it beside
    told_input, told_output = max(plain_input, read + written, audio_in), max(plain_output + beside_output, audio_out)
    total = _first((table,), _TOTAL)
    searches = (table, *_nested(table, "server_tool_use"))
    if not (told_input or told_output or total):
        return None
    output = max(told_output, total - told_input)
    return Usage(
        input_tokens=told_input,
        output_tokens=output,
        total_tokens=told_input + output,
        cache_read=max(read - plain_input, 0) if read + written > plain_input > 0 else read,
        cache_write=written,
        cache_write_1h=written_1h,
        reasoning=min(reasoning, output),
        audio_input=audio_in,
        audio_output=audio_out,
        web_searches=_first(searches, _SEARCHES),
        file_searches=_first(searches, _FILE_SEARCHES),
        contradiction=_contradiction(
            (read + written, "cached", plain_input, "input"),
            (audio_in, "audio", plain_input, "input"),
            (audio_out, "audio", plain_output, "output"),
        ),
    )


def _contradiction(*parts: tuple[int, str, int, str]) -> str:
    """Return the first part that is larger than the whole that was reported beside it, in words; "" for none."""
    for part, kind, whole, of in parts:
        if part > whole > 0:
            return f"{part} {kind} of {whole} {of} tokens"
    return ""


def _sum_beside(table: Mapping[str, Any], sources: tuple[Mapping[str, Any], ...]) -> int:
    """Anthropic and Bedrock count cached input beside `input_tokens`; proxies that repeat their keys beside `prompt_tokens` do not."""
    if "prompt_tokens" in table or any(key in table for key in _INPUT_DETAILS):
        return 0
    return _first(sources, _BESIDE_READ) + _first(sources, _BESIDE_WRITE)


def _details(table: Mapping[str, Any], keys: Iterable[str]) -> Mapping[str, Any]:
    """Return the named side table, the prefixes by which langchain-openai marks service tiers taken off."""
    found = next((side for key in keys if key in table and (side := _table(table[key]))), {})
    return {_without_tier(key): value for key, value in found.items()}


def _without_tier(key: str) -> str:
    return next((key.removeprefix(tier) for tier in _TIERS if key.startswith(tier)), key)


def _nested(table: Mapping[str, Any], key: str) -> tuple[Mapping[str, Any], ...]:
    side = _table(table[key]) if key in table else None
    return (side,) if side else ()


def _first(sources: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> int:
    for source in sources:
        for key in keys if source else ():
            count = _count(source[key]) if key in source else None
            if count is not None:
                return count
    return 0


def _count(value: object) -> int | None:
    """Return `value` as a count of tokens; None if it is none. Never raises."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 2**53 else None


def _table(value: object) -> dict[str, Any]:
    """Return a mapping, or the fields of an object (an SDK's usage class), as a dict; empty where there is neither."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if value is None or isinstance(value, str | bytes | int | float | list | tuple):
        return {}
    dump = getattr(type(value), "model_dump", None)
    held = dump(value) if dump is not None else getattr(value, "__dict__", {})
    return dict(held) if isinstance(held, Mapping) else {}
