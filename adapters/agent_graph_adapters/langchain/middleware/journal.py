"""ToolJournalMiddleware: a tool call that must not happen twice does not, whatever happens to the process.

How it works
    Before a tool runs, the call is on disk as *started*; after it, its end is. LangGraph runs a node again whose process died in the
    middle of it. Then the journal speaks: what has ended is given back from the record; what was started and never ended runs again
    only where the tool is idempotent, under the same key. Any other call is *in doubt*: the tool is asked (`reconcile` in its
    `extras`), or a person (`on_doubt="ask"`), or the model is told that the outcome is unknown: `runtime/tool_call.py`.

What must stay true
    1. No tool runs whose start is not on disk, nor twice at a time, in however many processes.
    2. The same call has the same key after a restart, another call another key (`names.py`).
    3. A failure that the tool reported is a result. An exception of a tool that is not idempotent leaves its outcome in doubt.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp, is_invalid_resume
from langgraph.types import Command

from agent_graph.config import AgentConfig
from agent_graph.context import Begun, begun_inside, current_call
from agent_graph.decisions.results import make_storable
from agent_graph.decisions.retry import Failure, next_delay
from agent_graph.decisions.tools import read_tools
from agent_graph.errors import ToolNotExecuted, describe
from agent_graph.failpoints import failpoint
from agent_graph.resolutions import Resolution
from agent_graph.runtime.clock import SystemClock
from agent_graph.runtime.tool_call import End, JournaledCall, planned
from agent_graph.runtime.tools import Tools
from agent_graph.storage.port import Storage
from agent_graph_adapters.langchain.middleware.both_ways import AWAITING, BLOCKING, Wait, as_async, run_through
from agent_graph_adapters.langchain.middleware.names import asking_of, begun, is_last, messages_in, purpose
from agent_graph_adapters.langchain.middleware.turns import Hosted, begetting, storage_of, turns_in
from agent_graph_adapters.langchain.tools import described

__all__ = ["ToolJournalMiddleware"]

logger = logging.getLogger("agent_graph")

Result: TypeAlias = Any
"""What LangGraph's ToolNode gives: a ToolMessage, a Command, or a list of these."""
Handler: TypeAlias = Callable[[ToolCallRequest], Awaitable[Result]]

MOST_CHARS = 100_000
"""A longer text is kept in LangGraph's own form, uncut."""


class ToolJournalMiddleware(AgentMiddleware[Any, Any, Any]):
    """Writes each tool call down before it is made, so that a killed and resumed agent makes none twice.

    ```python
    agent = create_agent(model, [pay], middleware=[ToolJournalMiddleware(storage="runs.db")], checkpointer=saver)
    ```

    Mark each tool: `@tool(extras={"idempotent": True})` may be run again, False must not be. `idempotency_key()` gives the running
    tool its key. Resuming needs a checkpointer, as ever. `ToolNode(tools, wrap_tool_call=journal.wrap_tool_call,
    awrap_tool_call=journal.awrap_tool_call)` journals the tools of any other LangGraph graph.

    Args:
        storage: a path, or a `Storage`; None for the default place (docs/storage.md).
        on_doubt: whom to turn to when the outcome of a call is unknown: "tell" the model, or "ask" a person (an `interrupt`, answered
            with `Command(resume={"type": "done", "result": ...})`, "not_done", "unknown" or "reject").
        retry_attempts: attempts in all at a call of an idempotent tool that raises, or of one that raises `ToolNotExecuted`.
        unmarked_tools: what a tool that says nothing of itself is taken for: run "once", or "retry" (idempotent).

    Raises:
        ConfigError: a value that cannot be.
    """

    def __init__(
        self,
        *,
        storage: str | Path | Storage | None = None,
        on_doubt: Literal["tell", "ask"] = "tell",
        retry_attempts: int | None = 3,
        unmarked_tools: Literal["once", "retry"] | None = None,
    ) -> None:
        super().__init__()
        self.tools = []
        self.config = AgentConfig.from_mapping(on_doubt=on_doubt, retry_attempts=retry_attempts, unmarked_tools=unmarked_tools)
        self.storage = storage_of(storage)
        self.clock = SystemClock()
        self.turns = turns_in(self.storage)
        self._known: dict[int, tuple[BaseTool | None, Tools]] = {}
        self._named: set[str] = set()

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """Journal a call of a sync agent."""
        return run_through(self._journaled(request, as_async(handler), BLOCKING))

    async def awrap_tool_call(self, request: ToolCallRequest, handler: Handler) -> Result:
        """Journal a call of an async agent."""
        return await self._journaled(request, handler, AWAITING)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> Any:
        """Look whether the turn has ended."""
        return run_through(self._watched(request, as_async(handler)))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]) -> Any:
        """Look whether the turn has ended."""
        return await self._watched(request, handler)

    async def _watched(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]) -> Any:
        response = await handler(request)
        if purpose.get() is None and is_last(response):
            hosted = self.turns.live(begun(messages_in(request.state)))
            if hosted is not None:
                self.turns.end(hosted)
        return response

    async def _journaled(self, request: ToolCallRequest, handler: Handler, wait: Wait) -> Result:
        turn = begun(messages_in(request.state), request.runtime.config)
        async with self.turns.at_work(turn, wait) as hosted:
            return await _Call(self, self.tool_of(request), hosted, request, handler, wait).settled()

    def tool_of(self, request: ToolCallRequest) -> Tools:
        """Return what the called tool says of itself: whether it may be repeated, and whom to ask after a doubt."""
        tool, name = request.tool, request.tool_call["name"]
        known = self._known.get(id(tool))
        if known is not None and known[0] is tool and name in known[1].specs:
            return known[1]
        spec = read_tools([{"name": name} if tool is None else described(tool, tool)])[0]
        if spec.idempotent is None and self.config.unmarked_tools is None and name not in self._named:
            self._named.add(name)
            logger.warning(
                "tool %s is not marked idempotent or not: it is called at most once a call. Mark it: "
                '@tool(extras={"idempotent": True}) or False; or unmarked_tools="retry".',
                name,
            )
        unmarked = self.config.unmarked_tools == "retry"
        nobody: Any = None  # the tool is run by its own graph
        tools = Tools(nobody, [spec], attempts=self.config.attempts, unmarked_idempotent=unmarked, clock=self.clock)
        self._known[id(tool)] = (tool, tools)
        return tools


class _Call(JournaledCall[Result]):
    """A call of somebody's graph: `handler` runs it, `wait` waits (in a sync agent, without an event loop of its own)."""

    def __init__(
        self, journal: ToolJournalMiddleware, tool: Tools, hosted: Hosted, request: ToolCallRequest, handler: Handler, wait: Wait
    ) -> None:
        call, turn = request.tool_call, hosted.turn
        at = asking_of(messages_in(request.state), str(call["id"]))
        row, record = planned(
            turn,
            run_id=f"{turn.key.run_id}/{at.reply_id}",
            step=at.step,
            index=at.index,
            call_id=str(call["id"]),
            tool=call["name"],
            args=call["args"],
            idempotent=tool.is_idempotent(call["name"]),
        )
        super().__init__(turn, row, record, config=journal.config, tools=tool)
        self.journal, self.hosted = journal, hosted
        self.request, self.handler, self.wait = request, handler, wait

    async def reconciled(self) -> Resolution:
        """Return the tool's own word."""
        return await self.wait(super().reconciled())

    async def doubted(self) -> None:
        """Have the doubt on disk: who drives this graph need not keep its checkpoints there."""
        await self.wait(self.turn.durable())

    # -- one attempt ------------------------------------------------------------------------------------------------------------

    async def run(self, attempt: int) -> Result | None:
        """Run the tool and return what it gave, or None where the journal is to be asked again: it is in doubt, or to be retried."""
        self.turn.record(replace(self.row, state="started", attempt=attempt, error=None))
        await self.wait(self.turn.durable())
        failpoint("journal.started")
        token, begun_here = current_call.set(self.record), begun_inside.set(Begun())
        began = time.perf_counter()
        try:
            with begetting(self.hosted):
                result = await self.handler(self.request)
        except GraphBubbleUp:
            await self._not_begun(attempt)
            raise
        except Exception as error:
            if is_invalid_resume(error):
                await self._not_begun(attempt)
                raise
            return await self._raised(attempt, error)
        finally:
            current_call.reset(token)
            begun_inside.reset(begun_here)
        failpoint("journal.executed")
        return await self._returned(result, (time.perf_counter() - began) * 1000)

    async def _not_begun(self, attempt: int) -> None:
        """An `interrupt` inside the tool is its own word that it wants to be run again, from its beginning."""
        self.turn.record(replace(self.row, state="planned", attempt=attempt - 1))
        await self.wait(self.turn.durable())

    async def _raised(self, attempt: int, error: Exception) -> Result | None:
        row = self.row
        if not row.idempotent and not isinstance(error, ToolNotExecuted):
            self.turn.record(replace(row, state="in_doubt", error=describe(error)))
            return None
        retryable = getattr(error, "retryable", True) is not False
        delay = next_delay(
            Failure(kind="tool", retryable=retryable),
            attempt=attempt,
            attempts=self.journal.config.attempts,
            time_left_s=None,
            draw=random.random(),
        )
        if delay is None:
            return self.ended("failed", error=describe(error))
        logger.info("tool %s: attempt %d failed (%s); again in %.2f s", row.tool, attempt, describe(error), delay)
        self.turn.record(replace(row, state="planned"))
        await self.wait(self.journal.clock.sleep(delay))
        return None

    async def _returned(self, result: Result, latency_ms: float) -> Result:
        failed = isinstance(result, ToolMessage) and result.status == "error"
        row = replace(self.row, latency_ms=latency_ms, error=result.text if failed else None)
        self.turn.record(replace(row, state="failed" if failed else "succeeded", result=self._kept(result)))
        if not row.idempotent:
            await self.wait(self.turn.durable())
        failpoint("journal.finished")
        return result

    # -- what is on record --------------------------------------------------------------------------------------------------------

    def _kept(self, result: Result) -> str:
        """Return a result as the journal keeps it: a plain text as it is, anything else in LangGraph's own form."""
        if _is_plain(result) and len(result.content) <= MOST_CHARS:
            return make_storable(result.content, max_chars=MOST_CHARS).json
        try:
            kind, data = self.journal.storage.checkpointer.serde.dumps_typed(result)
        except Exception:  # noqa: BLE001  a tool may return what nobody can store; the graph's own saver will say so
            return make_storable(getattr(result, "content", repr(result)), max_chars=MOST_CHARS).json
        return json.dumps({"langgraph": [kind, base64.b64encode(data).decode()]})

    async def replayed(self) -> Result:
        """Return the result of a call that has ended: the tool is not run."""
        row = self.row
        kept = None if row.result is None else json.loads(row.result)
        if isinstance(kept, dict) and set(kept) == {"langgraph"}:
            kind, data = kept["langgraph"]
            return self.journal.storage.checkpointer.serde.loads_typed((kind, base64.b64decode(data)))
        if row.error is not None:
            return self._error(row.error)
        return self._answer(kept)

    def ended(self, state: End, *, result: Any = None, error: str | None = None) -> ToolMessage:
        """Record an end that did not come out of a run of the tool, and return its message."""
        told = None if error is not None else make_storable(result).json
        self.turn.record(self.row, state=state, error=error, result=told)
        return self._answer(result) if error is None else self._error(error)

    def _answer(self, result: Any) -> ToolMessage:
        return ToolMessage(make_storable(result).text, name=self.record.tool_name, tool_call_id=self.record.call_id)

    def _error(self, error: str) -> ToolMessage:
        return ToolMessage(f"Error: {error}", name=self.record.tool_name, tool_call_id=self.record.call_id, status="error")


def _is_plain(result: Result) -> bool:
    """Return whether a result is nothing but a text."""
    if isinstance(result, Command) or not isinstance(result, ToolMessage):
        return False
    return isinstance(result.content, str) and result.artifact is None and not result.additional_kwargs and result.status == "success"
