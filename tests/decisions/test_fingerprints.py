"""How a resume with other tools says what is other."""

from __future__ import annotations

from typing import Any

import pytest

from agent_graph.decisions.fingerprints import difference, of_tools
from agent_graph.decisions.tools import read_tools


def line(*tools: dict[str, Any]) -> str:
    specs = read_tools(list(tools))
    marks = {spec.name: spec.idempotent is not False for spec in specs}
    return of_tools(specs, marks.__getitem__)


LOOK: dict[str, Any] = {"name": "look", "idempotent": True}
PAY: dict[str, Any] = {"name": "pay", "idempotent": False, "parameters": {"amount": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ([LOOK], [LOOK, PAY], "added: pay"),
        ([LOOK, PAY], [LOOK], "removed: pay"),
        ([LOOK], [PAY], "added: pay; removed: look"),
        ([], [LOOK, PAY], "added: look, pay"),
        ([PAY], [{**PAY, "parameters": {"amount": {"type": "number"}}}], "changed: pay (its parameters)"),
        ([PAY], [{**PAY, "idempotent": True}], "changed: pay (a call may be repeated now, which it could not)"),
        (
            [LOOK], [{**LOOK, "idempotent": False, "parameters": {"x": {}}}],
            "changed: look (its parameters, a call may not be repeated any more)",
        ),
    ],
)  # fmt: skip
def test_the_difference_is_named(before: list[Any], now: list[Any], said: str) -> None:
    assert line(*before) != line(*now)
    assert difference(line(*before), line(*now)) == said


def test_order_and_descriptions_make_no_difference() -> None:
    assert line(LOOK, PAY) == line(PAY, {**LOOK, "description": "Look around."})


@pytest.mark.parametrize("strange", ["", "b1946ac92492d234", "[1]", '{"look": 1}', '{"look": [1]}', "null"])
def test_a_line_that_cannot_be_read_is_shown_as_it_is(strange: str) -> None:
    assert difference(strange, line(LOOK)) == f"fingerprint {strange}, now {line(LOOK)}"
