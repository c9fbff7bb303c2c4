"""How guardrails are asked, and what their answers add up to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_graph.errors import ConfigError
from agent_graph.guardrails import (
    STAGES,
    Allow,
    Ask,
    Block,
    Finding,
    FunctionRail,
    Replace,
    Revise,
    for_tools,
    guardrail,
    judge,
    stages_of,
)
from agent_graph.types import AgentRun, Message, MessageRole, ToolCall

RUN = AgentRun("run_001", "question")


def says(verdict: Any, name: str = "rail", **attributes: Any) -> FunctionRail:
    """Return a rail that always says `verdict`, or raises it."""

    async def check(stage: str, payload: Any, run: AgentRun) -> Any:
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict(payload) if callable(verdict) else verdict

    return guardrail(name=name, **attributes)(check)


async def hangs(stage: str, payload: Any, run: AgentRun) -> Any:
    await asyncio.sleep(60)


async def test_what_every_rail_allows_passes_as_it_is() -> None:
    payload = Message(MessageRole.ASSISTANT, "hi")
    judgement = await judge([says(Allow()), says(Allow())], "reply", payload, RUN)
    assert judgement.payload is payload
    assert (judgement.findings, judgement.decisive) == ((), None)


async def test_a_replacement_feeds_the_next_rail() -> None:
    rails = [says(lambda p: Replace(p + "a", "added a"), "one"), says(lambda p: Replace(p + "b"), "two")]
    judgement = await judge(rails, "output", "x", RUN)
    assert (judgement.payload, judgement.decisive) == ("xab", None)
    assert [(f.rail, f.stage, f.reason) for f in judgement.findings] == [("one", "output", "added a"), ("two", "output", "replace")]


@pytest.mark.parametrize("decisive", [Block("no"), Ask("who?"), Revise("again")], ids=lambda v: type(v).__name__)
async def test_the_first_block_ask_or_revise_decides_and_ends_the_questioning(decisive: Any) -> None:
    asked: list[str] = []
    rails = [says(Allow(), "one"), says(decisive, "two"), says(asked.append, "three")]
    judgement = await judge(rails, "output", "x", RUN)
    assert judgement.decisive is decisive
    assert [f.rail for f in judgement.findings] == ["two"]
    assert asked == []


async def test_rails_are_asked_at_their_stages_only() -> None:
    rails = [says(Block("no"), stages=["input"]), says(Block("yes"), "two", stages=["output"])]
    assert (await judge(rails, "output", "x", RUN)).decisive == Block("yes")
    assert stages_of(rails[0]) == {"input"}


@pytest.mark.parametrize("stage", STAGES)
async def test_a_bare_rail_is_asked_at_every_stage(stage: str) -> None:
    class Bare:
        name = "bare"

        async def check(self, stage: str, payload: Any, run: AgentRun) -> Block:
            return Block(stage)

    assert (await judge([Bare()], stage, "x", RUN)).decisive == Block(stage)


async def test_a_plain_function_in_place_of_a_coroutine_function_will_do() -> None:
    class Plain:
        name = "plain"

        def check(self, stage: str, payload: Any, run: AgentRun) -> Block:
            return Block("plain")

    rail: Any = Plain()
    assert (await judge([rail], "input", "x", RUN)).decisive == Block("plain")


FAILURES = {
    "an exception": (ValueError("broken"), "ValueError: broken"),
    "a timeout of its own": (TimeoutError("slow database"), "TimeoutError: slow database"),
    "no verdict": (None, "ContractError: rail.check returned NoneType; Allow, Revise, Replace, Block or Ask was due"),
    "a bool": (True, "ContractError: rail.check returned bool; Allow, Revise, Replace, Block or Ask was due"),
    "a wrong replacement": (Replace(5), "ContractError: rail.check replaced the output by int; str was due"),
}


@pytest.mark.parametrize("pure", [True, False], ids=["pure", "waiting"])
@pytest.mark.parametrize(("answer", "said"), FAILURES.values(), ids=FAILURES)
async def test_a_rail_that_fails_blocks_and_says_why(answer: Any, said: str, pure: bool) -> None:
    judgement = await judge([says(answer, pure=pure)], "output", "x", RUN)
    reason = f"guardrail 'rail' failed: {said}"
    assert judgement.decisive == Block(reason)
    assert judgement.findings == (Finding("rail", "output", Block(reason), reason),)


@pytest.mark.parametrize(("answer", "said"), FAILURES.values(), ids=FAILURES)
async def test_a_rail_that_fails_open_lets_pass_and_says_why(answer: Any, said: str) -> None:
    judgement = await judge([says(answer, fail_open=True), says(Replace("y"), "next")], "output", "x", RUN)
    assert (judgement.payload, judgement.decisive) == ("y", None)
    assert judgement.findings[0] == Finding("rail", "output", Allow(), f"guardrail 'rail' failed: {said}")


@pytest.mark.parametrize(("stage", "due"), [("reply", "Message"), ("tool_args", "ToolCall"), ("tool_result", "ToolCall"), ("input", "str")])
async def test_a_replacement_is_of_the_stages_own_kind(stage: str, due: str) -> None:
    payload = {"reply": Message(MessageRole.ASSISTANT, ""), "input": ""}.get(stage, ToolCall("t", {}, "c"))
    good, bad = await judge([says(Replace(payload))], stage, payload, RUN), await judge([says(Replace(5))], stage, payload, RUN)
    assert good.decisive is None
    assert isinstance(bad.decisive, Block)
    assert f"{due} was due" in bad.decisive.reason


async def test_a_rail_that_hangs_is_cut_off_at_its_timeout() -> None:
    judgement = await judge([guardrail(timeout_s=0.02)(hangs)], "output", "x", RUN)
    assert judgement.decisive == Block("guardrail 'hangs' failed: TimeoutError: no verdict within 0.02 s")


async def test_no_rail_waits_longer_than_there_is_time_left() -> None:
    begun = asyncio.get_running_loop().time()
    judgement = await judge([guardrail(hangs)], "output", "x", RUN, time_left_s=0.02)
    assert asyncio.get_running_loop().time() - begun < 5
    assert judgement.decisive == Block("guardrail 'hangs' failed: TimeoutError: no verdict in the time that was left")


async def test_cancellation_passes_through() -> None:
    asked = asyncio.ensure_future(judge([guardrail(fail_open=True)(hangs)], "output", "x", RUN))
    await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_the_decorator_makes_a_rail_of_a_function() -> None:
    @guardrail
    async def polite(stage: str, payload: Any, run: AgentRun) -> Any:
        return Block(f"{run.run_id}: {stage}: {payload}")

    assert (polite.name, set(polite.stages), polite.pure, polite.fail_open, polite.timeout_s) == ("polite", set(STAGES), False, False, 10.0)
    assert await polite.check("output", "x", RUN) == Block("run_001: output: x")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stages": ["outptu"]}, r"'outptu' is no stage\. Did you mean 'output'\?"),
        ({"stages": []}, "stages is empty"),
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"timeout_s": float("nan")}, "timeout_s"),
    ],
)
def test_a_rail_that_could_never_be_asked_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        guardrail(**options)(hangs)


def test_rails_that_want_to_know_the_tools_are_told() -> None:
    class Curious:
        name = "curious"
        tools: Any = ()

        def for_tools(self, tools: Any) -> Curious:
            told = Curious()
            told.tools = tools
            return told

        async def check(self, stage: str, payload: Any, run: AgentRun) -> Allow:
            return Allow()

    plain = says(Allow())
    kept, told = for_tools([plain, Curious()], ["t"])
    assert kept is plain
    assert told.tools == ["t"]  # type: ignore[attr-defined]  # the class above
