"""What a model call costs: exact arithmetic on a stated price list.

Two large public price lists differ by dollars on the same call, and providers change theirs, so "accurate" can only mean this:
the sum is exact, and the unit prices, the model they were found under, their source and its version stand beside it. The user's
own prices come first; then genai-prices, whose list lies in its wheel. It is imported on first use and never updated from the
network by us.

How a price is found. A base URL says who is asked, better than the name of a client class, which speaks to anybody; behind a
URL that the list does not know, the model's name decides, since a gateway bills what the provider bills, except for a name with
a tag (`llama3:8b`), which is how local servers call theirs. A provider that the list does not know has no price.

Whose price. The user's own price for the model that the reply names, or for the one that was asked for; then the list's, in the
same order. A gateway may answer with another model than it was asked for, and bills that one.

How a bill is made. Usage counts parts inside their whole (`decisions/usage.py`): cached, written and audio tokens inside the
input, reasoning and audio inside the output. A part without a price of its own costs what its whole costs, except audio, which
costs ten times text wherever it is priced: audio without a price is unknown. A tier is chosen by the size of the input and
prices the whole call (https://ai.google.dev/gemini-api/docs/pricing, https://developers.openai.com/api/docs/pricing). A service tier
(flex, priority) that the reply names has prices of its own where the list knows them. Searches are billed one by one; a search
without a price is unknown, like audio.

What must stay true: no float, no rounding; an unknown price is None, never zero; `worst_case` is never below `cost` for a call
that stays inside its input and output counts, at its service tier, and uses neither audio nor an image price nor searches.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from agent_graph.decisions.prices import FEES, PER_MTOK, Price, read_prices
from agent_graph.decisions.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

__all__ = ["Matched", "Price", "PriceBook", "Priced"]

EXACT = Context(prec=60)
"""Digits enough for any bill; the caller's own decimal context may have fewer."""
ZERO = Decimal(0)

_TAG = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")
"""The date by which a reply names the model that an alias stands for."""
_PREFIX = re.compile(r"^(?!ft:)([a-z][a-z0-9_-]*)[:/](.+)$", re.IGNORECASE)
"""`openai:gpt-5-mini`, `openai/gpt-5-mini`; but `ft:gpt-4o` is fine-tuned, and dearer than what it was tuned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A model's prices at one size of input, and where they were found."""

    price: Price
    model: str
    """The name under which the list has it."""
    tier: str | None = None
    """The service tier whose prices these are; None: the standard one."""
    dearest_input: Decimal
    """USD per million tokens of text, whatever the cache does with it."""
    dearest_output: Decimal
    """USD per million tokens, whatever is put out."""
    provenance: Mapping[str, Any]
    """As in `Priced`, but for searches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A bill."""

    cost_usd: Decimal
    """Exact."""
    provenance: dict[str, Any]
    """Plain JSON: `price_source`, `price_version`, `price_model`, `usd_per_mtok`; where there are any, `usd_each` and `price_tier`."""


_STANDARD = frozenset({"auto", "default", "standard"})
"""Service tiers that cost what the list says without one."""


class PriceBook:
    """Finds prices and makes bills. Holds no state but what it looked up; used by several threads at once.

    Args:
        overrides: the user's own prices by model name, `{"my-model": Price(...)}` or `{"my-model": {"input": 0.2, "output": 0.8}}`;
            they hold for dated versions of that model too.
        now: the moment whose prices hold, with a time zone; some change by date or by the hour.

    Raises:
        ConfigError: an override with an unknown key, without `input` or `output`, or with a price that is none.
    """

    def __init__(
        self, overrides: Mapping[str, Price | Mapping[str, Any]] | None = None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._overrides = read_prices(overrides)
        self._now = now
        self._found: dict[tuple[str, str | None, str | None], tuple[Provider, ModelInfo] | None] = {}
        self._matched = lru_cache(maxsize=256)(self._find)
        self._starts = lru_cache(maxsize=256)(self._tier_starts)

    def price_of(
        self,
        model: str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        tier: str | None = None,
        usage: Usage | None = None,
    ) -> Matched | None:
        """Return the prices of `model` for a call of the size of `usage` (None: a small one), or None if they are unknown."""
        return self._match((model,), provider, base_url, tier, usage.input_tokens if usage else 0)

    def cost(
        self,
        usage: Usage,
        model: str,
        *,
        asked: str | None = None,
        provider: str | None = None,
        base_url: str | None = None,
        tier: str | None = None,
    ) -> Priced | None:
        """Return the exact bill of one call, or None if a price that it needs is unknown.

        Args:
            usage: what it used.
            model: as the reply names it.
            asked: as it was asked for, where that may be another name.
            provider: as LangChain or the list calls it.
            base_url: where it was asked, unless that is the provider's own address.
            tier: the service tier that the reply names ("flex", "priority").
        """
        matched = self._match((model,) if asked in (None, model) else (model, str(asked)), provider, base_url, tier, usage.input_tokens)
        if matched is None:
            return None
        with localcontext(EXACT):
            cost = _bill(matched.price, usage)
        return None if cost is None else Priced(cost_usd=cost, provenance={**matched.provenance, **_searched(matched.price, usage)})

    def worst_case(
        self,
        model: str,
        input_tokens: int,
        output_tokens: int,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        tier: str | None = None,
    ) -> Decimal | None:
        """Return the USD that a call of text may cost at most, or None if its price is unknown."""
        matched = self._match((model,), provider, base_url, tier, input_tokens)
        if matched is None:
            return None
        with localcontext(EXACT):
            tokens = input_tokens * matched.dearest_input + output_tokens * matched.dearest_output
            return matched.price.per_request + tokens.scaleb(-6)

    def output_price(
        self, model: str, input_tokens: int, *, provider: str | None = None, base_url: str | None = None, tier: str | None = None
    ) -> Decimal | None:
        """Return the USD of *one* output token that `worst_case` counts with at this size, or None if it is unknown."""
        matched = self._match((model,), provider, base_url, tier, input_tokens)
        return None if matched is None else matched.dearest_output.scaleb(-6, EXACT)

    def _match(
        self, models: tuple[str, ...], provider: str | None, base_url: str | None, tier: str | None, input_tokens: int
    ) -> Matched | None:
        """A call asks several times for the same, and so does the next one: what is found for a tier of sizes holds for a minute."""
        minute = self._now().replace(second=0, microsecond=0)
        starts = self._starts(models, provider, base_url)
        size = starts[bisect_left(starts, input_tokens) - 1] + 1 if starts and input_tokens > starts[0] else 0
        return self._matched(models, provider, base_url, tier, size, minute)

    def _tier_starts(self, models: tuple[str, ...], provider: str | None, base_url: str | None) -> tuple[int, ...]:
        """Return the input sizes above which the prices of one of `models` change, in order."""
        if self._own(models, provider) is not None:
            return ()
        found = (self._listed(model, provider, base_url) for model in models)
        return tuple(sorted({start for entry in found if entry is not None for start in _starts_of(entry[1])}))

    def _find(
        self, models: tuple[str, ...], provider: str | None, base_url: str | None, tier: str | None, input_tokens: int, at: datetime
    ) -> Matched | None:
        own = self._own(models, provider)
        if own is not None:
            name, price = own
            return _matched(name, price, price.output, price.reasoning, price.audio_output)
        tier = None if tier is None or tier.lower() in _STANDARD else tier.lower()
        for model in models:
            found = self._listed(model, provider, base_url)
            matched = None if found is None else _from_list(*found, at=at, input_tokens=input_tokens, tier=tier)
            if matched is not None:
                return matched
        return None

    def _own(self, models: tuple[str, ...], provider: str | None) -> tuple[str, Price] | None:
        """Return the user's own price for one of `models`, and the name under which it stands."""
        names = (name for model in models for name in _names(model, provider))
        return next(((name, price) for name in names if (price := self._overrides.get(name)) is not None), None)

    def _listed(self, model: str, provider: str | None, base_url: str | None) -> tuple[Provider, ModelInfo] | None:
        key = (model, provider, base_url)
        if key not in self._found:
            self._found[key] = _look_up(model, provider, base_url)
        return self._found[key]


# --- finding one -----------------------------------------------------------------------------------------------------------


def _names(model: str, provider: str | None) -> Iterator[str]:
    """Yield the names under which the user may have written `model`, the most exact first."""
    prefixed = _PREFIX.match(model)
    names = [model, *([f"{provider}:{model}"] if provider else []), *([prefixed[2]] if prefixed else [])]
    for name in names:
        yield name.lower()
        yield _TAG.sub("", name.lower())


# --- the public list ---------------------------------------------------------------------------------------------------------


def _look_up(model: str, provider: str | None, base_url: str | None) -> tuple[Provider, ModelInfo] | None:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    for name, who, url in _ways(model, provider, base_url):
        try:
            return snapshot.find_provider_model(name, None, who, url)
        except LookupError:
            continue
    return None


def _ways(model: str, provider: str | None, base_url: str | None) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield (model, provider, URL) as the list is asked for it, in turn."""
    prefixed = _PREFIX.match(model)
    if base_url is not None:
        yield model, None, base_url
        if ":" in model:
            return
    elif provider is not None:
        yield model, provider, None
        if prefixed:
            yield prefixed[2], provider, None
        return
    yield model, None, None
    if prefixed:
        yield prefixed[2], prefixed[1], None


def _from_list(provider: Provider, model: ModelInfo, *, at: datetime, input_tokens: int, tier: str | None) -> Matched | None:
    from genai_prices import __version__

    standard = _at_tier(model.get_prices(at), input_tokens)
    amounts = standard if tier is None else _at_tier(model.get_prices(at, {"service_tier": tier}), input_tokens)
    if not {"input_mtok", "input_text_mtok"} & amounts.keys():
        return None
    price = Price(
        input=_first(amounts, "input_mtok", "input_text_mtok") or ZERO,
        output=_first(amounts, "output_mtok", "output_text_mtok") or ZERO,
        cache_read=_first(amounts, "cache_read_mtok", "cache_text_read_mtok"),
        cache_write=_first(amounts, "cache_write_5m_mtok", "cache_write_mtok", "cache_text_write_mtok"),
        cache_write_1h=_first(amounts, "cache_write_1h_mtok", "cache_text_write_1h_mtok"),
        audio_input=amounts.get("input_audio_mtok"),
        audio_output=amounts.get("output_audio_mtok"),
        reasoning=amounts.get("output_reasoning_mtok"),
        per_request=amounts.get("requests_kcount", ZERO).scaleb(-3),
        web_search=_each(amounts.get("web_searches_kcount")),
        file_search=_each(amounts.get("storage_searches_kcount")),
        source="genai-prices",
        version=__version__,
    )
    by_hour = [_at_tier(other, input_tokens) for other in _by_the_hour(model)]
    outputs = [value for prices in (amounts, *by_hour) for key, value in prices.items() if re.match("output.*_mtok", key)]
    inputs = [value for prices in by_hour if (value := prices.get("input_mtok")) is not None]
    return _matched(f"{provider.id}/{model.id}", price, *outputs, inputs=inputs, tier=None if amounts == standard else tier)


def _each(per_thousand: Decimal | None) -> Decimal | None:
    return None if per_thousand is None else per_thousand.scaleb(-3)


def _starts_of(model: ModelInfo) -> Iterator[int]:
    """Yield the input sizes above which a price of `model` changes."""
    entries = model.prices if isinstance(model.prices, list) else [model]
    for entry in (*entries, *(model.price_variants or ())):
        for price in vars(entry.prices).values():
            yield from (tier.start for tier in getattr(price, "tiers", ()))


def _by_the_hour(model: ModelInfo) -> Iterator[ModelPrice]:
    """Yield the prices that hold at some hours of the day: a call may end in another hour than it was reserved in."""
    if isinstance(model.prices, list):
        yield from (entry.prices for entry in model.prices if hasattr(entry.constraint, "start_time"))


def _at_tier(prices: ModelPrice, input_tokens: int) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    for key, value in vars(prices).items():
        if isinstance(value, Decimal):
            amounts[key] = value
        elif value is not None:
            reached = [tier.price for tier in value.tiers if input_tokens > tier.start]
            amounts[key] = reached[-1] if reached else value.base
    return amounts


def _first(amounts: Mapping[str, Decimal], *keys: str) -> Decimal | None:
    return next((amounts[key] for key in keys if key in amounts), None)


# --- the bill ----------------------------------------------------------------------------------------------------------------


def _matched(name: str, price: Price, *outputs: Decimal | None, inputs: list[Decimal] | None = None, tier: str | None = None) -> Matched:
    dearest_input = max(filter(None, (price.cache_write, price.cache_write_1h, *(inputs or ()))), default=ZERO)
    dearest_output = max(filter(None, outputs), default=ZERO)
    dearest = {"dearest_input": max(price.input, dearest_input), "dearest_output": max(price.output, dearest_output)}
    return Matched(price=price, model=name, tier=tier, provenance=_provenance(name, price, tier), **dearest)


def _bill(price: Price, usage: Usage) -> Decimal | None:
    """Return the USD of `usage`, or None where it holds audio or searches that have no price."""
    fees = _fees(price, usage)
    if fees is None or (usage.audio_input and price.audio_input is None) or (usage.audio_output and price.audio_output is None):
        return None
    write_1h = min(usage.cache_write_1h, usage.cache_write)
    write = usage.cache_write - write_1h
    # Cached audio stands in two parts; it is billed as audio, the dearer of both.
    read = min(usage.cache_read, max(usage.input_tokens - usage.cache_write - usage.audio_input, 0))
    plain_input = max(usage.input_tokens - read - usage.cache_write - usage.audio_input, 0)
    reasoning = usage.reasoning if price.reasoning is not None else 0
    plain_output = max(usage.output_tokens - usage.audio_output - reasoning, 0)
    write_price = _or(price.cache_write, price.input)
    parts = (
        (plain_input, price.input),
        (read, _or(price.cache_read, price.input)),
        (write, write_price),
        (write_1h, _or(price.cache_write_1h, write_price)),
        (usage.audio_input, _or(price.audio_input, price.input)),
        (plain_output, price.output),
        (reasoning, _or(price.reasoning, price.output)),
        (usage.audio_output, _or(price.audio_output, price.output)),
    )
    return fees + sum((count * unit for count, unit in parts if count), ZERO).scaleb(-6)


def _fees(price: Price, usage: Usage) -> Decimal | None:
    """Return the USD of what is billed one by one, or None where a search has no price."""
    total = price.per_request
    for count, each in ((usage.web_searches, price.web_search), (usage.file_searches, price.file_search)):
        if count and each is None:
            return None
        total += count * (each or ZERO)
    return total


def _or(own: Decimal | None, whole: Decimal) -> Decimal:
    return whole if own is None else own


def _provenance(name: str, price: Price, tier: str | None) -> dict[str, Any]:
    units = {key: f"{value:f}" for key in PER_MTOK if (value := getattr(price, key)) is not None}
    fee = {"per_request": f"{price.per_request:f}"} if price.per_request else {}
    extra = {"price_version": price.version, "price_tier": tier, "usd_each": fee}
    return {
        "price_source": price.source,
        "price_model": name,
        "usd_per_mtok": units,
        **{key: value for key, value in extra.items() if value},
    }


def _searched(price: Price, usage: Usage) -> dict[str, Any]:
    """Return the prices of what is billed one by one, where a call searched."""
    if not (usage.web_searches or usage.file_searches):
        return {}
    made = {"per_request": True, "web_search": usage.web_searches, "file_search": usage.file_searches}
    return {"usd_each": {key: f"{value:f}" for key in FEES if made[key] and (value := getattr(price, key))}}
