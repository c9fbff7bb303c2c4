"""How one tool call is executed: its attempts, its time, and what a failure means.

A backend that *returns* an error has failed in a known way: nothing is retried. An exception or a timeout leaves the outcome
unknown: an idempotent tool is then called again with the same key, any other is not, and the caller learns that its outcome is
unknown. `ToolNotExecuted` is the tool's own word that nothing happened.

Each attempt gets a fresh copy of the call: a backend may change what it is given, but name, arguments and id of the record are ours.
"""

from __future__ import annotations

import copy
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langgraph.errors import GraphBubbleUp

from agent_graph.context import Begun, begun_inside, current_call
from agent_graph.decisions.retry import Failure, next_delay
from agent_graph.decisions.tools import ToolSpec, canonical_json
from agent_graph.errors import ContractError, OutcomeUnknown, ToolNotExecuted, ToolNotFound, ToolTimeout, describe
from agent_graph.failpoints import failpoint
from agent_graph.resolutions import Done, NotDone, Resolution, Unknown
from agent_graph.runtime.deadline import Expired, within
from agent_graph.runtime.foreign import called
from agent_graph.types import ToolCall

if TYPE_CHECKING:
    from agent_graph.ports import Clock, ToolBackend
    from agent_graph.runtime.turn import Turn

__all__ = ["Tools"]

logger = logging.getLogger("agent_graph")

RECONCILE_S = 10.0
"""How long a tool may take to say what became of a call, in seconds."""
REMEMBERED = 256
"""So many results of calls made outside any turn are remembered."""


class Tools:
    """The agent's tools. Used by several tasks, threads and loops at once."""

    def __init__(self, backend: ToolBackend, specs: Sequence[ToolSpec], *, attempts: int, unmarked_idempotent: bool, clock: Clock) -> None:
        self.backend = backend
        self.all = tuple(specs)
        self.specs: Mapping[str, ToolSpec] = {spec.name: spec for spec in specs}
        self.attempts = attempts
        self.clock = clock
        self._unmarked_idempotent = unmarked_idempotent
        self._alone: OrderedDict[tuple[str, str, str], ToolCall] = OrderedDict()

    def is_idempotent(self, name: str) -> bool:
        """Return whether a call of `name` may be repeated; an unmarked tool is as the policy says."""
        spec = self.specs.get(name)
        return self._unmarked_idempotent if spec is None or spec.idempotent is None else spec.idempotent

    def can_reconcile(self, name: str) -> bool:
        """Return whether the tool, or its backend, can say what became of a call."""
        return self._reconciler(name) is not None

    async def reconcile(self, call: ToolCall) -> Resolution:
        """Return the tool's own word on a call whose outcome is in doubt; one that fails, or takes its time, does not know.

        Asked is the tool's `reconcile(key)` (in its dict, or in a LangChain tool's `extras`), else the backend's `reconcile(call)`.
        """
        ask = self._reconciler(call.tool_name)
        assert ask is not None, "asked only where it can"
        try:
            word = await within(RECONCILE_S, called(ask, copy.copy(call)))
        except Exception as error:  # noqa: BLE001  the port's border: a failing answer is no answer
            logger.warning("tool %s: reconcile failed: %s", call.tool_name, describe(error))
            return Unknown()
        if isinstance(word, Done | NotDone | Unknown):
            return word
        raise ContractError(f"reconcile of {call.tool_name} returned {type(word).__name__}; Done, NotDone or Unknown was due.")

    def _reconciler(self, name: str) -> Callable[[ToolCall], Any] | None:
        spec = self.specs.get(name)
        own = None if spec is None else spec.raw.get("reconcile")
        if callable(own):
            return lambda call: own(call.idempotency_key)
        backend = getattr(self.backend, "reconcile", None)
        return backend if callable(backend) else None

    async def execute(self, call: ToolCall, turn: Turn | None) -> ToolCall:
        """Return a copy of `call` with its result or error.

        Outside a turn, the same (call_id, name, args) after a success gives the result again; nothing is stored.

        Raises:
            ContractError: the backend returned something that is no ToolCall.
        """
        spec = self.specs.get(call.tool_name)
        if spec is None:
            return replace(call, error=f"{ToolNotFound.__name__}: there is no tool {call.tool_name!r}.")
        return await (self._timed(spec, call, turn) if turn is not None else self._remembered(spec, call))

    async def _remembered(self, spec: ToolSpec, call: ToolCall) -> ToolCall:
        memo = (call.call_id, call.tool_name, canonical_json(call.args))
        if memo in self._alone:
            return copy.copy(self._alone[memo])
        done = await self._timed(spec, call, None)
        if done.error is None:
            self._alone[memo] = copy.copy(done)
            while len(self._alone) > REMEMBERED:
                self._alone.popitem(last=False)
        return done

    async def _timed(self, spec: ToolSpec, call: ToolCall, turn: Turn | None) -> ToolCall:
        began = self.clock.monotonic()
        done = await self._attempts(spec, call, turn)
        done.latency_ms = max((self.clock.monotonic() - began) * 1000, 1e-3)
        return done

    async def _attempts(self, spec: ToolSpec, call: ToolCall, turn: Turn | None) -> ToolCall:
        attempt = self._first_attempt(call, turn)
        while True:
            try:
                return await self._attempt(spec, call, turn)
            except ContractError:
                raise
            except GraphBubbleUp as pause:
                if turn is not None and turn.direct:
                    raise
                raise ContractError(
                    f"tool {spec.name} called interrupt(), and only who drives agent.graph can answer that. Let a guardrail Ask before the "
                    "call instead, or drive the graph: agent.graph.ainvoke(..., {'configurable': {'thread_id': ...}})."
                ) from pause
            except Exception as error:  # noqa: BLE001  the port's border: a tool may raise anything
                if not self.is_idempotent(spec.name) and not isinstance(error, ToolNotExecuted):
                    return replace(call, error=f"{OutcomeUnknown.__name__}: {describe(error)}")
                delay = self._delay_s(error, attempt, turn)
                if delay is None:
                    return replace(call, error=describe(error))
                logger.info("tool %s: attempt %d failed (%s); again in %.2f s", spec.name, attempt, describe(error), delay)
            attempt += 1
            await self.clock.sleep(delay)
            self._book(call, turn, attempt)

    def _delay_s(self, error: Exception, attempt: int, turn: Turn | None) -> float | None:
        """Return how long to wait before the next attempt, in seconds; None where there is none."""
        return next_delay(
            Failure(kind="tool", retryable=getattr(error, "retryable", True) is not False),
            attempt=attempt,
            attempts=self.attempts,
            time_left_s=None if turn is None else turn.work_time_s,
            draw=random.random(),
        )

    @staticmethod
    def _first_attempt(call: ToolCall, turn: Turn | None) -> int:
        row = None if turn is None else turn.journal.get(call.idempotency_key or "")
        return 1 if row is None else max(1, row.attempt)

    @staticmethod
    def _book(call: ToolCall, turn: Turn | None, attempt: int) -> None:
        row = None if turn is None else turn.journal.get(call.idempotency_key or "")
        if turn is not None and row is not None:
            turn.record(replace(row, attempt=attempt))

    async def _attempt(self, spec: ToolSpec, call: ToolCall, turn: Turn | None) -> ToolCall:
        asked = ToolCall(call.tool_name, copy.deepcopy(call.args), call.call_id, idempotency_key=call.idempotency_key)
        limits = [limit for limit in (spec.timeout_s, None if turn is None else turn.work_time_s) if limit is not None]
        token, begun = current_call.set(asked), begun_inside.set(Begun())
        failpoint("tool.before_effect")
        try:
            done = await within(min(limits, default=None), called(self.backend.execute, asked))
        except Expired:
            raise ToolTimeout(f"{spec.name} did not finish within {min(limits):g} s.") from None
        finally:
            begun_inside.reset(begun)
            current_call.reset(token)
        failpoint("tool.after_effect")
        if turn is not None and getattr(done, "artifact", None) is not None:
            turn.artifacts[call.idempotency_key or ""] = done.artifact
        return replace(call, **_outcome(done, call.tool_name))


def _outcome(done: Any, tool: str) -> dict[str, Any]:
    if not (hasattr(done, "result") and hasattr(done, "error")):
        raise ContractError(
            f"ToolBackend.execute returned {type(done).__name__} for {tool}; the ToolCall with result or error set was due."
        )
    return {"result": done.result, "error": None if done.error is None else str(done.error)}
