"""The guardrails that are off until asked for: what they do with a find, and where they look."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from agent_graph.decisions.results import make_storable
from agent_graph.errors import ConfigError
from agent_graph.guardrails import Allow, AllowDeny, Ask, Block, PiiRail, Replace, Revise, SecretsRail, judge
from agent_graph.guardrails.detectors import Detector
from agent_graph.types import AgentRun, Message, MessageRole, ToolCall

RUN = AgentRun("run_001", "question")
KEY = "AKIA" + "IOSFODNN7EXAMPLE"
MAIL = "ada@example.com"


@pytest.mark.parametrize(
    ("stage", "payload", "expected"),
    [
        ("input", f"I am {MAIL}", "I am [email]"),
        ("output", f"{MAIL}, {MAIL}", "[email], [email]"),
        ("reply", Message(MessageRole.ASSISTANT, MAIL, {"a": 1}), Message(MessageRole.ASSISTANT, "[email]", {"a": 1})),
        ("tool_args", ToolCall("t", {"to": [MAIL], MAIL: 1}, "c"), ToolCall("t", {"to": ["[email]"], "[email]": 1}, "c")),
        ("tool_result", ToolCall("t", {}, "c", result={"a": (MAIL, 1)}), ToolCall("t", {}, "c", result={"a": ("[email]", 1)})),
        ("tool_result", ToolCall("t", {}, "c", error=f"no {MAIL}"), ToolCall("t", {}, "c", error="no [email]")),
        ("tool_result", ToolCall("t", {}, "c", result=4111111111111111), ToolCall("t", {}, "c", result="[credit_card]")),
    ],
    ids=["input", "output", "reply", "args", "result", "error", "number"],
)
async def test_a_find_is_redacted_wherever_the_text_is(stage: str, payload: Any, expected: Any) -> None:
    before = dataclasses.replace(payload) if not isinstance(payload, str) else payload
    verdict = await PiiRail(stages=[stage]).check(stage, payload, RUN)
    assert isinstance(verdict, Replace)
    assert verdict.payload == expected
    assert payload == before
    assert MAIL not in verdict.reason
    assert "email" in verdict.reason or "credit_card" in verdict.reason


async def test_a_clean_payload_is_allowed_as_it_is() -> None:
    result = {"a": [1, 2.5, None, True, ("x",), float("nan"), object()]}
    assert await SecretsRail().check("tool_result", ToolCall("t", {}, "c", result=result), RUN) == Allow()


async def test_an_object_is_looked_into_and_replaced_by_its_plain_form_only_on_a_find() -> None:
    @dataclasses.dataclass
    class Row:
        mail: str

    assert await PiiRail(stages=["tool_result"]).check("tool_result", ToolCall("t", {}, "c", result=Row("none")), RUN) == Allow()
    verdict = await PiiRail(stages=["tool_result"]).check("tool_result", ToolCall("t", {}, "c", result=[Row(MAIL)]), RUN)
    assert isinstance(verdict, Replace)
    assert verdict.payload.result == [{"mail": "[email]"}]


async def test_deep_and_circular_results_are_looked_into() -> None:
    def nested(depth: int) -> Any:
        deep: Any = MAIL
        for _ in range(depth):
            deep = [deep]
        return deep

    circular: list[Any] = [MAIL]
    circular.append(circular)
    rail = PiiRail(stages=["tool_result"])
    for result in (nested(60), circular):
        found = await rail.check("tool_result", ToolCall("t", {}, "c", result=result), RUN)
        assert isinstance(found, Replace)
        assert MAIL not in make_storable(found.payload.result).text
    assert MAIL not in make_storable(nested(5_000)).text, "what is deeper than the rail looks is not given to the model either"
    assert await rail.check("tool_result", ToolCall("t", {}, "c", result=nested(5_000)), RUN) == Allow()


@pytest.mark.parametrize(("action", "kind"), [("block", Block), ("ask", Ask), ("revise", Revise)])
async def test_other_actions_name_kinds_and_counts_and_never_the_text(action: Any, kind: type) -> None:
    verdict = await SecretsRail(action=action).check("output", f"{KEY} {KEY}", RUN)
    assert isinstance(verdict, kind)
    said = verdict.feedback if isinstance(verdict, Revise) else verdict.reason  # type: ignore[union-attr]  # one of three
    assert said.startswith("secrets: 2 aws_key in the output")
    assert KEY not in said


async def test_kinds_can_be_chosen_and_added() -> None:
    import re

    staff = Detector(kind="staff_id", pattern=re.compile(r"\bE-\d{6}\b"), hints=("E-",))
    rail = PiiRail(kinds=["iban"], extra=[staff])
    verdict = await rail.check("output", f"{MAIL} is E-123456", RUN)
    assert isinstance(verdict, Replace)
    assert verdict.payload == f"{MAIL} is [staff_id]"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: PiiRail(kinds=["emial"]), "unknown kind 'emial'"),
        (lambda: PiiRail(action="delete"), "action 'delete'"),  # type: ignore[arg-type]  # that it is wrong is what is tested
        (lambda: SecretsRail(stages=["everywhere"]), "'everywhere' is no stage"),
        (AllowDeny, "at least one pattern"),
        (lambda: AllowDeny(deny=["("]), "does not compile"),
        (lambda: AllowDeny(deny=["a"], action="redact"), "action 'redact'"),  # type: ignore[arg-type]  # that it is wrong is what is tested
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()


@pytest.mark.parametrize(("stages", "changes"), [(["output"], True), (["reply"], True), (["tool_result", "tool_args"], False)])
def test_only_rails_on_what_the_model_writes_hold_its_text(stages: list[str], changes: bool) -> None:
    assert PiiRail(stages=stages).changes_text is changes
    assert AllowDeny(deny=["a"], stages=stages).changes_text is changes


@pytest.mark.parametrize(
    ("text", "passes"),
    [("a refund of 5", False), ("all good", True), ("A REFUND", True)],
)
async def test_deny(text: str, passes: bool) -> None:
    verdict = await AllowDeny(deny=[r"\brefund\b"]).check("output", text, RUN)
    assert verdict == (Allow() if passes else Block(r"allow_deny: the output matches the denied pattern '\\brefund\\b'"))


@pytest.mark.parametrize(
    ("url", "passes"), [("https://example.com/a", True), ("https://evil.com/", False), ("https://example.com/private", False)]
)
async def test_allow_lets_only_what_matches_pass_and_deny_wins(url: str, passes: bool) -> None:
    rail = AllowDeny(allow=[r"^https://example\.com/"], deny=["private"], stages=["tool_args"], tools=["fetch"])
    judgement = await judge([rail], "tool_args", ToolCall("fetch", {"url": url, "times": 3}, "c"), RUN)
    assert isinstance(judgement.decisive, Block) is not passes


async def test_a_list_for_some_tools_leaves_the_others_alone() -> None:
    rail = AllowDeny(deny=["."], stages=["tool_args"], tools=["fetch"])
    assert await rail.check("tool_args", ToolCall("other", {"a": "b"}, "c"), RUN) == Allow()
