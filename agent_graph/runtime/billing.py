"""What a reply cost, by what it says of itself, and whether a failed call did; and telling it to whoever traces the call.

How it works
    What a reply used stands in `usage_metadata`, LangChain's one layout for all providers; what that lacks is read from the raw
    usage beside it, and from the content (OpenAI's responses bill each search that stands there). Who sets the cost, in this order:
    the provider, where the reply tells a cost in USD; the price book, at the model and the service tier that the reply names; the
    price book, at the model that was asked for.

    One figure for the account and the trace: while the model's run is still open, `CostTeller` writes the cost into
    `usage_metadata["total_cost"]`, where LangSmith and other tracers look for it, and the governor settles that very bill.

What must stay true
    1. A reply without usage is estimated and marked so, never zero.
    2. A model without a price costs 0 and is said to be unpriced. Where only a part has no price (audio, a search), the rest is
       billed, and a warning says that the sum is too low.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables.config import ensure_config, var_child_runnable_config

from agent_graph.decisions.replies import read_cost
from agent_graph.decisions.usage import Usage, read_usage

if TYPE_CHECKING:
    from agent_graph.decisions.pricing import PriceBook
    from agent_graph.decisions.retry import Failure
    from agent_graph.runtime.candidate import Candidate

__all__ = ["REPORTED", "Bill", "CostTeller", "bill", "never_billed", "telling", "usage_of"]

REPORTED = "reported by the provider"
"""The source of a cost that a reply told by itself."""
GATEWAY_TIMEOUTS = frozenset({408, 504, 522, 524})
"""Statuses that say only that somebody on the way stopped waiting (522 and 524 are Cloudflare's)."""

_PARTS = ("cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output", "web_searches", "file_searches")
_UNPRICED_PARTS = ("audio_input", "audio_output", "web_searches", "file_searches")
_NONE_OF_THEM: dict[str, Any] = dict.fromkeys(_UNPRICED_PARTS, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """One reply's cost."""

    cost_usd: Decimal
    """Exact; 0 for a model without a price."""
    tokens: int
    model: str
    """That the reply names, else that was asked for."""
    facts: dict[str, Any]
    """Plain JSON for the ledger: tokens of each kind, unit prices, their source."""
    told: Usage | None = None
    """The usage, where the reply told it."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the figures."""


def bill(prices: PriceBook, candidate: Candidate, reply: AIMessage, *, input_tokens: int, count_text: Callable[[str], int]) -> Bill:
    """Return what `reply` cost.

    Args:
        prices: where unit prices come from.
        candidate: the model that was asked.
        reply: what it said.
        input_tokens: our count of the input, for a reply that tells no usage.
        count_text: counts the output then.
    """
    about = reply.response_metadata
    told = usage_of(reply)
    usage = told or _estimated(reply, input_tokens, count_text)
    model = str(about.get("model_name") or about.get("model") or candidate.name)
    parts = {name: value for name in _PARTS if (value := getattr(usage, name))}
    facts: dict[str, Any] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "model": model, **parts}
    if told is None:
        facts["estimated"] = True
    warnings: tuple[str, ...] = ()
    if usage.contradiction:
        facts["contradiction"] = usage.contradiction
        text = f"{model} reported usage that contradicts itself ({usage.contradiction}); the larger figures were booked."
        warnings = (text,)
    reported = read_cost(about, _raw(about))
    if reported is not None:
        cost, provenance = reported, dict[str, Any](price_source=REPORTED)
    else:
        cost, provenance = _priced(prices, candidate, model, usage, about.get("service_tier"))
    without = provenance.get("unpriced")
    if isinstance(without, list):
        text = f"{model}: no price is known for {', '.join(without)}, so the cost is too low (audio counts as text). Give it in prices=."
        warnings = (*warnings, text)
    return Bill(cost_usd=cost, tokens=usage.total_tokens, model=model, facts=facts | provenance, told=told, warnings=warnings)


def _priced(prices: PriceBook, candidate: Candidate, model: str, usage: Usage, tier: object) -> tuple[Decimal, dict[str, Any]]:
    """Return the cost by the price book and where its prices come from; "unpriced" there names the parts that have none (True: all)."""
    where: dict[str, Any] = {"asked": candidate.name, "provider": candidate.provider, "base_url": candidate.base_url}
    where["tier"] = tier if isinstance(tier, str) else None
    priced = prices.cost(usage, model, **where)
    if priced is not None:
        return priced.cost_usd, priced.provenance
    without = [name for name in _UNPRICED_PARTS if getattr(usage, name)]
    rest = prices.cost(replace(usage, **_NONE_OF_THEM), model, **where) if without else None
    if rest is None:
        return Decimal(0), {"unpriced": True}
    return rest.cost_usd, rest.provenance | {"unpriced": without}


def usage_of(reply: AIMessage) -> Usage | None:
    """Return the usage that a reply tells, with what LangChain's `usage_metadata` lacks; None where it tells none."""
    raw = read_usage(_raw(reply.response_metadata))
    usage = read_usage(reply.usage_metadata)
    if usage is not None and raw is not None and raw.input_tokens == usage.input_tokens:
        more: dict[str, Any] = {name: max(getattr(usage, name), getattr(raw, name)) for name in _PARTS if name != "reasoning"}
        usage = replace(usage, **more)
    usage = usage or raw
    return None if usage is None else _with_searches(usage, reply)


def _with_searches(usage: Usage, reply: AIMessage) -> Usage:
    """Count the searches: as they are told beside the usage (Perplexity), or stand in the content (OpenAI, Anthropic streamed)."""
    told = reply.response_metadata.get("num_search_queries")
    web = int(told) if isinstance(told, int) and told > 0 else 0
    file = 0
    for block in reply.content if isinstance(reply.content, list) else ():
        if isinstance(block, dict):
            web += _is_web_search(block)
            file += block.get("type") == "file_search_call"
    if not web and not file:
        return usage
    return replace(usage, web_searches=max(usage.web_searches, web), file_searches=max(usage.file_searches, file))


def _is_web_search(block: Mapping[str, Any]) -> bool:
    if block.get("type") == "web_search_call":
        action = block.get("action")
        return not isinstance(action, Mapping) or action.get("type", "search") == "search"  # to open a page that was found is free
    return block.get("type") == "server_tool_use" and block.get("name") == "web_search"


def _raw(about: Mapping[str, Any]) -> Mapping[str, Any] | None:
    raw = about.get("token_usage") or about.get("usage")
    return raw if isinstance(raw, Mapping) else None


def _estimated(reply: AIMessage, input_tokens: int, count_text: Callable[[str], int]) -> Usage:
    output = count_text(reply.text) + sum(count_text(f"{call['name']}{call['args']}") for call in reply.tool_calls)
    return Usage(input_tokens=input_tokens, output_tokens=output, total_tokens=input_tokens + output)


# -- the trace -----------------------------------------------------------------------------------------------------------------


class CostTeller(BaseCallbackHandler):
    """Writes the cost of one model run into its reply before anybody records it."""

    run_inline = True  # before the handlers that record, which are called afterwards or at the same time

    def __init__(self, billed: Callable[[AIMessage], Bill]) -> None:
        self._billed = billed
        self._run_id: UUID | None = None
        self.bill: Bill | None = None
        """Made at the end of the run; None while it is open, and where nobody listens."""

    def on_chat_model_start(self, serialized: dict[str, Any], messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Remember the first run: what it calls in turn (a backend's own LangChain model) is not ours to bill."""
        self._run_id = self._run_id or run_id

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Make the bill and write it down."""
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        if run_id != self._run_id or not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
            return
        message = generation.message
        self.bill = self._billed(message)
        if "unpriced" in self.bill.facts and not self.bill.cost_usd:
            return
        usage: Any = message.usage_metadata or {key: self.bill.facts[key] for key in ("input_tokens", "output_tokens")}
        usage = {"total_tokens": self.bill.tokens, **usage, "total_cost": float(self.bill.cost_usd)}
        message.usage_metadata = usage


@contextlib.contextmanager
def telling(teller: CostTeller) -> Iterator[None]:
    """While it lasts, `teller` comes first among the running task's callbacks; nothing where nobody listens, since it would cost a
    model call some tenths of a millisecond.

    By the task's own config and not by `ainvoke(config=...)`: a bound model merges that with the task's in no particular order.
    """
    outer = var_child_runnable_config.get()
    callbacks = None if outer is None else outer.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager) or not callbacks.handlers:
        yield
        return
    config = ensure_config()
    told = callbacks.copy()
    told.handlers.insert(0, teller)
    token = var_child_runnable_config.set({**config, "callbacks": told})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def never_billed(error: BaseException, failure: Failure) -> bool:
    """Return whether a failed attempt cost nothing for certain: it was answered with an error status, or never left.

    A timeout that a proxy reports is no such status: the model behind it may well have answered.
    """
    return (failure.status is not None and failure.status not in GATEWAY_TIMEOUTS) or _never_left(error)


def _never_left(error: BaseException | None) -> bool:
    """Return whether the request cannot have reached the provider: there was no connection."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError) or type(error).__name__ in ("ConnectError", "ConnectTimeout"):
            return True
        error = error.__cause__
    return False
