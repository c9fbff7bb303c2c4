"""The world: what really happened, whatever the program says of it.

One file, one line an event, each written with a single O_APPEND write: a process that is killed has written a line or it has not,
and what lives longer than the process has nothing of it in memory. Tools write an *effect* at the instant at which they touch the
world, the model writes a *bill* at the instant at which its provider would count the request.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from agent_graph.context import current_call
from agent_graph.decisions import pairing
from agent_graph.resolutions import Done, NotDone
from agent_graph.testing.scripted import ScriptedLLM, ScriptEnded, script_of
from agent_graph.types import Message, MessageRole

if TYPE_CHECKING:
    from agent_graph.testing.chat_model import ScriptedChatModel

__all__ = ["SETTLED", "Bill", "Effect", "Event", "World", "read_events", "views_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A tool touched the world."""

    attempt: int
    """Number of the process that did it, from 1."""
    tool: str
    key: str
    """The call's idempotency key."""
    call_id: str
    args: str
    """Canonical JSON."""
    what: str = ""
    """Tells apart the effects of one call that has several."""
    result: str = ""
    """What the service answers when it is asked about this key later, as JSON; empty where it was not said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A model took a request and will charge for it."""

    attempt: int
    cost_usd: str
    """Decimal text; what the provider charges, settled by us or not."""
    replies: int
    """The model's own replies in the request: how far the conversation had come."""
    answered: tuple[str, ...] = ()
    """Ids of the tool calls whose results stand at the request's end: their step is acknowledged."""
    problem: str = ""
    """Why a provider would refuse the request; empty where it is valid."""


Event: TypeAlias = Effect | Bill

SETTLED = "done before the crash"
"""The result of a call that was looked up in the world, where its effect names none."""


class World:
    """What an agent under test may touch. Handed to `make_agent`, once in each process.

    ```python
    def make_agent(world):
        def pay(invoice: str) -> str:
            \"\"\"Pay an invoice.\"\"\"
            world.effect()
            return f"{invoice} is paid"

        model = world.llm([call("pay", invoice="A-17"), "Paid."], cost_usd=0.001)
        return create_production_agent(model, tools=[pay])
    ```
    """

    def __init__(
        self,
        folder: Path,
        *,
        attempt: int = 1,
        noticed: Callable[[str], None] = lambda place: None,
        begins: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        """Outlives every kill; whatever the agent's tools keep belongs here."""
        self.attempt = attempt
        """Number of this process, from 1: an agent may be given another clock, say, after a crash."""
        self._noticed = noticed
        self.begins = begins
        """Call it where the work begins, in a program without failpoints: from there on a random instant may be the last."""

    @property
    def storage(self) -> Path:
        """Where the agent's storage is; also the default, as long as `make_agent` names none."""
        return self.folder / "runs.db"

    @property
    def ledger(self) -> Path:
        """The file of what happened, one JSON object a line."""
        return self.folder / "world.jsonl"

    # -- what happens ---------------------------------------------------------------------------------------------------------

    def effect(
        self, what: str = "", *, result: Any = None, tool: str | None = None, key: str | None = None, call_id: str | None = None
    ) -> None:
        """Write that a tool touches the world, now. Called inside a tool, it knows the call; elsewhere name all three.

        Args:
            what: tells apart the effects of a call that has several; the same `what` twice under one key is the effect done twice.
            result: what the service would say of it later, for `settled` and `reconcile`: the tool's own result.
            tool, key, call_id: of the call, where it is not the running one's.
        """
        call = current_call.get()
        if call is None and (tool is None or key is None):
            raise LookupError("world.effect(): no tool call is running here. Call it inside a tool, or name tool=, key= and call_id=.")
        args = json.dumps({} if call is None else call.args, sort_keys=True, default=str)
        self._write(
            Effect(
                attempt=self.attempt,
                tool=tool or (call.tool_name if call is not None else ""),
                key=key or ("" if call is None else call.idempotency_key or call.call_id),
                call_id=call_id or ("" if call is None else call.call_id),
                args=args,
                what=what,
                result="" if result is None else json.dumps(result),
            )
        )
        self._noticed("tool.touched_the_world")

    def bill(self, cost_usd: float | str | Decimal, messages: Sequence[Any]) -> None:
        """Write that the model's provider takes this request and will charge `cost_usd` for it.

        `messages`: the request, as `Message`s or LangChain messages.
        """
        views = views_of(messages)
        problem = _problem(views)
        last = max((at for at, view in enumerate(views) if view.role == "assistant"), default=len(views))
        self._write(
            Bill(
                attempt=self.attempt,
                cost_usd=str(Decimal(str(cost_usd))),
                replies=sum(view.role == "assistant" for view in views),
                answered=tuple(view.answers for view in views[last:] if view.answers is not None),
                problem=problem,
            )
        )
        self._noticed("model.billed")

    def _write(self, event: Event) -> None:
        line = json.dumps({"kind": type(event).__name__.lower(), **asdict(event)}) + "\n"
        file = os.open(self.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    # -- looking back -----------------------------------------------------------------------------------------------------------

    def happened(self, key: str | None) -> bool:
        """Return whether an effect under this idempotency key is in the ledger: what a service that knows its keys would say."""
        return any(event.key == key for event in self._effects())

    def reconcile(self, key: str | None) -> Done | NotDone:
        """Say what became of a call: a tool's `reconcile`, or a person's word, with the ledger's."""
        results = [event.result for event in self._effects() if event.key == key]
        if not results:
            return NotDone()
        return Done(json.loads(results[-1]) if results[-1] else SETTLED)

    def _effects(self) -> list[Effect]:
        return [event for event in read_events(self.ledger) if isinstance(event, Effect)]

    # -- models whose script goes on after a crash -------------------------------------------------------------------------------

    def llm(
        self, replies: Sequence[Any], *, cost_usd: float | str = 0.001, latency_s: float = 0.0, usage: tuple[int, int] = (200, 20)
    ) -> Any:
        """Return an `LLMBackend` that gives the n-th of `replies` to a conversation that holds n replies, and writes its bills.

        So a process that goes on after a crash gets the reply that is due, not the first. Entries as of `ScriptedLLM`.
        `latency_s`: between the bill and the reply, in seconds.
        """

        script = script_of(replies)

        async def told(messages: list[Message], tools: list[dict[str, Any]]) -> Any:
            self.bill(cost_usd, messages)
            await asyncio.sleep(latency_s)
            reply = _due(script, messages)
            return reply(messages, tools) if callable(reply) else reply

        return ScriptedLLM([told], last_forever=True, cost_usd=float(cost_usd), usage=usage)

    def chat_model(
        self,
        replies: Sequence[Any],
        *,
        cost_usd: float | str,
        latency_s: float = 0.0,
        usage: tuple[int, int] = (1000, 100),
        model_name: str = "scripted",
        tells_cost: bool = True,
    ) -> ScriptedChatModel:
        """Return the same as a LangChain chat model. Entries as of `ScriptedChatModel`.

        Args:
            replies: the n-th is given to a conversation that holds n of them.
            cost_usd: what the provider bills for a request.
            latency_s: between the bill and the reply, in seconds.
            usage: input and output tokens that each reply reports.
            model_name: the name under which `prices=` may have a price.
            tells_cost: each reply says what it cost. False: the agent has to know the price beforehand, as of most providers;
                with `prices={"scripted": {"input": 1, "output": 10}}` and the default `usage`, a request costs 0.002.
        """
        from agent_graph.testing.crash.chat_model import BilledChatModel

        script = script_of(replies)

        def told(messages: list[Any]) -> Any:
            reply = _due(script, messages)
            return reply(messages) if callable(reply) else reply

        return BilledChatModel(
            told,
            bill=lambda messages: self.bill(cost_usd, messages),
            latency_s=latency_s,
            cost_usd=str(cost_usd) if tells_cost else None,
            usage=usage,
            model_name=model_name,
        )


def _due(replies: Sequence[Any], messages: Sequence[Any]) -> Any:
    so_far = sum(view.role == "assistant" for view in views_of(messages))
    if so_far >= len(replies):
        raise ScriptEnded(f"the conversation holds {so_far} replies, the script no more than {len(replies)}")
    return replies[so_far]


# -- reading ----------------------------------------------------------------------------------------------------------------------


def read_events(ledger: Path) -> tuple[Event, ...]:
    """Return what is in the file, in the order in which it happened; nothing where there is no file."""
    return tuple(_events(ledger.read_text(encoding="utf-8").splitlines())) if ledger.exists() else ()


def _events(lines: Sequence[str]) -> Iterator[Event]:
    for line in lines:
        fields: dict[str, Any] = json.loads(line)
        if fields.pop("kind") == "effect":
            yield Effect(**fields)
        else:
            fields["answered"] = tuple(fields["answered"])
            yield Bill(**fields)


def views_of(messages: Sequence[Any]) -> list[pairing.View]:
    """Return the roles of a conversation and who answers whom, of `Message`s and LangChain messages alike."""
    views = [_view(message) for message in messages]
    return [view if all(view.calls) else replace(view, calls=_named(view.calls, views[at + 1 :])) for at, view in enumerate(views)]


def _view(message: Any) -> pairing.View:
    if isinstance(message, Message):
        role, calls, answers = message.role.value, message.metadata.get("tool_calls") or (), message.metadata.get("tool_call_id")
    else:
        role = str({"human": "user", "ai": "assistant"}.get(message.type, message.type))
        calls = [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]
        answers = getattr(message, "tool_call_id", None)
    ids = tuple(str(call.get("id") or "") for call in calls) if role == MessageRole.ASSISTANT.value else ()
    return pairing.View(role, ids, answers if role == MessageRole.TOOL.value else None)


def _named(calls: Sequence[str], following: Sequence[pairing.View]) -> tuple[str, ...]:
    """Name the calls that a backend gave no id, by their answers: the agent made the ids up, and hands replies back unchanged."""
    answers = [view.answers or "" for view in itertools.takewhile(lambda view: view.role == "tool", following)]
    return tuple(call or (answers[at] if at < len(answers) else f"call {at}") for at, call in enumerate(calls))


def _problem(views: Sequence[pairing.View]) -> str:
    found = pairing.repairs(views)
    wrong = [f"no answer to {call_id}" for _, call_id in found.missing]
    wrong += [f"message {at} answers no call of the reply before it" for at in found.drop]
    return "; ".join(wrong) or _disorder(views)


def _disorder(views: Sequence[pairing.View]) -> str:
    """Return what is wrong with the order of the answers to parallel calls: they are due in the order of the calls."""
    due: list[str] = []
    for view in views:
        if view.role == "assistant":
            due = list(view.calls)
        elif view.answers is not None and view.answers != due.pop(0):
            return f"the answer to {view.answers} stands out of its order"
    return ""
