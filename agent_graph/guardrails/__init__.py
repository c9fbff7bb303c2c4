"""Guardrails: verdicts, the protocol, how they are asked, and the built-in ones. See docs/guardrails.md.

On unless others are given: `default_rails()`. Off until asked for: `PiiRail`, `SecretsRail`, `InjectionHeuristics`, `AllowDeny`.
Your own: an object with `name` and `check`, or an async function under `@guardrail`.
"""

from __future__ import annotations

from agent_graph.guardrails.defaults import CutReply, EmptyAnswer, SizeCaps, beside_defaults, default_rails
from agent_graph.guardrails.injection import InjectionHeuristics, watching
from agent_graph.guardrails.judging import Finding, FunctionRail, Judgement, by_stage, for_tools, guardrail, judge, stages_of
from agent_graph.guardrails.optional import AllowDeny, PiiRail, SecretsRail
from agent_graph.guardrails.redaction import Redactor, secrets_of
from agent_graph.guardrails.verdicts import STAGES, Allow, Ask, Block, Guardrail, Replace, Revise, Stage, Verdict

__all__ = [
    "STAGES",
    "Allow",
    "AllowDeny",
    "Ask",
    "Block",
    "CutReply",
    "EmptyAnswer",
    "Finding",
    "FunctionRail",
    "Guardrail",
    "InjectionHeuristics",
    "Judgement",
    "PiiRail",
    "Redactor",
    "Replace",
    "Revise",
    "SecretsRail",
    "SizeCaps",
    "Stage",
    "Verdict",
    "beside_defaults",
    "by_stage",
    "default_rails",
    "for_tools",
    "guardrail",
    "judge",
    "secrets_of",
    "stages_of",
    "watching",
]
