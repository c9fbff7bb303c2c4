"""What is shown while a turn runs."""

from __future__ import annotations

import io

import pytest

from agent_graph.cli import view
from agent_graph.events import Event, RunFinished, RunStarted, StepFinished, TextDelta, ToolFinished, ToolStarted
from agent_graph.types import AgentRun, ToolCall


def tool_call(call_id: str, **what: object) -> ToolCall:
    return ToolCall("weather", {"city": "Paris"}, call_id, **what)  # type: ignore[arg-type]  # forwards the fields


EVENTS: list[Event] = [
    RunStarted("r1", 1),
    StepFinished(1, 212, 0.0),
    ToolStarted(tool_call("c1"), 1),
    ToolFinished(tool_call("c1", result="18 °C", latency_ms=12.0), 1),
    TextDelta("It is 18 °C.", 2),
    StepFinished(2, 431, 0.0),
    RunFinished(AgentRun("r1", "?")),
]
LINES = [
    "run r1, turn 1",
    "step 1: 212 tokens so far",
    '  started   weather(city="Paris")',
    "  finished  weather in 12 ms: 18 °C",
    "step 2: 431 tokens so far",
]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO) -> str:
    with view.make_view(stream) as opened:
        for event in EVENTS:
            opened.show(event)
    return stream.getvalue()


def test_a_pipe_gets_plain_lines() -> None:
    assert shown(io.StringIO()).splitlines() == LINES


def test_a_terminal_gets_the_same_lines_and_a_line_at_the_foot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    text = shown(Terminal())
    assert [line for line in LINES if line not in text] == []
    assert "\x1b[?25l" in text, "the cursor is hidden while the foot is redrawn"
    assert text.rindex("\x1b[?25h") > text.rindex(LINES[-1]), "and shown again at the end"


def test_markup_in_a_result_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with view.make_view(stream) as opened:
        opened.show(ToolFinished(tool_call("c1", result="[bold red]x[/] [link=evil]y"), 1))
    assert "[bold red]x[/] [link=evil]y" in stream.getvalue()


@pytest.mark.parametrize(
    ("events", "said"),
    [
        pytest.param([], "asking the model", id="at first"),
        pytest.param([ToolStarted(tool_call("c1"), 1)], 'running weather(city="Paris")', id="a tool"),
        pytest.param(
            [ToolStarted(tool_call("c1"), 1), ToolStarted(tool_call("c2"), 1), ToolFinished(tool_call("c1"), 1)],
            'running weather(city="Paris")',
            id="one of two tools",
        ),
        pytest.param([ToolStarted(tool_call("c1"), 1), ToolFinished(tool_call("c1"), 1)], "asking the model", id="after it"),
        pytest.param([TextDelta("It is ", 1), TextDelta("18 °C", 1)], "It is 18 °C", id="text as it comes"),
        pytest.param([TextDelta("Let me see", 1), StepFinished(1, 9, 0.0)], "asking the model", id="the next step"),
    ],
)
def test_the_foot_says_what_is_going_on(events: list[Event], said: str) -> None:
    foot = view.Foot(clock=lambda: 100.0)
    for event in events:
        foot.note(event)
    assert foot.line() == f"{said} · 0.0 s"


def test_the_foot_counts_from_the_last_change() -> None:
    now = [100.0]
    foot = view.Foot(clock=lambda: now[0])
    now[0] = 103.0
    assert foot.line() == "asking the model · 3.0 s"
    foot.note(ToolStarted(tool_call("c1"), 1))
    now[0] = 104.5
    assert foot.line().endswith("· 1.5 s")
