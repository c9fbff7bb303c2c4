"""What holds with the present backends, what is best effort, and what does not: in plain words, computed from what the agent is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from agent_graph.decisions.prices import GIVE_PRICE, price_line
from agent_graph.runtime.memory import StoredMemory
from agent_graph.storage.schema import MEMORY

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
    parts = (_storage, _limits, _money, _tokens, _budget, _calls, _tools, _memory, _text, _observability)
    return [promise for part in parts for promise in part(agent)]


def _storage(agent: Any) -> Iterator[Promise]:
    location = agent.storage.location
    if location != MEMORY:
        yield Promise("storage", "yes", f"every step is written to {location} before the next model or tool call.")
    yield from (Promise("storage", "no" if location == MEMORY else "yes", text) for text in agent.storage.promises)


def _limits(agent: Any) -> Iterator[Promise]:
    for key in ("max_steps", "max_tokens", "max_cost_usd", "timeout_s"):
        value = getattr(agent.config, key)
        if value is None:
            yield Promise("limits", "no", f"{key} is None: nothing limits it.")
        elif key == "max_cost_usd" and (
            without := [candidate.name for candidate in agent.governor.candidates if _is_unpriced(agent, candidate)]
        ):
            yield Promise("limits", "no", f"{key} = {value} cannot hold for {', '.join(without)}, without a price.")
        else:
            yield Promise("limits", "yes", f"{key} = {value}, checked before every model call, over crashes too.")


def _money(agent: Any) -> Iterator[Promise]:
    if agent.config.max_cost_usd is None and agent.budget is None:
        return
    for candidate in agent.governor.candidates:
        yield _money_of(agent, candidate)
    breaches = agent.governor.ceiling_breaches
    if breaches:
        replies = "1 reply" if breaches == 1 else f"{breaches} replies"
        text = f"{replies} of this agent cost more than was reserved, since the provider ignored the output cap or counted more input."
        yield Promise("money", "no", f"{text} They are booked in full.")


def _money_of(agent: Any, candidate: Any) -> Promise:
    if candidate.backend is not None:
        text = "tells its cost only after a call: max_cost_usd may be passed by one call."
        return Promise("money", "best effort", f"{candidate.name} {text}")
    if candidate.provider == "offline":
        return Promise("money", "yes", "the offline model calls nobody: it costs nothing.")
    price = _price_of(agent, candidate)
    if price is None:
        return Promise(
            "money",
            "no",
            f"{candidate.name} is unpriced: it counts as 0 USD, so max_cost_usd does not limit it; max_tokens does. "
            f"{GIVE_PRICE}: {price_line(candidate.name)}",
        )
    if agent.governor.cap_of(candidate) is None:
        return Promise("money", "best effort", f"{candidate.name} has no output cap (max_output_tokens=None): only its input is reserved.")
    text = "is reserved at its worst-case price before each attempt, given that the provider honours the output cap and bills no more input"
    return Promise("money", "yes", f"{candidate.name} {text} than was counted. Price: {price.model}, {price.price.source}.")


def _price_of(agent: Any, candidate: Any) -> Any:
    return agent.governor.prices.price_of(candidate.name, **candidate.priced_at)


def _is_unpriced(agent: Any, candidate: Any) -> bool:
    """Return whether a model costs money, for all that is known, and nobody knows how much; a backend may tell it yet."""
    return candidate.backend is None and candidate.provider != "offline" and _price_of(agent, candidate) is None


def _tokens(agent: Any) -> Iterator[Promise]:
    if agent.config.max_tokens is None:
        return
    for candidate in agent.governor.candidates:
        if candidate.backend is not None:
            text = "takes no output cap: max_tokens may be passed by one reply that is longer than any before."
            yield Promise("tokens", "best effort", f"{candidate.name} {text}")


def _budget(agent: Any) -> Iterator[Promise]:
    yield Promise(
        "sub-agents", "yes", "a turn begun inside a tool of another spends its parent's money, tokens and time, and is resumed with it."
    )
    budget = agent.budget
    if budget is not None:
        limits = {"USD": budget.max_cost_usd, "tokens": budget.max_tokens}
        held = " and ".join(f"{value} {unit}" for unit, value in limits.items() if value is not None)
        per = "a day" if budget.per == "day" else "in all"
        shared = f"{budget.name} ({held} {per}) is shared by all that name it in {agent.storage.location}"
        late = [candidate.name for candidate in agent.governor.candidates if candidate.backend is not None]
        if late:
            text = f"{shared}; {', '.join(late)} tells its cost only after a call, so as many calls as run at once may pass it."
            yield Promise("budget", "best effort", text)
        else:
            yield Promise("budget", "yes", f"{shared}, and decided in the transaction that reserves.")


def _calls(agent: Any) -> Iterator[Promise]:
    attempts = "as often as time allows" if agent.config.retry_attempts is None else f"in at most {agent.config.attempts} attempts"
    others = ", ".join(candidate.name for candidate in agent.governor.candidates[1:])
    then = f"then {others} in turn" if others else "and there is no fallback"
    yield Promise("calls", "yes", f"a failed model call is made again {attempts}, {then}; the client's own retries are switched off.")


def _tools(agent: Any) -> Iterator[Promise]:
    once = sorted(name for name in agent.specs if not agent.is_idempotent(name))
    again = sorted(name for name in agent.specs if agent.is_idempotent(name))
    if once:
        then = "a person is asked" if agent.config.on_doubt == "ask" else "the model is told so"
        yield Promise("tools", "yes", f"{', '.join(once)}: never run twice for one call; where the outcome is unknown, {then}.")
    if again:
        text = "run again with the same idempotency key after a crash, a timeout or an exception."
        yield Promise("tools", "yes", f"{', '.join(again)}: {text}")


def _memory(agent: Any) -> Iterator[Promise]:
    if isinstance(agent.memory, StoredMemory):
        yield Promise("memory", "yes", "the conversation is kept in the same storage as the steps.")
    else:
        text = (
            "is saved after each step with tools and at every end; what its backend makes of that is its own; a failed save is a warning."
        )
        yield Promise("memory", "best effort", f"{type(agent.memory).__name__} {text}")


def _text(agent: Any) -> Iterator[Promise]:
    if not agent.config.hold_text:
        yield Promise("text", "no", "hold_text is False: streamed text is shown, marked provisional, before the guardrails have spoken.")


def _observability(agent: Any) -> Iterator[Promise]:
    if agent.observability is not None:
        text = (
            "is told of each tool call and each end of a turn once, waited for at most 1 s; whatever it does never changes a run. "
            "After a crash an end may be told twice, and a tool call only within its turn's record."
        )
        yield Promise("observability", "best effort", f"{type(agent.observability).__name__} {text}")
