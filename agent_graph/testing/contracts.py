"""Contract suites: what the specification's four ports owe, as tests for any backend.

Subclass the suite of a port in a test module and give it one fixture, `backend`:

```python
class TestMyMemory(MemoryContract):
    @pytest.fixture
    def backend(self, tmp_path):
        return MyMemory(tmp_path / "memory.json")
```

The suites call a backend as the agent does: from several tasks, threads and event loops at once, one loop after the other, with
run_ids of any spelling. They need pytest alone, no plugin for async tests.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import pytest

from agent_graph.ports import LLMBackend, MemoryBackend, ObservabilityBackend, ToolBackend
from agent_graph.types import AgentRun, Message, MessageRole, ToolCall

__all__ = ["LLMContract", "MemoryContract", "ObservabilityContract", "ToolContract"]

T = TypeVar("T")

RUN_IDS = ("run_001", "a/b\\c", "../../etc/passwd", "with space", "Zürich 東京 🙂", "x" * 255, "%s'; --", "CON")


def _in_threads(work: Callable[[int], Awaitable[T]], threads: int = 4) -> list[T]:
    """Return what `work(0)`, `work(1)`, ... return, each run in a thread and an event loop of its own, begun together."""
    together = threading.Barrier(threads)

    async def begun(index: int) -> T:
        return await work(index)

    def run(index: int) -> T:
        together.wait(timeout=30)
        return asyncio.run(begun(index))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def _conversation() -> list[Message]:
    """Return a conversation with everything a backend meets: a call, its result, an answer, metadata, all of Unicode's planes."""
    return [
        Message(MessageRole.USER, "What is the weather in Zürich? 🙂"),
        Message(MessageRole.ASSISTANT, "", {"tool_calls": [{"id": "c1", "name": "weather", "args": {"city": "Zürich"}}]}),
        Message(MessageRole.TOOL, '{"celsius": 21.5}', {"tool_call_id": "c1", "name": "weather"}),
        Message(MessageRole.ASSISTANT, "21.5 °C,\n\tclear.", {"usage": {"input_tokens": 12, "output_tokens": 5}, "cost_usd": 0.001}),
    ]


def _is_message(value: object) -> bool:
    metadata = getattr(value, "metadata", None)
    return isinstance(getattr(value, "content", None), str) and isinstance(metadata, dict) and hasattr(value, "role")


class LLMContract:
    """What an `LLMBackend` owes."""

    question: ClassVar[str] = "Say hello."
    """What the model is asked."""
    tools: ClassVar[Sequence[dict[str, Any]]] = ()
    """What `complete` is given as `tools`."""

    @pytest.fixture
    def backend(self) -> LLMBackend:
        """Return the backend under test."""
        raise NotImplementedError("give your suite a fixture named `backend`")

    def _ask(self, backend: LLMBackend, messages: list[Message] | None = None) -> Awaitable[Message]:
        return backend.complete([Message(MessageRole.USER, self.question)] if messages is None else messages, list(self.tools))

    def test_a_reply_is_an_assistants_message(self, backend: LLMBackend) -> None:
        reply = asyncio.run(_awaited(self._ask(backend)))
        assert _is_message(reply), f"complete returned {type(reply).__name__}; a Message(role, content, metadata) was due"
        assert getattr(reply.role, "value", reply.role) == "assistant"

    def test_the_request_is_left_as_it_was(self, backend: LLMBackend) -> None:
        messages = [Message(MessageRole.SYSTEM, "Be brief."), Message(MessageRole.USER, self.question, {"note": [1]})]
        before = copy.deepcopy(messages)
        asyncio.run(_awaited(self._ask(backend, messages)))
        assert messages == before

    def test_usage_is_counted_in_whole_tokens(self, backend: LLMBackend) -> None:
        usage = asyncio.run(_awaited(self._ask(backend))).metadata.get("usage") or {}
        counts = {key: value for key, value in usage.items() if key in ("input_tokens", "output_tokens", "total_tokens")}
        assert all(isinstance(count, int) and count >= 0 for count in counts.values()), counts

    def test_it_answers_in_one_event_loop_after_another(self, backend: LLMBackend) -> None:
        for _ in range(3):
            assert _is_message(asyncio.run(_awaited(self._ask(backend))))

    def test_it_answers_in_several_threads_at_once(self, backend: LLMBackend) -> None:
        async def ask(_: int) -> list[Message]:
            return await asyncio.gather(*(self._ask(backend) for _ in range(3)))

        assert all(_is_message(reply) for replies in _in_threads(ask) for reply in replies)

    def test_counting_needs_no_event_loop_and_gives_a_whole_number(self, backend: LLMBackend) -> None:
        count = backend.count_tokens(_conversation())
        assert isinstance(count, int)
        assert not isinstance(count, bool)
        assert count > 0

    def test_counting_is_repeatable_and_never_falls_as_messages_are_added(self, backend: LLMBackend) -> None:
        messages = _conversation()
        counts = [backend.count_tokens(messages[:length]) for length in range(len(messages) + 1)]
        assert counts == sorted(counts)
        assert counts[0] >= 0
        assert backend.count_tokens(messages) == counts[-1]

    def test_counting_grows_with_the_text(self, backend: LLMBackend) -> None:
        short, long = Message(MessageRole.USER, "word"), Message(MessageRole.USER, "word " * 1_000)
        assert backend.count_tokens([long]) > backend.count_tokens([short])


class ToolContract:
    """What a `ToolBackend` owes. Set `call` to a call that succeeds, and that may be made often."""

    call: ClassVar[ToolCall]

    @pytest.fixture
    def backend(self) -> ToolBackend:
        """Return the backend under test."""
        raise NotImplementedError("give your suite a fixture named `backend`")

    def _call(self, call_id: str = "call_1") -> ToolCall:
        return replace(copy.deepcopy(self.call), call_id=call_id)

    def test_a_call_comes_back_with_a_result(self, backend: ToolBackend) -> None:
        done = asyncio.run(_awaited(backend.execute(self._call())))
        assert hasattr(done, "result"), f"execute returned {type(done).__name__}; a ToolCall with result or error was due"
        assert done.error is None
        assert done.result is not None

    def test_what_was_asked_is_left_as_it_was(self, backend: ToolBackend) -> None:
        call = self._call()
        done = asyncio.run(_awaited(backend.execute(call)))
        for attribute in ("tool_name", "args", "call_id"):
            assert getattr(done, attribute) == getattr(call, attribute) == getattr(self._call(), attribute)

    def test_an_unknown_tool_is_an_error(self, backend: ToolBackend) -> None:
        try:
            done = asyncio.run(_awaited(backend.execute(ToolCall("no such tool", {}, "call_1"))))
        except Exception:  # noqa: BLE001  either way is allowed: the agent asks for known tools only
            return
        assert done.error, "a call of an unknown tool returned without an error"

    def test_calls_at_once_keep_their_ids(self, backend: ToolBackend) -> None:
        async def work(thread: int) -> list[tuple[str, ToolCall]]:
            ids = [f"call_{thread}_{index}" for index in range(5)]
            done = await asyncio.gather(*(backend.execute(self._call(call_id)) for call_id in ids))
            return list(zip(ids, done, strict=True))

        pairs = [pair for done in _in_threads(work) for pair in done]
        assert all(done.call_id == call_id and done.error is None for call_id, done in pairs)

    def test_it_works_in_one_event_loop_after_another(self, backend: ToolBackend) -> None:
        for _ in range(3):
            assert asyncio.run(_awaited(backend.execute(self._call()))).error is None


class MemoryContract:
    """What a `MemoryBackend` owes."""

    @pytest.fixture
    def backend(self) -> MemoryBackend:
        """Return the backend under test, empty."""
        raise NotImplementedError("give your suite a fixture named `backend`")

    def test_an_unknown_run_is_an_empty_list(self, backend: MemoryBackend) -> None:
        assert asyncio.run(_awaited(backend.load("never saved"))) == []

    def test_what_was_saved_is_loaded_in_order_and_whole(self, backend: MemoryBackend) -> None:
        async def work() -> list[Message]:
            await backend.save("run_001", _conversation())
            return await backend.load("run_001")

        _assert_same(asyncio.run(work()), _conversation())

    def test_a_save_replaces_the_one_before(self, backend: MemoryBackend) -> None:
        async def work() -> tuple[list[Message], list[Message]]:
            await backend.save("run_001", _conversation())
            await backend.save("run_001", _conversation()[:1])
            shorter = await backend.load("run_001")
            await backend.save("run_001", [])
            return shorter, await backend.load("run_001")

        shorter, empty = asyncio.run(work())
        _assert_same(shorter, _conversation()[:1])
        assert empty == []

    def test_runs_are_kept_apart_whatever_their_names(self, backend: MemoryBackend) -> None:
        async def work() -> dict[str, list[Message]]:
            for run_id in RUN_IDS:
                await backend.save(run_id, [Message(MessageRole.USER, run_id)])
            return {run_id: await backend.load(run_id) for run_id in RUN_IDS}

        loaded = asyncio.run(work())
        assert {run_id: [message.content for message in messages] for run_id, messages in loaded.items()} == {
            run_id: [run_id] for run_id in RUN_IDS
        }

    def test_the_lists_are_the_callers_own(self, backend: MemoryBackend) -> None:
        async def work() -> list[Message]:
            saved = _conversation()
            await backend.save("run_001", saved)
            saved.clear()
            (await backend.load("run_001")).clear()
            return await backend.load("run_001")

        _assert_same(asyncio.run(work()), _conversation())

    def test_a_long_conversation_comes_back(self, backend: MemoryBackend) -> None:
        messages = [Message(MessageRole.USER, f"{index} " + "text " * 400) for index in range(500)]

        async def work() -> list[Message]:
            await backend.save("run_001", messages)
            return await backend.load("run_001")

        _assert_same(asyncio.run(work()), messages)

    def test_it_remembers_from_one_event_loop_to_the_next(self, backend: MemoryBackend) -> None:
        asyncio.run(_awaited(backend.save("run_001", _conversation())))
        _assert_same(asyncio.run(_awaited(backend.load("run_001"))), _conversation())

    def test_it_is_used_from_several_threads_at_once(self, backend: MemoryBackend) -> None:
        async def work(thread: int) -> list[list[Message]]:
            loaded = []
            for index in range(10):
                await backend.save(f"run_{thread}", [Message(MessageRole.USER, f"{thread}:{index}")])
                loaded.append(await backend.load(f"run_{thread}"))
            return loaded

        for thread, loaded in enumerate(_in_threads(work)):
            assert [[message.content for message in messages] for messages in loaded] == [[f"{thread}:{index}"] for index in range(10)]


class ObservabilityContract:
    """What an `ObservabilityBackend` owes: it takes whatever it is told, quickly, and changes nothing."""

    max_s: ClassVar[float] = 1.0
    """Seconds that a hundred records may take: the agent waits no longer for them."""

    @pytest.fixture
    def backend(self) -> ObservabilityBackend:
        """Return the backend under test."""
        raise NotImplementedError("give your suite a fixture named `backend`")

    @pytest.mark.parametrize("status", ["complete", "failed", "timeout", "running"])
    def test_it_takes_every_end_of_a_run(self, backend: ObservabilityBackend, status: str) -> None:
        run = AgentRun("run_001", "question", status=status, error=None if status == "complete" else "max_steps: 2 of 2")
        before = copy.deepcopy(run)
        backend.record_run(run)
        assert run == before, "record_run changed the run"

    @pytest.mark.parametrize("result", [None, "text", {"nested": [1, 2.5, None]}, float("nan"), b"\x00\xff", "\ud800"], ids=repr)
    def test_it_takes_every_result_of_a_tool(self, backend: ObservabilityBackend, result: object) -> None:
        call = ToolCall("weather", {"city": "Zürich"}, "call_1", result=result, latency_ms=1.5)
        backend.record_tool_call(call, "run_001")
        assert call.result is result, "record_tool_call changed the call"
        assert (call.tool_name, call.args, call.call_id, call.error) == ("weather", {"city": "Zürich"}, "call_1", None)

    def test_it_takes_results_that_cannot_be_written_as_json(self, backend: ObservabilityBackend) -> None:
        stranger = object()
        call = ToolCall("weather", {}, "call_1", result=stranger)
        backend.record_tool_call(call, "run_001")
        backend.record_run(AgentRun("run_001", "question", tool_calls=[call]))
        assert call.result is stranger

    def test_it_takes_run_ids_of_any_spelling(self, backend: ObservabilityBackend) -> None:
        for run_id in RUN_IDS:
            assert backend.record_tool_call(ToolCall("weather", {}, "call_1", error="it broke"), run_id) is None
            assert backend.record_run(AgentRun(run_id, "question", status="complete")) is None

    def test_it_is_told_from_several_threads_and_loops_at_once(self, backend: ObservabilityBackend) -> None:
        async def tell(thread: int) -> float:
            begun = asyncio.get_running_loop().time()
            for index in range(100):
                backend.record_tool_call(ToolCall("weather", {}, f"call_{index}", result=index), f"run_{thread}")
            backend.record_run(AgentRun(f"run_{thread}", "question", status="complete"))
            return asyncio.get_running_loop().time() - begun

        assert max(_in_threads(tell)) < self.max_s * 4


async def _awaited(awaitable: Awaitable[T]) -> T:
    """Make a coroutine of any awaitable, as asyncio.run wants one."""
    return await awaitable


def _assert_same(loaded: Sequence[Message], saved: Sequence[Message]) -> None:
    """Compare by shape: a backend may return the specification's classes from a copy of its own."""

    def plain(messages: Sequence[Message]) -> list[tuple[Any, str, dict[Any, Any]]]:
        return [(getattr(m.role, "value", m.role), m.content, dict(m.metadata)) for m in messages]

    assert plain(loaded) == plain(saved)
