"""A shared budget, as one turn takes part in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_graph.decisions.budget import Account, Estimate, Limits, Spent
from agent_graph.runtime.account import NANO, usd
from agent_graph.storage.port import BudgetCap, BudgetUse, Charge

if TYPE_CHECKING:
    from agent_graph.config import Budget

__all__ = ["Share"]


@dataclass(frozen=True, slots=True)
class Share:
    """The budget, and the namespace in which it is shared."""

    namespace: str
    budget: Budget

    def charge(self, now: float) -> Charge:
        """Return where a row of `now` counts."""
        return Charge(self.namespace, self.budget.name, self.budget.period_of(now))

    def counts_in(self, charge: Charge) -> bool:
        """Return whether it is this budget that `charge` names, at whatever time."""
        return (charge.namespace, charge.budget) == (self.namespace, self.budget.name)

    def cap(self, charge: Charge) -> BudgetCap:
        """Return how much may count there."""
        return BudgetCap(charge, self._nusd, self.budget.max_tokens)

    @property
    def _nusd(self) -> int | None:
        """Its limit as the storage decides by it: in whole billionths of a USD."""
        limit = self.budget.max_cost_usd
        return None if limit is None else int(limit * NANO)

    def account(self, use: BudgetUse, held: Estimate) -> Account:
        """Return it as an account; `held`: what the turn that asks holds in it."""
        return Account(
            limits=Limits(max_tokens=self.budget.max_tokens, max_cost_usd=None if self._nusd is None else usd(self._nusd)),
            spent=Spent(tokens=use.tokens - held.input_tokens, cost_usd=usd(use.nusd) - held.cost_usd),
            held=held,
            owner=f"{self.budget.name} ({'a day' if self.budget.per == 'day' else 'in all'})",
            shared=True,
        )
