"""ScriptedLLM says what was written down, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_graph.errors import ConfigError
from agent_graph.testing import DictMemory, FakeClock, FakeTools, ListObservability, ScriptedLLM, ScriptEnded, after, call, calls, hang
from agent_graph.types import AgentRun, Message, MessageRole, ToolCall

HELLO = [Message(MessageRole.USER, "Hello?")]


async def test_replies_come_in_order_and_the_end_of_the_script_is_an_error() -> None:
    llm = ScriptedLLM(["one", Message(MessageRole.ASSISTANT, "two")])
    assert [(await llm.complete(HELLO, [])).content for _ in range(2)] == ["one", "two"]
    with pytest.raises(ScriptEnded, match="call 3 of the model, but the script has 2 replies"):
        await llm.complete(HELLO, [])


async def test_the_last_reply_may_last_for_ever() -> None:
    llm = ScriptedLLM(["one", "two"], last_forever=True)
    assert [(await llm.complete(HELLO, [])).content for _ in range(4)] == ["one", "two", "two", "two"]


@pytest.mark.parametrize(
    "replies", ["Hello", b"Hello", {"a": "b"}, call("weather"), lambda messages, tools: "Hello", None, ValueError("no")], ids=repr
)
def test_a_single_reply_is_no_script(replies: Any) -> None:
    """`ScriptedLLM("Hello")` answered "H", then "e"."""
    with pytest.raises(ConfigError, match=r"replies: a list is due.* Put it into one: \[\.\.\.\]"):
        ScriptedLLM(replies)


async def test_an_empty_script_is_at_its_end_also_where_the_last_reply_lasts() -> None:
    with pytest.raises(ScriptEnded, match="call 1 of the model, but the script has 0"):
        await ScriptedLLM([], last_forever=True).complete(HELLO, [])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ScriptedLLM(["a"], usage=(1, 2, 3)), "usage"),  # type: ignore[arg-type]  # the mistake
        (lambda: ScriptedLLM(["a"], usage=5), "usage"),  # type: ignore[arg-type]  # the mistake
        (lambda: call(""), "call: the tool's name"),
        (lambda: calls("weather"), "calls: 'weather' makes no call"),  # type: ignore[arg-type]  # the mistake
        (lambda: calls(Message(MessageRole.ASSISTANT, "Hello")), "calls: Message"),
        (lambda: FakeTools([print]), "handlers: tools by their names"),  # type: ignore[arg-type]  # the mistake
        (lambda: FakeTools({"weather": "sunny"}), "handlers: tools by their names"),  # type: ignore[dict-item]  # the mistake
        (lambda: FakeTools("weather"), "handlers: tools by their names"),  # type: ignore[arg-type]  # the mistake
    ],
)
def test_what_a_fake_cannot_be_made_of_is_refused_at_once(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize("error", [ValueError("broken"), ValueError], ids=["instance", "class"])
async def test_an_exception_is_raised(error: Any) -> None:
    with pytest.raises(ValueError, match=r"broken|"):
        await ScriptedLLM([error]).complete(HELLO, [])


async def test_a_function_answers_from_the_request() -> None:
    async def slowly(messages: list[Message], tools: list[dict[str, Any]]) -> str:
        return f"{messages[-1].content} {len(tools)}"

    llm = ScriptedLLM([lambda messages, tools: messages[-1].content, slowly])
    assert [(await llm.complete(HELLO, [{}])).content for _ in range(2)] == ["Hello?", "Hello? 1"]


async def test_metadata_of_the_script_fills_what_a_reply_does_not_say() -> None:
    told = Message(MessageRole.ASSISTANT, "b", {"cost_usd": 5})
    llm = ScriptedLLM(["a", told], cost_usd=0.001, usage=(12, 5), model="m")
    usage = {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}
    assert (await llm.complete(HELLO, [])).metadata == {"cost_usd": 0.001, "usage": usage, "model": "m"}
    assert (await llm.complete(HELLO, [])).metadata == {"cost_usd": 5, "usage": usage, "model": "m"}
    assert told.metadata == {"cost_usd": 5}


async def test_requests_are_kept_as_they_were_with_the_very_tools() -> None:
    llm, messages, tools = ScriptedLLM(["a"]), [Message(MessageRole.USER, "Hello?", {"x": [1]})], [{"name": "t"}]
    await llm.complete(messages, tools)
    messages[0].metadata["x"].append(2)
    messages.clear()
    assert llm.requests[0].messages == (Message(MessageRole.USER, "Hello?", {"x": [1]}),)
    assert llm.requests[0].tools is tools


def test_threads_share_one_script_and_no_reply_is_given_twice() -> None:
    llm = ScriptedLLM([str(number) for number in range(80)])

    def work(_: int) -> list[str]:
        async def ask() -> list[str]:
            return [message.content for message in await asyncio.gather(*(llm.complete(HELLO, []) for _ in range(10)))]

        return asyncio.run(ask())

    with ThreadPoolExecutor(8) as pool:
        said = [content for contents in pool.map(work, range(8)) for content in contents]
    assert sorted(said, key=int) == [str(number) for number in range(80)]


async def test_after_waits_as_the_models_own_sleep_counts() -> None:
    clock = FakeClock()
    asked = asyncio.ensure_future(ScriptedLLM([after(5, "late")], sleep=clock.sleep).complete(HELLO, []))
    await asyncio.sleep(0)
    assert clock.sleepers == 1
    clock.advance(5)
    assert (await asked).content == "late"


async def test_hang_never_answers_and_can_be_cancelled() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ScriptedLLM([hang]).complete(HELLO, []), 0.01)


def test_call_and_calls_write_the_documented_layout() -> None:
    assert call("pay", to="Bob").metadata == {"tool_calls": [{"name": "pay", "args": {"to": "Bob"}}]}
    both = calls(call("a", call_id="1"), call("b"))
    assert both.metadata == {"tool_calls": [{"id": "1", "name": "a", "args": {}}, {"name": "b", "args": {}}]}


def test_counting_is_rough_and_may_be_replaced() -> None:
    assert ScriptedLLM([]).count_tokens([Message(MessageRole.USER, "x" * 9)]) == 4 + 3
    assert ScriptedLLM([], tokens=len).count_tokens(HELLO * 3) == 3


async def test_fake_tools_run_plain_and_async_handlers_and_keep_what_came_in() -> None:
    async def slowly(city: str) -> str:
        return f"rain in {city}"

    def instead() -> ToolCall:
        return ToolCall("x", {}, "x", error="e")

    tools = FakeTools({"now": lambda city: f"sun in {city}", "later": slowly, "call": instead})
    asked = ToolCall("now", {"city": "Oslo"}, "1", idempotency_key="k")
    assert (await tools.execute(asked)).result == "sun in Oslo"
    assert (await tools.execute(ToolCall("later", {"city": "Rome"}, "2"))).result == "rain in Rome"
    assert (await tools.execute(ToolCall("call", {}, "3"))).error == "e"
    assert (await tools.execute(ToolCall("none", {}, "4"))).error == "no tool is named 'none'"
    assert [call.call_id for call in tools.calls] == ["1", "2", "3", "4"]
    assert tools.calls[0] == asked
    assert asked.result is None


async def test_dict_memory_gives_copies_and_counts() -> None:
    memory = DictMemory()
    await memory.save("r", HELLO)
    (await memory.load("r"))[0].content = "changed"
    assert await memory.load("r") == HELLO
    assert (memory.loads, len(memory.saves)) == (["r", "r"], 1)


def test_list_observability_keeps_snapshots() -> None:
    seen, run = ListObservability(), AgentRun("r", "q", status="complete")
    seen.record_run(run)
    seen.record_tool_call(ToolCall("t", {}, "1"), "r")
    seen.record_tool_call(ToolCall("t", {}, "2"), "other")
    run.status = "failed"
    assert [r.status for r in seen.runs] == ["complete"]
    assert [c.call_id for c in seen.calls_of("r")] == ["1"]
