"""What holds with the present backends, what is best effort, and what does not: in plain words, computed from what the agent is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Promise", "of"]


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise, and how far it holds."""

    subject: str
    """What it is about: "storage", "money", "tools", ..."""
    holds: Literal["yes", "best effort", "no"]
    text: str

    def __str__(self) -> str:
        return f"[{self.holds}] {self.subject}: {self.text}"


def of(agent: Any) -> list[Promise]:
    """Return the promises of `agent`."""
    return [*_storage(agent), *_limits(agent), *_money(agent), *_tools(agent)]


def _storage(agent: Any) -> list[Promise]:
    where = Promise("storage", "yes", f"every step is written to {agent.storage.location} before the next model or tool call.")
    return [where, *(Promise("storage", "yes", text) for text in agent.storage.promises)]


def _limits(agent: Any) -> list[Promise]:
    config = agent.config
    limits = {key: getattr(config, key) for key in ("max_steps", "max_tokens", "max_cost_usd", "timeout_s")}
    return [
        Promise("limits", "no", f"{key} is None: nothing limits it.")
        if value is None
        else Promise("limits", "yes", f"{key} = {value}, checked before every model call, over crashes too.")
        for key, value in limits.items()
    ]


def _money(agent: Any) -> list[Promise]:
    return [promise for candidate in agent.governor.candidates if (promise := _money_of(agent, candidate)) is not None]


def _money_of(agent: Any, candidate: Any) -> Promise | None:
    if agent.config.max_cost_usd is None:
        return None
    if candidate.backend is not None:
        text = "tells its cost only after a call: max_cost_usd may be passed by one call."
        return Promise("money", "best effort", f"{candidate.name} {text}")
    if agent.governor.prices.price_of(candidate.name, provider=candidate.provider, base_url=candidate.base_url) is None:
        return Promise(
            "money", "no", f"{candidate.name} is unpriced: it counts as 0 USD, so max_cost_usd does not limit it; max_tokens does."
        )
    text = "is reserved at its worst-case price before each call, given that the provider honours the output cap."
    return Promise("money", "yes", f"{candidate.name} {text}")


def _tools(agent: Any) -> list[Promise]:
    once = sorted(name for name in agent.specs if not agent.is_idempotent(name))
    again = sorted(name for name in agent.specs if agent.is_idempotent(name))
    promises = []
    if once:
        text = "never run twice for one call; where the outcome is unknown, the model is told so."
        promises.append(Promise("tools", "yes", f"{', '.join(once)}: {text}"))
    if again:
        text = "run again with the same idempotency key after a crash, a timeout or an exception."
        promises.append(Promise("tools", "yes", f"{', '.join(again)}: {text}"))
    return promises
