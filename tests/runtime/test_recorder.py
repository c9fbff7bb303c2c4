"""The observability backend is told everything, in order, from one thread, and can hurt nobody."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_graph import SqliteStorage, create_production_agent
from agent_graph.runtime import recorder as module
from agent_graph.runtime.recorder import Recorder
from agent_graph.storage.port import TurnKey
from agent_graph.testing import ListObservability, ScriptedChatModel
from agent_graph.types import AgentRun, ToolCall


class Backend:
    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[Any] = []
        self.threads: set[str] = set()
        self._fails = fails

    def record_run(self, run: AgentRun) -> None:
        self._note(run)

    def record_tool_call(self, call: ToolCall, run_id: str) -> None:
        self._note(call)

    def _note(self, thing: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.seen.append(thing)
        if self._fails:
            raise RuntimeError("the sink is broken")


async def test_everything_is_delivered_in_order_from_one_thread() -> None:
    backend = Backend()
    recorder = Recorder(backend)
    for number in range(100):
        recorder.tool_call(ToolCall("t", {}, str(number)), "r")
    recorder.run(AgentRun("r", "q"))
    await recorder.delivered()
    assert [call.call_id for call in backend.seen[:-1]] == [str(number) for number in range(100)]
    assert isinstance(backend.seen[-1], AgentRun)
    assert backend.threads == {"agent_graph-observability"}


async def test_a_record_is_a_copy() -> None:
    backend = Backend()
    recorder = Recorder(backend)
    run = AgentRun("r", "q", status="complete")
    recorder.run(run)
    run.status = "changed"
    await recorder.delivered()
    assert backend.seen[0].status == "complete"


async def test_what_it_raises_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(Backend(fails=True))
    for _ in range(5):
        recorder.run(AgentRun("r", "q"))
    await recorder.delivered()
    assert recorder.failed == 5
    assert sum("the sink is broken" in record.getMessage() for record in caplog.records) == 1


async def test_whoever_is_cancelled_meanwhile_still_waits() -> None:
    """A turn that was cancelled here was written down as ended, and a kill could lose its record: nobody told it again."""
    backend, may_take = Backend(), threading.Event()
    recorder = Recorder(backend)
    recorder._enqueue(lambda: may_take.wait() and None)
    recorder.run(AgentRun("r", "q"))
    waiting = asyncio.ensure_future(recorder.delivered(wait_s=60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    may_take.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(backend.seen) == 1


async def test_a_slow_one_is_waited_for_a_bounded_time() -> None:
    backend, may_take = Backend(), threading.Event()
    recorder = Recorder(backend)
    recorder._enqueue(lambda: may_take.wait() and None)
    recorder.run(AgentRun("r", "q"))
    await recorder.delivered(wait_s=0.05)
    assert backend.seen == []  # it came back although nothing was taken
    assert recorder.dropped == 1
    may_take.set()


async def test_an_idle_recorder_holds_no_thread_and_starts_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.01)
    backend = Backend()
    recorder = Recorder(backend)
    recorder.run(AgentRun("r", "1"))
    await recorder.delivered()
    for _ in range(200):
        if recorder._thread is None:
            break
        await asyncio.sleep(0.01)
    assert recorder._thread is None
    recorder.run(AgentRun("r", "2"))
    await recorder.delivered()
    assert [run.input for run in backend.seen] == ["1", "2"]


class Looks(ListObservability):
    """Looks at the file, as a process that goes on after a kill at this instant would find it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.found: list[tuple[str, list[str]]] = []

    def record_run(self, run: AgentRun) -> None:
        super().record_run(run)
        self.found.append(asyncio.run(self._look(TurnKey("default", run.run_id, run.turn))))

    async def _look(self, key: TurnKey) -> tuple[str, list[str]]:
        storage = SqliteStorage(self._path)
        try:
            turns, ledger = await storage.turns(key.namespace, key.run_id), await storage.ledger(key)
        finally:
            await storage.close()
        return turns[-1].status, [row.state for row in ledger]


async def test_an_end_is_told_after_all_that_led_to_it_is_on_disk_and_before_it_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it is told, a turn was complete, and its record lost."""
    looks = Looks(tmp_path / "runs.db")
    model = ScriptedChatModel(["Hello."])
    async with create_production_agent(model, storage=tmp_path / "runs.db", observability=looks) as agent:
        monkeypatch.setattr(
            agent.recorder, "delivered", partial(agent.recorder.delivered, wait_s=60.0)
        )  # a loaded machine is no slow backend
        run = await agent.run("Hi", run_id="r")
    assert looks.found == [("running", ["settled"])]
    assert [(told.run_id, told.turn, told.status, told.output) for told in looks.runs] == [("r", 1, run.status, "Hello.")]


async def test_a_backend_that_exits_does_not_end_the_thread() -> None:
    """After sys.exit in a backend nothing was ever delivered again, and each run waited a second for it."""
    told: list[str] = []

    class Exits:
        def record_run(self, run: AgentRun) -> None:
            told.append(run.run_id)
            raise SystemExit

    recorder = Recorder(Exits())
    for run_id in ("a", "b"):
        recorder.run(AgentRun(run_id, "q"))
        await recorder.delivered()
    assert (told, recorder.failed, recorder.dropped) == (["a", "b"], 2, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_fork_tells_its_own_records_and_not_its_parents() -> None:
    """The child had inherited the object and not its thread."""
    reading, writing = os.pipe()
    backend = Backend()
    recorder = Recorder(backend)
    recorder.run(AgentRun("parent", "q"))
    recorder.wait()
    pid = os.fork()
    if pid == 0:
        recorder.run(AgentRun("child", "q"))
        recorder.wait()
        os.write(writing, ",".join(run.run_id for run in backend.seen).encode())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.read(reading, 100) == b"parent,child"
    os.close(reading)
    os.close(writing)
