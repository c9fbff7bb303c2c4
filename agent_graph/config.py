"""AgentConfig: the limits and policies of an agent, checked once, at construction.

The specification's `config` mapping holds any of the keys below; each is also a keyword of the constructor. An unknown key is
an error that names the nearest one, since a misspelt limit is no limit. `None` means "no limit" for every limit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from agent_graph.errors import ConfigError, did_you_mean

__all__ = ["AgentConfig", "Budget", "added", "cutoff", "validate_name", "validate_run_id"]

MAX_NAME = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Limits of one turn, and the policies that apply where a promise leaves a choice.

    Build it with `AgentConfig.from_mapping`; the fields are then of the types written here.
    """

    max_steps: int | None = 25
    """Steps (model replies used by the loop) of a turn, over crashes too."""
    max_tokens: int | None = 200_000
    """Input + output tokens of all model calls of a turn, summaries and judges included."""
    max_cost_usd: Decimal | None = Decimal("1.00")
    """USD of the same."""
    timeout_s: float | None = 120.0
    """Working time of a turn in seconds; waiting for people and outages do not count."""
    retry_attempts: int | None = 3
    """Attempts in all per model call or idempotent tool call; 0 and 1 both mean no retry; None: as long as the turn has time."""
    compression_threshold: int | None = 32_000
    """Tokens of the message list, counted by the model's own counter, above which it is compressed."""
    max_output_tokens: int | None = 4_096
    """Cap of one reply, in tokens, where the backend can be given one; the model's own cap if that is smaller."""
    on_unfinished: Literal["conflict", "close"] = "conflict"
    """When a run_id's last turn is unfinished and another input comes: refuse, or close that turn and begin the next."""
    on_busy: Literal["wait", "raise"] = "wait"
    """When a run is being worked on elsewhere: wait for its result, or raise RunInProgress at once."""
    on_doubt: Literal["tell", "ask"] = "tell"
    """When the outcome of a non-idempotent call is unknown: tell the model, or wait for a person."""
    unmarked_tools: Literal["once", "retry"] | None = None
    """Tools not marked idempotent or not: at most once, or retried. None: retried in the specification's dicts, once as LangChain tools."""
    save_memory: Literal["step", "end"] = "step"
    """Save the memory after every step that ran tools and at the end, or at the end only."""
    durability: Literal["power", "process"] = "power"
    """What a committed write survives: a power cut, or (faster) only a killed process."""
    max_repeated_calls: int | None = None
    """End the turn after so many identical calls with identical results in a row; None: only hint at it to the model."""
    on_unknown_price: Literal["error", "warn", "ignore"] = "error"
    """When a known paid provider's model has no price and the user set a cost limit."""
    hold_text: bool = True
    """Hold streamed text back until every guardrail that may block or replace it has spoken."""
    explicit: frozenset[str] = field(default=frozenset(), compare=False)
    """The keys that the user set, as opposed to our defaults."""

    @property
    def attempts(self) -> int:
        """`retry_attempts` as a number from 1."""
        return sys.maxsize if self.retry_attempts is None else max(1, self.retry_attempts)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any] | None = None, /, **keywords: Any) -> AgentConfig:
        """Return the checked configuration; a key may stand in the mapping or as a keyword, not as two different values.

        Raises:
            ConfigError: unknown key (the nearest is named), wrong type, negative or NaN value, or two values for one key.
        """
        if config is None:
            config = {}
        if not isinstance(config, Mapping):
            raise ConfigError(f"config: a mapping of keys to values is due, not {type(config).__name__}.")
        given = dict(config)
        for key, value in keywords.items():
            if key in given and given[key] != value:
                raise ConfigError(f"{key}: given twice, as {given[key]!r} in config and as {value!r} as a keyword. Give it once.")
            given[key] = value
        known = {f.name for f in fields(cls)} - {"explicit"}
        for key in given:
            if key not in known:
                raise ConfigError(_unknown_key(key, known))
        values = {key: _CHECKS[key](key, value) for key, value in given.items()}
        return cls(**values, explicit=frozenset(values))

    def as_dict(self) -> dict[str, Any]:
        """Return keys and values as the constructor takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "explicit"}


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget that many runs, agents and processes share by its name.

    ```python
    budget = Budget("team-a", max_cost_usd=5, per="day")
    agent = create_production_agent("offline", budget=budget)
    ```

    It is kept in the agent's storage, in the agent's namespace; every agent that names it there takes part, and each is held to the
    limit that it names itself. A day is a day of UTC.

    Raises:
        ConfigError: neither limit, or one that cannot be.
    """

    name: str
    """1 to 255 characters, like a run_id."""
    max_cost_usd: Decimal | None = field(default=None, kw_only=True)
    """USD of all model calls of the period; None is no limit."""
    max_tokens: int | None = field(default=None, kw_only=True)
    """Input + output tokens of the same."""
    per: Literal["day", "total"] = field(kw_only=True)
    """Whether it begins anew each day, or never."""

    def __post_init__(self) -> None:
        validate_name(self.name, "budget: name")
        if self.max_cost_usd is None and self.max_tokens is None:
            raise ConfigError(f"budget: {self.name!r} has no limit. Give max_cost_usd=..., max_tokens=... or both.")
        if self.max_cost_usd is not None:
            object.__setattr__(self, "max_cost_usd", _usd("budget: max_cost_usd", self.max_cost_usd))
        if self.max_tokens is not None:
            object.__setattr__(self, "max_tokens", _whole(0)("budget: max_tokens", self.max_tokens))
        _one_of("day", "total")("budget: per", self.per)

    def period_of(self, now: float) -> str:
        """Return the period of `now` (seconds since the epoch): a date, or "" where there is but one."""
        return datetime.fromtimestamp(now, UTC).date().isoformat() if self.per == "day" else ""


def added(amounts: object, config: AgentConfig) -> dict[str, Any]:
    """Return what `add_budget` adds to which limit of `config`, checked.

    Raises:
        ConfigError: nothing is added, or to something that is no limit, or an amount that is none.
    """
    limits = ("max_steps", "max_tokens", "max_cost_usd", "timeout_s")
    if not isinstance(amounts, Mapping) or not amounts:
        raise ConfigError(f"add_budget: a mapping such as {{'max_cost_usd': 0.5}} is due, not {amounts!r}.")
    checked: dict[str, Any] = {}
    for key, amount in amounts.items():
        if key not in limits:
            raise ConfigError(f"add_budget: {key!r} is no limit.{did_you_mean(key, limits)} Limits: {', '.join(limits)}.")
        if amount is None:
            raise ConfigError(f"add_budget: {key}: a number to add is due, not None.")
        if getattr(config, key) is None:
            raise ConfigError(f"add_budget: {key} is None: there is no limit to add to.")
        checked[key] = _CHECKS[key](f"add_budget: {key}", amount)
    return checked


def validate_run_id(run_id: object) -> str:
    """Return `run_id` if it can name a run, else raise ConfigError."""
    return validate_name(run_id, "run_id")


def validate_name(name: object, key: str) -> str:
    """Return `name` if it can be a name in the storage, else raise ConfigError, which says what `key` it was given as.

    Any string of 1-255 characters without control characters or lone surrogates; it is never used as a file name.
    """
    if not isinstance(name, str):
        raise ConfigError(f"{key}: a string is due, not {type(name).__name__}.")
    if not 1 <= len(name) <= MAX_NAME:
        raise ConfigError(f"{key}: 1 to {MAX_NAME} characters are due, this one has {len(name)}.")
    for character in name:
        code = ord(character)
        if code < 32 or 0x7F <= code <= 0x9F:
            raise ConfigError(f"{key}: {name!r} holds the control character {character!r}.")
        if 0xD800 <= code <= 0xDFFF:
            raise ConfigError(f"{key}: {name!r} holds a lone surrogate, which no database can store.")
    return name


def cutoff(older_than: object, now: float) -> float:
    """Return the instant that `older_than` means, an age or an instant, in seconds since the epoch. Raises ConfigError."""
    if isinstance(older_than, datetime):
        if older_than.tzinfo is None:
            raise ConfigError("older_than: a datetime needs a time zone, such as datetime(2026, 1, 31, tzinfo=UTC).")
        age_s = now - older_than.timestamp()
    elif isinstance(older_than, timedelta):
        age_s = older_than.total_seconds()
    elif isinstance(older_than, int | float) and not isinstance(older_than, bool) and older_than < 1e15:
        age_s = older_than
    else:
        raise ConfigError(f"older_than: a timedelta, a datetime or an age in seconds is due, not {older_than!r}.")
    if not age_s >= 0:
        raise ConfigError(f"older_than: {older_than} lies in the future; an age of 0 or more is due.")
    return now - age_s


KEYWORDS = (
    *("system_prompt", "name", "namespace", "memory", "observability", "storage", "guardrails", "store", "response_format"),
    *("middleware", "fallbacks", "prices", "budget", "redact", "clock"),
)
"""What the constructors take beside the keys: a keyword that is misspelt arrives here."""


def _unknown_key(key: object, known: set[str]) -> str:
    hint = did_you_mean(key, {*known, *KEYWORDS})
    if key in KEYWORDS:
        hint = f" It is a keyword of the agent and no key of its config: {key}=..."
    if key == "config":
        hint = " Its keys are keywords here: max_steps=5, max_cost_usd=0.05."
    return f"config: unknown key {key!r}.{hint} Known keys: {', '.join(sorted(known))}."


def _number(key: str, value: Any) -> int | float | Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ConfigError(f"{key}: a number is due, not {value!r} ({type(value).__name__}).")
    if value.is_nan() if isinstance(value, Decimal) else value != value:  # NaN alone is not itself; `math.isnan` takes no huge int
        raise ConfigError(f"{key}: NaN is no limit. Use None for no limit.")
    if value < 0:
        raise ConfigError(f"{key}: {value} is negative. Use None for no limit.")
    return value


def _whole(minimum: int) -> Callable[[str, Any], int]:
    def check(key: str, value: Any) -> int:
        number = _number(key, value)
        if number == math.inf:
            raise ConfigError(f"{key}: infinity is written None.")
        if number != int(number):
            raise ConfigError(f"{key}: a whole number is due, not {value!r}.")
        if number < minimum:
            raise ConfigError(f"{key}: at least {minimum} is due, not {value!r}.")
        return int(number)

    return check


def _seconds(key: str, value: Any) -> float:
    number = _number(key, value)
    if number > sys.float_info.max:
        raise ConfigError(f"{key}: infinity is written None.")
    return float(number)


def _usd(key: str, value: Any) -> Decimal:
    number = _number(key, value)
    try:
        amount = Decimal(str(number))  # str(): 0.05 is five cents, not the binary fraction next to it
    except InvalidOperation as error:  # pragma: no cover - _number lets nothing through that Decimal refuses
        raise ConfigError(f"{key}: {value!r} is no amount of USD.") from error
    if not amount.is_finite():
        raise ConfigError(f"{key}: infinity is written None.")
    return amount


def _optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda key, value: None if value is None else check(key, value)


def _one_of(*words: str | None) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        if isinstance(value, str) or value is None:
            if value in words:
                return value
            hint = did_you_mean(value, [word for word in words if word])
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(map(repr, words))}.{hint}")
        raise ConfigError(f"{key}: one of {', '.join(map(repr, words))} is due, not {value!r}.")

    return check


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key}: True or False is due, not {value!r}.")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "max_steps": _optional(_whole(0)),
    "max_tokens": _optional(_whole(0)),
    "max_cost_usd": _optional(_usd),
    "timeout_s": _optional(_seconds),
    "retry_attempts": _optional(_whole(0)),
    "compression_threshold": _optional(_whole(0)),
    "max_output_tokens": _optional(_whole(1)),
    "on_unfinished": _one_of("conflict", "close"),
    "on_busy": _one_of("wait", "raise"),
    "on_doubt": _one_of("tell", "ask"),
    "unmarked_tools": _one_of("once", "retry", None),
    "save_memory": _one_of("step", "end"),
    "durability": _one_of("power", "process"),
    "max_repeated_calls": _optional(_whole(2)),
    "on_unknown_price": _one_of("error", "warn", "ignore"),
    "hold_text": _flag,
}
