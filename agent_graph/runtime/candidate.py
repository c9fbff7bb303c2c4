"""A model that an agent may ask, with all that is known of it before it is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_graph.ports import LLMBackend

__all__ = ["Candidate"]


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
    account: int = 0
    """Stands for its key: whose calls are refused says nothing of another's."""
    service_tier: str | None = None
    """The service tier that its client asks for; it sets the worst case."""
    cap_parameter: str = "max_tokens"
    """What its client calls the output cap."""
    tells_end: bool = False
    """Whether a stream of its says why it ended (OpenAI's protocol does), so that one that does not was cut off."""

    @property
    def priced_at(self) -> dict[str, Any]:
        """Where its price is looked for."""
        return {"provider": self.provider, "base_url": self.base_url, "tier": self.service_tier}

    @property
    def breaker_key(self) -> tuple[str, str]:
        """Who shares its circuit breaker: everybody who asks the same server for the same model with the same key; an unnamed object
        only itself."""
        if self.backend is not None:
            return (f"object-{id(self.backend)}", self.name)
        return (f"{self.base_url or self.provider or f'object-{id(self.source)}'}#{self.account}", self.name)
