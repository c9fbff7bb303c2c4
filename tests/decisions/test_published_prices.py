"""Unit prices as the providers publish them, model by model, and what calls cost at them.

The providers' pages cannot be read by a test. Each line is what genai-prices 0.2.3 transcribed from the page named above it; the date
is the one on which its comments say that the page was read, or `-` where they say none. Two were read elsewhere as well: DeepSeek's in
a copy of its page, Grok 4's in a guide (https://apidog.com/blog, July 2025). A line that fails after an update of the list is either a
change of price, to be entered here with its date, or a mistake in the list.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from agent_graph.decisions.pricing import PriceBook
from agent_graph.decisions.usage import Usage

BOOK = PriceBook(now=lambda: datetime(2026, 11, 22, 12, tzinfo=UTC))

# USD per million tokens: input, cached input, written to the cache, output; `.` costs what the input costs.
UNITS = """
openai https://developers.openai.com/api/docs/pricing
  gpt-3.5-turbo            0.50     .       .       1.50   2026-10-14
  gpt-4                    30       .       .       60     2026-10-14
  gpt-4-turbo              10       .       .       30     2026-10-14
  gpt-4o                   2.50     1.25    .       10     2026-10-12
  gpt-4o-2024-05-13        5        .       .       15     2026-10-12
  gpt-4o-mini              0.15     0.075   .       0.60   2026-10-12
  gpt-4.1                  2        0.50    .       8      2026-10-12
  gpt-4.1-mini             0.40     0.10    .       1.60   2026-10-12
  gpt-4.1-nano             0.10     0.025   .       0.40   2026-10-12
  gpt-5                    1.25     0.125   .       10     2026-10-12
  gpt-5-mini               0.25     0.025   .       2      2026-10-12
  gpt-5-nano               0.05     0.005   .       0.40   2026-10-12
  gpt-5-pro                15       .       .       120    2026-10-14
  gpt-5.1                  1.25     0.125   .       10     2026-10-12
  gpt-5.2                  1.75     0.175   .       14     2026-10-12
  gpt-5.2-pro              21       .       .       168    2026-10-14
  gpt-5-codex              1.25     0.125   .       10     -
  gpt-5.1-codex-mini       0.25     0.025   .       2      -
  o1                       15       7.50    .       60     2026-10-14
  o1-pro                   150      .       .       600    2026-10-14
  o1-mini                  1.10     0.55    .       4.40   -
  o3                       2        0.50    .       8      2026-10-12
  o3-mini                  1.10     0.55    .       4.40   2026-10-14
  o3-pro                   20       .       .       80     2026-10-14
  o3-deep-research         10       2.50    .       40     -
  o4-mini-deep-research    2        0.50    .       8      -
  o4-mini                  1.10     0.275   .       4.40   2026-10-12
anthropic https://www.anthropic.com/pricing#api
  claude-3-haiku-20240307      0.25   0.03   0.30    1.25   -
  claude-3-sonnet-20240229     3        0.30   3.75    15     -
  claude-3-5-haiku-20241022    0.80   0.08   1       4      -
  claude-3-5-sonnet-20241022   3      0.30   3.75    15     -
  claude-3-7-sonnet-20250219   3      0.30   3.75    15     -
  claude-3-opus-20240229       15     1.50   18.75   75     -
  claude-sonnet-4-20250514     3      0.30   3.75    15     -
  claude-opus-4-20250514       15     1.50   18.75   75     -
  claude-opus-4-1-20250805     15     1.50   18.75   75     -
  claude-sonnet-4-5            3      0.30   3.75    15     -
  claude-haiku-4-5             1      0.10   1.25    5      -
  claude-opus-4-5              5      0.50   6.25    25     -
google https://ai.google.dev/gemini-api/docs/pricing
  gemini-2.0-flash         0.10     0.025   .       0.40   -
  gemini-2.0-flash-lite    0.075    .       .       0.30   -
  gemini-2.5-flash-lite    0.10     0.01    .       0.40   2026-10-14
  gemini-2.5-flash         0.30     0.03    .       2.50   2026-10-14
  gemini-2.5-pro           1.25     0.125   .       10     2026-10-14
  gemini-3-pro-preview     2        0.20    .       12     2026-10-13
x-ai https://docs.x.ai/docs/models
  grok-4                   3        0.75    .       15     -
  grok-3                   3        0.75    .       15     -
  grok-3-mini              0.30     0.075   .       0.50   -
  grok-3-fast              5        1.25    .       25     -
  grok-2-1212              2        .       .       10     -
  grok-4-fast              0.20     0.05    .       0.50   -
  grok-code-fast-1         0.20     0.02    .       1.50   -
deepseek https://api-docs.deepseek.com/quick_start/pricing
  deepseek-chat            0.27     0.07    .       1.10   2025-02
  deepseek-reasoner        0.55     0.14    .       2.19   2025-02
mistral https://mistral.ai/pricing/api
  codestral-latest         0.30     .       .       0.90   -
  pixtral-large-latest     2        .       .       6      -
  open-mistral-nemo        0.15     .       .       0.15   -
groq https://console.groq.com/docs/models
  llama-3.3-70b-versatile  0.59     .       .       0.79   -
  llama-3.1-8b-instant     0.05     .       .       0.08   -
  qwen/qwen3-32b           0.29     .       .       0.59   -
  moonshotai/kimi-k2-instruct-0905  1  0.50 .       3      -
  openai/gpt-oss-120b      0.15     0.075   .       0.60   -
  openai/gpt-oss-20b       0.075    0.0375  .       0.30   -
cohere https://cohere.com/pricing
  command-r-08-2024        0.15     .       .       0.60   -
  command-r                0.15     .       .       0.60   -
  command-r-plus-08-2024   2.50     .       .       10     -
  command-a-03-2025        2.50     .       .       10     -
  command-r7b-12-2024      0.0375   .       .       0.15   -
aws https://aws.amazon.com/bedrock/pricing/
  amazon.nova-micro-v1:0   0.035    0.00875 .       0.14   -
  amazon.nova-lite-v1:0    0.06     0.015   .       0.24   -
  amazon.nova-pro-v1:0     0.80     0.20    .       3.20   -
  amazon.nova-premier-v1:0 2.50     0.625   .       12.50  -
cerebras https://www.cerebras.ai/pricing#pricing
  llama3.1-8b              0.10     .       .       0.10   2026-07-17
  gpt-oss-120b             0.35     .       .       0.75   -
moonshotai https://platform.kimi.ai/docs/pricing/chat.md
  kimi-k2-0905-preview     0.60     0.15    .       2.50   -
  kimi-k2-turbo-preview    1.15     0.15    .       8      -
together https://www.together.ai/pricing
  meta-llama/Llama-3.3-70B-Instruct-Turbo  0.88  .  .  0.88  -
"""


def rows() -> list[tuple[str, ...]]:
    provider, found = "", []
    for line in UNITS.strip().splitlines():
        if line.startswith("  "):
            found.append((provider, *line.split()))
        else:
            provider = line.split()[0]
    return found


def test_there_are_more_than_sixty_points_of_many_providers() -> None:
    assert len(rows()) > 60
    assert len({row[0] for row in rows()}) >= 6


@pytest.mark.parametrize(("provider", "model", "entered", "cached", "written", "output", "date"), rows(), ids=lambda value: value)
def test_a_call_costs_what_the_page_says(
    provider: str, model: str, entered: str, cached: str, written: str, output: str, date: str
) -> None:
    """Exact, in fractions; the usage is odd so that no rounding could hide, and small enough for every model's lowest tier."""
    used = Usage(input_tokens=100_003, output_tokens=1_009, total_tokens=101_012, cache_read=70_001, cache_write=20_011)
    expected = Fraction(entered) * (100_003 - 70_001 - 20_011) + Fraction(output) * 1_009
    expected += Fraction(entered if cached == "." else cached) * 70_001 + Fraction(entered if written == "." else written) * 20_011
    priced = BOOK.cost(used, model, provider=provider)
    assert priced is not None
    assert Fraction(priced.cost_usd) == expected / 10**6
    assert priced.provenance["price_source"] == "genai-prices"


BY_HAND = [
    # What the table above leaves out, on the same pages: prices of long prompts (for the whole call), of what is kept in a cache for
    # an hour (Anthropic: twice the input), of audio that is heard. The sum in the last column is worked out by hand.
    ("google", "gemini-2.5-pro", {"i": 200_000, "o": 1_009}, "0.26009"),  # 200,000 at 1.25, 1,009 at 10
    ("google", "gemini-2.5-pro", {"i": 200_001, "o": 1_009}, "0.5151375"),  # all at 2.50 and 15
    ("google", "gemini-2.5-pro", {"i": 200_001, "o": 1_009, "cache_read": 100_001}, "0.29013525"),  # the cached at 0.25
    ("google", "gemini-3-pro-preview", {"i": 200_001, "o": 1_009, "cache_read": 100_001}, "0.4581624"),  # 4, 0.40, 18
    ("anthropic", "claude-sonnet-4-5", {"i": 200_000, "o": 1_000}, "0.615"),  # 3 and 15
    ("anthropic", "claude-sonnet-4-5", {"i": 200_001, "o": 1_009}, "1.2227085"),  # 6 and 22.50
    ("anthropic", "claude-sonnet-4-5", {"i": 100_000, "o": 1_000, "cache_write": 100_000, "cache_write_1h": 100_000}, "0.615"),  # 6
    ("anthropic", "claude-haiku-4-5", {"i": 100_000, "o": 1_000, "cache_write": 30_000, "cache_write_1h": 10_000}, "0.12"),  # 1, 1.25, 2
    ("anthropic", "claude-opus-4-5", {"i": 100_003, "o": 1_009, "cache_write": 30_003, "cache_write_1h": 30_003}, "0.675255"),  # 5, 10
    ("google", "gemini-2.5-flash", {"i": 10_001, "o": 1_009, "audio_input": 5_000}, "0.0090228"),  # 0.30, audio 1.00
    ("google", "gemini-2.0-flash", {"i": 10_001, "o": 1_009, "audio_input": 5_000}, "0.0044037"),  # 0.10, audio 0.70
    ("openai", "gpt-5.2-pro", {"i": 1_003, "o": 509, "reasoning": 500}, "0.106575"),  # reasoning is output, once
]


@pytest.mark.parametrize(("provider", "model", "used", "usd"), BY_HAND, ids=str)
def test_what_the_table_leaves_out_worked_out_by_hand(provider: str, model: str, used: dict[str, int], usd: str) -> None:
    entered, output = used["i"], used["o"]
    parts = {name: tokens for name, tokens in used.items() if name not in "io"}
    priced = BOOK.cost(Usage(input_tokens=entered, output_tokens=output, total_tokens=entered + output, **parts), model, provider=provider)
    assert priced is not None
    assert priced.cost_usd == Decimal(usd)


MILLION = Usage(input_tokens=100_000, output_tokens=100_000, total_tokens=200_000, cache_read=40_000)

TIERS = [
    # https://developers.openai.com/api/docs/pricing, read 2026-10-12: flex is half, priority is dearer by a factor that differs.
    ("gpt-5-mini", None, "0.216"),
    ("gpt-5-mini", "default", "0.216"),
    ("gpt-5-mini", "auto", "0.216"),
    ("gpt-5-mini", "flex", "0.108"),
    ("gpt-5-mini", "priority", "0.3888"),
    ("gpt-4o", "priority", "2.04"),
    ("o4-mini", "flex", "0.25852"),
    ("gpt-5-mini", "unheard-of", "0.216"),
    ("claude-haiku-4-5", "standard", "0.564"),
]


@pytest.mark.parametrize(("model", "tier", "usd"), TIERS)
def test_a_service_tier_has_prices_of_its_own(model: str, tier: str | None, usd: str) -> None:
    priced = BOOK.cost(MILLION, model, tier=tier)
    assert priced is not None
    assert priced.cost_usd == Decimal(usd)
    assert priced.provenance.get("price_tier") == (tier if tier in ("flex", "priority") else None)


@pytest.mark.parametrize("tier", ["priority", "flex", None])
def test_the_worst_case_is_that_of_the_tier(tier: str | None) -> None:
    worst = BOOK.worst_case("gpt-5-mini", 100_000, 100_000, tier=tier)
    price = BOOK.output_price("gpt-5-mini", 100_000, tier=tier)
    priced = BOOK.cost(MILLION, "gpt-5-mini", tier=tier)
    assert worst is not None
    assert price is not None
    assert priced is not None
    assert priced.cost_usd <= worst
    assert price * 100_000 <= worst


SEARCHES = [
    # USD per thousand: OpenAI 10 (web), 2.50 (files); Anthropic 10 (https://platform.claude.com/docs/en/about-claude/pricing).
    ("gpt-5-mini", {"web_searches": 3}, "0.03"),
    ("gpt-5-mini", {"file_searches": 4}, "0.01"),
    ("gpt-5-mini", {"web_searches": 1, "file_searches": 2}, "0.015"),
    ("claude-sonnet-4-5", {"web_searches": 2}, "0.02"),
    ("claude-sonnet-4-5", {"file_searches": 1}, None),
    ("grok-4", {"web_searches": 1}, None),
]


@pytest.mark.parametrize(("model", "made", "usd"), SEARCHES)
def test_searches_are_billed_one_by_one_or_unknown(model: str, made: dict[str, int], usd: str | None) -> None:
    tokens = Usage(input_tokens=1_000, output_tokens=100, total_tokens=1_100)
    alone, searched = BOOK.cost(tokens, model), BOOK.cost(Usage(input_tokens=1_000, output_tokens=100, total_tokens=1_100, **made), model)
    assert alone is not None
    assert "usd_each" not in alone.provenance
    assert (searched is None) == (usd is None)
    if searched is not None and usd is not None:
        assert searched.cost_usd - alone.cost_usd == Decimal(usd)
        assert set(searched.provenance["usd_each"]) == {name.replace("searches", "search") for name in made}
