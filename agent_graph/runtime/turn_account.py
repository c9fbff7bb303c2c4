"""The account of a live turn, and its place among the other accounts in which its model calls count.

How it works
    A call counts in its turn's own account; in those of the turns above it, since a turn begun inside a tool of another is that
    one's child; and in the budgets shared by name. A parent keeps a row of each child, which follows the child's sums: so what a child
    reserves is out of reach for its parent and its siblings, and after a crash the parent's account still covers it. (Of a child
    in another storage one for each day, or budget, in which it counts here: what was reserved in one is settled there.) Shared budgets
    are decided by the storage (`Storage.reserve`), because other processes reserve there too.

What must stay true
    1. settled + uncertain + reserved <= limit, in every account, at every instant, whatever runs at once: a reservation is entered in
       all accounts or in none, under one lock (`tree_lock`).
    2. A row of a parent is queued before that of its child, and never covers less: no crash leaves a child unknown to its parent.
    3. A turn whose parent has ended makes no further call: nobody would account for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from agent_graph.decisions.budget import NOTHING, Account, Estimate, Limits, Refuse, Spent
from agent_graph.errors import AgentGraphError
from agent_graph.runtime.account import Totals, totals, usd
from agent_graph.runtime.held import Holding
from agent_graph.runtime.shares import Share
from agent_graph.storage.port import BudgetAnswer, BudgetCap, BudgetUse, Charge, LedgerRow, TurnKey

if TYPE_CHECKING:
    from agent_graph.config import Budget
    from agent_graph.storage.port import Storage

__all__ = ["Asked", "TurnAccount", "tree_lock"]

_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603  a fork inherits the lock as it is, and not the thread that may have held it
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def tree_lock() -> threading.RLock:
    """Return what is held while a reservation is decided and entered, or closed: the turns of a tree may live in several threads."""
    return _lock


@dataclass(frozen=True, slots=True)
class Asked:
    """A storage that was asked to hold a row in its shared budgets."""

    account: TurnAccount
    caps: Sequence[BudgetCap]
    answer: Awaitable[BudgetAnswer]

    def learn(self, answer: BudgetAnswer) -> None:
        """Remember what the budgets hold, as the storage has answered."""
        self.account.uses.update(zip((cap.charge for cap in self.caps), answer.uses, strict=False))


class _Numbers:
    """Counts the rows of a ledger. (Apart from it: who numbers rows need not keep the account, and all its turn holds, alive.)"""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


class TurnAccount:
    """What one turn has spent and reserved, and what is left for it in the accounts above."""

    def __init__(
        self,
        *,
        key: TurnKey,
        fence: int,
        storage: Storage,
        agent: str,
        budget: Budget | None,
        parent: TurnAccount | None,
        used_s: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.key = key
        self.limits = Limits()
        self.sums = Totals()
        self.parent = parent
        self.ended = False
        self.kept: Estimate = NOTHING
        """The landing that has to fit behind what the turns below this one spend."""
        self.uses: dict[Charge, BudgetUse] = {}
        """What each shared budget held when it was last looked at."""
        self.used_s = used_s
        """Tells the working time of the turn, seconds."""
        self._fence = fence
        self._storage = storage
        self._agent = agent
        self._now = now
        self._numbers = _Numbers()
        self._children: dict[str, list[LedgerRow]] = {}
        """The rows of each turn below by its name, oldest first: one for each day, or budget, in which it counts here."""
        self._begun: dict[int, float] = {}
        """When each open reservation was made: what becomes of it counts where that did."""
        self._is_beside = parent is not None and _are_one(storage, parent._storage)
        """Whether the turn above writes to the same storage, so that one transaction reaches both."""
        own = () if budget is None else (Share(key.namespace, budget),)
        inherited = () if parent is None or not self._is_beside else parent.shares
        self.shares: tuple[Share, ...] = tuple(dict.fromkeys((*own, *inherited)))
        """The budgets shared by name in which this turn's own rows count."""
        self.holding = Holding(write=partial(storage.put, fence=fence), next_entry=self._numbers.next)

    def restore(self, rows: Sequence[LedgerRow]) -> None:
        """Take up the account where the rows leave it. What was reserved and never settled is uncertain from now on."""
        self.sums = totals(rows)
        self._numbers.last = max((row.entry for row in rows), default=0)
        self._children = {}
        self.holding.restore(rows)
        for row in rows:
            if row.state == "reserved" and row.kind != "landing":
                row = replace(row, state="unsettled")
                self._write(row)
            if row.kind == "subagent":
                self._children.setdefault(_name_of(row), []).append(row)

    # -- rows -------------------------------------------------------------------------------------------------------------------

    @property
    def entries(self) -> int:
        """How many rows there are."""
        return self._numbers.last

    def next_entry(self) -> int:
        """Return the number of a new row."""
        return self._numbers.next()

    def charges(self, at: float | None = None) -> tuple[Charge, ...]:
        """Return where a row of `at` (seconds since the epoch; None: now) counts in shared budgets: in each once, whoever names it."""
        at = self._now() if at is None else at
        return tuple(dict.fromkeys(share.charge(at) for share in self.shares))

    def enter(self, row: LedgerRow, asked_for: LedgerRow) -> list[Asked]:
        """Count a reservation here and above; return whom to await for shared budgets. `asked_for`: the row that they are asked to hold."""
        self.sums.add(row)
        self._begun[row.entry] = at = self._now()
        told: list[Asked] = []
        try:
            told = self._tell(at, reserving=True)  # first: whoever looks for the turns below this one finds them by its rows
            return [*self._write(asked_for, reserving=True), *told]
        except BaseException:  # it, or one above, can record nothing any more, so it makes no call
            for one in told:
                asyncio.ensure_future(one.answer).add_done_callback(_look_at)
            with contextlib.suppress(AgentGraphError):
                self.withdraw(row)
            raise

    def withdraw(self, row: LedgerRow) -> None:
        """Take out a reservation that was not written."""
        self.sums.add(row, -1)
        self._tell(self._begun.pop(row.entry, None))

    def close(self, reserved: LedgerRow, row: LedgerRow) -> None:
        """Let `row`, which is how it ended, stand for the reservation."""
        self.sums.add(reserved, -1)
        self.sums.add(row)
        at = self._begun.pop(row.entry, None)
        if row.cost_nusd > reserved.bound_nusd or row.tokens > reserved.bound_tokens:  # what is above covers it at every instant
            self._tell(at)
            self._write(row)
        else:
            self._write(row)
            self._tell(at)

    async def durable(self) -> None:
        """The barrier: return when everything queued so far is on disk, for this turn and all above it."""
        for account in self._line():
            if not account.ended or account is self:
                await account._storage.durable(account.key, fence=account._fence)

    def _write(self, row: LedgerRow, *, reserving: bool = False) -> list[Asked]:
        if row.charges and reserving:
            caps = [share.cap(charge) for charge in row.charges for share in self.shares if share.counts_in(charge)]
            return [Asked(self, caps, self._storage.reserve(row, fence=self._fence, caps=caps))]
        self._storage.put(row, fence=self._fence)
        return []

    # -- what is left -----------------------------------------------------------------------------------------------------------

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
        if self.parent is None and not self.shares:
            return ()
        accounts: list[Account] = []
        for account, share in self._all_shares():
            charge = share.charge(self._now())
            held = self.holding.within(charge) if account is self else NOTHING
            accounts.append(share.account(account.uses.get(charge, BudgetUse()), held))
        for account in self._line():
            if account is not self:
                owner = f"run {account.key.run_id!r}, which began this one"
                accounts.append(Account(limits=account.limits, spent=account.spent, owner=owner, kept=account.kept))
        return tuple(accounts)

    async def refresh(self) -> None:
        """Look up what counts in the shared budgets now."""
        for account, share in self._all_shares():
            charge = share.charge(self._now())
            account.uses[charge] = await account._storage.budget_use(charge)

    def orphaned(self) -> Refuse | None:
        """Return the refusal of every further call where a turn above this one has ended; None where all are at work."""
        gone = next((account for account in self._line() if account.ended), None)
        if gone is None:
            return None
        text = f"max_cost_usd: run {gone.key.run_id!r}, which began this one, has ended, and what it had left with it"
        return Refuse("max_cost_usd", text)

    # -- the turns above, and those below ------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Tell the turn above what this one has spent so far: after a crash its row may say less, or more."""
        with _lock:
            if self.parent is not None and (self.entries or self._name in self.parent._children):
                self._tell(None)

    def leave(self) -> None:
        """Tell the turn above that this one has ended, or was stopped."""
        with _lock:
            if self.parent is not None and self._name in self.parent._children:
                self._tell(None, over=True)
            self.ended = True

    def give_back(self) -> None:
        """Hold nothing any more for a landing: the turn ends, stops or waits."""
        with _lock:
            self.holding.give_back()

    def book_ended(self, key: TurnKey, rows: Sequence[LedgerRow]) -> None:
        """Book an earlier child, which ended without this turn's having been told, by its own rows."""
        name = _name(key)
        with _lock:
            if name in self._children:
                self._book_child(name, "", totals(rows), at=None, over=True)

    @property
    def _name(self) -> str:
        return _name(self.key)

    def _line(self) -> Iterator[TurnAccount]:
        """Yield this account and those above it, up to the first."""
        account: TurnAccount | None = self
        while account is not None:
            yield account
            account = account.parent

    def _all_shares(self) -> Iterator[tuple[TurnAccount, Share]]:
        """Yield the shared budgets in which this turn's calls count, each with the account whose rows count there."""
        below: TurnAccount | None = None
        for account in self._line():
            if below is None or not below._is_beside:
                yield from ((account, share) for share in account.shares)
            below = account

    def _tell(self, at: float | None, *, reserving: bool = False, over: bool = False) -> list[Asked]:
        """Bring the rows of the turns above up to this one's sums. `at`: when the reservation that changes them was made."""
        parent = self.parent
        if parent is None or parent.ended:
            return []
        return parent._book_child(self._name, self._agent, self.sums, at=at, apart=not self._is_beside, reserving=reserving, over=over)

    def _book_child(
        self, name: str, agent: str, sums: Totals, *, at: float | None, apart: bool = False, reserving: bool = False, over: bool = False
    ) -> list[Asked]:
        """Let the rows of a turn below add up to its `sums`. What has changed counts where that of `at` does (None: its newest row).

        Args:
            name: of the turn.
            agent: whose it is.
            sums: what it has spent and reserved in all.
            at: when the reservation that changes the sums was made, seconds since the epoch.
            apart: whether its own rows are in another storage, so that these count in the shared budgets.
            reserving: whether its storage is to be asked.
            over: whether it has ended, or was stopped.
        """
        rows = self._children.setdefault(name, [])
        if at is not None or not rows:
            charges = self.charges(at) if apart else ()
            place = next((place for place, row in enumerate(rows) if row.charges == charges), len(rows))
            if place == len(rows):
                rows.append(self._child_row(name, rows[0].model if rows else agent, rows[0].step if rows else self.sums.steps, charges))
        else:
            place = len(rows) - 1
        booked = _booked(rows, place, sums, over=over)
        changed = [place, *(other for other, row in enumerate(booked) if other != place and row != rows[other])]
        asked: list[Asked] = []
        for other in changed:
            row = replace(booked[other], used_s=self.used_s())
            self.sums.add(rows[other], -1)
            self.sums.add(row)
            rows[other] = row
            asked += self._write(row, reserving=reserving and other == place)
        return [*asked, *self._tell(at, reserving=reserving)]

    def _child_row(self, name: str, agent: str, step: int, charges: tuple[Charge, ...]) -> LedgerRow:
        return LedgerRow(
            key=self.key,
            entry=self.next_entry(),
            step=step,
            kind="subagent",
            attempt=1,
            model=agent,
            state="reserved",
            bound_nusd=0,
            bound_tokens=0,
            usage=name,
            charges=charges,
        )


def _are_one(here: Storage, there: Storage) -> bool:
    """Return whether two storages keep their rows in the same place."""
    if here is there or ":memory:" in (here.location, there.location):
        return here is there
    return here.location == there.location or os.path.realpath(here.location) == os.path.realpath(there.location)


def _booked(rows: Sequence[LedgerRow], place: int, sums: Totals, *, over: bool) -> list[LedgerRow]:
    """Return a child's rows so that they add up to `sums`: the one at `place` takes the difference, the others what it cannot go below."""
    booked = list(rows)
    nusd = sums.uncertain_nusd - sum(row.bound_nusd for row in rows)
    tokens = sums.uncertain_tokens - sum(row.bound_tokens for row in rows)
    for other in sorted(range(len(rows)), key=lambda other: (other != place, -other)):
        row = rows[other]
        booked[other] = replace(row, bound_nusd=max(0, row.bound_nusd + nusd), bound_tokens=max(0, row.bound_tokens + tokens))
        nusd, tokens = min(0, row.bound_nusd + nusd), min(0, row.bound_tokens + tokens)
    booked[place] = replace(
        booked[place],
        cost_nusd=rows[place].cost_nusd + sums.cost_nusd - sum(row.cost_nusd for row in rows),
        tokens=rows[place].tokens + sums.tokens - sum(row.tokens for row in rows),
        state="reserved",
    )
    return [replace(row, state="unsettled" if row.bound_nusd or row.bound_tokens else "settled") for row in booked] if over else booked


def _look_at(answer: asyncio.Future[BudgetAnswer]) -> None:
    if not answer.cancelled():
        answer.exception()  # else asyncio would complain that nobody looked at it


def _name(key: TurnKey) -> str:
    """Return how a parent's row names its child."""
    return json.dumps({"run": [key.namespace, key.run_id, key.turn]}, ensure_ascii=False)


def _name_of(row: LedgerRow) -> str:
    return row.usage or ""
