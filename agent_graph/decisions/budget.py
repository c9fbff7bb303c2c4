"""What a turn may still spend, decided before it is spent.

How it works. A limit is kept by *reservation*: before a model call its worst case (counted input, plus the output cap at the
dearest price) is held against the limit, and only a call whose worst case fits is made. After it the real bill replaces the
reservation; a crash leaves the reservation standing as "uncertain". So at every instant

    settled + uncertain + reserved <= limit

and no order of calls, crashes or retries can pass a limit: `admit` is the only door, and it opens by this sum alone. A call may
count in several accounts at once: that of its turn, those of the turns above it (a turn begun inside a tool of another is that
one's child, and what it spends is spent by its parent too), and a budget shared by name. It has to fit in each of them.

A turn should end with an answer, not at a wall. Therefore the last call that a budget can pay is made as a *landing*: the model
is told to answer from what it knows, without tools. A call is normal only if a landing still fits behind it (money, tokens, one
more step, and time beyond the landing's share); otherwise it is the landing itself. A turn's first call never lands, since
there is nothing yet to answer from.

A shared budget is spent by runs that know nothing of each other: what fits behind a call now may be gone when the landing is due. There
the landing is not only left room for but *held*: from a turn's first call on its worst case counts in the budget, until the turn lands or
ends. So no call is made there, not even a first one, behind which a landing could not be held.

Where a worst case does not fit, the output cap is shrunk first: a shorter answer is better than none, down to a floor below
which an answer is no answer (a reasoning model needs more, because it thinks inside its output).

What must stay true: `violation` judges with `>=` (a reached limit admits no further call), `admit` with `<=` (a call may use the
limit up exactly); both count uncertain amounts as spent; None is no limit, in every place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from agent_graph.config import AgentConfig
    from agent_graph.types import AgentRun

__all__ = [
    "NOTHING",
    "Account",
    "Admission",
    "Estimate",
    "Key",
    "Land",
    "Limits",
    "Normal",
    "Refuse",
    "Spent",
    "admit",
    "landing_share_s",
    "nano",
    "violation",
]

Key: TypeAlias = Literal["max_steps", "max_tokens", "max_cost_usd", "timeout_s", "budget"]
"""A limit's config key; "budget" for a limit of a shared budget."""

MIN_OUTPUT_TOKENS = 256
"""An output cap is not shrunk below this: about two paragraphs."""
MIN_REASONING_TOKENS = 2_048
"""The same for a model that thinks inside its output."""
NANO_USD = Decimal("1e-9")
LANDING_SHARE = 0.2
"""Part of `timeout_s` kept for the landing ..."""
LANDING_SHARE_S = 10.0
"""... and the most that is kept, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one turn may use; None is no limit."""

    max_steps: int | None = None
    """Model replies used by the loop."""
    max_tokens: int | None = None
    """Input + output tokens of all model calls."""
    max_cost_usd: Decimal | None = None
    """USD of all model calls."""
    timeout_s: float | None = None
    """Working time, seconds."""

    @classmethod
    def of(cls, config: AgentConfig) -> Limits:
        """Return the limits among an agent's settings."""
        return cls(max_steps=config.max_steps, max_tokens=config.max_tokens, max_cost_usd=config.max_cost_usd, timeout_s=config.timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one turn has used so far, over crashes too."""

    steps: int = 0
    """Model replies used by the loop."""
    tokens: int = 0
    """Settled: as the replies reported them."""
    cost_usd: Decimal = Decimal(0)
    """Settled USD."""
    uncertain_tokens: int = 0
    """Upper bound of the tokens of calls that are under way or whose end is unknown."""
    uncertain_usd: Decimal = Decimal(0)
    """Upper bound of their USD."""
    elapsed_s: float = 0.0
    """Working time used, seconds; waiting for people and outages do not count."""

    @classmethod
    def of(cls, run: AgentRun) -> Spent:
        """Return what an account says of itself."""
        return cls(
            steps=run.steps,
            tokens=run.total_tokens,
            cost_usd=Decimal(str(run.total_cost_usd)),
            uncertain_usd=Decimal(str(getattr(run, "cost_uncertain_usd", 0.0))),  # the specification's own class lacks it
            elapsed_s=run.latency_ms / 1000,
        )

    @property
    def bound_tokens(self) -> int:
        """Tokens that limits count: settled and uncertain."""
        return self.tokens + self.uncertain_tokens

    @property
    def bound_usd(self) -> Decimal:
        """USD that limits count: settled and uncertain."""
        return self.cost_usd + self.uncertain_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The worst case of one model call."""

    input_tokens: int
    """Counted input, rounded up; the whole bound of a backend that takes no output cap."""
    output_tokens: int
    """Output cap; 0 for a backend that takes none."""
    cost_usd: Decimal
    """USD of both."""


NOTHING = Estimate(input_tokens=0, output_tokens=0, cost_usd=Decimal(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account above a turn's own in which its calls count too: only tokens and USD are looked at."""

    limits: Limits
    spent: Spent
    owner: str
    """Whose it is, in words: "run 'r', which began this one", or "team-a (a day)"."""
    shared: bool = False
    """Whether it is a budget shared by name; else it is a turn's."""
    kept: Estimate = NOTHING
    """What the owner keeps for a landing of its own."""
    held: Estimate = NOTHING
    """What the turn that asks holds there for its landing; not in `spent`."""


@dataclass(frozen=True, slots=True)
class Normal:
    """Make the call."""

    max_output_tokens: int | None
    """Cap to give it, possibly shrunk; None for a backend that takes none."""
    call: Estimate | None = field(default=None, compare=False)
    """Worst case at that cap: what is to be reserved."""
    landing: Estimate | None = field(default=None, compare=False)
    """The least landing that was left room for behind it."""
    held: Estimate | None = field(default=None, compare=False)
    """The least landing that shared budgets are to hold from now on; None: they hold none."""


@dataclass(frozen=True, slots=True)
class Land:
    """Make the landing instead: an answer from what is known, without tools."""

    key: Key
    """The limit whose nearness makes it the last call."""
    max_output_tokens: int | None
    """Cap to give it, possibly shrunk; None for a backend that takes none."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Make no further call."""

    key: Key
    """The limit that does not allow it."""
    text: str
    """For `AgentRun.error`: "max_cost_usd: 0.04 + 0.0113 of 0.05"."""


Admission: TypeAlias = Normal | Land | Refuse


def violation(limits: Limits, spent: Spent) -> str | None:
    """Return "<key>: <value> of <limit>" for the first limit that is reached (`>=`), or None.

    The order is max_steps, max_tokens, max_cost_usd, timeout_s. Uncertain amounts count as spent.
    """
    reached = _reached(limits, spent)
    return reached.text if reached else None


def admit(
    limits: Limits,
    spent: Spent,
    *,
    call: Estimate,
    landing: Estimate | None,
    first: bool,
    output_price_usd: Decimal | None,
    can_shrink: bool,
    reasoning: bool = False,
    landing_after: Estimate | None = None,
    landing_held: Estimate | None = None,
    above: Sequence[Account] = (),
    late: bool = False,
) -> Admission:
    """Decide whether the next model call is made, made as the landing, or not made.

    Args:
        limits: what the turn may use.
        spent: what it has used; other calls under way count as uncertain.
        call: worst case of the call at its full output cap.
        landing: worst case of a landing made now instead of the call; None where landing is switched off.
        first: whether this is the turn's first call, which never lands.
        output_price_usd: USD of one output token at this size (`PriceBook.output_price`); None where tokens cost nothing or
            the backend tells its cost only afterwards.
        can_shrink: whether the backend takes an output cap.
        reasoning: whether the model thinks inside its output, which sets a higher floor.
        landing_after: worst case of a landing made after the call, whose input then holds the call's reply too; default `landing`.
        landing_held: worst case of the landing that shared budgets hold behind the call; None: they hold none.
        above: the other accounts in which the call counts.
        late: whether a clock that `limits` do not know (an absolute deadline, the time of the turn above) leaves no time for a
            landing after the call.
    """
    reached = _reached(limits, spent) or next(filter(None, map(_reached_above, above)), None)
    if reached:
        return reached
    floor = MIN_REASONING_TOKENS if reasoning else MIN_OUTPUT_TOKENS
    cap = _Cap(price_usd=output_price_usd or Decimal(0), floor=floor, shrinks=can_shrink)
    accounts = (Account(limits=limits, spent=spent, owner=""), *above)
    after = None if landing is None else cap.least(landing_after or landing)
    held = None if landing is None or landing_held is None else _in_whole_nano(cap.least(landing_held))
    if landing is None or after is None or first:
        fitted = cap.fit(call, _Room.of(accounts, held=held))
        if isinstance(fitted, Normal):
            return replace(fitted, landing=after, held=held)
        return _refusal(fitted, accounts, cap.least(call), held)
    normal = _last_call(limits, spent, late=late) or cap.fit(call, _Room.of(accounts, behind=after, held=held))
    if isinstance(normal, Normal):
        return replace(normal, landing=after, held=held)
    fitted = cap.fit(landing, _Room.of(accounts))
    if isinstance(fitted, Normal):
        return Land(_key_of(normal, accounts, cap.least(call), after, held), fitted.max_output_tokens)
    return _refusal(fitted, accounts, cap.least(landing), None)


def landing_share_s(timeout_s: float) -> float:
    """Return the seconds of a `timeout_s` that are kept for the landing."""
    return min(LANDING_SHARE * timeout_s, LANDING_SHARE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """What is left of the limits that a call's worst case is held against; None is unlimited."""

    tokens: int | None
    usd: Decimal | None

    @classmethod
    def of(cls, accounts: Sequence[Account], *, behind: Estimate | None = None, held: Estimate | None = None) -> _Room:
        """Return what the tightest of `accounts` leaves for a call: `behind` it a landing, in shared ones that which they hold.

        With neither it is the last call, which may use what is held for it.
        """
        rooms = [_left(account, held if account.shared and held is not None else behind) for account in accounts]
        tokens, usd = [room.tokens for room in rooms if room.tokens is not None], [room.usd for room in rooms if room.usd is not None]
        return cls(tokens=min(tokens, default=None), usd=min(usd, default=None))

    def short_of(self, call: Estimate) -> Key | None:
        """Return the limit that does not hold `call`, or None."""
        if self.tokens is not None and call.input_tokens + call.output_tokens > self.tokens:
            return "max_tokens"
        if self.usd is not None and call.cost_usd > self.usd:
            return "max_cost_usd"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cap:
    """How far an output cap may be shrunk, and what that saves."""

    price_usd: Decimal
    floor: int
    shrinks: bool

    def least(self, call: Estimate) -> Estimate:
        """Return `call` at the smallest output cap that it may be given."""
        return call if not self.shrinks or call.output_tokens <= self.floor else self.at(call, self.floor)

    def at(self, call: Estimate, tokens: int) -> Estimate:
        """Return `call` at an output cap of `tokens`."""
        saved = (call.output_tokens - tokens) * self.price_usd
        return Estimate(input_tokens=call.input_tokens, output_tokens=tokens, cost_usd=call.cost_usd - saved)

    def fit(self, call: Estimate, room: _Room) -> Normal | Key:
        """Return `call` at the largest cap that `room` holds, or the limit that does not hold even its least form."""
        least = self.least(call)
        short = room.short_of(least)
        if short:
            return short
        if not self.shrinks:
            return Normal(None, call)
        extra = call.output_tokens - least.output_tokens
        if room.tokens is not None:
            extra = min(extra, room.tokens - least.input_tokens - least.output_tokens)
        if room.usd is not None and extra * self.price_usd > room.usd - least.cost_usd:
            extra = int((room.usd - least.cost_usd) // self.price_usd)
        return Normal(least.output_tokens + extra, self.at(call, least.output_tokens + extra))


def _reached(limits: Limits, spent: Spent) -> Refuse | None:
    figures: tuple[tuple[Key, Decimal | float, Decimal | float | None], ...] = (
        ("max_steps", spent.steps, limits.max_steps),
        ("max_tokens", spent.bound_tokens, limits.max_tokens),
        ("max_cost_usd", spent.bound_usd, limits.max_cost_usd),
        ("timeout_s", spent.elapsed_s, limits.timeout_s),
    )
    for key, value, limit in figures:
        if limit is not None and value >= limit:
            return Refuse(key, f"{key}: {plain(value)} of {plain(limit)}")
    return None


def _reached_above(account: Account) -> Refuse | None:
    limits = Limits(max_tokens=account.limits.max_tokens, max_cost_usd=account.limits.max_cost_usd)
    reached = _reached(limits, account.spent)
    return None if reached is None else _of_account(account, reached)


def _of_account(account: Account, refused: Refuse) -> Refuse:
    """Say whose limit it is that refuses, where it is not the turn's own."""
    if account.shared:
        return Refuse("budget", f"budget: {account.owner}: {refused.text.replace(':', '', 1)}")
    return Refuse(refused.key, f"{refused.text}, of {account.owner}") if account.owner else refused


def _left(account: Account, landing: Estimate | None) -> _Room:
    """Return what an account leaves for a call with `landing` behind it; a free one needs some too: a limit used up exactly is reached."""
    limits, spent, kept, held = account.limits, account.spent, account.kept, account.held
    tokens = 0 if landing is None else max(_tokens(landing), _tokens(held), 1)
    usd = Decimal(0) if landing is None else max(landing.cost_usd, held.cost_usd, NANO_USD)
    return _Room(
        tokens=None if limits.max_tokens is None else limits.max_tokens - spent.bound_tokens - _tokens(kept) - tokens,
        usd=None if limits.max_cost_usd is None else limits.max_cost_usd - spent.bound_usd - kept.cost_usd - usd,
    )


def _in_whole_nano(held: Estimate) -> Estimate:
    """Return what a row of the ledger holds for `held`: else it and the call, each rounded up there, might not fit where both do here."""
    return replace(held, cost_usd=nano(held.cost_usd) * NANO_USD)


def _tokens(call: Estimate) -> int:
    return call.input_tokens + call.output_tokens


def _last_call(limits: Limits, spent: Spent, *, late: bool) -> Key | None:
    """Return the limit that leaves no step or no time for a landing after the next call, or None."""
    if limits.max_steps is not None and spent.steps + 1 >= limits.max_steps:
        return "max_steps"
    if late or (limits.timeout_s is not None and limits.timeout_s - spent.elapsed_s <= landing_share_s(limits.timeout_s)):
        return "timeout_s"
    return None


def _refusal(key: Key, accounts: Sequence[Account], call: Estimate, held: Estimate | None) -> Refuse:
    """Return the refusal of `call`, and of the landing held behind it, by the first account that does not hold them."""
    account = next(account for account in accounts if _Room.of((account,), held=held).short_of(call) == key)
    limits, spent = account.limits, account.spent
    more = held if held is not None and account.shared else NOTHING
    if key == "max_tokens":
        text = f"{key}: {spent.bound_tokens} + {_tokens(call) + _tokens(more)} of {limits.max_tokens}"
    else:
        text = f"{key}: {plain(spent.bound_usd)} + {plain(call.cost_usd + more.cost_usd)} of {plain(limits.max_cost_usd)}"
    return _of_account(account, Refuse(key, text))


def _key_of(key: Key, accounts: Sequence[Account], call: Estimate, landing: Estimate, held: Estimate | None) -> Key:
    """Return `key`, or "budget" where it is a shared budget that does not hold `call` and `landing`."""
    short = (account for account in accounts if _Room.of((account,), behind=landing, held=held).short_of(call) == key)
    account = next(short, None) if key in ("max_tokens", "max_cost_usd") else None
    return "budget" if account is not None and account.shared else key


def nano(amount: Decimal) -> int:
    """Return USD as nano-USD, rounded up: a price below a nano-dollar must not count as nothing."""
    return int((amount / NANO_USD).to_integral_value(rounding=ROUND_CEILING))


def plain(value: Decimal | float | None) -> str:
    """Return a figure as people write it: no exponent, no trailing zeros; seconds (float) to the millisecond."""
    if value is None:
        return "no limit"
    text = f"{value:.3f}" if isinstance(value, float) else f"{Decimal(value):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
