"""The strategies draw what their docstrings promise, and do draw the interesting cases."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import find, given

from agent_graph.config import validate_run_id
from agent_graph.testing import strategies
from agent_graph.types import Message, MessageRole, ToolCall


@given(strategies.json_values())
def test_json_values_are_strict_json(value: Any) -> None:
    assert json.loads(json.dumps(value, allow_nan=False)) == value


@given(strategies.run_ids())
def test_run_ids_are_valid(run_id: str) -> None:
    assert validate_run_id(run_id) == run_id


@given(strategies.usages())
def test_usages_add_up(usage: dict[str, Any]) -> None:
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert sum(usage["input_token_details"].values()) <= usage["input_tokens"]
    assert usage["output_token_details"]["reasoning"] <= usage["output_tokens"]


@given(strategies.conversations())
def test_each_call_is_answered_directly_in_order_under_an_id_of_its_own(messages: list[Message]) -> None:
    due: list[str] = []
    seen: set[str] = set()
    for message in messages:
        if message.role is MessageRole.TOOL:
            assert due.pop(0) == message.metadata["tool_call_id"]
            continue
        assert due == []
        due = [call["id"] for call in message.metadata.get("tool_calls", ())]
        assert seen.isdisjoint(due)
        seen.update(due)
    assert due == []


@given(strategies.tool_calls())
def test_tool_calls_can_be_written(call: ToolCall) -> None:
    assert json.dumps([call.args, call.result], allow_nan=False)


def test_conversations_with_several_calls_in_one_reply_are_drawn() -> None:
    found = find(strategies.conversations(), lambda messages: any(len(m.metadata.get("tool_calls", ())) > 1 for m in messages))
    assert sum(m.role is MessageRole.TOOL for m in found) >= 2
