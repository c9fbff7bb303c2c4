"""The parts of an agent, made of what its constructor was given: models, rails, tools. Every misuse is found here, before any run."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent_graph.config import AgentConfig, Budget
from agent_graph.decisions.pricing import PriceBook
from agent_graph.decisions.tools import ToolSpec
from agent_graph.errors import ConfigError
from agent_graph.guardrails import Guardrail, beside_defaults, for_tools, watching
from agent_graph.guardrails.structured import FormatRail
from agent_graph.runtime.candidate import Candidate

if TYPE_CHECKING:
    from agent_graph.decisions.structured import AnswerFormat
    from agent_graph_adapters.models import Choice

__all__ = ["Models", "budget", "check_keywords", "check_port", "models", "name_unmarked", "rails"]

logger = logging.getLogger("agent_graph")


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The models of an agent, in the order in which they are asked."""

    candidates: tuple[Candidate, ...]
    prices: PriceBook
    config: AgentConfig
    """With the limit that comes with a model nobody named."""
    line: str
    """Which model, and why, on one line."""


def models(
    llm: Any,
    fallbacks: Sequence[Any],
    specs: Sequence[ToolSpec],
    tools: Sequence[Mapping[str, Any]],
    prices: Mapping[str, Any] | None,
    config: AgentConfig,
) -> Models:
    """Return the models for `llm` and `fallbacks`. Raises ConfigError for what is no model, and for a missing price."""
    from agent_graph_adapters.candidates import fallbacks_of, insist_on_price

    book = PriceBook(prices)
    candidates, line = [], ""
    for model in map(_bare, (llm, *fallbacks_of(fallbacks))):
        if isinstance(model, type):
            raise ConfigError(f"llm: {model.__name__} is a class; an object of it was due.")
        if _is_backend(model):
            candidates.append(_backend_candidate(model, tools))
            line = line or f"model: {type(model).__name__} because it was handed in"
            continue
        choice = _chosen(model)
        if not candidates and choice.default_cost_usd is not None and "max_cost_usd" not in config.explicit:
            config = replace(config, max_cost_usd=choice.default_cost_usd)
        candidate = _candidate(choice, specs)
        insist_on_price(candidate, choice, book, config)
        known = book.price_of(candidate.name, provider=candidate.provider, base_url=candidate.base_url) is not None
        line = line or choice.said(priced=known or choice.base_url is None)
        candidates.append(candidate)
    return Models(candidates=tuple(candidates), prices=book, config=config, line=line)


def _bare(model: Any) -> Any:
    """Return what `as_llm_backend` wrapped: a LangChain model is asked as one, its price known before the call."""
    from agent_graph_adapters.langchain.chat_model import ModelBackend

    return model.model if type(model) is ModelBackend else model


def _is_backend(model: Any) -> bool:
    """By shape: users paste the specification's classes instead of importing ours."""
    return callable(getattr(model, "complete", None)) and callable(getattr(model, "count_tokens", None))


def _backend_candidate(backend: Any, tools: Sequence[Mapping[str, Any]]) -> Candidate:
    from agent_graph_adapters.langchain.chat_model import as_chat_model

    model = as_chat_model(backend)
    return Candidate(source=lambda: model, name=type(backend).__name__, tools=list(tools), backend=backend)


def _chosen(model: Any) -> Choice:
    from agent_graph_adapters.models import choose

    return choose(model)


def _candidate(choice: Choice, specs: Sequence[ToolSpec]) -> Candidate:
    from agent_graph_adapters.candidates import candidate_of
    from agent_graph_adapters.models import per_loop

    source = per_loop(choice)
    model = choice.model or source.current()
    return replace(
        candidate_of(choice, source=source.current, model=model, tools=[_openai_tool(spec) for spec in specs]), close=source.aclose
    )


def _openai_tool(spec: ToolSpec) -> dict[str, Any]:
    """The form that every LangChain model's `bind_tools` takes."""
    return {"type": "function", "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters}}


def rails(given: Sequence[Guardrail], specs: Sequence[ToolSpec], answer: AnswerFormat | None = None) -> tuple[Guardrail, ...]:
    """Return the default rails and the given ones, and that of the answer's format; one that bears another's name takes its place."""
    kept = beside_defaults(given)
    if answer is not None and all(rail.name != "response_format" for rail in kept):
        kept.append(FormatRail(format=answer))
    return for_tools(watching(kept, specs), specs)


def budget(given: object) -> Budget | None:
    """Return `given` if it is a budget or None. Raises ConfigError: a name alone is no limit."""
    if given is None or isinstance(given, Budget):
        return given
    paste = f'budget=Budget({given if isinstance(given, str) else "team-a"!r}, max_cost_usd=..., per="day")'
    raise ConfigError(f"budget: {given!r} is no Budget. Say what it may spend: {paste}")


def check_port(backend: Any, argument: str, port: str, methods: Sequence[str], *, optional: bool = False) -> None:
    """Raise ConfigError where `backend` lacks a method of its port; by shape, never by class."""
    if backend is None and optional:
        return
    missing = [method for method in methods if not callable(getattr(backend, method, None))]
    if missing or isinstance(backend, type):
        what = f"the class {backend.__name__}" if isinstance(backend, type) else f"a {type(backend).__name__}"
        lacks = f" without {', '.join(f'{m}()' for m in missing)}" if missing else ""
        raise ConfigError(f"{argument}: {what}{lacks} was given; a {port} object is due, with {', '.join(f'{m}()' for m in methods)}.")
    for method in methods:
        if method.startswith("record_") and inspect.iscoroutinefunction(getattr(backend, method)):
            raise ConfigError(f"{argument}: {method} is `async`; the port's is not. What it does is never waited for: write a plain `def`.")


def check_keywords(*, system_prompt: object, store: object, redact: object, clock: object) -> None:
    """Raise ConfigError for a keyword of the constructor that would fail only inside a run."""
    from langgraph.store.base import BaseStore

    if not (store is None or isinstance(store, BaseStore)):
        raise ConfigError(
            f"store: LangGraph's store is due, such as InMemoryStore(), not {store!r}. Where the runs are kept, storage= names."
        )
    if not (system_prompt is None or isinstance(system_prompt, str)):
        raise ConfigError(f"system_prompt: a string is due, not {system_prompt!r}.")
    if not (redact is None or callable(redact)):
        raise ConfigError(f"redact: a function that takes a text and returns one is due, not {redact!r}.")
    missing = [method for method in ("monotonic", "time", "sleep") if not callable(getattr(clock, method, None))]
    if clock is not None and missing:
        raise ConfigError(f"clock: {clock!r} is no Clock: it lacks {', '.join(f'{m}()' for m in missing)}.")


def name_unmarked(specs: Iterable[ToolSpec], config: AgentConfig) -> None:
    """Say once which tools are called at most once because nobody said whether they may be repeated."""
    names = sorted(spec.name for spec in specs if spec.idempotent is None)
    if names and config.unmarked_tools is None:
        logger.warning(
            "tools not marked idempotent or not: %s. They are called at most once a call. Mark each: "
            '@tool(extras={"idempotent": True}) or False; or unmarked_tools="retry".',
            ", ".join(names),
        )
