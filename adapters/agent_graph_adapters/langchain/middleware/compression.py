"""CompressionMiddleware: the message list is made shorter before a model call, and what it was stays in the checkpoint.

What is cut, what is summarised and what stays whole is decided in `decisions/compression.py`. The shorter list is what the model is shown;
the graph's own messages are not touched. It is kept beside them in the state, up to the message that it covers, so that the next call
begins from it instead of making another summary. The summary is a model call like any other: it goes through the middleware that stands
after this one, so that a `BudgetMiddleware` there admits it only if the call that it is made for can still be paid. Where the model gives
no summary, a deterministic one stands in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from agent_graph.config import AgentConfig
from agent_graph.decisions.compression import Plan, assemble, limit_of, needed, plan, summary_prompt
from agent_graph.decisions.retry import classify
from agent_graph.errors import AgentGraphError, ConfigError, LimitReached, describe
from agent_graph.messages import Conversion, ensure_id
from agent_graph.runtime.candidate import Candidate
from agent_graph.runtime.counter import Counter
from agent_graph.types import Message
from agent_graph_adapters.langchain.middleware.both_ways import as_async, run_through
from agent_graph_adapters.langchain.middleware.models import Models, definitions_tokens
from agent_graph_adapters.langchain.middleware.names import Purpose, begun_by, messages_in, purpose

__all__ = ["CompressionMiddleware"]

logger = logging.getLogger("agent_graph")

KEPT = "agent_graph_compressed"
"""Key of the state: `{"after": id of the last message that it covers, "messages": what stands for them}`."""
Handler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]


class CompressionState(AgentState[Any]):
    """What a checkpoint keeps of a compression."""

    agent_graph_compressed: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]]


class CompressionMiddleware(AgentMiddleware[CompressionState, Any, Any]):
    """Shows the model a shorter list once the conversation has more than `compression_threshold` tokens.

    ```python
    agent = create_agent(model, tools, middleware=[CompressionMiddleware(compression_threshold=32_000), BudgetMiddleware(max_cost_usd=0.5)])
    ```

    Tool calls and their results stay together; the question and the newest round are never summarised. The model's context window is a
    second limit, and a call that the provider refuses as too long is made once more with a shorter list. Nothing is taken out of the
    graph's state. Put it first in `middleware`.

    Raises:
        ConfigError: a threshold that cannot be.
    """

    state_schema = CompressionState

    def __init__(self, *, compression_threshold: int | None = 32_000) -> None:
        super().__init__()
        self.tools = []
        config = AgentConfig.from_mapping(compression_threshold=compression_threshold, max_cost_usd=None)
        if compression_threshold == 0:
            raise ConfigError("compression_threshold: 0 leaves no room for any message. None: only the model's window counts.")
        self.threshold = config.compression_threshold
        self.models = Models(None, config)
        self._quiet: dict[int, tuple[BaseChatModel, BaseChatModel]] = {}

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> Any:
        """Compress in a sync agent."""
        return run_through(self._compressed(request, as_async(handler)))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Any:
        """Compress in an async agent."""
        return await self._compressed(request, handler)

    async def _compressed(self, request: ModelRequest[Any], handler: Handler) -> Any:
        shown = _shown(request)
        call = _Call(self, request, handler)
        shorter = await call.shorter(shown, limit_of(self.threshold, call.candidate.window))
        try:
            response = await handler(request.override(messages=shorter))
        except GraphBubbleUp:
            raise
        except Exception as error:
            if not classify(error, spec_backend=call.candidate.backend is not None, now=time.time()).overflow:
                raise
            less = max(1, int(call.count(shorter) * 0.8))  # the window is smaller than was thought
            again = await call.shorter(shorter, less)
            if again is shorter:
                raise
            shorter, response = again, await handler(request.override(messages=again))
        if shorter is shown or not shown or not shown[-1].id:
            return response
        kept = {"after": shown[-1].id, "messages": shorter}
        return ExtendedModelResponse(model_response=response, command=Command(update={KEPT: kept}))

    def quiet(self, model: BaseChatModel) -> BaseChatModel:
        """Return the model as one whose tokens are not streamed to the user."""
        known = self._quiet.get(id(model))
        if known is None or known[0] is not model:
            if len(self._quiet) > 64:  # a model made anew for each call would fill the memory
                self._quiet.clear()
            known = self._quiet[id(model)] = (model, model.model_copy(update={"tags": [*(model.tags or []), "nostream"]}))
        return known[1]


def _shown(request: ModelRequest[Any]) -> list[Any]:
    """Return the request's messages, an earlier compression in the place of what it covers."""
    messages = list(request.messages)
    state: Any = request.state
    kept = state.get(KEPT)
    if not kept:
        return messages
    at = next((at for at, message in enumerate(messages) if message.id == kept["after"]), None)
    return messages if at is None else [*kept["messages"], *messages[at + 1 :]]


class _Call:
    """One model call whose list may be made shorter."""

    def __init__(self, middleware: CompressionMiddleware, request: ModelRequest[Any], handler: Handler) -> None:
        self.middleware, self.request, self.handler = middleware, request, handler
        self.candidate: Candidate = middleware.models.governor_of(request.model).model
        self.conversion = Conversion()
        self.counter = Counter(self.candidate.backend, ())
        self.definitions = 0 if self.candidate.backend is not None else definitions_tokens(request)

    def count(self, messages: Sequence[BaseMessage]) -> int:
        """Return the tokens of what the model is shown: system prompt, messages, tools."""
        return self._counted(self.conversion.to_spec([*self._system(), *messages])) + self.definitions

    def _counted(self, messages: list[Message]) -> int:
        return self.counter.count(messages, None)

    def _system(self) -> list[BaseMessage]:
        return [] if self.request.system_message is None else [self.request.system_message]

    async def shorter(self, messages: list[Any], limit: int | None) -> list[Any]:
        """Return `messages` itself while it is within `limit`, else a shorter list."""
        if limit is None or not needed(self.count(messages), limit, None):
            return messages
        specs = self.conversion.to_spec([*self._system(), *messages])
        room = max(1, limit - self.definitions)
        chosen = plan(specs, count=self._counted, size=self.counter.size, limit=room, task=self._task(messages))
        summary = await self._summary(chosen) if chosen.to_summarise else None
        result = assemble(chosen, summary, count=self._counted)
        if result.problem is not None:
            logger.warning("%s", result.problem)
        if result.messages is specs:
            return messages
        kept = self.conversion.to_langchain(result.messages)
        return [ensure_id(message) for message in kept if not isinstance(message, SystemMessage) or message not in self._system()]

    def _task(self, messages: Sequence[BaseMessage]) -> int | None:
        first = begun_by(messages_in(self.request.state))
        at = next((at for at, message in enumerate(messages) if first is not None and message.id == first.id), None)
        return None if at is None else at + len(self._system())

    async def _summary(self, chosen: Plan) -> str | None:
        """Return the model's summary, or None where the limits or the model do not give one."""
        asked = self.conversion.to_langchain(summary_prompt(chosen.to_summarise, chosen.summary_tokens, room=self.candidate.window))
        system = [message for message in asked if isinstance(message, SystemMessage)]
        request = self.request.override(
            model=self.middleware.quiet(self.request.model),
            system_message=system[0] if system else None,
            messages=[message for message in asked if not isinstance(message, SystemMessage)],  # type: ignore[misc]  # a list of what it takes
            tools=[],
            tool_choice=None,
            response_format=None,
            model_settings=self._settings(chosen.summary_tokens),
        )
        token = purpose.set(Purpose(kind="summary", next_tokens=chosen.limit))
        try:
            response = await self.handler(request)
        except GraphBubbleUp:
            raise
        except Exception as error:
            if isinstance(error, AgentGraphError) and not isinstance(error, LimitReached):
                raise  # of the storage, or of the program
            logger.warning("compression: the summary was made without the model (%s)", describe(error))
            return None
        finally:
            purpose.reset(token)
        return next((message.text for message in response.result if isinstance(message, AIMessage)), None)

    def _settings(self, tokens: int) -> dict[str, Any]:
        settings = dict(self.request.model_settings)
        if self.candidate.backend is None:
            settings[self.candidate.cap_parameter] = min(tokens, settings.get(self.candidate.cap_parameter) or tokens)
        return settings
