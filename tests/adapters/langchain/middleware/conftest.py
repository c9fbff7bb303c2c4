"""Somebody's `create_agent`, run in both of its ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_graph import SqliteStorage
from agent_graph_adapters.langchain.middleware import turns
from tests.adapters.langchain.middleware.somebodys import THREAD


@pytest.fixture(params=["async", pytest.param("sync", marks=pytest.mark.slow)])
def invoke(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs an agent to its end, from a thread that is not the test's own where it blocks."""

    async def go(agent: Any, given: Any, config: Any = THREAD) -> Any:
        options = {"durability": "sync"} if agent.checkpointer else {}
        if request.param == "async":
            return await agent.ainvoke(given, config, **options)
        return await asyncio.to_thread(agent.invoke, given, config, **options)

    return go


@pytest.fixture
async def new_storage(tmp_path: Path) -> AsyncIterator[Callable[[], SqliteStorage]]:
    """Opens the test's file anew, as the next process would."""
    opened: list[SqliteStorage] = []

    def make() -> SqliteStorage:
        opened.append(SqliteStorage(tmp_path / "runs.db", durability="process"))
        return opened[-1]

    yield make
    for storage in opened:
        await storage.close()


@pytest.fixture(autouse=True)
def _claims_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that nobody is in may be claimed by the next process at once."""
    monkeypatch.setattr(turns, "IDLE_S", -1.0)
