"""Unit prices, and the user's own: read once, checked, never guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any

from agent_graph.errors import ConfigError, did_you_mean

__all__ = ["FEES", "GIVE_PRICE", "PER_MTOK", "Price", "price_line", "read_prices"]

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Price:
    """Unit prices of one model, USD per million tokens. None: what its whole costs; for audio: unknown."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    reasoning: Decimal | None = None
    per_request: Decimal = ZERO
    """USD of a call as such."""
    web_search: Decimal | None = None
    """USD of one search that the provider makes for the reply. None: unknown."""
    file_search: Decimal | None = None
    """The same in the caller's stored files."""
    source: str = "user"
    version: str = ""


FEES = ("per_request", "web_search", "file_search")
PER_MTOK = tuple(field.name for field in fields(Price) if field.name not in (*FEES, "source", "version"))
"""The fields of a Price that are USD each, and those that are USD per million tokens."""


def read_prices(overrides: object) -> dict[str, Price]:
    """Return `overrides` with names in small letters. Raises ConfigError for what is no mapping of models to prices."""
    return {name.lower(): _read_price(name, entry) for name, entry in _entries(overrides)}


MOST_USD = 10**9
"""No price is larger: in a ledger of nano-dollars a call of some million tokens would pass what the storage can hold."""
GIVE_PRICE = "Give it in USD per million tokens, with your figures in place of these (0 where it is free)"
"""Stands before a `price_line`."""


def price_line(model: str) -> str:
    """Return the keyword that gives `model` a price, with figures to be replaced: Python that can be pasted as it is."""
    name = f'"{model}"' if model.isprintable() and not set(model) & {'"', "\\"} else repr(model)
    return f'prices={{{name}: {{"input": 0.25, "output": 2.00}}}}'


def _entries(overrides: object) -> Iterator[tuple[str, object]]:
    if overrides is None:
        return
    if not isinstance(overrides, Mapping):
        raise ConfigError(f"prices: a mapping of model names to prices is due, not {type(overrides).__name__}.")
    for name, entry in overrides.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"prices: a model's name is due as key, not {name!r}.")
        yield name, entry


def _read_price(name: str, entry: object) -> Price:
    if isinstance(entry, Price):
        entry = {field.name: value for field in fields(Price) if (value := getattr(entry, field.name)) is not None}
    if not isinstance(entry, Mapping):
        raise ConfigError(f"prices[{name!r}]: a Price or a mapping is due, not {entry!r}.")
    known = [field.name for field in fields(Price)]
    for key in entry:
        if key not in known:
            raise ConfigError(f"prices[{name!r}]: unknown key {key!r}.{did_you_mean(key, known)} Known keys: {', '.join(known)}.")
    for key in ("input", "output"):
        if entry.get(key) is None:
            raise ConfigError(f"prices[{name!r}]: {key!r} is missing, the USD per million {key} tokens.")
    values: dict[str, Any] = {
        key: _amount(name, key, value) for key, value in entry.items() if key in (*PER_MTOK, *FEES) and value is not None
    }
    values |= {key: str(entry[key]) for key in ("source", "version") if key in entry}
    return Price(**values)


def _amount(name: str, key: str, value: object) -> Decimal:
    try:
        amount = Decimal(str(value))  # str(): 0.15 is fifteen cents, not the binary fraction next to it; True is no number
    except InvalidOperation:
        raise ConfigError(f"prices[{name!r}]: {key} is {value!r}; a number of USD per million tokens is due.") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"prices[{name!r}]: {key} is {value!r}; a finite number, zero or more, is due.")
    if amount > MOST_USD:
        raise ConfigError(f"prices[{name!r}]: {key} is {value!r}; at most {MOST_USD:,} is due, in USD per million tokens.")
    return amount
