"""The models that an agent may ask, made of the choices that `models.py` takes: what is known of each, and whether it has a price."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agent_graph.decisions.prices import GIVE_PRICE, price_line
from agent_graph.errors import ConfigError
from agent_graph.runtime.candidate import Candidate

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_graph.config import AgentConfig
    from agent_graph.decisions.pricing import PriceBook
    from agent_graph_adapters.models import Choice

__all__ = ["candidate_of", "fallbacks_of", "insist_on_price"]

logger = logging.getLogger("agent_graph")

_CAP_PARAMETERS = {"google_genai": "max_output_tokens", "google_vertexai": "max_output_tokens", "ollama": "num_predict"}
"""What a provider's client calls the output cap, where it is not `max_tokens`."""


def candidate_of(choice: Choice, *, source: Callable[[], BaseChatModel], model: BaseChatModel, tools: Sequence[Any] = ()) -> Candidate:
    """Return what the account of a model call has to know of its model; `source` gives the client of the running loop."""
    profile = getattr(model, "profile", None) or {}
    return Candidate(
        source=source,
        name=choice.name,
        tools=tools,
        provider=choice.provider,
        base_url=choice.base_url,
        max_output_tokens=profile.get("max_output_tokens"),
        window=profile.get("max_input_tokens"),
        reasoning=bool(profile.get("reasoning_output")),
        account=_account(model),
        service_tier=getattr(model, "service_tier", None),
        tells_end=any(ancestor.__name__ == "BaseChatOpenAI" for ancestor in type(model).__mro__),
        cap_parameter=_CAP_PARAMETERS.get(choice.provider or "", "max_tokens"),
    )


def _account(model: BaseChatModel) -> int:
    """Return a number that stands for the keys of `model` in this process; it does not tell them."""
    from pydantic import SecretStr

    values = [getattr(model, name, None) for name in type(model).model_fields]
    return hash(tuple(value.get_secret_value() for value in values if isinstance(value, SecretStr)))


def fallbacks_of(given: object) -> Sequence[Any]:
    """Return `given` if it is a list of models. Raises ConfigError: one model alone would be taken for a list of its parts."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        if None in given:  # of the agent's own model, None means: whichever the environment names
            raise ConfigError("fallbacks: None is no model; a chat model or a string such as 'openai:gpt-5-mini' is due.")
        return given
    what, one = (repr(given), repr(given)) if isinstance(given, str) else (type(given).__name__, "model")
    hint = (
        f" Put it into one: fallbacks=[{one}]." if isinstance(given, str) or hasattr(given, "invoke") or hasattr(given, "complete") else ""
    )
    raise ConfigError(f"fallbacks: a list of models is due, not {what}.{hint}")


def insist_on_price(candidate: Candidate, choice: Choice, book: PriceBook, config: AgentConfig) -> None:
    """Where a limit in USD cannot hold, because a paid model has no price: warn, or raise ConfigError if the user set the limit."""
    if not choice.priced or config.max_cost_usd is None or config.on_unknown_price == "ignore":
        return
    if book.price_of(candidate.name, **candidate.priced_at) is not None:
        return
    text = f"{candidate.name}: no price is known, so max_cost_usd cannot hold. {GIVE_PRICE}: {price_line(candidate.name)}"
    if config.on_unknown_price == "error" and "max_cost_usd" in config.explicit:
        raise ConfigError(f"max_cost_usd: {text}, or on_unknown_price='warn'.")
    logger.warning("%s", text)
