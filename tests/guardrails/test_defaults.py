"""The guardrails that are on by default: sizes, empty answers, cut replies."""

from __future__ import annotations

from typing import Any

import pytest

from agent_graph.errors import ConfigError
from agent_graph.guardrails import Allow, Block, CutReply, EmptyAnswer, Replace, Revise, SizeCaps, beside_defaults, default_rails, judge
from agent_graph.types import AgentRun, Message, MessageRole, ToolCall

RUN = AgentRun("run_001", "question")
CALLS = [{"id": "c1", "name": "t", "args": {}}]


def reply(content: Any = "", **metadata: Any) -> Message:
    return Message(MessageRole.ASSISTANT, content, metadata)


async def test_ordinary_payloads_pass_untouched_at_every_stage() -> None:
    payloads = {
        "input": "question",
        "reply": reply("answer", finish_reason="stop"),
        "tool_args": ToolCall("t", {"a": [1, "b"]}, "c"),
        "tool_result": ToolCall("t", {}, "c", result={"a": 1}),
        "output": "answer",
    }
    for stage, payload in payloads.items():
        judgement = await judge(default_rails(), stage, payload, RUN)
        assert (judgement.payload, judgement.findings) == (payload, ())
        assert judgement.payload is payload


@pytest.mark.parametrize("size", [9, 10, 11])
async def test_an_input_over_its_cap_is_blocked(size: int) -> None:
    verdict = await SizeCaps(max_input_chars=10).check("input", "x" * size, RUN)
    assert verdict == (Allow() if size <= 10 else Block("the input has 11 characters; at most 10 are allowed (max_input_chars)"))


async def test_a_reply_over_its_cap_is_cut_with_a_mark_and_keeps_its_calls() -> None:
    long = reply("x" * 500, tool_calls=CALLS)
    verdict = await SizeCaps(max_reply_chars=100).check("reply", long, RUN)
    assert isinstance(verdict, Replace)
    assert len(verdict.payload.content) <= 100
    assert verdict.payload.content.startswith("x" * 40)
    assert "of 500 characters left out]" in verdict.payload.content
    assert verdict.payload.metadata == {"tool_calls": CALLS}
    assert len(long.content) == 500


@pytest.mark.parametrize(
    "args", [{"a": "x" * 101}, {"x" * 101: 1}, {"a": ["x" * 60, "x" * 60]}, {"a": {"b": [10**400]}}, {"a": list(range(101))}], ids=range(5)
)
async def test_arguments_over_their_cap_go_back_to_the_model(args: dict[str, Any]) -> None:
    verdict = await SizeCaps(max_args_chars=100).check("tool_args", ToolCall("t", args, "c"), RUN)
    assert isinstance(verdict, Revise)
    assert "at most 100 characters" in verdict.feedback
    assert await SizeCaps(max_args_chars=100).check("tool_args", ToolCall("t", {"a": "x" * 90}, "c"), RUN) == Allow()


@pytest.mark.parametrize(
    "result", ["x" * 5000, {"rows": ["x" * 50] * 100}, b"x" * 5000, [[["x" * 5000]]]], ids=["text", "rows", "bytes", "nested"]
)
async def test_a_result_over_its_cap_is_cut(result: Any) -> None:
    call = ToolCall("t", {}, "c", result=result)
    verdict = await SizeCaps(max_result_chars=1000).check("tool_result", call, RUN)
    assert isinstance(verdict, Replace)
    assert isinstance(verdict.payload.result, str)
    assert len(verdict.payload.result) <= 1000
    assert "cut" in verdict.payload.result
    assert call.result is result
    assert (verdict.payload.tool_name, verdict.payload.call_id) == ("t", "c")


async def test_an_error_over_its_cap_is_cut() -> None:
    verdict = await SizeCaps(max_result_chars=100).check("tool_result", ToolCall("t", {}, "c", error="x" * 500), RUN)
    assert isinstance(verdict, Replace)
    assert len(verdict.payload.error) <= 100


async def test_a_hundred_megabytes_are_not_walked_through() -> None:
    endless: list[Any] = ["x"]
    endless.append(endless)  # a cycle: only a bounded look at it ends
    verdict = await SizeCaps(max_result_chars=1000).check("tool_result", ToolCall("t", {}, "c", result=endless), RUN)
    assert isinstance(verdict, Replace)


async def test_no_cap_is_none() -> None:
    caps = SizeCaps(max_input_chars=None, max_reply_chars=None, max_args_chars=None, max_result_chars=None)
    assert await caps.check("input", "x" * 10_000_000, RUN) == Allow()
    assert await caps.check("tool_result", ToolCall("t", {}, "c", result="x" * 10_000_000), RUN) == Allow()


@pytest.mark.parametrize("cap", [0, -1, 1.5, True, "10"])
def test_a_cap_that_cannot_be_meant_is_refused(cap: Any) -> None:
    with pytest.raises(ConfigError, match="max_input_chars"):
        default_rails(max_input_chars=cap)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "incomplete"])
async def test_the_calls_of_a_cut_reply_are_asked_for_again(reason: str) -> None:
    verdict = await CutReply().check("reply", reply("I will", tool_calls=CALLS, finish_reason=reason), RUN)
    assert isinstance(verdict, Revise)
    assert (verdict.keep_text, verdict.after, verdict.limit) == (False, "block", 1)


async def test_a_cut_text_is_continued_once_and_then_kept() -> None:
    verdict = await CutReply().check("reply", reply("The weather in", stop_reason="max_tokens"), RUN)
    assert isinstance(verdict, Revise)
    assert (verdict.keep_text, verdict.after, verdict.limit) == (True, "allow", 1)


@pytest.mark.parametrize("metadata", [{}, {"finish_reason": "stop"}, {"finish_reason": None}, {"finish_reason": 7}], ids=repr)
async def test_a_whole_reply_is_no_cut_reply(metadata: dict[str, Any]) -> None:
    assert await CutReply().check("reply", reply("done", **metadata), RUN) == Allow()


@pytest.mark.parametrize(
    ("message", "empty"),
    [
        (reply(""), True),
        (reply(" \n\t"), True),
        (reply(None), True),
        (reply(None, tool_calls=CALLS), False),
        (reply("x"), False),
        (reply("", tool_calls=CALLS), False),
        (reply("", tool_call=CALLS[0]), False),
    ],
)
async def test_an_empty_answer_is_asked_for_again(message: Message, empty: bool) -> None:
    verdict = await EmptyAnswer().check("reply", message, RUN)
    assert isinstance(verdict, Revise) == empty
    assert isinstance(verdict, Allow) != empty


def test_a_rail_of_a_class_that_names_no_stage_that_there_is_is_refused() -> None:
    """A misspelt stage in a class of one's own went unnoticed: the rail was never asked."""

    class Misspelt:
        name = "misspelt"
        stages = ("outptu",)

        async def check(self, stage: str, payload: Any, run: Any) -> Any: ...

    with pytest.raises(ConfigError, match=r"guardrail 'misspelt': 'outptu' is no stage\. Did you mean 'output'"):
        beside_defaults([Misspelt()])
