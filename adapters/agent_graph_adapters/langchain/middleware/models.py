"""What the account of a model call has to know of LangChain's request: which model, what it may cost, how long its input is."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain.agents.middleware import ModelRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent_graph.config import AgentConfig
from agent_graph.decisions.prices import GIVE_PRICE, price_line
from agent_graph.decisions.pricing import PriceBook
from agent_graph.decisions.tokens import estimate_json
from agent_graph.errors import ConfigError
from agent_graph.messages import Conversion
from agent_graph.runtime.candidate import Candidate
from agent_graph.runtime.counter import Counter
from agent_graph.runtime.governor import Governor
from agent_graph.types import Message
from agent_graph_adapters.candidates import candidate_of, insist_on_price
from agent_graph_adapters.clients import telling_usage
from agent_graph_adapters.langchain.chat_model import BackendChatModel
from agent_graph_adapters.models import Choice, choose

__all__ = ["Models", "definitions_tokens", "input_of", "tokens_of"]

logger = logging.getLogger("agent_graph")

MOST_KNOWN = 256
"""Models that are remembered: one made anew for each call would fill the memory."""


class Models:
    """Knows the models that one middleware met. Used by many tasks and threads at once."""

    def __init__(self, prices: Mapping[str, Any] | None, config: AgentConfig) -> None:
        self._book = PriceBook(prices)
        self._config = config
        self._known: dict[int, tuple[BaseChatModel, Governor]] = {}
        self._telling: dict[int, tuple[BaseChatModel, BaseChatModel]] = {}

    def telling(self, model: BaseChatModel) -> BaseChatModel:
        """Return `model`, or a copy, the same each time, that asks for usage when it streams: a bill without it is a guess."""
        known = self._telling.get(id(model))
        if known is None or known[0] is not model:
            if len(self._telling) > MOST_KNOWN:
                self._telling.clear()
            known = self._telling[id(model)] = (model, telling_usage(model))
        return known[1]

    def governor_of(self, model: BaseChatModel) -> Governor:
        """Return who prices the calls of `model`. ConfigError where a limit in USD cannot hold, because its price is unknown."""
        known = self._known.get(id(model))
        if known is not None and known[0] is model:
            return known[1]
        candidate = self._candidate(model)
        governor = Governor((candidate,), self._book, attempts=1, max_output_tokens=self._config.max_output_tokens)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known[id(model)] = (model, governor)
        return governor

    def _candidate(self, model: BaseChatModel) -> Candidate:
        if not isinstance(model, BaseChatModel):
            raise ConfigError(
                f"model: a {type(model).__name__} has no name and no price; a chat model is due, without anything bound to it."
            )
        if isinstance(model, BackendChatModel):
            return Candidate(source=lambda: model, name=type(model.backend).__name__, tools=(), backend=model.backend)
        choice = choose(model)
        candidate = candidate_of(choice, source=lambda: model, model=model)
        insist_on_price(candidate, choice, self._book, self._config)
        self._say_unpriced(candidate, choice)
        own = getattr(model, candidate.cap_parameter, None)
        caps = [cap for cap in (candidate.max_output_tokens, own) if isinstance(cap, int)]
        return replace(candidate, max_output_tokens=min(caps, default=None))

    def _say_unpriced(self, candidate: Candidate, choice: Choice) -> None:
        """Warn that the limit in USD cannot hold for a model of nobody's price list; the agent says it in `AgentRun.warnings`."""
        config = self._config
        if choice.priced or choice.provider == "offline" or config.max_cost_usd is None or config.on_unknown_price == "ignore":
            return
        if self._book.price_of(candidate.name, **candidate.priced_at) is None:
            text = "has no price that is known: its calls count as $0, and max_cost_usd cannot hold for them"
            logger.warning("%s %s. %s: %s", candidate.name, text, GIVE_PRICE, price_line(candidate.name))


def input_of(request: ModelRequest[Any]) -> list[Message]:
    """Return what the model is shown, as the specification's messages."""
    system = [] if request.system_message is None else [request.system_message]
    return Conversion().to_spec([*system, *request.messages])


def tokens_of(request: ModelRequest[Any], messages: Sequence[Message], candidate: Candidate) -> int:
    """Return the estimated tokens of a request, its tools and its schema included; a backend counts for itself."""
    counted = Counter(candidate.backend, ()).count(messages, None)
    return counted if candidate.backend is not None else counted + definitions_tokens(request)


def definitions_tokens(request: ModelRequest[Any]) -> int:
    """Return the estimated tokens of a request's tools, and of the schema that its answer has to fit."""
    tools = [tool if isinstance(tool, dict) else convert_to_openai_tool(tool) for tool in request.tools]
    asked = request.response_format
    schemas: Any = getattr(asked, "schema_specs", None) or [getattr(asked, "schema_spec", None)]
    return estimate_json([*tools, *(schema.json_schema for schema in schemas if schema is not None)])
