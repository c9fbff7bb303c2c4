"""LangGraph's checkpointer over the storage's file and queue.

How it works
    The tables are langgraph-checkpoint-sqlite's own, so the stock saver reads the same file; reading is in fact done by the
    stock saver's code, on our connections. Writing is queued. For a run that this process has claimed, `aput` returns once
    queued: the barrier before the next effect waits for the disk. For any other thread (someone uses this saver alone) nobody
    stands at a barrier, so there `aput`, and writes that no checkpoint follows (an interrupt, an error), wait for the disk.

What must stay true
    1. A checkpoint never executes code when it is read: nothing is rebuilt that is not on an explicit list, and nothing is pickled.
    2. Checkpoints obey the fence of the claim they belong to, like every other record.
    3. What is kept can be rebuilt: pruning keeps the ancestors that a DeltaChannel's value is made of.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from agent_graph.errors import ConfigError
from agent_graph.failpoints import failpoint
from agent_graph.storage import threads
from agent_graph.storage.attempts import Attempt
from agent_graph.storage.claiming import run_of
from agent_graph.storage.delta import read_history
from agent_graph.storage.port import Redactor
from agent_graph.storage.redacting import RedactingSerializer
from agent_graph.storage.rows import storable

if TYPE_CHECKING:
    from agent_graph.storage.sqlite import SqliteStorage

__all__ = ["SqliteCheckpointer", "serializer"]

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_PAGE = 64
"""Checkpoints that `alist` holds in memory at once."""

_PUT = (
    "INSERT OR REPLACE INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_WRITES = (
    "INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_WRITES = f"INSERT OR IGNORE {_WRITES}"
_PUT_SPECIAL_WRITES = f"INSERT OR REPLACE {_WRITES}"


def serializer(redact: Redactor | None = None) -> JsonPlusSerializer:
    """Return the serializer of checkpoints: the empty allow-list rebuilds only what LangGraph itself knows to be harmless."""
    if redact is None:
        return JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=[])
    return RedactingSerializer(redact)


class SqliteCheckpointer(BaseCheckpointSaver[Any]):
    """A checkpoint saver for any LangGraph graph; belongs to no event loop, and has sync and async methods alike."""

    def __init__(self, storage: SqliteStorage, *, redact: Redactor | None = None) -> None:
        super().__init__(serde=serializer(redact))
        self._storage = storage
        self._redact = redact

    # -- writing -------------------------------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Queue a checkpoint and return its config."""
        attempt, following = self._queue_checkpoint(config, checkpoint, metadata)
        if attempt.fence:
            await self._storage.writer.room()
        else:
            await self._storage.durable_for(attempt)
        return following

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do what `aput` does."""
        attempt, following = self._queue_checkpoint(config, checkpoint, metadata)
        if not attempt.fence:
            self._storage.durable_for_sync(attempt)
        return following

    async def aput_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Queue what a task wrote."""
        attempt = self._queue_writes(config, writes, task_id, task_path)
        if not attempt.fence and _is_special(writes):
            await self._storage.durable_for(attempt)
        else:
            await self._storage.writer.room()

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Do what `aput_writes` does."""
        attempt = self._queue_writes(config, writes, task_id, task_path)
        if not attempt.fence and _is_special(writes):
            self._storage.durable_for_sync(attempt)

    def _queue_checkpoint(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> tuple[Attempt, RunnableConfig]:
        thread_id, namespace, parent = _address(config)
        kind, blob = self.serde.dumps_typed(checkpoint)
        described = _JSON.encode(get_checkpoint_metadata(config, metadata))
        attempt = self._attempt(thread_id)
        values = (
            thread_id,
            namespace,
            checkpoint["id"],
            parent,
            kind,
            blob,
            storable(described, self._redact).encode(),
        )
        failpoint("checkpoint.before_queued")
        self._storage.writer.put(attempt, _PUT, values, size=len(blob) + 256)
        failpoint("checkpoint.queued")
        following = {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint["id"]}
        return attempt, {"configurable": following}

    def _queue_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str) -> Attempt:
        thread_id, namespace, checkpoint_id = _address(config)
        rows = [
            (
                thread_id,
                namespace,
                checkpoint_id,
                task_id,
                task_path,
                WRITES_IDX_MAP.get(channel, i),
                channel,
                *self.serde.dumps_typed(value),
            )
            for i, (channel, value) in enumerate(writes)
        ]
        attempt = self._attempt(thread_id)
        failpoint("checkpoint.before_writes")
        sql = _PUT_SPECIAL_WRITES if _is_special(writes) else _PUT_WRITES
        self._storage.writer.put(attempt, sql, rows, many=True, size=sum(len(row[-1]) for row in rows) + 256)
        return attempt

    def _attempt(self, thread_id: str) -> Attempt:
        return self._storage.registry.of(run_of(thread_id))

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return the next version of a channel: small integers, which keep checkpoints small.

        A thread that the stock saver began has texts for versions, and goes on with texts: the two cannot be compared.
        """
        if isinstance(current, str):
            return f"{int(current.split('.')[0]) + 1:032}.{0:016}"
        return 1 if current is None else int(current) + 1

    # -- reading -------------------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the thread's newest, or None."""
        _address(config)
        return await self._storage.readers.read(lambda connection: self._stock(connection).get_tuple(config))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do what `aget_tuple` does."""
        _address(config)
        return self._storage.readers.read_sync(lambda connection: self._stock(connection).get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first, a page at a time; nothing is locked meanwhile."""
        size = _PAGE if config is not None else limit
        left = limit
        while left is None or left > 0:
            page = left if size is None else size if left is None else min(size, left)
            found = await self._storage.readers.read(self._lister(config, filter, before, page))
            for item in found:
                yield item
            if page is None or len(found) < page:
                return
            before = found[-1].config
            left = None if left is None else left - page

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Do what `alist` does."""
        yield from self._storage.readers.read_sync(self._lister(config, filter, before, limit))

    def _lister(
        self,
        config: RunnableConfig | None,
        wanted: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Callable[[sqlite3.Connection], Sequence[CheckpointTuple]]:
        return lambda connection: [*self._stock(connection).list(config, filter=wanted, before=before, limit=limit)]

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """Return what the values of DeltaChannels are rebuilt from, read in one query."""
        return await self._storage.readers.read(self._historian(config, channels))

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """Do what `aget_delta_channel_history` does."""
        return self._storage.readers.read_sync(self._historian(config, channels))

    def _historian(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Callable[[sqlite3.Connection], Mapping[str, DeltaChannelHistory]]:
        thread_id, namespace, checkpoint_id = _address(config)
        return lambda connection: read_history(
            connection,
            self.serde,
            thread_id=thread_id,
            namespace=namespace,
            checkpoint_id=checkpoint_id,
            channels=channels,
        )

    def _stock(self, connection: sqlite3.Connection) -> SqliteSaver:
        stock = SqliteSaver(connection, serde=self.serde)
        stock.is_setup = True  # the tables are there, and a reader may not make them
        return stock

    # -- housekeeping --------------------------------------------------------------------------------------------------

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread's checkpoints and writes."""
        await self._change(threads.delete_thread(thread_id))

    def delete_thread(self, thread_id: str) -> None:
        """Do what `adelete_thread` does."""
        self._change_sync(threads.delete_thread(thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a whole thread, every ancestor with it."""
        await self._change(threads.copy_thread(source_thread_id, target_thread_id))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do what `acopy_thread` does."""
        self._change_sync(threads.copy_thread(source_thread_id, target_thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete what LangGraph runs left, but for the ancestors that surviving checkpoints are rebuilt from."""
        await self._change(threads.delete_for_runs(run_ids, self.serde))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do what `adelete_for_runs` does."""
        self._change_sync(threads.delete_for_runs(run_ids, self.serde))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep of each thread the newest checkpoint of each namespace, and the ancestors it is rebuilt from; or delete it."""
        await self._change(threads.prune(thread_ids, strategy, self.serde))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do what `aprune` does."""
        self._change_sync(threads.prune(thread_ids, strategy, self.serde))

    async def _change(self, work: Callable[[sqlite3.Connection], None]) -> None:
        await self._storage.writer.run(work)
        await self._storage.writer.durable()

    def _change_sync(self, work: Callable[[sqlite3.Connection], None]) -> None:
        self._storage.writer.run_sync(work)
        self._storage.writer.durable_sync()


def _address(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Return thread_id, namespace and checkpoint_id of a config."""
    place = config.get("configurable") or {}
    if "thread_id" not in place:
        raise ConfigError("thread_id: it names the run that a checkpoint belongs to; give config={'configurable': {'thread_id': ...}}.")
    return str(place["thread_id"]), place.get("checkpoint_ns", ""), place.get("checkpoint_id")


def _is_special(writes: Sequence[tuple[str, Any]]) -> bool:
    """Return whether these writes are LangGraph's own marks (interrupt, error), which no checkpoint need follow."""
    return all(channel in WRITES_IDX_MAP for channel, _ in writes)
