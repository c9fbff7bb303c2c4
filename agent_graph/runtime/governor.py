"""The one owner of retries: every attempt at a model call goes through here, and each is a row of the ledger.

How it works
    A call has candidates: the agent's model, then its fallbacks in order. For each candidate there are up to `retry_attempts`
    attempts. One attempt: count the input, take its worst case, *reserve* it behind the barrier, call under the turn's deadline,
    *settle*. What an error means is decided in `decisions/retry.py`; a client's own retries are switched off, because stacked
    retries multiply (three times three is nine calls where three were meant) and are invisible to any limit.

What must stay true
    1. No call leaves without its reservation on disk.
    2. Every reservation is closed: settled, known not to be billed, or uncertain.
    3. Nothing waits past the turn's time; a cancelled call leaves an uncertain entry and passes the cancellation on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, message_chunk_to_message

from agent_graph.decisions.budget import Estimate
from agent_graph.decisions.replies import Usage, read_usage
from agent_graph.decisions.retry import Breaker, RetryBudget, classify, next_delay
from agent_graph.errors import AgentGraphError, ContractError, LLMError, describe
from agent_graph.failpoints import failpoint
from agent_graph.runtime.account import usd

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_graph.decisions.pricing import PriceBook
    from agent_graph.decisions.retry import Failure
    from agent_graph.ports import LLMBackend
    from agent_graph.runtime.turn import Turn

__all__ = ["Candidate", "Circuit", "Governor", "ModelOverflow", "ModelsFailed", "TimeIsUp", "circuit_of", "never_billed"]

logger = logging.getLogger("agent_graph")

MOST_BOUND = 64
"""Bound clients that are kept: one for each event loop that asked, and loops come and go."""


class TimeIsUp(AgentGraphError):
    """The turn's time ended inside a call."""


class ModelOverflow(AgentGraphError):
    """The input is longer than the model's context: compress and try once more."""


class ModelsFailed(AgentGraphError):
    """Every candidate failed; the last error is the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model that may be asked."""

    source: Callable[[], BaseChatModel]
    """Returns the client of the running event loop."""
    close: Callable[[], Awaitable[None]] | None = None
    """Closes the connections that were made for it; None where nothing was."""
    name: str
    """As the price table and the ledger know it."""
    tools: Sequence[Any]
    """What it is bound to: the specification's dicts or LangChain tools."""
    provider: str | None = None
    base_url: str | None = None
    backend: LLMBackend | None = None
    """The specification's backend behind it, which takes no output cap and tells its cost only afterwards; None for a LangChain model."""
    max_output_tokens: int | None = None
    """The model's own cap of one reply."""
    window: int | None = None
    """Its context window in tokens."""
    reasoning: bool = False
    """Whether it thinks inside its output."""
    cap_parameter: str = "max_tokens"
    """What its client calls the output cap."""
    tells_end: bool = False
    """Whether a stream of its says why it ended (OpenAI's protocol does), so that one that does not was cut off."""

    @property
    def breaker_key(self) -> tuple[str, str]:
        """Who shares its circuit breaker: everybody who asks the same server for the same model; an unnamed object only itself."""
        if self.backend is not None:
            return (f"object-{id(self.backend)}", self.name)
        return (self.base_url or self.provider or f"object-{id(self.source)}", self.name)


@dataclass(slots=True)
class Circuit:
    """What the callers of one server share."""

    breaker: Breaker = field(default_factory=Breaker)
    budget: RetryBudget = field(default_factory=RetryBudget)
    callers: int = 0

    def count(self, change: int) -> None:
        with _circuits_lock:  # callers may be in several threads, and a lost count would never be found again
            self.callers += change


_circuits: dict[tuple[str, str], Circuit] = {}
_circuits_lock = threading.Lock()


def circuit_of(key: tuple[str, str]) -> Circuit:
    """Return what the callers of one server and model share in this process."""
    with _circuits_lock:
        return _circuits.setdefault(key, Circuit())


class Governor:
    """Calls models for one agent. Holds no state of a turn; used by several tasks, threads and loops at once."""

    def __init__(self, candidates: Sequence[Candidate], prices: PriceBook, *, attempts: int, max_output_tokens: int | None) -> None:
        self.candidates = tuple(candidates)
        self.prices = prices
        self.attempts = attempts
        self.max_output_tokens = max_output_tokens
        self._bound: dict[tuple[int, int, bool], tuple[Any, Any]] = {}
        self._unpriced: set[str] = set()

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

    def estimate(self, turn: Turn, candidate: Candidate, input_tokens: int) -> Estimate:
        """Return the worst case of one call: by the price table, or for a backend by its dearest and largest call of this turn."""
        if candidate.backend is not None:
            return Estimate(input_tokens=max(input_tokens, turn.sums.largest_tokens), output_tokens=0, cost_usd=usd(turn.sums.dearest_nusd))
        cap = self.cap_of(candidate) or 0
        worst = self.prices.worst_case(candidate.name, input_tokens, cap, provider=candidate.provider, base_url=candidate.base_url)
        return Estimate(input_tokens=input_tokens, output_tokens=cap, cost_usd=worst if worst is not None else usd(turn.sums.dearest_nusd))

    def output_price_usd(self, candidate: Candidate, input_tokens: int) -> Decimal | None:
        """Return USD of one output token at this size, or None where tokens cost nothing that is known."""
        if candidate.backend is not None:
            return None
        return self.prices.output_price(candidate.name, input_tokens, provider=candidate.provider, base_url=candidate.base_url)

    async def aclose(self) -> None:
        """Close the connections that were made for this agent; the next call would open new ones."""
        for candidate in self.candidates:
            if candidate.close is not None:
                await candidate.close()

    # -- one call ---------------------------------------------------------------------------------------------------------------

    async def reply(
        self,
        turn: Turn,
        messages: Sequence[BaseMessage],
        *,
        input_tokens: int,
        step: int,
        kind: Literal["step", "summary", "judge"] = "step",
        tools: bool = True,
        max_output_tokens: int | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> AIMessage:
        """Return a model's reply to `messages`, trying again and falling back as the policy says.

        Args:
            turn: whose ledger, limits and clock apply.
            messages: the whole input, system message included.
            input_tokens: their count.
            step: the step that the reply is for; 0 outside the loop's steps.
            kind: what the call is for; only a "step" counts as one.
            tools: whether the model may call tools.
            max_output_tokens: cap of this reply, as admitted; None for the candidate's own.
            on_text: called with each piece of text where the reply is to be streamed.

        Raises:
            TimeIsUp, ModelOverflow, ModelsFailed (its cause is the last error), ContractError, StorageError, NotDurable, LeaseLost.
        """
        call = _ModelCall(self, turn, messages, input_tokens, step, kind, tools, max_output_tokens, on_text)
        last: BaseException | None = None
        for candidate in self.candidates:
            try:
                return await call.ask(candidate)
            except _CandidateFailed as failed:
                last = failed.__cause__
                if candidate is not self.candidates[-1]:
                    turn.warn(f"{candidate.name} failed ({describe(last) if last else 'open circuit'}); falling back.", step=step)
        raise ModelsFailed(describe(last) if last else None) from last

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

    def bill(self, turn: Turn, candidate: Candidate, reply: AIMessage, input_tokens: int) -> tuple[Decimal, int, dict[str, Any]]:
        """Return what `reply` cost: USD, tokens, and where the figures come from.

        The provider's own figure wins; then the price of the model that the reply names; then of the one that was asked for. A
        reply without usage is estimated and marked, never zero; a model without a price costs 0 and is said to be unpriced.
        """
        usage = turn.last_usage = usage_of(reply)
        estimated = usage is None
        if usage is None:
            output = turn.agent.count_text(reply.text)
            usage = Usage(input_tokens=input_tokens, output_tokens=output, total_tokens=input_tokens + output)
        model = str(reply.response_metadata.get("model_name") or candidate.name)
        facts: dict[str, Any] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "model": model}
        facts |= {name: value for name in ("cache_read", "cache_write", "cache_write_1h", "reasoning") if (value := getattr(usage, name))}
        if estimated:
            facts["estimated"] = True
        reported = reply.response_metadata.get("cost_usd")
        if reported is not None:
            return Decimal(str(reported)), usage.total_tokens, facts | {"price_source": "reported by the provider"}
        for name in dict.fromkeys((model, candidate.name)):
            priced = self.prices.cost(usage, name, provider=candidate.provider, base_url=candidate.base_url)
            if priced is not None:
                return priced.cost_usd, usage.total_tokens, facts | dict(priced.provenance)
        self._say_unpriced(model)
        return Decimal(0), usage.total_tokens, facts | {"unpriced": True}

    def _say_unpriced(self, model: str) -> None:
        if model not in self._unpriced:
            self._unpriced.add(model)
            logger.info("model %r has no price: its calls are counted in tokens, not in USD", model)


def usage_of(reply: AIMessage) -> Usage | None:
    """Return the usage of a reply, with what langchain's usage_metadata lacks read from the raw response."""
    raw = reply.response_metadata.get("token_usage") or reply.response_metadata.get("usage")
    told = read_usage(raw) if isinstance(raw, dict) else None
    usage = read_usage(reply.usage_metadata) if reply.usage_metadata else None
    if usage is not None and told is not None and told.cache_write > usage.cache_write:
        usage = replace(usage, cache_write=told.cache_write, cache_write_1h=told.cache_write_1h)
    return usage or told


def _has_end(about: Mapping[str, Any]) -> bool:
    """Return whether a streamed reply came to its end: a finish reason in chat completions, a status in responses."""
    return bool(about.get("finish_reason")) or about.get("status") in ("completed", "incomplete")


def never_billed(error: BaseException, failure: Failure) -> bool:
    """Return whether a failed attempt cost nothing for certain: it was answered with an error status, or never left."""
    return failure.status is not None or _never_left(error)


def _never_left(error: BaseException | None) -> bool:
    """Return whether the request cannot have reached the provider: there was no connection."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError) or type(error).__name__ in ("ConnectError", "ConnectTimeout"):
            return True
        error = error.__cause__
    return False


class _CandidateFailed(Exception):
    """One candidate gave up; the cause is its last error."""


class _ModelCall:
    """One call: its attempts at one candidate after another."""

    def __init__(
        self,
        governor: Governor,
        turn: Turn,
        messages: Sequence[BaseMessage],
        input_tokens: int,
        step: int,
        kind: Literal["step", "summary", "judge"],
        tools: bool,
        max_output_tokens: int | None,
        on_text: Callable[[str], None] | None,
    ) -> None:
        self.governor, self.turn, self.messages = governor, turn, messages
        self.input_tokens, self.step, self.kind, self.tools = input_tokens, step, kind, tools
        self.max_output_tokens, self.on_text = max_output_tokens, on_text
        self.number = 0

    async def ask(self, candidate: Candidate) -> AIMessage:
        circuit = circuit_of(candidate.breaker_key)
        circuit.count(+1)
        try:
            return await self._attempts(candidate, circuit)
        finally:
            circuit.count(-1)

    async def _attempts(self, candidate: Candidate, circuit: Circuit) -> AIMessage:
        for attempt in range(1, self.governor.attempts + 1):
            alone = circuit.callers <= 1
            now = self.turn.clock.monotonic()
            if not circuit.breaker.allows(now, alone=alone) or (attempt > 1 and not circuit.budget.allows(alone=alone)):
                raise _CandidateFailed from LLMError(
                    f"{candidate.name}: not asked, because it has just failed for every run that asked it."
                )
            circuit.breaker = circuit.breaker.entered(now)
            circuit.budget = circuit.budget.after("first" if attempt == 1 else "retry")
            try:
                reply = await self._attempt(candidate)
            except Exception as error:  # noqa: BLE001  the port's border: `_again` decides what it means, and raises what ends the call
                await self._again(candidate, circuit, attempt, error)
            else:
                circuit.breaker = circuit.breaker.after("success", self.turn.clock.monotonic())
                return reply
        raise AssertionError("unreachable: the last attempt returns or raises")  # pragma: no cover

    async def _again(self, candidate: Candidate, circuit: Circuit, attempt: int, error: Exception) -> None:
        """Wait for the next attempt, or raise what ends this candidate."""
        if isinstance(error, AgentGraphError) and not getattr(error, "retryable", False):
            raise error
        failure = self._classify(candidate, error)
        if failure.overflow:
            raise ModelOverflow(describe(error)) from error
        if failure.retryable:
            circuit.breaker = circuit.breaker.after("failure", self.turn.clock.monotonic())
        delay = next_delay(
            failure, attempt=attempt, attempts=self.governor.attempts, time_left_s=self.turn.time_left_s, draw=random.random()
        )
        if delay is None:
            raise _CandidateFailed from error
        logger.info("%s: attempt %d failed (%s); again in %.2f s", candidate.name, attempt, describe(error), delay)
        await self.turn.clock.sleep(delay)

    def _classify(self, candidate: Candidate, error: BaseException) -> Failure:
        return classify(error, spec_backend=candidate.backend is not None, now=self.turn.clock.time())

    async def _attempt(self, candidate: Candidate) -> AIMessage:
        turn, governor = self.turn, self.governor
        worst = governor.estimate(turn, candidate, self.input_tokens)
        self.number += 1
        failpoint("model.before_reserve")
        entry = turn.reserve(
            step=self.step,
            kind=self.kind,
            attempt=self.number,
            model=candidate.name,
            bound_usd=worst.cost_usd,
            bound_tokens=worst.input_tokens + (self.max_output_tokens or worst.output_tokens),
        )
        failpoint("model.reserve_queued")
        await turn.durable()
        failpoint("model.before_call")
        try:
            reply = await self._within_time(candidate)
        except asyncio.CancelledError:
            turn.unsettle(entry, "cancelled")
            raise
        except Exception as error:
            self._close(entry, candidate, error)
            raise
        failpoint("model.after_call")
        cost, tokens, facts = governor.bill(turn, candidate, reply, self.input_tokens)
        turn.settle(entry, cost_usd=cost, tokens=tokens, usage=facts, model=facts["model"], used=self.kind == "step")
        failpoint("model.settle_queued")
        return reply

    def _close(self, entry: int, candidate: Candidate, error: Exception) -> None:
        """Close the reservation of a failed attempt: an answer with an error status is not billed, anything else may be."""
        if never_billed(error, self._classify(candidate, error)):
            self.turn.unbilled(entry, describe(error))
        else:
            self.turn.unsettle(entry, describe(error))

    async def _within_time(self, candidate: Candidate) -> AIMessage:
        left = self.turn.time_left_s
        if left is not None and left <= 0:
            raise TimeIsUp(self.turn.time_is_up())
        scope = asyncio.timeout(left)
        try:
            async with scope:
                reply = await self._invoke(candidate)
        except TimeoutError:
            if scope.expired():
                raise TimeIsUp(self.turn.time_is_up()) from None
            raise
        if not isinstance(reply, AIMessage):
            raise ContractError(f"{type(candidate.source()).__name__} returned {type(reply).__name__}; an AIMessage was due.")
        return reply

    async def _invoke(self, candidate: Candidate) -> Any:
        runnable = self.governor.bound(candidate, tools=self.tools)
        options: dict[str, Any] = {}
        cap = self.max_output_tokens or self.governor.cap_of(candidate)
        if cap is not None and candidate.backend is None:
            options[candidate.cap_parameter] = cap
        if candidate.backend is not None:
            options["step"] = self.step
        if self.on_text is None:
            return await runnable.ainvoke(list(self.messages), **options)
        return await self._streamed(runnable, candidate, options)

    async def _streamed(self, runnable: Any, candidate: Candidate, options: dict[str, Any]) -> AIMessage:
        assert self.on_text is not None
        chunks: list[Any] = []
        async for chunk in runnable.astream(list(self.messages), **options):
            chunks.append(chunk)
            if chunk.text:
                self.on_text(chunk.text)
        if not chunks:
            raise LLMError(f"{candidate.name}: the stream ended before it began.")
        whole = chunks[0] + chunks[1:] if len(chunks) > 1 else chunks[0]  # at once: adding one by one is quadratic
        reply = message_chunk_to_message(whole)
        if candidate.tells_end and not _has_end(reply.response_metadata):
            raise LLMError(f"{candidate.name}: the stream ended without a finish_reason: it was cut off.")
        return reply  # type: ignore[return-value]  # a chunk of an AIMessage becomes an AIMessage
