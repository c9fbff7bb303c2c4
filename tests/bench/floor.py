"""The floor: the same task as a loop written by hand, which leaves the same rows on the same disk.

LangChain messages, `model.ainvoke`, `tool.ainvoke`, a lease, and at each point that has to be durable one barrier: the reservation
before a model call, `started` before a tool call; reply, result and checkpoint ride along. It uses this project's storage as a
library, so what it lacks against the agent is the graph, and all judging: limits, prices, rails, validation, retries, timeouts,
resuming.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint

from agent_graph.storage.port import JournalRow, LedgerRow, TurnKey, TurnRequest
from agent_graph.storage.sqlite import SqliteStorage
from tests.bench import task
from tests.bench.ways import Run, Way

__all__ = ["FLOOR"]


@contextlib.asynccontextmanager
async def _floor(path: Path) -> AsyncIterator[Run]:
    storage, model = SqliteStorage(path), task.Model()

    async def run(run_id: str, steps: int) -> str:
        return await _Loop(storage, run_id).through(model, task.question(steps))

    yield run
    await storage.close()


class _Loop:
    """One run of the loop."""

    def __init__(self, storage: SqliteStorage, run_id: str) -> None:
        self.storage, self.run_id = storage, run_id
        self.messages: list[BaseMessage] = []
        self.config: Any = {"configurable": {"thread_id": run_id, "checkpoint_ns": ""}}

    async def through(self, model: task.Model, text: str) -> str:
        request = TurnRequest(
            namespace="default", run_id=self.run_id, agent="floor", input=text, request_id=None, fingerprint="", on_unfinished="conflict"
        )
        claim = await self.storage.claim(request, asyncio.current_task())
        assert claim.turn is not None
        self.key, self.fence = claim.turn.key, claim.fence
        await self._keep(0, HumanMessage(text))
        for step in range(1, 1_000_000):
            reply = await self._asked(model, step)
            if not reply.tool_calls:
                break
            for index, call in enumerate(reply.tool_calls):
                await self._called(step, index, call)
        self.storage.put(
            replace(claim.turn, status="complete", result=json.dumps({"output": reply.text}), delivered=True), fence=self.fence
        )
        await self.storage.release(self.key, fence=self.fence)
        return str(reply.text)

    async def _asked(self, model: task.Model, step: int) -> AIMessage:
        row = LedgerRow(key=self.key, entry=step, step=step, kind="step", attempt=1, model="bench", state="reserved", bound_nusd=2_000_000)
        await self._durable(row)
        reply = await model.ainvoke(self.messages)
        usage = dict(reply.usage_metadata or {})
        self.storage.put(
            replace(row, state="settled", cost_nusd=18_000, tokens=usage["total_tokens"], usage=json.dumps(usage), used=True),
            fence=self.fence,
        )
        await self._keep(step, reply)
        return reply

    async def _called(self, step: int, index: int, call: Any) -> None:
        args = json.dumps(call["args"], sort_keys=True)
        key = blake2b(f"{self.run_id}|{step}|{index}|{call['name']}|{args}".encode(), digest_size=16).hexdigest()
        row = JournalRow(
            key=self.key, call_key=key, step=step, index=index, call_id=call["id"], tool=call["name"], args=args, idempotent=True,
            state="started", attempt=1,
        )  # fmt: skip
        await self._durable(row)
        result = await task.work.ainvoke(call)
        self.storage.put(replace(row, state="succeeded", result=json.dumps(result.content)), fence=self.fence)
        await self._keep(step, result)

    async def _durable(self, row: LedgerRow | JournalRow) -> None:
        self.storage.put(row, fence=self.fence)
        await self.storage.durable(self.key)

    async def _keep(self, step: int, message: BaseMessage) -> None:
        """Write what a superstep writes: the checkpoint, and the message that it added."""
        self.messages.append(message)
        saver = self.storage.checkpointer
        self.config = await saver.aput(self.config, _checkpoint(self.key, step), {"source": "loop", "step": step, "parents": {}}, {})
        await saver.aput_writes(self.config, [("messages", [message]), ("step", step)], f"task-{step}-{message.type}")


def _checkpoint(key: TurnKey, step: int) -> Checkpoint:
    """Return a checkpoint of about the size that the graph's have."""
    channels: dict[str, Any] = {"run_id": key.run_id, "turn": key.turn, "input": "N=10", "step": step, "first": 0, "compressed_at": -1}
    channels |= {"landing": None, "stop": None, "revisions": {}, "kept": "", "outcome": None}
    versions: dict[str, Any] = dict.fromkeys([*channels, "messages", "branch:to:call_model"], step)
    seen: dict[str, Any] = {"call_model": {"branch:to:call_model": step}, "__input__": {}}
    return {**empty_checkpoint(), "channel_values": channels, "channel_versions": versions, "versions_seen": seen}


FLOOR = Way("hand-written loop", _floor)
