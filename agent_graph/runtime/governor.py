"""The models of one agent: what a call of each may cost at most, the client of the running loop, the bill of a reply.

The calls themselves are made by `model_call.py`; what one is to a turn's limits, `ledger.py` knows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage

from agent_graph.decisions.budget import Estimate
from agent_graph.decisions.prices import GIVE_PRICE, price_line
from agent_graph.runtime.account import usd
from agent_graph.runtime.billing import REPORTED, bill
from agent_graph.runtime.model_call import ModelCall

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_graph.decisions.pricing import PriceBook
    from agent_graph.runtime.billing import Bill
    from agent_graph.runtime.candidate import Candidate
    from agent_graph.runtime.turn import Turn

__all__ = ["Governor"]

logger = logging.getLogger("agent_graph")

REPLY_TOKENS = 256
"""What a reply that calls tools adds to the input of the landing behind it, as a rule; their results can be shown cut."""
GROWTH_TOKENS = 2_000
"""What a reply and the results of its calls may add to the input of the landing that a shared budget holds, in tokens."""
MOST_BOUND = 64
"""Bound clients that are kept: one for each event loop that asked, and loops come and go."""


class Governor:
    """Calls models for one agent. Holds no state of a turn; used by several tasks, threads and loops at once."""

    def __init__(self, candidates: Sequence[Candidate], prices: PriceBook, *, attempts: int, max_output_tokens: int | None) -> None:
        self.candidates = tuple(candidates)
        self.prices = prices
        self.attempts = attempts
        self.max_output_tokens = max_output_tokens
        self._bound: dict[tuple[int, int, bool], tuple[Any, Any]] = {}
        self._unpriced: set[str] = set()
        self._estimated: set[str] = set()
        self.ceiling_breaches = 0
        """How many replies cost more than was reserved for them: a provider that ignores its output cap, or input counted too low."""

    @property
    def model(self) -> Candidate:
        """The agent's own model."""
        return self.candidates[0]

    def cap_of(self, candidate: Candidate) -> int | None:
        """Return the output cap of one reply in tokens; None for a backend that cannot be given one."""
        if candidate.backend is not None:
            return None
        caps = [cap for cap in (self.max_output_tokens, candidate.max_output_tokens) if cap is not None]
        return min(caps) if caps else None

    def estimate(self, turn: Turn, candidate: Candidate, input_tokens: int, *, most: int | None = None) -> Estimate:
        """Return the worst case of one call: by the price table, or for a backend by its dearest and largest call of this turn.

        `most`: no more output than this is asked for.
        """
        sums = turn.account.sums
        if candidate.backend is not None:
            return Estimate(input_tokens=max(input_tokens, sums.largest_tokens), output_tokens=0, cost_usd=usd(sums.dearest_nusd))
        cap = min((cap for cap in (self.cap_of(candidate), most) if cap is not None), default=0)
        worst = self.prices.worst_case(candidate.name, input_tokens, cap, **candidate.priced_at)
        return Estimate(input_tokens=input_tokens, output_tokens=cap, cost_usd=worst if worst is not None else usd(sums.dearest_nusd))

    def landing_after(self, turn: Turn, candidate: Candidate, landing: Estimate, *, behind: int | None) -> Estimate:
        """Return the worst case of a landing behind a call: where it comes after a step, with what a short reply adds to its input."""
        return landing if behind is not None or not candidate.tools else self.estimate(turn, candidate, landing.input_tokens + REPLY_TOKENS)

    def landing_held(self, turn: Turn, candidate: Candidate, landing: Estimate, *, behind: int | None) -> Estimate | None:
        """Return the worst case of the landing that shared budgets are to hold behind a call; None where there are none, and no tools.

        `behind`: as of `call`. Where it is None, the landing comes after a step, and what that adds is in it, as a rule.
        """
        if not turn.account.shares or not candidate.tools:
            return None
        return landing if behind is not None else self.estimate(turn, candidate, landing.input_tokens + GROWTH_TOKENS)

    def output_price_usd(self, candidate: Candidate, input_tokens: int) -> Decimal | None:
        """Return USD of one output token at this size, or None where tokens cost nothing that is known."""
        if candidate.backend is not None:
            return None
        return self.prices.output_price(candidate.name, input_tokens, **candidate.priced_at)

    async def aclose(self) -> None:
        """Close the connections that were made for this agent; the next call would open new ones."""
        for candidate in self.candidates:
            if candidate.close is not None:
                await candidate.close()

    # -- one call ---------------------------------------------------------------------------------------------------------------

    def call(
        self,
        turn: Turn,
        *,
        input_tokens: int,
        step: int,
        kind: Literal["step", "summary", "judge"] = "step",
        landing: bool = False,
        behind: int | None = None,
        most: int | None = None,
        without: Collection[Candidate] = (),
    ) -> ModelCall:
        """Return a call that is not made yet: `admission` says what the limits say of it, `reply` makes it.

        Args:
            turn: whose account, limits and clock apply.
            input_tokens: count of the whole input.
            step: the step that the reply is for; 0 outside the loop's steps.
            kind: what the call is for; only a "step" counts as one.
            landing: whether it is the landing itself: nothing has to fit behind it.
            behind: input tokens of the landing that has to fit behind it; None: as many as its own.
            most: no more output than this is asked for.
            without: candidates that are not to be asked.
        """
        candidates = tuple(candidate for candidate in self.candidates if candidate not in without)
        return ModelCall(self, turn, candidates, input_tokens, step, kind, landing, behind, most)

    def bound(self, candidate: Candidate, *, tools: bool) -> Any:
        """Return the candidate's client for the running loop, bound to the agent's tools once."""
        model = candidate.source()
        key = (id(candidate), id(model), tools)
        known = self._bound.get(key)
        if known is not None and known[0] is model:
            return known[1]
        bound = self._bind(candidate, model, tools=tools)
        if len(self._bound) >= MOST_BOUND:
            self._bound.clear()
        self._bound[key] = (model, bound)
        return bound

    def _bind(self, candidate: Candidate, model: BaseChatModel, *, tools: bool) -> Any:
        if candidate.backend is not None:
            return model.bind_tools(list(candidate.tools) if tools else [])
        if not candidate.tools:
            return model
        if tools:
            return model.bind_tools(list(candidate.tools))
        try:
            return model.bind_tools(list(candidate.tools), tool_choice="none")
        except (TypeError, ValueError, NotImplementedError):
            return model  # it knows no tool_choice "none": the definitions go

    # -- the bill ---------------------------------------------------------------------------------------------------------------

    def bill(self, turn: Turn, candidate: Candidate, reply: AIMessage, input_tokens: int) -> Bill:
        """Return what `reply` cost."""
        return bill(self.prices, candidate, reply, input_tokens=input_tokens, count_text=turn.agent.count_text)

    def settle(self, turn: Turn, candidate: Candidate, entry: int, bill: Bill, *, used: bool, step: int = 0) -> bool:
        """Book `bill`; return whether what was reserved for it covers it. `used` says that the reply became a step."""
        turn.learned.usage = bill.told
        if bill.facts.get("unpriced") is True:
            self.say_unpriced(turn, candidate, step=step)
        elif bill.told is None and bill.facts["price_source"] != REPORTED and bill.cost_usd:
            self._say_estimated(turn, candidate, step=step)
        for warning in bill.warnings:
            turn.warn(warning, step=step)
        return turn.settle(entry, cost_usd=bill.cost_usd, tokens=bill.tokens, usage=bill.facts, model=bill.model, used=used)

    def say_unpriced(self, turn: Turn, candidate: Candidate, *, step: int) -> None:
        """Say that a call has no price: once in the log, and in the account of each turn of which a limit in USD cannot hold then."""
        if candidate.name not in self._unpriced:
            self._unpriced.add(candidate.name)
            logger.info("model %r has no price: its calls are counted in tokens, not in USD", candidate.name)
        limits = _usd_limits(turn)
        if limits and turn.config.on_unknown_price != "ignore":
            lacks = "has no price that is known" if candidate.backend is None else "told no cost, and no price is known for it"
            text = f"{candidate.name} {lacks}: such calls count as $0, and {' and '.join(limits)} cannot hold for them."
            turn.warn(f"{text} {GIVE_PRICE}: {price_line(candidate.name)}", step=step)

    def _say_estimated(self, turn: Turn, candidate: Candidate, *, step: int) -> None:
        """Say that a bill is a guess: once in the log, and in the account of each turn of which a limit in USD holds no better then."""
        text = f"{candidate.name} told no usage: what such calls cost is estimated from their text, without any hidden thinking"
        ask = " Where it streams, ask for it: ChatOpenAI(..., stream_usage=True)." if candidate.tells_end else ""
        if candidate.name not in self._estimated:
            self._estimated.add(candidate.name)
            logger.warning("%s.%s", text, ask)
        if limits := _usd_limits(turn):
            turn.warn(f"{text}, and that is how far {' and '.join(limits)} can hold.{ask}", step=step)


def _usd_limits(turn: Turn) -> list[str]:
    """Return the limits in USD, set by somebody, in which the calls of `turn` count."""
    limits: list[str] = []
    above: Turn | None = turn
    while above is not None:
        if above.limits.max_cost_usd is not None and "max_cost_usd" in above.config.explicit:
            limits.append("max_cost_usd" if above is turn else f"max_cost_usd of run {above.key.run_id!r}")
        above = above.parent
    return [*limits, *(f"the budget {share.budget.name!r}" for share in turn.account.shares if share.budget.max_cost_usd is not None)]
