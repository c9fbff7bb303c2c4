"""An `ObservabilityBackend` as a LangChain callback handler: any chain, any LangGraph app tells it of its runs and tool calls.

A root run is one `record_run`: its question and answer, its model calls (`steps`), tokens, cost and time. Each tool that ends in
it is one `record_tool_call` before that. The run_id is the graph's thread_id; without one, the id of the root run.

The backend is told from one thread, in order; what it raises is logged once and changes nothing. A root run's end waits at most a
second for its records to be delivered, so that a script may end right after it.

An agent of ours tells its own `observability` itself: give it the backend, not the handler, or it hears everything twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from typing_extensions import override

from agent_graph.decisions.plain import dumps, plain
from agent_graph.decisions.pricing import PriceBook
from agent_graph.errors import ConfigError, describe
from agent_graph.runtime.billing import usage_of
from agent_graph.runtime.recorder import Recorder
from agent_graph.types import AgentRun, ToolCall

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult

    from agent_graph.ports import ObservabilityBackend

__all__ = ["ObservabilityHandler", "as_callback_handler"]


def as_callback_handler(observability: ObservabilityBackend, *, prices: Mapping[str, Any] | None = None) -> ObservabilityHandler:
    """Return `observability` as a callback handler.

    ```python
    await app.ainvoke(question, {"callbacks": [as_callback_handler(observability)]})
    ```

    Args:
        observability: what is told of every root run and every tool call in it.
        prices: USD per million tokens of models that the price table does not know, as for `ProductionAgent`.

    Raises ConfigError for what is no ObservabilityBackend. One handler serves any number of concurrent runs.
    """
    missing = [method for method in ("record_run", "record_tool_call") if not callable(getattr(observability, method, None))]
    if missing or isinstance(observability, type):
        raise ConfigError(f"observability: {observability!r} is no ObservabilityBackend object with record_run() and record_tool_call().")
    return ObservabilityHandler(Recorder(observability), PriceBook(prices))


@dataclass(slots=True)
class _Root:
    """A root run that has not ended yet."""

    id: UUID
    run: AgentRun
    began_s: float
    cost_usd: Decimal = Decimal(0)
    members: set[UUID] = field(default_factory=set)
    """Itself and what has begun below it."""


class ObservabilityHandler(BaseCallbackHandler):
    """Turns LangChain's events into records of an `ObservabilityBackend`."""

    def __init__(self, recorder: Recorder, prices: PriceBook) -> None:
        self._recorder, self._prices = recorder, prices
        self._lock = threading.Lock()
        self._root_of: dict[UUID, _Root] = {}
        self._calls: dict[UUID, tuple[ToolCall, float]] = {}

    # -- runs -------------------------------------------------------------------------------------------------------------------

    @override
    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, metadata: Any = None, **kwargs: Any
    ) -> None:
        self._begin(run_id, parent_run_id, metadata, inputs)

    @override
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        waits = isinstance(outputs, Mapping) and "__interrupt__" in outputs
        self._end(run_id, status="running" if waits else "complete", output=_answer(outputs))

    @override
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, status="timeout" if isinstance(error, TimeoutError) else "failed", error=describe(error))

    # -- model calls ------------------------------------------------------------------------------------------------------------

    @override
    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, metadata: Any = None, **kwargs: Any
    ) -> None:
        self._begin(run_id, parent_run_id, metadata, messages[0] if messages else [])

    @override
    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, metadata: Any = None, **kwargs: Any
    ) -> None:
        self._begin(run_id, parent_run_id, metadata, prompts[0] if prompts else "")

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        generation = response.generations[0][0] if response.generations and response.generations[0] else None
        message = getattr(generation, "message", None)
        with self._lock:
            root = self._root_of.get(run_id)
            if root is not None:
                root.run.steps += 1
                if isinstance(message, AIMessage):
                    self._bill(root, message)
        self._end(run_id, status="complete", output=_answer(message if message is not None else getattr(generation, "text", "")))

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.on_chain_error(error, run_id=run_id)

    def _bill(self, root: _Root, message: AIMessage) -> None:
        usage = usage_of(message)
        told: Mapping[str, Any] = message.usage_metadata or {}
        cost = message.response_metadata.get("cost_usd", told.get("total_cost"))
        if cost is not None:
            root.cost_usd += Decimal(str(cost))
        if usage is None:
            return
        root.run.total_tokens += usage.total_tokens
        model = message.response_metadata.get("model_name")
        priced = self._prices.cost(usage, str(model)) if cost is None and model else None
        root.cost_usd += Decimal(0) if priced is None else priced.cost_usd

    # -- tool calls -------------------------------------------------------------------------------------------------------------

    @override
    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        name = kwargs.get("name") or (serialized or {}).get("name") or "tool"
        args = dict(inputs) if inputs is not None else {"input": input_str}
        call = ToolCall(tool_name=str(name), args=args, call_id=str(kwargs.get("tool_call_id") or run_id))
        with self._lock:
            self._calls[run_id] = (call, time.perf_counter())
            root = self._root_of.get(parent_run_id) if parent_run_id is not None else None
            if root is not None:
                self._join(root, run_id)

    @override
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if isinstance(output, ToolMessage):
            failed = output.text if output.status == "error" else None
            self._called(run_id, result=None if failed is not None else output.content, error=failed, call_id=output.tool_call_id)
        else:
            self._called(run_id, result=output)

    @override
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._called(run_id, error=describe(error))

    def _called(self, run_id: UUID, *, result: Any = None, error: str | None = None, call_id: str | None = None) -> None:
        with self._lock:
            call, began_s = self._calls.pop(run_id, (None, 0.0))
            root = self._root_of.get(run_id)
            if call is None:
                return
            call.result, call.error, call.call_id = result, error, call_id or call.call_id
            call.latency_ms = (time.perf_counter() - began_s) * 1000
            if root is not None:
                root.run.tool_calls.append(call)
        self._recorder.tool_call(call, root.run.run_id if root is not None else str(run_id))
        if root is None:  # a tool that was called by itself
            self._recorder.wait()

    # -- roots ------------------------------------------------------------------------------------------------------------------

    def _begin(self, run_id: UUID, parent_run_id: UUID | None, metadata: Any, inputs: Any) -> None:
        with self._lock:
            root = None if parent_run_id is None else self._root_of.get(parent_run_id)
            if root is None:  # also where the handler was given to an inner runnable, whose parent it never saw
                name = (metadata or {}).get("thread_id") or run_id
                root = _Root(run_id, AgentRun(run_id=str(name), input=_question(inputs)), time.perf_counter())
            self._join(root, run_id)

    def _join(self, root: _Root, run_id: UUID) -> None:
        root.members.add(run_id)
        self._root_of[run_id] = root

    def _end(self, run_id: UUID, *, status: str, output: str | None = None, error: str | None = None) -> None:
        with self._lock:
            root = self._root_of.pop(run_id, None)
            if root is None or root.id != run_id:
                return
            for member in root.members:  # a run that was cut short never told its end
                self._root_of.pop(member, None)
                self._calls.pop(member, None)
        run = root.run
        run.status, run.output, run.error = status, output, error
        run.total_cost_usd, run.latency_ms = float(root.cost_usd), (time.perf_counter() - root.began_s) * 1000
        self._recorder.run(run)
        self._recorder.wait()


def _question(inputs: Any) -> str:
    """Return what was asked: the last human message's text where there are messages, else the input as text."""
    messages = _messages_in(inputs)
    asked = next((message for message in reversed(messages) if isinstance(message, HumanMessage)), None)
    return asked.text if asked is not None else _text(inputs)


def _answer(outputs: Any) -> str:
    messages = _messages_in(outputs)
    return messages[-1].text if messages else _text(outputs)


def _messages_in(value: Any) -> list[BaseMessage]:
    """Return the messages of an input or output, in whatever form LangChain takes them; none where it holds something else."""
    found = value.get("messages") if isinstance(value, Mapping) else value
    if isinstance(found, BaseMessage):
        return [found]
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return []
    try:
        return convert_to_messages(found)
    except (ValueError, TypeError, NotImplementedError):
        return []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(plain(value))
