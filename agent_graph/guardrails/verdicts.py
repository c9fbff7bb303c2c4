"""What a guardrail is, and what it may say.

A guardrail looks at one thing at one of five stages and answers with a verdict:

| stage | payload | when |
|---|---|---|
| `input` | str | before the first model call of a turn |
| `reply` | Message | after each model reply, before anything of it is used or shown |
| `tool_args` | ToolCall, without result | before the call runs |
| `tool_result` | ToolCall, with result or error | before the model, or anybody else, reads the result |
| `output` | str | before the answer leaves |

A guardrail never changes its payload in place: to change something it returns `Replace` with a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from agent_graph.types import AgentRun

__all__ = ["STAGES", "Allow", "Ask", "Block", "Guardrail", "Replace", "Revise", "Stage", "Verdict"]

Stage: TypeAlias = Literal["input", "reply", "tool_args", "tool_result", "output"]

STAGES: tuple[Stage, ...] = ("input", "reply", "tool_args", "tool_result", "output")
"""All stages, in the order in which a turn meets them."""


@dataclass(frozen=True, slots=True)
class Allow:
    """Go on, nothing changes."""


@dataclass(frozen=True, slots=True)
class Revise:
    """The model is told `feedback` and tries again. At `tool_args` the call does not run and the feedback is its result."""

    feedback: str
    """Written to the model: what is wrong, and what would be right."""
    limit: int = 1
    """How often this guardrail may ask for a revision within one turn, from 1."""
    after: Literal["block", "allow"] = "block"
    """What the verdict counts as once `limit` is used up: a Block with the feedback as its reason, or an Allow with a warning."""
    keep_text: bool = False
    """True: what the model writes next continues the text of this reply, instead of replacing it."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Go on with `payload` instead; the guardrails after this one see it."""

    payload: Any
    """Of the stage's own type."""
    reason: str = ""
    """Why, in plain words; never the text that was taken out."""


@dataclass(frozen=True, slots=True)
class Block:
    """This goes no further: a tool call does not run, a result is withheld from the model, a turn fails with `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A person decides: the turn waits until `agent.resolve(...)` approves, edits, rejects or responds."""

    reason: str


Verdict: TypeAlias = Allow | Revise | Replace | Block | Ask
"""What a guardrail says."""


class Guardrail(Protocol):
    """Looks at a payload and says whether it may pass. One object may be asked by many runs at once.

    Only `name` and `check` are needed. These attributes are read where a guardrail has them:

    | attribute | default | meaning |
    |---|---|---|
    | `stages: Collection[str]` | all five | the stages it is asked at |
    | `pure: bool` | False | it computes and never waits: it is asked on the spot, without a timeout |
    | `timeout_s: float` | 10 | seconds until an answer counts as failed |
    | `fail_open: bool` | False | whether a failure of the guardrail itself lets the payload pass (else it blocks) |
    | `changes_text: bool` | True | whether it may hold up or change what the model writes: streamed text waits for its verdict |
    | `for_tools(tools)` | – | returns the guardrail to use with these tools (`ToolSpec`s); called once, by the agent's constructor |
    """

    @property
    def name(self) -> str:
        """Who speaks, in events, traces and errors."""
        ...

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return the verdict on `payload`. `run` is the turn so far; it is not to be changed."""
        ...
