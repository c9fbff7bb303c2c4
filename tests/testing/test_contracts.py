"""The contract suites: our fakes keep them, and each rule fails for a backend that breaks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent_graph.ports import LLMBackend, MemoryBackend, ObservabilityBackend, ToolBackend
from agent_graph.testing import (
    DictMemory,
    FakeTools,
    ListObservability,
    LLMContract,
    MemoryContract,
    ObservabilityContract,
    ScriptedLLM,
    ToolContract,
)
from agent_graph.types import AgentRun, Message, MessageRole, ToolCall


class TestScriptedLLM(LLMContract):
    @pytest.fixture
    def backend(self) -> LLMBackend:
        return ScriptedLLM(["Hello."], usage=(12, 5), last_forever=True)


class TestFakeTools(ToolContract):
    call = ToolCall("echo", {"text": "hello"}, "call_1")

    @pytest.fixture
    def backend(self) -> ToolBackend:
        return FakeTools({"echo": lambda text: text})


class TestDictMemory(MemoryContract):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return DictMemory()


class TestListObservability(ObservabilityContract):
    @pytest.fixture
    def backend(self) -> ObservabilityBackend:
        return ListObservability()


# -- backends that break one rule each -------------------------------------------------------------------------------------------


class Bound(ScriptedLLM):
    """Belongs to the event loop that first used it."""

    loop: Any = None

    async def complete(self, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("attached to a different loop")
        return await super().complete(messages, tools)


class Appending(ScriptedLLM):
    async def complete(self, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
        messages.append(Message(MessageRole.USER, "and be brief"))
        return await super().complete(messages, tools)


def _llm(**options: Any) -> ScriptedLLM:
    return ScriptedLLM(["Hello."], last_forever=True, **options)


class Swapping(FakeTools):
    async def execute(self, call: ToolCall) -> ToolCall:
        return ToolCall(call.tool_name, call.args, "always the same", result=1)


class Forgetful(DictMemory):
    async def load(self, run_id: str) -> list[Message]:
        return [Message(m.role, m.content) for m in await super().load(run_id)]


class Sharing(DictMemory):
    async def load(self, run_id: str) -> list[Message]:
        return self.saved.get(run_id, [])


class Adding(DictMemory):
    async def save(self, run_id: str, messages: list[Message]) -> None:
        await super().save(run_id, [*self.saved.get(run_id, []), *messages])


class Folding(DictMemory):
    async def load(self, run_id: str) -> list[Message]:
        return await super().load(run_id[:20])

    async def save(self, run_id: str, messages: list[Message]) -> None:
        await super().save(run_id[:1], messages)


class Strict(ListObservability):
    def record_tool_call(self, call: ToolCall, run_id: str) -> None:
        import json

        json.dumps(call.result)


class Meddling(ListObservability):
    def record_run(self, run: AgentRun) -> None:
        run.status = "recorded"


def _unknown_is_fine(call: ToolCall) -> FakeTools:
    return FakeTools({"no such tool": lambda: "fine", "echo": lambda text: text})


BROKEN: list[tuple[Callable[[Any], Any], Any]] = [
    (LLMContract().test_a_reply_is_an_assistants_message, ScriptedLLM([Message(MessageRole.USER, "Hello.")])),
    (LLMContract().test_a_reply_is_an_assistants_message, ScriptedLLM([lambda m, t: 7])),
    (LLMContract().test_the_request_is_left_as_it_was, Appending(["Hello."])),
    (LLMContract().test_usage_is_counted_in_whole_tokens, _llm(usage={"input_tokens": 1.5})),
    (LLMContract().test_it_answers_in_one_event_loop_after_another, Bound(["Hello."], last_forever=True)),
    (LLMContract().test_it_answers_in_several_threads_at_once, Bound(["Hello."], last_forever=True)),
    (LLMContract().test_counting_needs_no_event_loop_and_gives_a_whole_number, _llm(tokens=lambda m: 1.5)),
    (LLMContract().test_counting_is_repeatable_and_never_falls_as_messages_are_added, _llm(tokens=lambda m: 10 - len(m))),
    (LLMContract().test_counting_grows_with_the_text, _llm(tokens=len)),
    (TestFakeTools().test_a_call_comes_back_with_a_result, FakeTools()),
    (TestFakeTools().test_what_was_asked_is_left_as_it_was, Swapping()),
    (TestFakeTools().test_calls_at_once_keep_their_ids, Swapping()),
    (TestFakeTools().test_an_unknown_tool_is_an_error, _unknown_is_fine(TestFakeTools.call)),
    (MemoryContract().test_an_unknown_run_is_an_empty_list, Forgetful),
    (MemoryContract().test_what_was_saved_is_loaded_in_order_and_whole, Forgetful),
    (MemoryContract().test_a_save_replaces_the_one_before, Adding),
    (MemoryContract().test_runs_are_kept_apart_whatever_their_names, Folding),
    (MemoryContract().test_the_lists_are_the_callers_own, Sharing),
    (ObservabilityContract().test_it_takes_results_that_cannot_be_written_as_json, Strict()),
]


@pytest.mark.parametrize(("rule", "backend"), BROKEN, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_a_backend_that_breaks_a_rule_fails_its_test(rule: Callable[[Any], None], backend: Any) -> None:
    if backend is Forgetful and rule.__name__ == "test_an_unknown_run_is_an_empty_list":
        backend = Adding()
        backend.saved["never saved"] = [Message(MessageRole.USER, "?")]
    with pytest.raises((AssertionError, RuntimeError, TypeError)):
        rule(backend() if isinstance(backend, type) else backend)


def test_an_observability_backend_that_changes_the_run_fails() -> None:
    with pytest.raises(AssertionError, match="changed the run"):
        ObservabilityContract().test_it_takes_every_end_of_a_run(Meddling(), "complete")
