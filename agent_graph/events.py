"""What `ProductionAgent.stream()` yields: one union of frozen events.

```python
async for event in agent.stream("What is the weather in Paris?"):
    match event:
        case TextDelta(text=text):
            print(text, end="")
        case RunFinished(run=run):
            print(run.status)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agent_graph.types import AgentRun, ToolCall

__all__ = ["Event", "GuardrailVerdict", "RunFinished", "RunStarted", "StepFinished", "TextDelta", "ToolFinished", "ToolStarted"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A turn has been taken: from here on it can be resumed under this run_id."""

    run_id: str
    turn: int
    """From 1."""
    resumed: bool = False
    """True where the turn had been begun before, by a process that died or a caller that stopped."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the model's text, in order."""

    text: str
    step: int
    """The step that the text belongs to, from 1."""
    provisional: bool = False
    """True where a guardrail may still block or replace this text (`hold_text=False`)."""
    restarts: bool = False
    """True where this step's text so far is void: the attempt that gave it failed, and another one begins. Its own text is empty."""


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool is about to run (a copy of the call: changing it changes nothing)."""

    call: ToolCall
    step: int


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool has finished, with `call.result` or `call.error` (a copy)."""

    call: ToolCall
    step: int


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A model reply has been used; its tool calls, if any, follow as ToolStarted and ToolFinished."""

    step: int
    total_tokens: int
    """Of the turn so far."""
    total_cost_usd: float
    """Of the turn so far, settled."""
    model: str = ""


@dataclass(frozen=True, slots=True)
class GuardrailVerdict:
    """A guardrail said something else than Allow."""

    guardrail: str
    stage: str
    """"input", "reply", "tool_args", "tool_result" or "output"."""
    verdict: str
    """"revise", "replace", "block" or "ask"."""
    reason: str
    step: int


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The turn has ended; always the last event."""

    run: AgentRun


Event: TypeAlias = RunStarted | TextDelta | ToolStarted | ToolFinished | StepFinished | GuardrailVerdict | RunFinished
