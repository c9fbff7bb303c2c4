"""The account of a live turn, and its place among the other accounts in which its model calls count.

How it works
    A call counts in its turn's own account; in those of the turns above it, since a turn begun inside a tool of another is that
    one's child; and in the budgets shared by name. A parent keeps one row a child, which follows the child's sums: so what a child
    reserves is out of reach for its parent and its siblings, and after a crash the parent's account still covers it. Shared budgets
    are decided by the storage (`Storage.reserve`), because other processes reserve there too.

What must stay true
    1. settled + uncertain + reserved <= limit, in every account, at every instant, whatever runs at once: a reservation is entered in
       all accounts or in none, under one lock (`tree_lock`).
    2. A row of a parent is queued before the barrier behind which its child's call is made, and never covers less than the child's.
    3. A turn whose parent has ended makes no further call: nobody would account for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent_graph.decisions.budget import NOTHING, Account, Estimate, Limits, Refuse, Spent
from agent_graph.runtime.account import Totals, totals, usd
from agent_graph.runtime.held import Holding
from agent_graph.runtime.shares import Share
from agent_graph.storage.port import BudgetAnswer, BudgetUse, Charge, LedgerRow, TurnKey

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
    charges: tuple[Charge, ...]
    answer: Awaitable[BudgetAnswer]

    def learn(self, answer: BudgetAnswer) -> None:
        """Remember what the budgets hold, as the storage has answered."""
        self.account.uses.update(zip(self.charges, answer.uses, strict=False))


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
        self._children: dict[str, LedgerRow] = {}
        own = () if budget is None else (Share(key.namespace, budget),)
        inherited = () if parent is None or not self._beside(parent) else parent.shares
        self.shares: tuple[Share, ...] = tuple(dict.fromkeys((*own, *inherited)))
        """The budgets shared by name in which this turn's own rows count."""
        self.holding = Holding(write=partial(storage.put, fence=fence), next_entry=self._numbers.next)

    def restore(self, rows: Sequence[LedgerRow]) -> None:
        """Take up the account where the rows leave it. What was reserved and never settled is uncertain from now on."""
        self.sums = totals(rows)
        self._numbers.last = max((row.entry for row in rows), default=0)
        self._children = {_name_of(row): row for row in rows if row.kind == "subagent"}
        self.holding.restore(rows)
        for row in rows:
            if row.state == "reserved" and row.kind != "landing":
                row = replace(row, state="unsettled")
                self._write(row)
                if row.kind == "subagent":
                    self._children[_name_of(row)] = row

    # -- rows -------------------------------------------------------------------------------------------------------------------

    @property
    def entries(self) -> int:
        """How many rows there are."""
        return self._numbers.last

    def next_entry(self) -> int:
        """Return the number of a new row."""
        return self._numbers.next()

    def charges(self) -> tuple[Charge, ...]:
        """Return where a row of now counts in shared budgets."""
        return tuple(share.charge(self._now()) for share in self.shares)

    def enter(self, row: LedgerRow, asked_for: LedgerRow) -> list[Asked]:
        """Count a reservation here and above; return whom to await for shared budgets. `asked_for`: the row that they are asked to hold."""
        self.sums.add(row)
        asked = self._write(asked_for, reserving=True)
        try:
            return [*asked, *self._tell(reserving=True)]
        except BaseException:  # a turn above can record nothing any more, so this one makes no call
            for one in asked:
                asyncio.ensure_future(one.answer).add_done_callback(_look_at)
            raise

    def withdraw(self, row: LedgerRow) -> None:
        """Take out a reservation that was not written."""
        self.sums.add(row, -1)
        self._tell()

    def close(self, reserved: LedgerRow, row: LedgerRow) -> None:
        """Let `row`, which is how it ended, stand for the reservation."""
        self.sums.add(reserved, -1)
        self.sums.add(row)
        self._write(row)
        self._tell()

    async def durable(self) -> None:
        """The barrier: return when everything queued so far is on disk, for this turn and all above it."""
        for account in self._line():
            if not account.ended or account is self:
                await account._storage.durable(account.key, fence=account._fence)

    def _write(self, row: LedgerRow, *, reserving: bool = False) -> list[Asked]:
        if row.charges and reserving:
            caps = [share.cap(charge) for share, charge in zip(self.shares, row.charges, strict=False)]  # a resumed row may have others
            return [Asked(self, row.charges, self._storage.reserve(row, fence=self._fence, caps=caps))]
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
                self._tell()

    def leave(self) -> None:
        """Tell the turn above that this one has ended, or was stopped."""
        with _lock:
            if self.parent is not None and self._name in self.parent._children:
                self._tell(state=_end_of(self.sums))
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
                sums = totals(rows)
                self._book_child(name, "", sums, _end_of(sums))

    @property
    def _name(self) -> str:
        return _name(self.key)

    def _line(self) -> Iterator[TurnAccount]:
        """Yield this account and those above it, up to the first."""
        account: TurnAccount | None = self
        while account is not None:
            yield account
            account = account.parent

    def _beside(self, other: TurnAccount) -> bool:
        """Return whether both write to the same storage, so that one transaction reaches both."""
        here, there = self._storage, other._storage
        return here is there or (here.location == there.location != ":memory:")

    def _all_shares(self) -> Iterator[tuple[TurnAccount, Share]]:
        """Yield the shared budgets in which this turn's calls count, each with the account whose rows count there."""
        below: TurnAccount | None = None
        for account in self._line():
            if below is None or not account._beside(below):
                yield from ((account, share) for share in account.shares)
            below = account

    def _tell(self, *, reserving: bool = False, state: Any = "reserved") -> list[Asked]:
        """Bring the rows of the turns above up to this one's sums."""
        parent = self.parent
        if parent is None or parent.ended:
            return []
        charges = () if self._beside(parent) else parent.charges()
        return parent._book_child(self._name, self._agent, self.sums, state, charges=charges, reserving=reserving)

    def _book_child(
        self, name: str, agent: str, sums: Totals, state: Any, *, charges: tuple[Charge, ...] = (), reserving: bool = False
    ) -> list[Asked]:
        known = self._children.get(name)
        row = LedgerRow(
            key=self.key,
            entry=self.next_entry() if known is None else known.entry,
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
            used_s=self.used_s(),
        )
        if known is not None:
            self.sums.add(known, -1)
        self.sums.add(row)
        self._children[name] = row
        return [*self._write(row, reserving=reserving), *self._tell(reserving=reserving)]


def _look_at(answer: asyncio.Future[BudgetAnswer]) -> None:
    if not answer.cancelled():
        answer.exception()  # else asyncio would complain that nobody looked at it


def _end_of(sums: Totals) -> str:
    """Return the state of an ended child's row."""
    return "unsettled" if sums.uncertain_nusd or sums.uncertain_tokens else "settled"


def _name(key: TurnKey) -> str:
    """Return how a parent's row names its child."""
    return json.dumps({"run": [key.namespace, key.run_id, key.turn]}, ensure_ascii=False)


def _name_of(row: LedgerRow) -> str:
    return row.usage or ""
