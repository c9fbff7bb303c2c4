"""RetryMiddleware: one owner of retries, and then the next model.

Which error is tried again, and after how long, is decided in `decisions/retry.py`: by status code, the server's Retry-After, the kinds of
langchain-core's errors; never a wrong request, a refused key or an exhausted account. A client's own retries are switched off, since three
attempts of three are nine. Those who ask one server for one model share a circuit breaker and a retry budget, in all agents of a process.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langgraph.errors import GraphBubbleUp

from agent_graph.config import AgentConfig
from agent_graph.decisions.retry import Failure, classify, next_delay
from agent_graph.errors import ConfigError, LLMError, describe
from agent_graph.runtime.candidate import Candidate
from agent_graph.runtime.circuits import Circuit, circuit_of
from agent_graph_adapters.candidates import fallbacks_of
from agent_graph_adapters.clients import PerLoop
from agent_graph_adapters.langchain.middleware.both_ways import AWAITING, BLOCKING, Wait, as_async, run_through
from agent_graph_adapters.langchain.middleware.budget import reserving
from agent_graph_adapters.langchain.middleware.models import Models
from agent_graph_adapters.models import choose, per_loop

__all__ = ["RetryMiddleware"]

logger = logging.getLogger("agent_graph")

Handler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]


class RetryMiddleware(AgentMiddleware[Any, Any, Any]):
    """Tries a failed model call again where that may help, and then asks the next model.

    ```python
    agent = create_agent("openai:gpt-5-mini", tools, middleware=[RetryMiddleware(fallbacks=["anthropic:claude-haiku-4-5"])])
    ```

    Put it before `BudgetMiddleware`, so that each attempt is counted. What failed for good is raised as it was. Tools are not its business:
    `ToolJournalMiddleware` tries those again that may be.

    Args:
        retry_attempts: attempts in all per model; 0 and 1 both mean no retry, None as many as the error allows.
        fallbacks: a list of models, or of their names, that are asked in order when the agent's model has failed for good.

    Raises:
        ConfigError: a value that cannot be, a name that names no model.
    """

    def __init__(self, *, retry_attempts: int | None = 3, fallbacks: Sequence[BaseChatModel | str] = ()) -> None:
        super().__init__()
        self.tools = []
        config = AgentConfig.from_mapping(retry_attempts=retry_attempts, max_cost_usd=None)
        self.attempts = config.attempts
        self.fallbacks = tuple(per_loop(choose(model)) for model in fallbacks_of(fallbacks))
        self.models = Models(None, config)
        self._clients: dict[int, tuple[BaseChatModel, PerLoop]] = {}

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> Any:
        """Try in a sync agent."""
        return run_through(self._tried(request, as_async(handler), BLOCKING))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Any:
        """Try in an async agent."""
        return await self._tried(request, handler, AWAITING)

    async def _tried(self, request: ModelRequest[Any], handler: Handler, wait: Wait) -> ModelResponse[Any]:
        if reserving.get():
            raise ConfigError(
                "middleware: RetryMiddleware stands after BudgetMiddleware, so that only the first of its attempts would be counted. "
                "Put it before: middleware=[RetryMiddleware(...), BudgetMiddleware(...)]."
            )
        failed: Exception | None = None
        for client in (self._client_of(request.model), *self.fallbacks):
            model = client.current()
            candidate = self.models.governor_of(model).model
            if failed is not None:
                logger.warning("%s failed (%s); falling back to %s", request.model.__class__.__name__, describe(failed), candidate.name)
            circuit = circuit_of(candidate.breaker_key)
            circuit.count(+1)
            try:
                return await self._attempts(candidate, circuit, request.override(model=model), handler, wait)
            except _GaveUp as gave_up:
                failed = gave_up.error
            finally:
                circuit.count(-1)
        assert failed is not None, "there is always one model"
        raise failed

    async def _attempts(
        self, candidate: Candidate, circuit: Circuit, request: ModelRequest[Any], handler: Handler, wait: Wait
    ) -> ModelResponse[Any]:
        attempt, paced = 0, False
        while True:
            attempt += 1
            alone, now = circuit.callers <= 1, time.monotonic()
            if not circuit.breaker.allows(now, alone=alone) or not (attempt == 1 or paced or circuit.budget.allows(alone=alone)):
                raise _GaveUp(LLMError(f"{candidate.name}: not asked, because it has just failed for everybody who asked it."))
            circuit.breaker = circuit.breaker.entered(now)
            if not paced:
                circuit.budget = circuit.budget.after("first" if attempt == 1 else "retry")
            try:
                response = await handler(request)
            except GraphBubbleUp:
                raise
            except Exception as error:  # noqa: BLE001  the port's border: `_delay` decides what it means, and raises what ends the call
                failure = classify(error, spec_backend=candidate.backend is not None, now=time.time())
                delay, paced = self._delay(failure, circuit, attempt, error), failure.is_paced
                logger.info("%s: attempt %d failed (%s); again in %.2f s", candidate.name, attempt, describe(error), delay)
                await wait(asyncio.sleep(delay))
            else:
                circuit.breaker = circuit.breaker.after("success", time.monotonic())
                return response

    def _delay(self, failure: Failure, circuit: Circuit, attempt: int, error: Exception) -> float:
        """Return the seconds to wait before the next attempt, or raise what ends this model."""
        if failure.overflow or failure.kind == "contract":
            raise error
        if failure.retryable:  # who keeps a rate limit is well
            circuit.breaker = circuit.breaker.after("success" if failure.is_paced else "failure", time.monotonic())
        delay = next_delay(failure, attempt=attempt, attempts=self.attempts, time_left_s=None, draw=random.random())
        if delay is None:
            raise _GaveUp(error)
        return delay

    def _client_of(self, model: BaseChatModel) -> PerLoop:
        """Return the model without retries of its own, in each event loop with a client of its own."""
        known = self._clients.get(id(model))
        if known is None or known[0] is not model:
            if len(self._clients) > 64:  # a model made anew for each call would fill the memory
                self._clients.clear()
            known = self._clients[id(model)] = (model, per_loop(model))
        return known[1]


class _GaveUp(Exception):
    """One model failed for good."""

    def __init__(self, error: Exception) -> None:
        super().__init__(describe(error))
        self.error = error
