"""The one owner of retries: every attempt at a model call goes through here, and each is a row of the ledger.

How it works
    A call has candidates: the agent's model, then its fallbacks in order. For each candidate there are up to `retry_attempts`
    attempts. One attempt: take its worst case at this candidate's price, *reserve* it behind the barrier, call under the turn's
    deadline, *settle*. An attempt that the limits do not hold is not made: the next candidate may be cheaper. What an error means
    is decided in `decisions/retry.py`; a client's own retries are switched off, because stacked retries multiply (three times three
    is nine calls where three were meant) and are invisible to any limit.

What must stay true
    1. No attempt is made without its own reservation, admitted and on disk: retries, fallbacks, summaries and judges included.
    2. Every reservation is closed: settled, known not to be billed, or uncertain.
    3. Nothing waits past the turn's time; a cancelled call leaves an uncertain entry and passes the cancellation on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from langchain_core.messages import AIMessage, BaseMessage, message_chunk_to_message

from agent_graph.decisions.budget import Admission, Estimate, Land, Normal, Refuse, admit
from agent_graph.decisions.retry import classify, next_delay
from agent_graph.errors import AgentGraphError, ContractError, LLMError, blame, describe
from agent_graph.failpoints import failpoint
from agent_graph.runtime.billing import CostTeller, never_billed, telling
from agent_graph.runtime.circuits import Circuit, circuit_of
from agent_graph.runtime.ledger import NOT_MADE, Reserved

if TYPE_CHECKING:
    from agent_graph.decisions.retry import Failure
    from agent_graph.runtime.billing import Bill
    from agent_graph.runtime.candidate import Candidate
    from agent_graph.runtime.governor import Governor
    from agent_graph.runtime.turn import Turn

__all__ = ["ModelCall", "ModelOverflow", "ModelsFailed", "NotAffordable", "TextSink", "TimeIsUp", "TimeToLand"]

logger = logging.getLogger("agent_graph")


class TimeIsUp(AgentGraphError):
    """The turn's time ended inside a call."""


class TimeToLand(AgentGraphError):
    """A call was cut because what is left of the turn's time is kept for a landing."""


class NotAffordable(AgentGraphError):
    """No candidate's worst case fits any more; the message is the refusal, for `AgentRun.error`."""


class ModelOverflow(AgentGraphError):
    """The input is longer than the model's context: compress and try once more."""


class ModelsFailed(AgentGraphError):
    """Every candidate failed; the last error is the cause."""


def _has_end(about: Mapping[str, Any]) -> bool:
    """Return whether a streamed reply came to its end: a finish reason in chat completions, a status in responses."""
    return bool(about.get("finish_reason")) or about.get("status") in ("completed", "incomplete")


class TextSink(Protocol):
    """Where the text of a streamed reply goes."""

    def begin(self) -> None:
        """An attempt begins: what was taken before, of one that failed, is void."""

    def take(self, text: str) -> None:
        """The next piece."""


class _CandidateFailed(Exception):
    """One candidate gave up; the cause is its last error."""


class _Refused(Exception):
    """The limits do not hold an attempt at this candidate."""

    def __init__(self, said: Land | Refuse) -> None:
        super().__init__(said.text if isinstance(said, Refuse) else f"{said.key}: only a landing fits")


class _Quote(NamedTuple):
    """What a call of one candidate may cost (see `decisions/budget.admit`)."""

    call: Estimate
    landing: Estimate
    landing_after: Estimate
    landing_held: Estimate | None
    output_price_usd: Decimal | None


class ModelCall:
    """One call: its attempts at one candidate after another, each admitted before it is made."""

    def __init__(
        self,
        governor: Governor,
        turn: Turn,
        candidates: tuple[Candidate, ...],
        input_tokens: int,
        step: int,
        kind: Literal["step", "summary", "judge"],
        landing: bool,
        behind: int | None,
        most: int | None,
    ) -> None:
        self.candidates = candidates
        self.failed: list[Candidate] = []
        """Who was asked and failed for good."""
        self._governor, self._turn = governor, turn
        self._input_tokens, self._step, self._kind = input_tokens, step, kind
        self._landing, self._behind, self._most = landing, behind, most
        self._first = kind == "step" and not turn.account.sums.steps
        self._quotes: dict[int, _Quote] = {}
        self._number = 0
        self._messages: Sequence[BaseMessage] = ()
        self._tools = True
        self._text: TextSink | None = None

    # -- what the limits say ----------------------------------------------------------------------------------------------------

    async def admission(self) -> Admission:
        """Return what the limits say: Normal if one candidate fits, else Land if one fits as the landing, else Refuse."""
        await self._turn.account.refresh()
        land: Land | None = None
        refused: Refuse | None = None
        for candidate in self.candidates:
            said = self._admit(candidate)
            if isinstance(said, Normal):
                return said
            if isinstance(said, Land):
                land = land or said
            else:
                refused = refused or said
        assert land is not None or refused is not None, "a call has a candidate"
        return land or refused  # type: ignore[return-value]  # one of them is there

    def _admit(self, candidate: Candidate) -> Admission:
        turn = self._turn
        quote = self._quote(candidate)
        return turn.account.orphaned() or admit(
            turn.limits,
            turn.spent,
            call=quote.call,
            landing=None if self._landing else quote.landing,
            landing_after=quote.landing_after,
            landing_held=quote.landing_held,
            first=self._first,
            output_price_usd=quote.output_price_usd,
            can_shrink=candidate.backend is None,
            reasoning=candidate.reasoning,
            above=turn.account.above(),
            late=turn.is_late,
        )

    def _quote(self, candidate: Candidate) -> _Quote:
        known = self._quotes.get(id(candidate))
        if known is None or candidate.backend is not None:  # a backend's worst case grows with what it has told
            governor, turn, behind, tokens = self._governor, self._turn, self._behind, self._input_tokens
            call = governor.estimate(turn, candidate, tokens, most=self._most)
            landing = call if behind is None else governor.estimate(turn, candidate, behind)
            known = self._quotes[id(candidate)] = _Quote(
                call=call,
                landing=landing,
                landing_after=governor.landing_after(turn, candidate, landing, behind=behind),
                landing_held=governor.landing_held(turn, candidate, landing, behind=behind),
                output_price_usd=governor.output_price_usd(candidate, tokens),
            )
        return known

    def _is_unpriced(self, candidate: Candidate) -> bool:
        """Return whether nothing is known of what an attempt may cost: then its bound is no figure but the lack of one."""
        quote = self._quote(candidate)
        known = candidate.provider == "offline" or (candidate.backend is not None and quote.call.cost_usd)
        return quote.output_price_usd is None and not known

    # -- the call ---------------------------------------------------------------------------------------------------------------

    async def reply(self, messages: Sequence[BaseMessage], *, tools: bool = True, text: TextSink | None = None) -> AIMessage:
        """Return a model's reply to `messages`, trying again and falling back as the policy says.

        Args:
            messages: the whole input, system message included.
            tools: whether the model may call tools.
            text: takes each piece of text where the reply is to be streamed.

        Raises:
            NotAffordable, TimeIsUp, TimeToLand, ModelOverflow, ModelsFailed (its cause is the last error), ContractError,
            StorageError, NotDurable, LeaseLost.
        """
        self._messages, self._tools, self._text = messages, tools, text
        failed: BaseException | None = None
        refused: _Refused | None = None
        for candidate in self.candidates:
            last = candidate is self.candidates[-1]
            try:
                return await self._ask(candidate)
            except _CandidateFailed as error:
                failed = error.__cause__
                self.failed.append(candidate)
                if not last:
                    self._warn(f"{candidate.name} failed ({describe(failed) if failed else 'open circuit'}); falling back.")
            except _Refused as error:
                refused = refused or error
                if not last:
                    self._warn(f"{candidate.name} was not asked ({error}); falling back.")
        if failed is None and refused is not None:
            raise NotAffordable(str(refused))
        raise ModelsFailed(describe(failed) if failed else None) from failed

    def _warn(self, text: str) -> None:
        self._turn.warn(text, step=self._step)

    async def _ask(self, candidate: Candidate) -> AIMessage:
        circuit = circuit_of(candidate.breaker_key)
        circuit.count(+1)
        try:
            return await self._attempts(candidate, circuit)
        finally:
            circuit.count(-1)

    async def _attempts(self, candidate: Candidate, circuit: Circuit) -> AIMessage:
        error: Exception | None = None
        paced = False
        for attempt in range(1, self._governor.attempts + 1):
            alone = circuit.callers <= 1
            now = self._turn.clock.monotonic()
            if not circuit.breaker.allows(now, alone=alone) or not (attempt == 1 or paced or circuit.budget.allows(alone=alone)):
                raise _CandidateFailed from LLMError(
                    f"{candidate.name}: not asked, because it has just failed for every run that asked it."
                )
            circuit.breaker = circuit.breaker.entered(now)  # before anything is waited for: one probe, not all who look meanwhile
            reserved = await self._reserved(candidate, error)
            if not paced:
                circuit.budget = circuit.budget.after("first" if attempt == 1 else "retry")
            try:
                reply = await self._attempt(candidate, reserved)
            except Exception as raised:  # noqa: BLE001  the port's border: `_again` decides what it means, and raises what ends the call
                error = raised
                paced = await self._again(candidate, circuit, attempt, error)
            else:
                circuit.breaker = circuit.breaker.after("success", self._turn.clock.monotonic())
                return reply
        raise AssertionError("unreachable: the last attempt returns or raises")  # pragma: no cover

    async def _reserved(self, candidate: Candidate, error: Exception | None) -> Reserved:
        """Reserve the next attempt. Raises _Refused, or _CandidateFailed where `error` is why there would have been another one."""
        failpoint("model.before_reserve")
        self._number += 1
        reserved = await self._turn.ledger.reserve(
            lambda: self._admit(candidate),
            step=self._step,
            kind=self._kind,
            attempt=self._number,
            model=candidate.name,
            unpriced=self._is_unpriced(candidate),
        )
        if isinstance(reserved, Reserved):
            return reserved
        self._number -= 1
        if error is None:
            raise _Refused(reserved)
        self._warn(f"{candidate.name} was not asked again ({_Refused(reserved)}).")
        raise _CandidateFailed from error

    async def _again(self, candidate: Candidate, circuit: Circuit, attempt: int, error: Exception) -> bool:
        """Wait for the next attempt, and return whether the server asked for just that; or raise what ends this candidate."""
        if isinstance(error, AgentGraphError) and not getattr(error, "retryable", False):
            raise error
        failure = self._classify(candidate, error)
        if type(error).__module__ == "builtins":  # an error of a provider's library says itself what it is about
            blame(error, candidate.name)
        if failure.overflow:
            raise ModelOverflow(describe(error)) from error
        if failure.retryable:  # who keeps a rate limit is well
            circuit.breaker = circuit.breaker.after("success" if failure.is_paced else "failure", self._turn.clock.monotonic())
        delay = next_delay(
            failure, attempt=attempt, attempts=self._governor.attempts, time_left_s=self._time_left_s(), draw=random.random()
        )
        if delay is None:
            raise _CandidateFailed from error
        logger.info("%s: attempt %d failed (%s); again in %.2f s", candidate.name, attempt, describe(error), delay)
        await self._turn.clock.sleep(delay)
        return failure.is_paced

    def _classify(self, candidate: Candidate, error: BaseException) -> Failure:
        return classify(error, spec_backend=candidate.backend is not None, now=self._turn.clock.time())

    async def _attempt(self, candidate: Candidate, reserved: Reserved) -> AIMessage:
        turn, entry = self._turn, reserved.entry
        failpoint("model.reserve_queued")
        try:
            await turn.account.durable()
            time_s = self._time_to_call_s()  # a slow disk takes of it
        except BaseException:
            turn.unbilled(entry, NOT_MADE)
            raise
        failpoint("model.before_call")
        teller = CostTeller(lambda reply: self._governor.bill(turn, candidate, reply, self._input_tokens))
        try:
            reply = await self._within(time_s, candidate, reserved.admission.max_output_tokens, teller)
        except asyncio.CancelledError:
            self._unsettle(entry, candidate, "cancelled")
            raise
        except Exception as error:
            self._close(entry, candidate, error)
            raise
        failpoint("model.after_call")
        self._settle(entry, candidate, teller.bill or self._governor.bill(turn, candidate, reply, self._input_tokens), reserved.admission)
        failpoint("model.settle_queued")
        return reply

    def _settle(self, entry: int, candidate: Candidate, bill: Bill, admission: Normal) -> None:
        cap, output = admission.max_output_tokens, bill.facts["output_tokens"]
        over = bool(cap) and output > cap
        if over:
            bill = replace(bill, facts=bill.facts | {"over_cap": cap})
        covered = self._governor.settle(self._turn, candidate, entry, bill, used=self._kind == "step", step=self._step)
        if over or (cap and not covered and admission.call is not None and admission.call.cost_usd):
            self._governor.ceiling_breaches += 1
            what = f"{output} tokens came where {cap} were the cap" if over else "its input was larger than it was counted"
            self._warn(f"{candidate.name} cost more than was reserved for it: {what}. It is booked in full, and may pass the limit.")

    def _close(self, entry: int, candidate: Candidate, error: Exception) -> None:
        """Close the reservation of a failed attempt: an answer with an error status is not billed, anything else may be."""
        if never_billed(error, self._classify(candidate, error)):
            self._turn.unbilled(entry, describe(error))
        else:
            self._unsettle(entry, candidate, describe(error))

    def _unsettle(self, entry: int, candidate: Candidate, reason: str) -> None:
        self._turn.unsettle(entry, reason)
        if self._is_unpriced(candidate):
            self._governor.say_unpriced(self._turn, candidate, step=self._step)

    def _time_left_s(self) -> float | None:
        return self._turn.time_left_s if self._landing else self._turn.work_time_s

    def _time_to_call_s(self) -> float | None:
        """Return the seconds that a call may take, or None without a limit. Raises TimeIsUp or TimeToLand where there are none."""
        left = self._time_left_s()
        if left is not None and left <= 0:
            raise self._out_of_time()
        return left

    async def _within(self, time_s: float | None, candidate: Candidate, cap: int | None, teller: CostTeller) -> AIMessage:
        scope = asyncio.timeout(time_s)
        try:
            async with scope:
                with telling(teller):
                    reply = await self._invoke(candidate, cap)
        except TimeoutError:
            if scope.expired():
                raise self._out_of_time() from None
            raise
        if not isinstance(reply, AIMessage):
            raise ContractError(f"{type(candidate.source()).__name__} returned {type(reply).__name__}; an AIMessage was due.")
        return reply

    def _out_of_time(self) -> TimeIsUp | TimeToLand:
        left = self._turn.time_left_s
        if self._landing or self._first or not left:
            return TimeIsUp(self._turn.time_is_up())
        return TimeToLand(f"timeout_s: {left:.2f} s are left, which are kept for a landing")

    async def _invoke(self, candidate: Candidate, cap: int | None) -> Any:
        runnable = self._governor.bound(candidate, tools=self._tools)
        options: dict[str, Any] = {}
        if cap and candidate.backend is None:
            options[candidate.cap_parameter] = cap
        if candidate.backend is not None:
            options["step"] = self._step
        if self._text is None:
            return await runnable.ainvoke(list(self._messages), **options)
        return await self._streamed(runnable, candidate, options, self._text)

    async def _streamed(self, runnable: Any, candidate: Candidate, options: dict[str, Any], text: TextSink) -> AIMessage:
        text.begin()
        chunks: list[Any] = []
        async for chunk in runnable.astream(list(self._messages), **options):
            chunks.append(chunk)
            if chunk.text:
                text.take(chunk.text)
        if not chunks:
            raise LLMError(f"{candidate.name}: the stream ended before it began.")
        whole = chunks[0] + chunks[1:] if len(chunks) > 1 else chunks[0]  # at once: adding one by one is quadratic
        reply = message_chunk_to_message(whole)
        if candidate.tells_end and not _has_end(reply.response_metadata):
            raise LLMError(f"{candidate.name}: the stream ended without a finish_reason: it was cut off.")
        return reply  # type: ignore[return-value]  # a chunk of an AIMessage becomes an AIMessage
