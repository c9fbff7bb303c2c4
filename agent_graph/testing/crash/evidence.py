"""What is judged: the world's events, and the account that the program under test gives of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from agent_graph.testing.crash.world import Event

__all__ = ["Account", "Evidence", "RecordedCall", "Said", "TurnAccount"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """A tool call as the program's account has it."""

    tool: str
    args: str
    """Canonical JSON."""
    call_id: str
    key: str
    state: Literal["recorded", "in doubt"]
    """recorded: it has a result or an error; in doubt: the program says that it does not know."""
    succeeded: bool = True
    result: str = ""
    """JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAccount:
    """One turn as the program accounts for it."""

    status: str
    output: str | None
    steps: int
    cost_usd: Decimal
    """Settled."""
    uncertain_usd: Decimal
    unsettled_usd: tuple[Decimal, ...] = ()
    """The bound of each model call whose bill is unknown; their sum is `uncertain_usd`."""
    calls: tuple[RecordedCall, ...] = ()
    limited: bool = False
    """Whether it ended or landed for a limit's sake: what is uncertain after a crash counts, so it may have to end earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One message of the final transcript."""

    role: str
    text: str
    calls: tuple[str, ...] = ()
    """An assistant's tool calls: id, name and arguments of each, as JSON."""
    call_ids: tuple[str, ...] = ()
    answers: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the program says at the end."""

    turns: tuple[TurnAccount, ...]
    transcript: tuple[Said, ...]
    others: tuple[RecordedCall, ...] = ()
    """Tool calls of the other runs in its storage: of sub-agents."""
    idempotent: Mapping[str, bool] = field(default_factory=dict[str, bool])
    """Which tools may be run twice."""
    max_cost_usd: Decimal | None = None
    """The limit of each turn."""
    max_steps: int | None = None
    bounded: bool = True
    """Whether each model call was reserved at a price known beforehand; else one is bounded by the dearest before it."""

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """The tool calls of all turns, in order, and those of sub-agents."""
        return (*(call for turn in self.turns for call in turn.calls), *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of one run of the harness."""

    events: tuple[Event, ...]
    account: Account
    failures: tuple[str, ...] = ()
    """Attempts that ended by themselves, with an exception or by hanging."""
    loop_s: float = 0.0
    """How long the last attempt's loop took, in seconds."""
    more: Any = None
    """What the caller's `look` returned."""
