"""The ledger of a live turn: what its model calls reserve and cost, and the other accounts in which they count.

How it works
    Before each attempt at a model call its worst case is *reserved*: `decisions/budget.admit` looks at every account in which the
    call counts, and under one lock it is entered in all of them or in none. Those accounts are the turn's own; those of the turns
    above it, since a turn begun inside a tool of another is that one's child; and the budgets shared by name. A parent keeps one row
    a child, which follows the child's sums: so what a child reserves is out of reach for its parent and its siblings, and after a
    crash the parent's account still covers it. Shared budgets are decided by the storage (`Storage.reserve`), because other
    processes reserve there too; what it answers is looked at once more where it refuses. There a
    turn also holds the landing that it may yet need (`held.py`).

What must stay true
    1. settled + uncertain + reserved <= limit, in every account, at every instant, whatever runs at once.
    2. A row of a parent is queued before the barrier behind which its child's call is made, and never covers less than the child's.
    3. Every reservation is closed: settled, known not to be billed, or unsettled (its bound stays counted).
    4. A turn whose parent has ended makes no further call: nobody would account for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from agent_graph.decisions.budget import NOTHING, Account, Admission, Land, Limits, Normal, Refuse, Spent
from agent_graph.runtime.account import Totals, nano, totals, usd
from agent_graph.runtime.held import Holding
from agent_graph.runtime.shares import Share
from agent_graph.storage.port import BudgetAnswer, BudgetUse, Charge, LedgerRow, TurnKey

if TYPE_CHECKING:
    from agent_graph.config import Budget
    from agent_graph.storage.port import Storage

__all__ = ["Ledger", "Reserved"]

ROUNDS = 100
"""So often a reservation is tried that a shared budget refused, each time by what it holds by then."""
_UNPRICED = json.dumps({"unpriced": True})
_JSON = json.JSONEncoder(default=str)

_lock = threading.RLock()
"""Held while a reservation is decided and entered, or closed: the turns of a tree may live in several threads."""


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  a fork inherits the lock as it is, and not the thread that may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation that was made."""

    entry: int
    admission: Normal


@dataclass(frozen=True, slots=True)
class _Asked:
    """A storage that was asked to hold a row in its shared budgets."""

    ledger: Ledger
    charges: tuple[Charge, ...]
    answer: Awaitable[BudgetAnswer]


class _Numbers:
    """Counts the rows of a ledger. (Apart from it: who numbers rows need not keep the ledger, and all its turn holds, alive.)"""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


class Ledger:
    """The model calls of one turn."""

    def __init__(
        self,
        *,
        key: TurnKey,
        fence: int,
        storage: Storage,
        agent: str,
        budget: Budget | None,
        parent: Ledger | None,
        used_s: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.key = key
        self.limits = Limits()
        self.sums = Totals()
        self.parent = parent
        self.ended = False
        self._fence = fence
        self._storage = storage
        self._agent = agent
        self._used_s, self._now = used_s, now
        self._numbers = _Numbers()
        self._open: dict[int, LedgerRow] = {}
        self._children: dict[str, LedgerRow] = {}
        self._kept = NOTHING
        own = () if budget is None else (Share(key.namespace, budget),)
        inherited = () if parent is None or not self._beside(parent) else parent._shares
        self._shares: tuple[Share, ...] = tuple(dict.fromkeys((*own, *inherited)))
        self._uses: dict[Charge, BudgetUse] = {}
        self._holding = Holding(write=partial(storage.put, fence=fence), next_entry=self._numbers.next)
        self._asking = asyncio.Lock()

    def restore(self, rows: Sequence[LedgerRow]) -> None:
        """Take up the account where the rows leave it. What was reserved and never settled is uncertain from now on."""
        self.sums = totals(rows)
        self._numbers.last = max((row.entry for row in rows), default=0)
        self._children = {_name_of(row): row for row in rows if row.kind == "subagent"}
        self._holding.restore(rows)
        for row in rows:
            if row.state == "reserved" and row.kind != "landing":
                row = replace(row, state="unsettled")
                self._write(row)
                if row.kind == "subagent":
                    self._children[_name_of(row)] = row

    # -- reserving --------------------------------------------------------------------------------------------------------------

    async def reserve(
        self, decide: Callable[[], Admission], *, step: int, kind: Any, attempt: int, model: str, unpriced: bool = False
    ) -> Reserved | Land | Refuse:
        """Reserve what `decide` admits, in every account; return what else it says. Await `durable()` before the call.

        Args:
            decide: looks at the accounts as they are now (`orphaned`, `spent`, `above`); asked again where a shared budget turns out
                fuller.
            step: the step that the call is for; 0 outside the loop's steps.
            kind: what the call is for.
            attempt: from 1 within the call.
            model: its name.
            unpriced: whether its price is unknown: then the bound is no bound, and the row says so for as long as the bill is open.
        """
        given: dict[str, Any] = {"step": step, "kind": kind, "attempt": attempt, "model": model}
        if not self._shares:
            return await self._reserved(decide, unpriced=unpriced, **given)
        async with self._asking:  # a row that grew by two calls at once would hold but one of them
            return await self._reserved(decide, unpriced=unpriced, **given)

    async def _reserved(self, decide: Callable[[], Admission], *, unpriced: bool, **given: Any) -> Reserved | Land | Refuse:
        await self.refresh()
        for _ in range(ROUNDS):
            with _lock:
                admission = decide()
                if not isinstance(admission, Normal):
                    return admission
                assert admission.call is not None, "admit says what to reserve"
                worst = admission.call
                tokens = worst.input_tokens + worst.output_tokens
                row = self._new_row(bound_usd=worst.cost_usd, bound_tokens=tokens, **given)
                row = replace(row, usage=_UNPRICED) if unpriced else row
                answers = self._enter(row, self._holding.ask(row, admission))
            if await self._is_granted(row, answers):
                if row.kind == "step":
                    self._kept = admission.landing or NOTHING
                return Reserved(row.entry, admission)
        return Refuse("budget", f"budget: others took what was left, {ROUNDS} times in a row")

    def enter(self, *, step: int, kind: Any, attempt: int, model: str, bound_usd: Decimal, bound_tokens: int) -> int:
        """Enter what the caller has admitted by itself, where no shared budget is concerned; return the entry number."""
        with _lock:
            row = self._new_row(step=step, kind=kind, attempt=attempt, model=model, bound_usd=bound_usd, bound_tokens=bound_tokens)
            asked = self._enter(row, row)
        assert not asked, "a shared budget has to be asked: reserve()"
        return row.entry

    def _new_row(self, *, step: int, kind: Any, attempt: int, model: str, bound_usd: Decimal, bound_tokens: int) -> LedgerRow:
        return LedgerRow(
            key=self.key,
            entry=self._numbers.next(),
            step=step,
            kind=kind,
            attempt=attempt,
            model=model,
            state="reserved",
            bound_nusd=nano(bound_usd),
            bound_tokens=bound_tokens,
            charges=self._charges(),
            used_s=self._used_s(),
        )

    @property
    def entries(self) -> int:
        """How many rows there are."""
        return self._numbers.last

    @property
    def shares(self) -> tuple[Share, ...]:
        """The budgets shared by name in which this turn's own rows count."""
        return self._shares

    def orphaned(self) -> Refuse | None:
        """Return the refusal of every further call where a turn above this one has ended; None where all are at work."""
        gone = next((ledger for ledger in self._line() if ledger.ended), None)
        if gone is None:
            return None
        text = f"max_cost_usd: run {gone.key.run_id!r}, which began this one, has ended, and what it had left with it"
        return Refuse("max_cost_usd", text)

    def _enter(self, row: LedgerRow, asked_for: LedgerRow) -> list[_Asked]:
        self._open[row.entry] = row
        self.sums.add(row)
        asked = self._write(asked_for, reserving=True)
        try:
            return [*asked, *self._tell(reserving=True)]
        except BaseException:  # a turn above can record nothing any more, so this one makes no call
            for one in asked:
                asyncio.ensure_future(one.answer).add_done_callback(_look_at)
            raise

    async def _is_granted(self, row: LedgerRow, answers: Sequence[_Asked]) -> bool:
        """Return whether every shared budget holds the reservation; withdraw it from all accounts where one does not."""
        if not answers:
            return True
        try:
            told = await asyncio.gather(*(asked.answer for asked in answers))
        except BaseException:
            self.unbilled(row.entry, "the call was not made")
            raise
        for asked, answer in zip(answers, told, strict=True):
            asked.ledger._uses.update(zip(asked.charges, answer.uses, strict=False))
        with _lock:
            self._holding.answered(row, granted=told[0].granted)
        if all(answer.granted for answer in told):
            return True
        if row.charges and not told[0].granted:
            self._forget(row)
        else:
            self.unbilled(row.entry, "a shared budget did not hold it")
        return False

    def _forget(self, row: LedgerRow) -> None:
        """Take a reservation back that was not written."""
        with _lock:
            del self._open[row.entry]
            self.sums.add(row, -1)
            self._tell()

    async def durable(self) -> None:
        """The barrier: return when everything queued so far is on disk, for this turn and all above it."""
        for ledger in self._line():
            if not ledger.ended or ledger is self:
                await ledger._storage.durable(ledger.key, fence=ledger._fence)

    # -- closing ----------------------------------------------------------------------------------------------------------------

    def settle(self, entry: int, *, cost_usd: Decimal, tokens: int, usage: Mapping[str, Any], model: str, used: bool) -> bool:
        """Book what an attempt really cost; `used` says that its reply became a step. Return whether its bound covered it."""
        bound = self._open[entry].bound_nusd
        cost = nano(cost_usd)
        self._close(entry, state="settled", cost_nusd=cost, tokens=tokens, usage=_JSON.encode(usage), model=model, used=used)
        return cost <= bound

    def unbilled(self, entry: int, reason: str) -> None:
        """Book that an attempt failed and cost nothing: the provider refused it. What a landing took up is held again."""
        with _lock:
            self._holding.unbilled(self._open[entry])
        self._close(entry, state="failed", usage=json.dumps({"error": reason}))

    def unsettle(self, entry: int, reason: str) -> None:
        """Book that the bill of an attempt is unknown: its bound stays counted."""
        known = json.loads(self._open[entry].usage or "{}")
        self._close(entry, state="unsettled", usage=json.dumps(known | {"error": reason}))

    def _close(self, entry: int, **changes: Any) -> None:
        with _lock:
            reserved = self._open.pop(entry)
            row = replace(reserved, used_s=self._used_s(), **changes)
            self.sums.add(reserved, -1)
            self.sums.add(row)
            self._write(row)
            self._tell()

    # -- the accounts above -----------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Spent:
        """What has been spent, without steps and time."""
        return self.spent_after(0, 0.0)

    def spent_after(self, steps: int, elapsed_s: float) -> Spent:
        """Return what has been spent, with the steps and the working time that only the turn knows."""
        sums = self.sums
        return Spent(
            steps=steps,
            elapsed_s=elapsed_s,
            tokens=sums.tokens,
            cost_usd=usd(sums.cost_nusd),
            uncertain_tokens=sums.uncertain_tokens,
            uncertain_usd=usd(sums.uncertain_nusd),
        )

    def above(self) -> tuple[Account, ...]:
        """Return the other accounts in which this turn's calls count, as far as is known here."""
        if self.parent is None and not self._shares:
            return ()
        accounts: list[Account] = []
        for ledger, share in self._all_shares():
            charge = share.charge(self._now())
            held = self._holding.within(charge) if ledger is self else NOTHING
            accounts.append(share.account(ledger._uses.get(charge, BudgetUse()), held))
        for ledger in self._line():
            if ledger is not self:
                owner = f"run {ledger.key.run_id!r}, which began this one"
                accounts.append(Account(limits=ledger.limits, spent=ledger.spent, owner=owner, kept=ledger._kept))
        return tuple(accounts)

    async def refresh(self) -> None:
        """Look up what counts in the shared budgets now."""
        for ledger, share in self._all_shares():
            charge = share.charge(self._now())
            ledger._uses[charge] = await ledger._storage.budget_use(charge)

    def join(self) -> None:
        """Tell the turn above what this one has spent so far: after a crash its row may say less, or more."""
        with _lock:
            if self.parent is not None and (self.entries or self._name in self.parent._children):
                self._tell()

    def leave(self) -> None:
        """Tell the turn above that this one has ended, or was stopped."""
        with _lock:
            if self.parent is not None and self._name in self.parent._children:
                self._tell(state="unsettled" if self.sums.uncertain_nusd or self.sums.uncertain_tokens else "settled")
            self.ended = True

    def give_back(self) -> None:
        """Hold nothing any more for a landing: the turn ends, stops or waits."""
        with _lock:
            self._holding.give_back()

    def book_ended(self, key: TurnKey, rows: Sequence[LedgerRow]) -> None:
        """Book an earlier child, which ended without this turn's having been told, by its own rows."""
        name = _name(key)
        with _lock:
            if name in self._children:
                sums = totals(rows)
                self._book_child(name, "", sums, "unsettled" if sums.uncertain_nusd or sums.uncertain_tokens else "settled")

    @property
    def _name(self) -> str:
        return _name(self.key)

    def _line(self) -> Iterator[Ledger]:
        """Yield this ledger and those above it, up to the first."""
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger
            ledger = ledger.parent

    def _beside(self, other: Ledger) -> bool:
        """Return whether both write to the same storage, so that one transaction reaches both."""
        here, there = self._storage, other._storage
        return here is there or (here.location == there.location != ":memory:")

    def _all_shares(self) -> Iterator[tuple[Ledger, Share]]:
        """Yield the shared budgets in which this turn's calls count, each with the ledger whose rows count there."""
        below: Ledger | None = None
        for ledger in self._line():
            if below is None or not ledger._beside(below):
                yield from ((ledger, share) for share in ledger._shares)
            below = ledger

    def _charges(self) -> tuple[Charge, ...]:
        return tuple(share.charge(self._now()) for share in self._shares)

    def _tell(self, *, reserving: bool = False, state: Any = "reserved") -> list[_Asked]:
        """Bring the rows of the turns above up to this one's sums."""
        parent = self.parent
        if parent is None or parent.ended:
            return []
        charges = () if self._beside(parent) else parent._charges()
        return parent._book_child(self._name, self._agent, self.sums, state, charges=charges, reserving=reserving)

    def _book_child(
        self, name: str, agent: str, sums: Totals, state: Any, *, charges: tuple[Charge, ...] = (), reserving: bool = False
    ) -> list[_Asked]:
        known = self._children.get(name)
        row = LedgerRow(
            key=self.key,
            entry=self._numbers.next() if known is None else known.entry,
            step=self.sums.steps if known is None else known.step,
            kind="subagent",
            attempt=1,
            model=agent if known is None else known.model,
            state=state,
            bound_nusd=sums.uncertain_nusd,
            bound_tokens=sums.uncertain_tokens,
            cost_nusd=sums.cost_nusd,
            tokens=sums.tokens,
            usage=name,
            charges=charges if known is None else known.charges,
            used_s=self._used_s(),
        )
        if known is not None:
            self.sums.add(known, -1)
        self.sums.add(row)
        self._children[name] = row
        return [*self._write(row, reserving=reserving), *self._tell(reserving=reserving)]

    def _write(self, row: LedgerRow, *, reserving: bool = False) -> list[_Asked]:
        if row.charges and reserving:
            caps = [share.cap(charge) for share, charge in zip(self._shares, row.charges, strict=False)]  # a resumed row may have others
            return [_Asked(self, row.charges, self._storage.reserve(row, fence=self._fence, caps=caps))]
        self._storage.put(row, fence=self._fence)
        return []


def _look_at(answer: asyncio.Future[BudgetAnswer]) -> None:
    if not answer.cancelled():
        answer.exception()  # else asyncio would complain that nobody looked at it


def _name(key: TurnKey) -> str:
    """Return how a parent's row names its child."""
    return json.dumps({"run": [key.namespace, key.run_id, key.turn]}, ensure_ascii=False)


def _name_of(row: LedgerRow) -> str:
    return row.usage or ""
