"""Every edge that a decision takes, one row each."""

from __future__ import annotations

from typing import Any

import pytest

from agent_graph.decisions.routing import after_reply, before_model

PLAIN: dict[str, Any] = {"stop": None, "landing": None, "landing_known": False, "compress": False}


@pytest.mark.parametrize(
    ("what", "goto"),
    [
        ({}, "call_model"),
        ({"stop": "max_steps: 2 of 2"}, "check_budget"),
        ({"stop": "max_steps: 2 of 2", "compress": True}, "check_budget"),
        ({"compress": True}, "compress"),
        ({"compress": True, "landing": "max_steps"}, "compress"),
        ({"landing": "max_steps"}, "check_budget"),
        ({"landing": "max_steps", "landing_known": True}, "call_model"),
        ({"landing": "max_steps", "landing_known": True, "stop": "max_cost_usd: 1 of 1"}, "check_budget"),
    ],
    ids=str,
)
def test_before_the_model(what: dict[str, Any], goto: str) -> None:
    assert before_model(**{**PLAIN, **what}) == goto


@pytest.mark.parametrize(
    ("allowed", "calls", "landing", "goto"),
    [
        (False, 0, False, "guard"),
        (False, 2, True, "guard"),
        (True, 0, False, "finish"),
        (True, 2, False, "run_tool"),
        (True, 2, True, "finish"),
        (True, 0, True, "finish"),
    ],
)
def test_after_a_reply(allowed: bool, calls: int, landing: bool, goto: str) -> None:
    assert after_reply(allowed=allowed, calls=calls, landing=landing) == goto
