"""Bills against published prices, against the price library's own arithmetic, and against exact fractions."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.decisions.pricing import Price, PriceBook
from agent_graph.decisions.usage import Usage
from agent_graph.errors import ConfigError

D = Decimal
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BOOK = PriceBook(now=lambda: NOW)


def usage(input_tokens: int = 0, output_tokens: int = 0, **parts: int) -> Usage:
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens, **parts)


# --- published points ----------------------------------------------------------------------------------------------------

OPENAI = "https://developers.openai.com/api/docs/pricing"
ANTHROPIC = "https://platform.claude.com/docs/en/about-claude/pricing"
GOOGLE = "https://ai.google.dev/gemini-api/docs/pricing"
READ = "2026-11-22"
"""When the pages, or the transcriptions of them that were at hand, were read."""

PUBLISHED = [
    # model, usage, USD, page, read on. Unit prices in USD per million tokens: input / cached / output.
    ("gpt-4o", usage(1_000, 500), "0.0075", OPENAI, READ),  # 2.50 / 1.25 / 10
    ("gpt-4o", usage(10_000, 500, cache_read=8_000), "0.02", OPENAI, READ),
    ("gpt-4o-mini", usage(1_000, 500), "0.00045", OPENAI, READ),  # 0.15 / 0.075 / 0.60
    ("gpt-4o-mini", usage(10_000, 500, cache_read=8_000), "0.0012", OPENAI, READ),
    ("gpt-4.1", usage(10_000, 1_000, cache_read=6_000), "0.019", OPENAI, READ),  # 2 / 0.50 / 8
    ("gpt-4.1-mini", usage(10_000, 1_000, cache_read=6_000), "0.0038", OPENAI, READ),  # 0.40 / 0.10 / 1.60
    ("gpt-5", usage(10_000, 2_000, cache_read=4_096), "0.027892", OPENAI, READ),  # 1.25 / 0.125 / 10
    ("gpt-5-mini", usage(10_000, 2_000, cache_read=4_096), "0.0055784", OPENAI, READ),  # 0.25 / 0.025 / 2
    ("gpt-5-mini", usage(1, 0), "0.00000025", OPENAI, READ),
    ("gpt-5.4", usage(10_000, 2_000), "0.055", OPENAI, READ),  # 2.50 / 0.25 / 15
    ("o4-mini", usage(1_000, 3_000, reasoning=2_500), "0.0143", OPENAI, READ),  # 1.10 / 0.275 / 4.40, reasoning is output
    ("claude-opus-4-5", usage(10_000, 1_000), "0.075", ANTHROPIC, READ),  # 5 / read 0.50, write 6.25, 1 h 10 / 25
    ("claude-opus-4-5", usage(10_000, 1_000, cache_read=3_000, cache_write=5_000), "0.06775", ANTHROPIC, READ),
    ("claude-opus-4-5", usage(10_000, 1_000, cache_write=5_000, cache_write_1h=2_000), "0.08875", ANTHROPIC, READ),
    ("claude-sonnet-4-5", usage(10_000, 1_000, cache_read=3_000, cache_write=5_000), "0.04065", ANTHROPIC, READ),  # 3 / 0.30, 3.75, 6 / 15
    ("claude-sonnet-4-5-20250929", usage(1_000, 100, cache_write=400, cache_write_1h=400), "0.0057", ANTHROPIC, READ),
    ("claude-haiku-4-5", usage(10_000, 1_000), "0.015", ANTHROPIC, READ),  # 1 / 0.10, 1.25, 2 / 5
    ("gemini-2.5-pro", usage(200_000, 1_000), "0.26", GOOGLE, READ),  # up to 200k: 1.25 / 0.125 / 10
    ("gemini-2.5-pro", usage(200_001, 1_000), "0.5150025", GOOGLE, READ),  # above: 2.50 / 0.25 / 15
    ("gemini-2.5-pro", usage(250_000, 1_000, cache_read=100_000), "0.415", GOOGLE, READ),
    ("gemini-2.5-flash", usage(10_000, 1_000), "0.0055", GOOGLE, READ),  # 0.30 / 0.03 / 2.50, audio 1
    ("gemini-2.5-flash", usage(10_000, 1_000, audio_input=4_000), "0.0083", GOOGLE, READ),
]


@pytest.mark.parametrize(
    ("model", "used", "usd", "page", "read"), PUBLISHED, ids=[f"{row[0]}-{index}" for index, row in enumerate(PUBLISHED)]
)
def test_published_prices_give_the_published_bill(model: str, used: Usage, usd: str, page: str, read: str) -> None:
    priced = BOOK.cost(used, model)
    assert priced is not None
    assert priced.cost_usd == D(usd), f"{page}, read {read}"


@pytest.mark.parametrize(
    ("model", "audio"),
    [
        ("gpt-4o-audio-preview", {"audio_input": 800}),
        ("gpt-4o-audio-preview", {"audio_output": 300}),
        ("claude-haiku-4-5", {"audio_input": 1}),
    ],
    ids=str,
)
def test_audio_without_a_price_of_its_own_is_unknown(model: str, audio: dict[str, int]) -> None:
    """The list has text prices only for these models; billed as text, speech came out sixteen times too cheap."""
    assert BOOK.cost(usage(1_000, 500), model) is not None
    assert BOOK.cost(usage(1_000, 500, **audio), model) is None


# --- the whole list --------------------------------------------------------------------------------------------------------


def borders(model: Any) -> set[int]:
    """Sizes of input at which a model's prices change; 0 for one with a price that most models lack."""
    prices = [model.prices] if not isinstance(model.prices, list) else [entry.prices for entry in model.prices]
    units = [unit for price in prices for unit in vars(price).items()]
    rare = {0 for name, _ in units if name in ("requests_kcount", "output_reasoning_mtok")}
    return rare | {tier.start for _, value in units for tier in getattr(value, "tiers", ())}


BORDERS = {(provider.id, model.id): borders(model) for provider in get_snapshot().providers for model in provider.models}
ALL_MODELS = sorted(BORDERS)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage whose parts lie inside their whole, without audio."""
    read, write, rest = (draw(st.integers(0, 150_000)) for _ in range(3))
    reasoning, shown = (draw(st.integers(0, 50_000)) for _ in range(2))
    parts = {"cache_read": read, "cache_write": write, "cache_write_1h": draw(st.integers(0, write)), "reasoning": reasoning}
    return usage(read + write + rest, reasoning + shown, **parts)


def the_librarys_bill(used: Usage, model: str, provider: str) -> Decimal:
    priced = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            output_reasoning_tokens=used.reasoning,
            cache_read_tokens=used.cache_read,
            cache_write_tokens=used.cache_write,
            cache_write_1h_tokens=used.cache_write_1h,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=NOW,
    )
    return priced.total_price


@given(found=st.sampled_from(ALL_MODELS), used=usages())
def test_any_usage_is_billed_as_the_price_library_bills_it(found: tuple[str, str], used: Usage) -> None:
    provider, model = found
    ours = BOOK.cost(used, model, provider=provider)
    assert ours is None or ours.cost_usd == the_librarys_bill(used, model, provider)


def test_every_tier_and_every_fee_is_billed_as_the_price_library_bills_it() -> None:
    wrong = []
    for provider, model in ALL_MODELS:
        for tokens in {border + more for border in BORDERS[provider, model] for more in (0, 1)}:
            used = usage(tokens, 1_000, cache_read=tokens // 3, cache_write=tokens // 3, reasoning=500)
            priced = BOOK.cost(used, model, provider=provider)
            if priced is not None and priced.cost_usd != the_librarys_bill(used, model, provider):
                wrong.append((provider, model, tokens))
    assert wrong == []
    assert sum(map(bool, BORDERS.values())) > 50


def test_nearly_all_of_the_list_is_found() -> None:
    found = sum(BOOK.price_of(model, provider=provider) is not None for provider, model in ALL_MODELS)
    assert found > 0.85 * len(ALL_MODELS)


@given(found=st.sampled_from(ALL_MODELS), used=usages())
def test_the_worst_case_is_never_below_the_bill(found: tuple[str, str], used: Usage) -> None:
    provider, model = found
    priced = BOOK.cost(used, model, provider=provider)
    worst = BOOK.worst_case(model, used.input_tokens, used.output_tokens, provider=provider)
    assert (priced is None) == (worst is None)
    if priced is not None and worst is not None:
        assert priced.cost_usd <= worst


@given(found=st.sampled_from(ALL_MODELS), tokens=st.integers(0, 400_000), output=st.integers(0, 50_000), less=st.integers(0, 50_000))
def test_shrinking_the_output_saves_its_price_exactly(found: tuple[str, str], tokens: int, output: int, less: int) -> None:
    provider, model = found
    more = BOOK.worst_case(model, tokens, output + less, provider=provider)
    fewer = BOOK.worst_case(model, tokens, output, provider=provider)
    price = BOOK.output_price(model, tokens, provider=provider)
    if more is None or fewer is None or price is None:
        assert more is fewer is price is None
    else:
        assert more - fewer == less * price


@pytest.mark.parametrize(("hour", "usd"), [(3, "0.00137"), (20, "0.000685")], ids=["full price by day", "half price by night"])
def test_prices_that_change_by_the_hour(hour: int, usd: str) -> None:
    """DeepSeek's off-peak hours are 16:30 to 00:30 UTC (https://api-docs.deepseek.com/quick_start/pricing, read 2026-11-22)."""
    book = PriceBook(now=lambda: NOW.replace(hour=hour))
    priced = book.cost(usage(1_000, 1_000), "deepseek-chat", provider="deepseek")
    assert priced is not None
    assert priced.cost_usd == D(usd)
    assert book.worst_case("deepseek-chat", 1_000, 1_000, provider="deepseek") == D("0.00137")


# --- finding a price -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "provider", "base_url", "found"),
    [
        ("gpt-5-mini", None, None, "openai/gpt-5-mini"),
        ("gpt-5-mini", "openai", None, "openai/gpt-5-mini"),
        ("GPT-5-mini", None, None, "openai/gpt-5-mini"),
        ("openai:gpt-5-mini", None, None, "openai/gpt-5-mini"),
        ("openai/gpt-5-mini", None, None, "openai/gpt-5-mini"),
        ("openai:gpt-5-mini", "openai", None, "openai/gpt-5-mini"),
        ("gpt-5-mini-2025-08-07", "openai", None, "openai/gpt-5-mini"),
        ("gpt-5-mini", "openai", "https://api.openai.com/v1", "openai/gpt-5-mini"),
        ("gemini-2.5-flash", "google_genai", None, "google/gemini-2.5-flash"),
        ("claude-haiku-4-5", "anthropic", None, "anthropic/claude-haiku-4-5"),
        ("deepseek-chat", "openai", "https://api.deepseek.com", "deepseek/deepseek-chat"),
        ("gpt-5-mini", "openai", "http://127.0.0.1:4000/v1", "openai/gpt-5-mini"),
        ("openai/gpt-5-mini", "openai", "http://127.0.0.1:4000/v1", "openai/gpt-5-mini"),
        ("deepseek-r1:8b", "openai", "http://127.0.0.1:11434/v1", None),
        ("my-model", "openai", "http://127.0.0.1:8000/v1", None),
        ("ft:gpt-4o", "openai", None, None),
        ("llama3.2", "ollama", None, None),
        ("gpt-5-mini", "ollama", None, None),
        ("my-model", "openai", None, None),
        ("my-model", None, None, None),
        ("", None, None, None),
        (":", None, None, None),
    ],
)
def test_where_a_price_is_found(model: str, provider: str | None, base_url: str | None, found: str | None) -> None:
    matched = BOOK.price_of(model, provider=provider, base_url=base_url)
    assert (matched.model if matched else None) == found
    assert (BOOK.cost(usage(1), model, provider=provider, base_url=base_url) is None) == (found is None)
    assert (BOOK.output_price(model, 1, provider=provider, base_url=base_url) is None) == (found is None)


def test_a_model_priced_by_something_else_than_tokens_is_unknown() -> None:
    assert BOOK.price_of("whisper-1", provider="openai") is None


def test_the_provenance_is_plain_and_says_where_the_price_is_from() -> None:
    priced = BOOK.cost(usage(1_000, 500), "gpt-4o-mini")
    assert priced is not None
    assert json.loads(json.dumps(priced.provenance)) == {
        "price_source": "genai-prices",
        "price_version": genai_prices.__version__,
        "price_model": "openai/gpt-4o-mini",
        "usd_per_mtok": {"input": "0.15", "output": "0.6", "cache_read": "0.075"},
    }


# --- the user's own prices ---------------------------------------------------------------------------------------------------

OWN = PriceBook(
    {
        "my-model": {"input": 0.2, "output": "0.8", "cache_read": D("0.02")},
        "gpt-4o-mini": Price(D(1), D(2), source="contract", version="2026"),
        "openai:gpt-4o": {"input": 3, "output": 4},
        "Free": {"input": 0, "output": 0},
        "fee": {"input": 0, "output": 0, "per_request": "0.005"},
        "hour": {"input": 1, "output": 1, "cache_write": 2, "cache_write_1h": 4},
        "voice": {"input": 1, "output": 2, "audio_input": 10, "audio_output": 20, "cache_write": 3, "reasoning": 5},
    }
)


@pytest.mark.parametrize(
    ("model", "used", "usd"),
    [
        ("my-model", usage(1_000_000, 1_000_000), "1"),
        ("MY-MODEL", usage(1_000_000), "0.2"),
        ("vendor/my-model", usage(1_000_000), "0.2"),
        ("my-model-2026-01-31", usage(1_000_000), "0.2"),
        ("my-model@20260131", usage(1_000_000), "0.2"),
        ("my-model", usage(1_000_000, cache_read=500_000), "0.11"),
        ("my-model", usage(1_000_000, cache_write=500_000, cache_write_1h=100_000), "0.2"),
        ("my-model", usage(0, 1_000_000, reasoning=900_000), "0.8"),
        ("gpt-4o-mini", usage(1_000_000), "1"),
        ("gpt-4o-mini-2024-07-18", usage(1_000_000), "1"),
        ("free", usage(1_000_000, 1_000_000), "0"),
        ("fee", usage(1_000, 1_000), "0.005"),
        ("voice", usage(1_000_000, 1_000_000), "3"),
        ("voice", usage(1_000_000, 1_000_000, audio_input=500_000, audio_output=500_000), "16.5"),
        ("voice", usage(1_000_000, audio_input=800_000, cache_read=800_000), "8.2"),
        ("voice", usage(1_000_000, cache_write=1_000_000, cache_write_1h=500_000), "3"),
        ("voice", usage(0, 1_000_000, reasoning=500_000), "3.5"),
        ("hour", usage(1_000_000, cache_write=500_000, cache_write_1h=200_000), "1.9"),
        ("hour", usage(1_000_000, cache_write=500_000, cache_write_1h=900_000), "2.5"),
        ("voice", usage(10, 10, cache_read=99, cache_write=20, reasoning=99), "0.000555"),
    ],
)
def test_own_prices_come_first(model: str, used: Usage, usd: str) -> None:
    priced = OWN.cost(used, model)
    assert priced is not None
    assert priced.cost_usd == D(usd)


def test_own_prices_may_name_their_provider() -> None:
    own, other = (OWN.price_of("gpt-4o", provider=provider) for provider in ("openai", "azure"))
    assert own is not None
    assert other is not None
    assert (own.price.input, other.price.input) == (D(3), D("2.5"))


def test_own_prices_are_said_to_be_the_users() -> None:
    priced, contract = OWN.cost(usage(1), "my-model"), OWN.cost(usage(1), "gpt-4o-mini")
    assert priced is not None
    assert contract is not None
    assert priced.provenance["price_source"] == "user"
    assert (contract.provenance["price_source"], contract.provenance["price_version"]) == ("contract", "2026")


def test_the_worst_case_of_own_prices_counts_the_dearest() -> None:
    assert OWN.worst_case("voice", 1_000_000, 1_000_000) == D(23)
    assert OWN.output_price("voice", 0) == D("0.00002")
    assert OWN.worst_case("fee", 1, 1) == D("0.005")


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ([], "a mapping of model names"),
        ({1: {"input": 1, "output": 1}}, "a model's name is due as key, not 1"),
        ({"m": 1}, "a Price or a mapping is due, not 1"),
        ({"m": {"input": 1}}, "'output' is missing"),
        ({"m": {"input": None, "output": 1}}, "'input' is missing"),
        ({"m": {"inptu": 1, "output": 1}}, "unknown key 'inptu'. Did you mean 'input'?"),
        ({"m": {"input": -1, "output": 1}}, "input is -1"),
        ({"m": {"input": float("nan"), "output": 1}}, "input is nan"),
        ({"m": {"input": "inf", "output": 1}}, "input is 'inf'"),
        ({"m": {"input": 1, "output": 1e15}}, "output is 1000000000000000.0; at most 1,000,000,000 is due, in USD per million tokens"),
        ({"m": {"input": "cheap", "output": 1}}, "input is 'cheap'"),
        ({"m": {"input": True, "output": 1}}, "input is True"),
        ({"m": Price(D("-0.1"), D(1))}, "input is Decimal('-0.1')"),
        ({"m": Price(D(1), D(1), cache_read=D("NaN"))}, "cache_read is Decimal('NaN')"),
    ],
    ids=str,
)
def test_a_price_that_is_none_is_refused(prices: Any, words: str) -> None:
    with pytest.raises(ConfigError, match="prices") as caught:
        PriceBook(prices)
    assert words in str(caught.value)


# --- exactness ---------------------------------------------------------------------------------------------------------------

unit_prices = st.decimals(min_value=0, max_value=1_000, places=6)


@given(prices=st.tuples(unit_prices, unit_prices, unit_prices, unit_prices), used=usages(), digits=st.integers(1, 28))
def test_bills_are_exact_whatever_the_callers_decimal_context(prices: tuple[Decimal, ...], used: Usage, digits: int) -> None:
    names = ("input", "output", "cache_read", "cache_write")
    book = PriceBook({"m": dict(zip(names, prices, strict=True))})
    with localcontext(prec=digits):
        priced = book.cost(used, "m")
    assert priced is not None
    unit = {name: Fraction(price) for name, price in zip(names, prices, strict=True)}
    rest = used.input_tokens - used.cache_read - used.cache_write
    exact = rest * unit["input"] + used.cache_read * unit["cache_read"] + used.cache_write * unit["cache_write"]
    assert Fraction(priced.cost_usd) == (exact + used.output_tokens * unit["output"]) / 10**6


def test_own_prices_need_no_price_list() -> None:
    """The list costs a second of import on a slow machine; it is loaded when a price is looked up in it."""
    code = (
        "import sys; from agent_graph.decisions.pricing import PriceBook; from agent_graph.decisions.usage import Usage;"
        "book = PriceBook({'m': {'input': 1, 'output': 1}});"
        "assert book.cost(Usage(input_tokens=1, output_tokens=1, total_tokens=2), 'm');"
        "sys.exit('genai_prices' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
