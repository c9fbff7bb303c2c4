"""The landing that a turn holds in its shared budgets: one ledger row, which counts there and in no other account.

How it works
    With its first call a turn reserves the call *and* the landing behind it, as one row of kind "landing": the storage takes it or
    leaves it in one transaction. Then the call gets a row of its own, and what is left of the first is the landing alone. The next
    call asks for that same row to grow (only the difference has to fit), the landing itself takes it up. So between two steps the
    landing's worst case stays out of reach for every other run. Where a turn ends, stops or waits for a person, the row is given back.

What must stay true
    1. What is held is never billed: at its end the row counts as nothing.
    2. It is given back before its turn is written down as ended: nobody looks at an ended turn again.
    3. Rows are queued so that the budget holds too much for an instant, never too little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent_graph.decisions.budget import NOTHING, Estimate, nano
from agent_graph.runtime.account import usd
from agent_graph.storage.port import Charge, LedgerRow

if TYPE_CHECKING:
    from agent_graph.decisions.budget import Normal

__all__ = ["Holding", "held_behind"]


class Holding:
    """What one turn holds for its landing. Its ledger calls it under the ledgers' lock, and asks for one call at a time."""

    def __init__(self, *, write: Callable[[LedgerRow], object], next_entry: Callable[[], int]) -> None:
        self._write, self._next_entry = write, next_entry
        self._row: LedgerRow | None = None
        self._asked: tuple[LedgerRow, LedgerRow | None] | None = None

    def restore(self, rows: Sequence[LedgerRow]) -> None:
        """Go on holding what the rows of the turn say."""
        for row in rows:
            if row.kind == "landing" and row.state == "reserved":
                self._hold(row)

    def within(self, charge: Charge) -> Estimate:
        """Return what is held in a shared budget, as a limit sees it."""
        row = self._row
        if row is None or charge not in row.charges:
            return NOTHING
        return Estimate(input_tokens=row.bound_tokens, output_tokens=0, cost_usd=usd(row.bound_nusd))

    def ask(self, call: LedgerRow, admission: Normal) -> LedgerRow:
        """Return the row to be asked for: `call`, or one that stands for it and for the landing behind it."""
        self._forget_asked()
        behind = held_behind(call, admission, self._row, next_entry=self._next_entry)
        if behind is None:
            return call
        self._asked = behind, self._row
        self._row = _with_call(behind, call)  # until there is an answer it may be there: `give_back` must find it
        return self._row

    def answered(self, call: LedgerRow, *, granted: bool) -> None:
        """Make the row that stood for two into two, if it was granted."""
        if self._asked is None:
            return
        (behind, self._row), self._asked = self._asked, None
        if granted:
            self._write(call)
            self._write(behind)
            self._hold(behind)

    def unbilled(self, call: LedgerRow) -> None:
        """Hold again what a landing took up that was not billed: it will be tried again."""
        row = self._row
        if row is not None and call.kind == "step" and not row.bound_nusd and not row.bound_tokens:
            self._row = _with_call(row, call)
            self._write(self._row)

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._forget_asked()
        row, self._row = self._row, None
        if row is not None:
            self._write(replace(row, state="failed"))

    def _forget_asked(self) -> None:
        """Give up an answer that does not come any more: its call was cancelled. What was held before in another budget is given back."""
        asked, self._asked = self._asked, None
        before = None if asked is None else asked[1]
        if before is not None and self._row is not None and before.entry != self._row.entry:
            self._write(replace(before, state="failed"))

    def _hold(self, row: LedgerRow) -> None:
        if self._row is not None and self._row.entry != row.entry:  # of yesterday's budget
            self.give_back()
        self._row = row


def held_behind(call: LedgerRow, admission: Normal, held: LedgerRow | None, *, next_entry: Callable[[], int]) -> LedgerRow | None:
    """Return the row that is to be held once `call` is reserved; None where `call` leaves what is held as it is.

    Args:
        call: the reservation that is asked for.
        admission: what admitted it.
        held: the row that is held now.
        next_entry: gives the number of a new one.
    """
    landing = admission.held
    if call.kind != "step" or not call.charges:
        return None
    same = held if held is not None and held.charges == call.charges else None  # else it is held in yesterday's budget
    if landing is None:
        is_landing = admission.landing is None
        return replace(same, bound_nusd=0, bound_tokens=0) if same is not None and is_landing else None
    row = same or replace(call, entry=next_entry(), kind="landing", bound_nusd=0, bound_tokens=0, usage=None)
    tokens = landing.input_tokens + landing.output_tokens
    return replace(row, bound_nusd=max(nano(landing.cost_usd), row.bound_nusd, 1), bound_tokens=max(tokens, row.bound_tokens, 1))


def _with_call(held: LedgerRow, call: LedgerRow) -> LedgerRow:
    return replace(held, bound_nusd=held.bound_nusd + call.bound_nusd, bound_tokens=held.bound_tokens + call.bound_tokens)
