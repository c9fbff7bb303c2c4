"""The ledger of a live turn: one row for each attempt at a model call, reserved before it and closed after it.

How it works
    Before each attempt at a model call its worst case is *reserved*: `decisions/budget.admit` looks at every account in which the
    call counts (`turn_account.py`), and under one lock it is entered in all of them or in none. A shared budget is asked last: what
    its storage answers is looked at once more where it refuses. There a turn also holds the landing that it may yet need (`held.py`).

What must stay true
    1. No call is made whose reservation is not in every account in which it counts.
    2. Every reservation is closed: settled, known not to be billed, or unsettled (its bound stays counted).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from agent_graph.decisions.budget import NOTHING, Admission, Land, Normal, Refuse, nano
from agent_graph.runtime.turn_account import Asked, TurnAccount, tree_lock
from agent_graph.storage.port import LedgerRow

__all__ = ["NOT_MADE", "Ledger", "Reserved"]

ROUNDS = 100
"""So often a reservation is tried that a shared budget refused, each time by what it holds by then."""
NOT_MADE = "the call was not made"
"""Why a row whose reservation came to nothing costs nothing."""
_UNPRICED = json.dumps({"unpriced": True})
_JSON = json.JSONEncoder(default=str)


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation that was made."""

    entry: int
    admission: Normal


class Ledger:
    """The model calls of one turn."""

    def __init__(self, account: TurnAccount) -> None:
        self._account = account
        self._open: dict[int, LedgerRow] = {}
        self._asking = asyncio.Lock()

    # -- reserving --------------------------------------------------------------------------------------------------------------

    async def reserve(
        self, decide: Callable[[], Admission], *, step: int, kind: Any, attempt: int, model: str, unpriced: bool = False
    ) -> Reserved | Land | Refuse:
        """Reserve what `decide` admits, in every account; return what else it says. Await the turn's `durable()` before the call.

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
        if not self._account.shares:
            return await self._reserved(decide, unpriced=unpriced, **given)
        async with self._asking:  # a row that grew by two calls at once would hold but one of them
            return await self._reserved(decide, unpriced=unpriced, **given)

    async def _reserved(self, decide: Callable[[], Admission], *, unpriced: bool, **given: Any) -> Reserved | Land | Refuse:
        account = self._account
        await account.refresh()
        for _ in range(ROUNDS):
            with tree_lock():
                admission = decide()
                if not isinstance(admission, Normal):
                    return admission
                assert admission.call is not None, "admit says what to reserve"
                worst = admission.call
                tokens = worst.input_tokens + worst.output_tokens
                row = self._new_row(bound_usd=worst.cost_usd, bound_tokens=tokens, **given)
                row = replace(row, usage=_UNPRICED) if unpriced else row
                answers = self._enter(row, account.holding.ask(row, admission))
            if await self._is_granted(row, answers):
                if row.kind == "step":
                    account.kept = admission.landing or NOTHING
                return Reserved(row.entry, admission)
        return Refuse("budget", f"budget: others took what was left, {ROUNDS} times in a row")

    def enter(self, *, step: int, kind: Any, attempt: int, model: str, bound_usd: Decimal, bound_tokens: int) -> int:
        """Enter what the caller has admitted by itself, where no shared budget is concerned; return the entry number."""
        with tree_lock():
            row = self._new_row(step=step, kind=kind, attempt=attempt, model=model, bound_usd=bound_usd, bound_tokens=bound_tokens)
            asked = self._enter(row, row)
        assert not asked, "a shared budget has to be asked: reserve()"
        return row.entry

    def _new_row(self, *, step: int, kind: Any, attempt: int, model: str, bound_usd: Decimal, bound_tokens: int) -> LedgerRow:
        account = self._account
        return LedgerRow(
            key=account.key,
            entry=account.next_entry(),
            step=step,
            kind=kind,
            attempt=attempt,
            model=model,
            state="reserved",
            bound_nusd=nano(bound_usd),
            bound_tokens=bound_tokens,
            charges=account.charges(),
            used_s=account.used_s(),
        )

    def _enter(self, row: LedgerRow, asked_for: LedgerRow) -> list[Asked]:
        self._open[row.entry] = row
        try:
            return self._account.enter(row, asked_for)
        except BaseException:  # it is not written, so no call is made
            del self._open[row.entry]
            raise

    async def _is_granted(self, row: LedgerRow, answers: Sequence[Asked]) -> bool:
        """Return whether every shared budget holds the reservation; withdraw it from all accounts where one does not."""
        if not answers:
            return True
        try:
            told = await asyncio.gather(*(asked.answer for asked in answers))
        except BaseException:
            self.unbilled(row.entry, NOT_MADE)
            raise
        for asked, answer in zip(answers, told, strict=True):
            asked.learn(answer)
        with tree_lock():
            self._account.holding.answered(row, granted=told[0].granted)
        if all(answer.granted for answer in told):
            return True
        if row.charges and not told[0].granted:
            self._forget(row)
        else:
            self.unbilled(row.entry, "a shared budget did not hold it")
        return False

    def _forget(self, row: LedgerRow) -> None:
        with tree_lock():
            del self._open[row.entry]
            self._account.withdraw(row)

    # -- closing ----------------------------------------------------------------------------------------------------------------

    def settle(self, entry: int, *, cost_usd: Decimal, tokens: int, usage: Mapping[str, Any], model: str, used: bool) -> bool:
        """Book what an attempt really cost; `used` says that its reply became a step. Return whether its bound covered it."""
        bound = self._open[entry].bound_nusd
        cost = nano(cost_usd)
        self._close(entry, state="settled", cost_nusd=cost, tokens=tokens, usage=_JSON.encode(usage), model=model, used=used)
        return cost <= bound

    def unbilled(self, entry: int, reason: str) -> None:
        """Book that an attempt cost nothing: the provider refused it, or it was not made. What a landing took up is held again."""
        with tree_lock():
            self._account.holding.unbilled(self._open[entry])
        self._close(entry, state="failed", usage=json.dumps({"error": reason}))

    def unsettle(self, entry: int, reason: str) -> None:
        """Book that the bill of an attempt is unknown: its bound stays counted."""
        known = json.loads(self._open[entry].usage or "{}")
        self._close(entry, state="unsettled", usage=json.dumps(known | {"error": reason}))

    def _close(self, entry: int, **changes: Any) -> None:
        with tree_lock():
            reserved = self._open.pop(entry)
            self._account.close(reserved, replace(reserved, used_s=self._account.used_s(), **changes))
