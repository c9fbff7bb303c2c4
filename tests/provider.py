"""A provider that honours the output cap, and keeps its own bill: the ground truth of every test about money."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from agent_graph import ProductionAgent, create_production_agent

FORTY_CENTS = Decimal("0.40") / 1_000
"""USD a token: a reply of 1,000 tokens costs $0.40."""
CENT = Decimal("0.00001")
"""USD a token: 1,000 tokens are a cent."""
INPUT_TOKENS = 10
"""What it bills for every input: less than anybody would count."""


@dataclass
class Provider:
    """Sells output tokens; several models may sell for it, at prices of their own, from several threads at once."""

    bill_usd: Decimal = Decimal(0)
    calls: list[str] = field(default_factory=list)
    """The model of each call that was billed."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sell(self, model: str, usd: Decimal) -> None:
        with self.lock:
            self.bill_usd += usd
            self.calls.append(model)


Answer = tuple[AIMessage, int] | BaseException
"""A reply and how many tokens it would like to put out; or an error, after the work was done and billed."""


class APIConnectionError(Exception):
    """Lost on the way back, after the work was done: retried, and its bill is unknown to who asked."""


class InternalServerError(Exception):
    """Refused: retried, and not billed."""

    status_code = 500
    billed = False


class Hangs(Exception):
    """Billed, and never answered: what `until` waits for does not come."""

    def __init__(self, until: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("hangs")
        self.until = until


class PaidModel(BaseChatModel):
    """Asks `says` (the messages, the call's number) for its answer; costs `usd_per_token` of output, and nothing for input."""

    model_name: str
    provider: Any
    usd_per_token: Decimal
    says: Callable[[list[BaseMessage], int], Answer | Awaitable[Answer]]

    @property
    def _llm_type(self) -> str:
        return "paid"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    @property
    def prices(self) -> dict[str, dict[str, Decimal]]:
        """For the agent's `prices=`."""
        return {self.model_name: {"input": Decimal(0), "output": self.usd_per_token * 1_000_000}}

    def bind_tools(self, tools: Any, **options: Any) -> Runnable[Any, AIMessage]:
        return self.bind(**options)

    def _generate(self, *args: Any, **options: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **options: Any) -> ChatResult:
        said = self.says(messages, len(self.provider.calls))
        answer = await said if not isinstance(said, tuple | BaseException) else said
        cap = options["max_tokens"]
        if isinstance(answer, BaseException):
            if getattr(answer, "billed", True):
                self.provider.sell(self.model_name, cap * self.usd_per_token)
            if isinstance(answer, Hangs):
                await answer.until()
            raise answer
        reply, wanted = answer
        put_out = min(wanted, cap)
        self.provider.sell(self.model_name, put_out * self.usd_per_token)
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": put_out, "total_tokens": INPUT_TOKENS + put_out}
        reply = reply.model_copy(
            update={"usage_metadata": usage, "response_metadata": {**reply.response_metadata, "model_name": self.model_name}}
        )
        return ChatResult(generations=[ChatGeneration(message=reply)])


def tool_call(name: str, number: int, **args: Any) -> AIMessage:
    """Return a reply that calls a tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": f"call_{number}"}])


def paid(provider: Provider, says: Any, *, name: str = "paid", usd_per_token: Decimal = FORTY_CENTS) -> PaidModel:
    """Return a model of `provider`; its longest reply costs $0.40."""
    return PaidModel(model_name=name, provider=provider, usd_per_token=usd_per_token, says=says)


def scripted(provider: Provider, *answers: Any, name: str = "main", usd_per_token: Decimal = CENT) -> PaidModel:
    """Return a model of `provider` that gives `answers` in order, the last for ever."""
    mine = iter(range(10**9))

    def says(messages: list[BaseMessage], number: int) -> Any:
        answer = answers[min(next(mine), len(answers) - 1)]
        return answer(messages) if callable(answer) else answer

    return PaidModel(model_name=name, provider=provider, usd_per_token=usd_per_token, says=says)


def paid_agent(model: PaidModel, tools: Any = (), *, fallbacks: Any = (), **options: Any) -> ProductionAgent:
    """Return an agent that knows the prices of its models; unless `options` say otherwise, it may spend $0.50 a turn."""
    prices = {key: value for each in (model, *fallbacks) for key, value in each.prices.items()}
    defaults = {"max_output_tokens": 1_000, "max_cost_usd": 0.50, "max_tokens": None}
    return create_production_agent(model, tools, prices=prices, fallbacks=fallbacks, **{**defaults, **options})


def greedy(messages: list[BaseMessage], number: int) -> Any:
    """Calls a tool for ever, with all the output it may put out."""
    return tool_call("look", number, at=number), 1_000


def look(at: int) -> str:
    """Look."""
    return "nothing"


def used_usd(file: Path, budget: str) -> Decimal:
    """Return what a storage file says was spent of a shared budget."""
    with closing(sqlite3.connect(file)) as connection:
        (nusd,) = connection.execute("SELECT SUM(nusd) FROM ag_budgets WHERE budget = ?", (budget,)).fetchone()
        return Decimal(nusd) / 10**9
