"""The rail behind `response_format=`: an answer that is not the object that was asked for goes back to the model, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent_graph.decisions.structured import AnswerFormat, Misfit
from agent_graph.guardrails.verdicts import Allow, Revise, Verdict
from agent_graph.types import AgentRun

__all__ = ["FormatRail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatRail:
    """Checks the answer against the format; after `limit` revisions one that still does not fit fails the turn."""

    format: AnswerFormat
    limit: int = 2
    name: str = "response_format"
    stages: frozenset[str] = field(default=frozenset({"output"}), init=False)
    pure: bool = field(default=True, init=False)
    changes_text: bool = field(default=False, init=False)

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return Allow for an answer that fits."""
        value = self.format.read(payload)
        if not isinstance(value, Misfit):
            return Allow()
        return Revise(
            f"Your answer does not fit the format that was asked for: {value.reason}. Send the whole value again.", limit=self.limit
        )
