"""How amounts, times, calls and accounts are said."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_graph.cli import words
from agent_graph.events import (
    Event,
    GuardrailVerdict,
    RunFinished,
    RunStarted,
    StepFinished,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from agent_graph.storage.claims import GO_ON
from agent_graph.types import AgentRun, ToolCall

CALL = ToolCall("weather", {"city": "Paris", "days": 2}, "c1")


@pytest.mark.parametrize(
    ("usd", "unpriced", "uncertain", "said"),
    [
        pytest.param(0.0, True, 0, "unpriced", id="no price is not zero"),
        pytest.param(0.0, False, 0, "$0.00", id="a price and nothing spent"),
        pytest.param(0.002, False, 0, "$0.002", id="thousandths"),
        pytest.param(0.002, True, 0, "$0.002 (and calls without a price)", id="a fallback without a price"),
        pytest.param(1234.5, False, 0, "$1,234.50", id="thousands"),
        pytest.param(Decimal("0.0000127"), False, 0, "$0.000013", id="a millionth"),
        pytest.param(1e-9, False, 0, "less than $0.000001", id="never rounded to nothing"),
        pytest.param(0.01, False, 0.02, "$0.01 (and at most $0.02 more that is not known yet)", id="uncertain"),
    ],
)
def test_money(usd: float, unpriced: bool, uncertain: float, said: str) -> None:
    assert words.money(usd, unpriced=unpriced, uncertain_usd=uncertain) == said


@given(st.decimals(min_value=0, max_value=10_000, places=9))
def test_money_is_within_half_a_millionth(usd: Decimal) -> None:
    said = words.money(usd)
    if said == "less than $0.000001":
        assert 0 < usd < Decimal("0.000001")
    else:
        assert abs(Decimal(said.removeprefix("$").replace(",", "")) - usd) <= Decimal("0.0000005")


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(0.4, "0 ms"), (12.3, "12 ms"), (999.9, "1.0 s"), (1500, "1.5 s"), (59_990, "1 min 0 s"), (125_000, "2 min 5 s")],
)
def test_duration(milliseconds: float, said: str) -> None:
    assert words.duration(milliseconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "now"), (0.2, "now"), (59, "59 s"), (60, "1 min"), (7_199, "1 h"), (172_800, "2 d")],
)
def test_age(seconds: float, said: str) -> None:
    assert words.age(seconds) == said


@given(st.text())
def test_what_is_printed_holds_no_control_character(text: str) -> None:
    said = words.printable(text)
    assert len(said) == len(text)
    assert not [c for c in said if c not in "\n\t" and (ord(c) < 32 or 127 <= ord(c) < 160)]
    said.encode()


def test_an_escape_sequence_in_a_result_does_not_reach_the_terminal() -> None:
    call = ToolCall("fetch", {}, "c1", result="\x1b]0;gotcha\x07\x1b[2Jhello")
    assert words.event_line(ToolFinished(call, 1)) == "  finished  fetch in 0 ms: �]0;gotcha��[2Jhello"


@given(st.text(), st.integers(1, 100))
def test_one_line_is_one_line_and_not_longer(text: str, width: int) -> None:
    line = words.one_line(text, width)
    assert len(line) <= width
    assert "\n" not in line


def test_a_huge_text_is_cut_without_reading_it_all() -> None:
    assert words.one_line("x" * 10_000_000, 10) == "xxxxxxxxx…"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"city": "Paris", "days": 2}, 'weather(city="Paris", days=2)'),
        ({}, "weather()"),
        ("not a mapping", 'weather("not a mapping")'),
    ],
)
def test_a_call_reads_like_python(args: object, said: str) -> None:
    assert words.call_text(ToolCall("weather", args, "c1")) == said  # type: ignore[arg-type]  # a backend may do that


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (RunStarted("r1", 2), "run r1, turn 2"),
        (RunStarted("r1", 2, resumed=True), "run r1, turn 2, resumed where it was"),
        (StepFinished(1, 1204, 0.0), "step 1: 1,204 tokens so far"),
        (StepFinished(2, 1204, 0.002), "step 2: 1,204 tokens so far, $0.002"),
        (ToolStarted(CALL, 1), '  started   weather(city="Paris", days=2)'),
        (
            ToolFinished(ToolCall("weather", {}, "c", result="18 °C\nrain", latency_ms=12), 1),
            "  finished  weather in 12 ms: 18 °C rain",
        ),
        (
            ToolFinished(ToolCall("weather", {}, "c", error="no such city"), 1),
            "  finished  weather in 0 ms: failed: no such city",
        ),
        (
            GuardrailVerdict("pii", "output", "block", "a card number", 1),
            "guardrail pii on output: block: a card number",
        ),
        (TextDelta("The", 1), None),
        (RunFinished(AgentRun("r1", "?")), None),
    ],
)
def test_event_lines(event: Event, line: str | None) -> None:
    assert words.event_line(event) == line


def test_the_account_says_all_that_should_be_known() -> None:
    run = AgentRun(
        "r1",
        "?",
        steps=2,
        tool_calls=[CALL],
        total_tokens=1204,
        total_cost_usd=0.002,
        latency_ms=1500,
        status="failed",
        error="max_steps: 2 of 2",
        landed="max_steps",
        warnings=["the memory was not saved"],
    )
    assert words.account(run, unpriced=False, status="stopped")[0].startswith("stopped: ")
    assert words.account(run, unpriced=False) == [
        "failed: 2 steps, 1 tool call, 1,204 tokens, $0.002, 1.5 s",
        "error: max_steps: 2 of 2",
        "landed: max_steps was near, so the last call was made without tools",
        "warning: the memory was not saved",
    ]


@pytest.mark.parametrize(
    ("run_id", "options", "line"),
    [
        ("r1", [], "agent-graph show r1"),
        ("my run", ["--storage", "a b.db"], "agent-graph show --storage 'a b.db' 'my run'"),
        ("-x", [], "agent-graph show -- -x"),
    ],
)
def test_the_command_to_type_is_quoted_for_a_shell(run_id: str, options: list[str], line: str) -> None:
    assert words.command_line("show", run_id, options) == line


def test_columns_line_up() -> None:
    assert words.table([["RUN", "STATUS", "INPUT"], ["r1", "complete", "x"]]) == [
        "RUN  STATUS    INPUT",
        "r1   complete  x",
    ]


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("Resume it with force=True to go on all the same.", "Resume it with --force to go on all the same."),
        ("max_cost_usd: -1 is negative. Use None for no limit.", '--max-cost-usd: -1 is negative. "none" is no limit.'),
        ("add_budget: 'max_stps' is no limit.", "--add-budget: 'max_stps' is no limit."),
        ("tools: 3 is no tool", "--tools: 3 is no tool"),
        ("older_than: 2999-01-01 lies in the future", "--older-than: 2999-01-01 lies in the future"),
        ("run 'r': add_budget cannot continue turn 1", "run 'r': --add-budget cannot continue turn 1"),
        (f"turn 1 is unfinished. {GO_ON}", "turn 1 is unfinished. Resume it, or take another --run-id."),
        ("The model 'x' names no known provider.", "The model 'x' names no known provider."),
    ],
)
def test_an_error_says_what_to_type(python: str, typed: str) -> None:
    assert words.as_typed(python) == typed
