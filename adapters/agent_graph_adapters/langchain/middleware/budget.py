"""BudgetMiddleware: what a turn may use, kept before it is used.

How it works
    Before each model call its worst case (counted input, the output cap at the dearest price) is held against the limits and booked
    as reserved; a call whose worst case does not fit gets a smaller cap, or is made as the *landing*, without tools, so that there is
    an answer, or is not made. After it the real bill takes the reservation's place. Decided in `decisions/budget.py`, booked in
    `runtime/ledger.py`, as the agent's own calls are. So `settled + reserved <= limit` at every instant, in whatever order calls are
    made.

    A turn begins with a human message (`names.py`). An agent that is called inside a tool of another one is that one's child: what it
    spends its caller spends too, less what the caller keeps for a landing of its own. That goes by the context of the call, so it
    holds for any depth and number of them, at once or one after the other; a `ProductionAgent` called in a tool is one of them too.

What must stay true
    1. No call leaves without its reservation (on disk, if there is a storage), and every reservation is closed.
    2. A summary that drops the human message out of the list begins no new turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest, ModelResponse, ToolCallRequest
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.runnables import ensure_config
from langgraph.types import Command

from agent_graph.config import AgentConfig
from agent_graph.decisions.budget import Admission, Land, Limits, Normal, Refuse, admit
from agent_graph.decisions.compression import gradually
from agent_graph.decisions.prompt import LANDING
from agent_graph.decisions.retry import classify
from agent_graph.decisions.tokens import Anchor, bound, estimate_text
from agent_graph.errors import ConfigError, LimitReached, describe
from agent_graph.failpoints import failpoint
from agent_graph.messages import Conversion
from agent_graph.runtime.billing import never_billed
from agent_graph.runtime.counter import Counter
from agent_graph.runtime.deadline import Expired
from agent_graph.runtime.landing import OF_SIZE, with_texts
from agent_graph.runtime.ledger import NOT_MADE, Reserved
from agent_graph.runtime.turn import Turn
from agent_graph.storage.port import Storage
from agent_graph_adapters.langchain.middleware.both_ways import AWAITING, BLOCKING, Wait, as_async, run_through
from agent_graph_adapters.langchain.middleware.models import Models, input_of, tokens_of
from agent_graph_adapters.langchain.middleware.names import Begun, begun, begun_by, is_last, messages_in, purpose
from agent_graph_adapters.langchain.middleware.turns import Turns, begetting, storage_of, turns_in

__all__ = ["BudgetMiddleware", "reserving"]

LANDING_TOKENS = estimate_text(LANDING)
AFTER_TOKENS = 1_000
"""What a reply and the results of its calls add to the input of a landing behind it, as a rule."""
TURN = "agent_graph_turn"
"""Key of the state under which the id of the message that began the turn is kept."""


reserving: ContextVar[bool] = ContextVar("agent_graph_reserving", default=False)
"""Whether a model call is being made under a reservation: further attempts at it would not be counted."""


class BudgetState(AgentState[Any]):
    """What a checkpoint keeps for the budget."""

    agent_graph_turn: NotRequired[Annotated[str, PrivateStateAttr]]


class BudgetMiddleware(AgentMiddleware[BudgetState, Any, Any]):
    """Keeps a turn of an agent, and the agents that it calls, within limits.

    ```python
    agent = create_agent("openai:gpt-5-mini", [search], middleware=[BudgetMiddleware(max_steps=10, max_cost_usd=0.50)])
    ```

    A turn is all that follows one human message of a thread. Limits that are not named do not hold. Put it last in `middleware`, so that
    what the others do with a request is done when it is priced, and `RetryMiddleware` before it, so that each attempt is counted.

    Args:
        max_steps: model replies of a turn. Each agent's own; the other limits an agent shares with those that it calls in its tools.
        max_tokens: input and output of all its model calls.
        max_cost_usd: USD of the same.
        timeout_s: seconds of work. In an async agent a model call is cut short by it; a tool never is.
        max_output_tokens: cap of one reply; where money or tokens are limited there is always one, else a call had no worst case.
        storage: a path or a `Storage`, in which the account survives a crash and is there after a resume. None: it is kept in memory, for
            the newest 10,000 turns of this process.
        prices: USD per million tokens of models that the price table does not know: `{"my-model": {"input": 0.1, "output": 0.4}}`.
        on_unknown_price: where a paid model has no price and `max_cost_usd` is set: "error" (before its first call), "warn", "ignore".
        exit_behavior: when no further call is possible: "end" with a reply that says so, or raise the "error" `LimitReached`. An agent
            that owes structured output always raises.

    Raises:
        ConfigError: no limit at all, or a value that cannot be.
    """

    state_schema = BudgetState

    def __init__(
        self,
        *,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_cost_usd: float | Decimal | None = None,
        timeout_s: float | None = None,
        max_output_tokens: int | None = 4_096,
        storage: str | Path | Storage | None = None,
        prices: Mapping[str, Any] | None = None,
        on_unknown_price: Literal["error", "warn", "ignore"] = "error",
        exit_behavior: Literal["end", "error"] = "end",
    ) -> None:
        super().__init__()
        self.tools = []
        if max_tokens is None and max_cost_usd is None:
            max_output_tokens = None  # without a limit on either, nothing needs a worst case
        config = AgentConfig.from_mapping(
            max_steps=max_steps,
            max_tokens=max_tokens,
            max_cost_usd=max_cost_usd,
            timeout_s=timeout_s,
            max_output_tokens=max_output_tokens,
            on_unknown_price=on_unknown_price,
        )
        self.limits = Limits.of(config)
        if self.limits == Limits():
            raise ConfigError("BudgetMiddleware: no limit is given. Name one: max_cost_usd=0.50, max_tokens=, max_steps=, timeout_s=.")
        if exit_behavior not in ("end", "error"):
            raise ConfigError(f"exit_behavior: 'end' or 'error' is due, not {exit_behavior!r}.")
        self.exit_behavior = exit_behavior
        self.storage = None if storage is None else storage_of(storage)
        self.turns = Turns(None) if self.storage is None else turns_in(self.storage)
        self.models = Models(prices, config)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> Any:
        """Hold a call of a sync agent against the limits."""
        return run_through(self._spent(request, as_async(handler), BLOCKING))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]) -> Any:
        """Hold a call of an async agent against the limits."""
        return await self._spent(request, handler, AWAITING)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Let the agents that a tool calls spend from this turn."""
        return run_through(self._lent(request, as_async(handler), BLOCKING))

    async def awrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]) -> Any:
        """Let the agents that a tool calls spend from this turn."""
        return await self._lent(request, handler, AWAITING)

    async def _lent(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]], wait: Wait) -> Any:
        turn = _turn_of(request.state, request.runtime.config)
        async with self.turns.at_work(turn, wait, limits=self.limits) as hosted:
            with begetting(hosted):
                return await handler(request)

    async def _spent(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]], wait: Wait) -> Any:
        async with self.turns.at_work(_turn_of(request.state), wait, limits=self.limits) as hosted:
            response = await _Call(self, request, hosted.turn, wait).answered(handler)
            if purpose.get() is None and is_last(response):
                self.turns.end(hosted)
        first = begun_by(messages_in(request.state))
        if first is None or not first.id or _state(request.state).get(TURN) == first.id:
            return response
        return ExtendedModelResponse(model_response=response, command=Command(update={TURN: first.id}))


class _Call:
    """One model call: admitted, reserved, made, settled."""

    def __init__(self, budget: BudgetMiddleware, request: ModelRequest[Any], turn: Turn, wait: Wait) -> None:
        model = budget.models.telling(request.model)
        request = request if model is request.model else request.override(model=model)
        self.budget, self.turn, self.wait = budget, turn, wait
        self.governor = budget.models.governor_of(model)
        self.candidate = self.governor.model
        self.purpose = purpose.get()
        self.kind: Any = "step" if self.purpose is None else self.purpose.kind
        self._ask(request)

    async def answered(self, handler: Callable[[ModelRequest[Any]], Awaitable[Any]]) -> ModelResponse[Any]:
        """Return the response, or a reply that says which limit admits no further call."""
        reserved, landing = await self._reserved(landing=False), False
        if isinstance(reserved, Land) and self.purpose is None:
            reserved, landing = await self._reserved(landing=True), True
        if isinstance(reserved, Refuse) and self._may_be_shown_less(reserved) and self._show_less():
            reserved, landing = await self._reserved(landing=True), True
        if isinstance(reserved, Land | Refuse):
            return self._refused(reserved)
        try:
            await self.wait(self.turn.account.durable())
        except BaseException:
            self.turn.unbilled(reserved.entry, NOT_MADE)
            raise
        if self.turn.time_left_s == 0:  # the disk took what was left
            self.turn.unbilled(reserved.entry, NOT_MADE)
            return self._refused(Refuse("timeout_s", self.turn.time_is_up()))
        failpoint("budget.reserved")
        token = reserving.set(True)
        try:
            response = await self.wait.at_most(self.turn.time_left_s, _called(handler, self._capped(reserved.admission, landing=landing)))
        except BaseException as error:
            self._failed(reserved.entry, error)
            if isinstance(error, Expired):
                return self._refused(Refuse("timeout_s", self.turn.time_is_up()))
            raise
        finally:
            reserving.reset(token)
        failpoint("budget.called")
        self._settled(reserved.entry, response)
        return _without_calls(response) if landing and self.request.response_format is None else response

    def _ask(self, request: ModelRequest[Any]) -> None:
        """Let `request` be what the model is asked."""
        self.request = request
        self.estimated = tokens_of(request, input_of(request), self.candidate)
        anchor = None if self.candidate.backend is not None or self.purpose is not None else self.turn.learned.anchor
        self.input_tokens = bound(anchor, self.estimated)

    # -- before ---------------------------------------------------------------------------------------------------------------

    async def _reserved(self, *, landing: bool) -> Reserved | Land | Refuse:
        steps = self.turn.account.sums.steps
        return await self.wait(
            self.turn.ledger.reserve(
                lambda: self._admitted(landing=landing),
                step=0 if self.purpose is not None else steps + 1,
                kind=self.kind,
                attempt=1,
                model=self.candidate.name,
            )
        )

    def _admitted(self, *, landing: bool) -> Admission:
        turn, governor, tokens = self.turn, self.governor, self.input_tokens
        last = governor.estimate(turn, self.candidate, tokens + LANDING_TOKENS)
        after = tokens + AFTER_TOKENS if self.purpose is None else self.purpose.next_tokens
        return turn.account.orphaned() or admit(
            turn.limits,
            turn.spent,
            call=last if landing else governor.estimate(turn, self.candidate, tokens),
            landing=None if landing else last,
            landing_after=governor.estimate(turn, self.candidate, after),
            first=self.purpose is None and not turn.account.sums.steps,
            output_price_usd=governor.output_price_usd(self.candidate, tokens),
            can_shrink=self.candidate.backend is None,
            reasoning=self.candidate.reasoning,
            above=turn.account.above(),
            late=turn.is_late,
        )

    def _may_be_shown_less(self, refused: Refuse) -> bool:
        return self.purpose is None and refused.key in OF_SIZE and bool(self.turn.account.sums.steps)

    def _show_less(self) -> bool:
        """Cut the tool results that the model is shown until a landing fits, no more than that; return whether it does."""
        whole, fits = self.request, None
        specs = Conversion().to_spec(whole.messages)
        for _, spec in gradually(specs, size=Counter(self.candidate.backend, ()).size):
            self._ask(whole.override(messages=with_texts(whole.messages, specs, spec)))  # type: ignore[arg-type]  # a list of what it takes
            if not isinstance(self._admitted(landing=True), Normal):
                break
            fits = self.request
        self._ask(fits or whole)
        return fits is not None

    def _capped(self, admission: Normal, *, landing: bool) -> ModelRequest[Any]:
        request, cap = self.request, admission.max_output_tokens
        if cap is not None and self.governor.cap_of(self.candidate) is not None:
            request = request.override(model_settings=request.model_settings | {self.candidate.cap_parameter: cap})
        return _landing(request) if landing else request

    # -- after ----------------------------------------------------------------------------------------------------------------

    def _settled(self, entry: int, response: ModelResponse[Any]) -> None:
        reply = next((message for message in response.result if isinstance(message, AIMessage)), None)
        if reply is None:
            self.turn.unbilled(entry, "no model was called")
            return
        bill = self.governor.bill(self.turn, self.candidate, reply, self.input_tokens)
        usage = bill.told
        self.governor.settle(self.turn, self.candidate, entry, bill, used=self.purpose is None)
        if self.purpose is None and usage is not None and usage.input_tokens > 0:
            self.turn.learned.anchor = Anchor(real=usage.input_tokens, estimated=self.estimated)

    def _failed(self, entry: int, error: BaseException) -> None:
        """Close the reservation of a call that failed: what is not known to be free stays counted."""
        backend = self.candidate.backend is not None
        free = never_billed(error, classify(error, spec_backend=backend, now=self.turn.clock.time()))
        (self.turn.unbilled if free else self.turn.unsettle)(entry, describe(error))

    def _refused(self, refusal: Refuse | Land) -> ModelResponse[Any]:
        text = refusal.text if isinstance(refusal, Refuse) else f"{refusal.key}: a {self.kind} would leave too little for the answer"
        if self.budget.exit_behavior == "error" or self.purpose is not None or self.request.response_format is not None:
            raise LimitReached(f"{text}: no further model call is possible within this budget.", key=refusal.key)
        said = f"I have to stop here: the budget of this task is used up ({text})."
        return ModelResponse(result=[AIMessage(said, response_metadata={"stop_reason": refusal.key})])


def _turn_of(state: Any, config: Mapping[str, Any] | None = None) -> Begun:
    """Return the turn, also where a summary took its first message out of the list."""
    messages = messages_in(state)
    known = None if begun_by(messages) is not None else _state(state).get(TURN)
    return begun(messages, ensure_config() if config is None else config, known=known)


def _state(state: Any) -> Mapping[str, Any]:
    return state if isinstance(state, Mapping) else {}


async def _called(handler: Callable[[ModelRequest[Any]], Awaitable[Any]], request: ModelRequest[Any]) -> Any:
    return await handler(request)


def _landing(request: ModelRequest[Any]) -> ModelRequest[Any]:
    """Return the request of a last call: no tool may be called, and the model is told so."""
    system = request.system_message
    if system is None:
        told = SystemMessage(LANDING)
    elif isinstance(system.content, str):
        told = system.model_copy(update={"content": f"{system.content}\n\n{LANDING}"})
    else:
        told = system.model_copy(update={"content": [*system.content, {"type": "text", "text": LANDING}]})
    if request.response_format is None and _can_forbid(request):
        return request.override(system_message=told, tool_choice="none")
    return request.override(system_message=told, tools=[], tool_choice=None)


def _can_forbid(request: ModelRequest[Any]) -> bool:
    """Return whether the model may keep the tools' definitions and yet call none: providers refuse a history of calls without them."""
    if not request.tools:
        return False
    try:
        request.model.bind_tools(request.tools, tool_choice="none")
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True


def _without_calls(response: ModelResponse[Any]) -> ModelResponse[Any]:
    """Return the response without the tool calls that a landing made all the same: they are not run."""
    result: list[BaseMessage] = []
    for message in response.result:
        if isinstance(message, AIMessage) and message.tool_calls:
            content = message.text or "The budget of this task is used up; there is no answer yet."
            message = AIMessage(content, id=message.id, usage_metadata=message.usage_metadata, response_metadata=message.response_metadata)
        result.append(message)
    return replace(response, result=result)
