"""Asking guardrails, in order, and summing up what they said.

How it works
    The guardrails of a stage are asked one after the other. A Replace feeds the next one; the first Block, Ask or Revise ends
    the questioning and decides.

What must stay true
    1. A guardrail that fails blocks: an exception, a timeout, an answer that is no verdict, a replacement of the wrong kind.
       `fail_open=True` turns this round for one guardrail, and the failure is still among the findings.
    2. Cancellation passes through; it is never a verdict.
    3. A finding never holds the payload's text: reasons end up in logs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from types import CoroutineType
from typing import Any, overload

from agent_graph.errors import ConfigError, ContractError, describe, did_you_mean
from agent_graph.guardrails.verdicts import STAGES, Allow, Ask, Block, Guardrail, Replace, Revise, Verdict
from agent_graph.types import AgentRun

__all__ = ["Finding", "FunctionRail", "Judgement", "by_stage", "check_stages", "for_tools", "guardrail", "judge", "stages_of"]

DEFAULT_TIMEOUT_S = 10.0
_DECISIVE = (Block, Ask, Revise)
_VERDICTS = (Allow, Replace, *_DECISIVE)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one guardrail said, where it was not a plain Allow."""

    rail: str
    stage: str
    verdict: Verdict
    """An Allow here is a guardrail that failed open."""
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the guardrails of a stage said together."""

    payload: Any
    """The payload to go on with, after every Replace."""
    findings: tuple[Finding, ...] = ()
    """In the order in which the guardrails were asked."""
    decisive: Verdict | None = None
    """The Block, Ask or Revise that ended the questioning; it is the last finding's. None: the payload passes."""


def stages_of(rail: Guardrail) -> Collection[str]:
    """Return the stages at which `rail` is asked."""
    return getattr(rail, "stages", STAGES)


def check_stages(name: str, stages: Collection[str]) -> None:
    """Raise ConfigError for a stage that there is not: a guardrail would never be asked there, and nobody would know."""
    for stage in [stages] if isinstance(stages, str) else stages:
        if stage not in STAGES:
            raise ConfigError(f"guardrail {name!r}: {stage!r} is no stage.{did_you_mean(stage, STAGES)} Stages: {', '.join(STAGES)}.")


def by_stage(rails: Sequence[Guardrail]) -> Mapping[str, tuple[Guardrail, ...]]:
    """Return for each stage the guardrails that are asked there, in order."""
    return {stage: tuple(rail for rail in rails if stage in stages_of(rail)) for stage in STAGES}


def for_tools(rails: Sequence[Guardrail], tools: Sequence[Any]) -> tuple[Guardrail, ...]:
    """Return `rails`, each told of the agent's tools where it wants to know (`for_tools`)."""
    told = (getattr(rail, "for_tools", None) for rail in rails)
    return tuple(rail if tell is None else tell(tools) for rail, tell in zip(rails, told, strict=True))


async def judge(rails: Iterable[Guardrail], stage: str, payload: Any, run: AgentRun, *, time_left_s: float | None = None) -> Judgement:
    """Return what `rails` say of `payload` at `stage`.

    `time_left_s`: seconds that the whole questioning may take at most; each guardrail gets the smaller of this and its own timeout.
    """
    findings: list[Finding] = []
    deadline = None if time_left_s is None else asyncio.get_running_loop().time() + time_left_s
    for rail in rails:
        if stage not in stages_of(rail):
            continue
        try:
            said: Any = rail.check(stage, payload, run)
            if not getattr(rail, "pure", False):
                said = _in_time(rail, said, deadline)
            verdict = await (said if isinstance(said, CoroutineType) else _answer(said))
            _insist(rail, stage, verdict)
            reason = _reason(verdict)
        except Exception as error:  # noqa: BLE001  a guardrail is foreign code, and its failure is a verdict (1)
            reason = f"guardrail {rail.name!r} failed: {describe(error)}"
            verdict = Allow() if getattr(rail, "fail_open", False) else Block(reason)
        if isinstance(verdict, Replace):
            payload = verdict.payload
        if reason:
            findings.append(Finding(rail.name, stage, verdict, reason))
        if isinstance(verdict, _DECISIVE):
            return Judgement(payload, tuple(findings), verdict)
    return Judgement(payload, tuple(findings))


async def _answer(said: Awaitable[Verdict] | Verdict) -> Verdict:
    """Return the verdict whether `check` was written as a coroutine function or, against the protocol, as a plain one."""
    return await said if isawaitable(said) else said


async def _in_time(rail: Guardrail, said: Awaitable[Verdict], deadline: float | None) -> Verdict:
    timeout_s = float(getattr(rail, "timeout_s", DEFAULT_TIMEOUT_S))
    limit = asyncio.get_running_loop().time() + timeout_s
    expiry = asyncio.timeout_at(limit if deadline is None else min(limit, deadline))
    try:
        async with expiry:
            return await _answer(said)
    except TimeoutError as error:
        if not expiry.expired():
            raise
        within = f"within {timeout_s:g} s" if deadline is None or limit <= deadline else "in the time that was left"
        raise TimeoutError(f"no verdict {within}") from error


def _insist(rail: Guardrail, stage: str, verdict: object) -> None:
    if not isinstance(verdict, _VERDICTS):
        raise ContractError(f"{rail.name}.check returned {type(verdict).__name__}; Allow, Revise, Replace, Block or Ask was due")
    if isinstance(verdict, Replace) and not _fits(stage, verdict.payload):
        due = {"input": "str", "output": "str", "reply": "Message"}.get(stage, "ToolCall")
        raise ContractError(f"{rail.name}.check replaced the {stage} by {type(verdict.payload).__name__}; {due} was due")


def _fits(stage: str, payload: object) -> bool:
    if stage in ("input", "output"):
        return isinstance(payload, str)
    needed = ("role", "content", "metadata") if stage == "reply" else ("tool_name", "args", "call_id", "result", "error")
    return all(hasattr(payload, attribute) for attribute in needed)


def _reason(verdict: Verdict) -> str:
    """Return why; "" for an Allow only."""
    match verdict:
        case Allow():
            return ""
        case Revise(feedback=reason) | Replace(reason=reason) | Block(reason=reason) | Ask(reason=reason):
            return reason or type(verdict).__name__.lower()


Check = Callable[[str, Any, AgentRun], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRail:
    """A guardrail made of an async function; `@guardrail` makes one."""

    function: Check
    name: str
    stages: Collection[str] = STAGES
    pure: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S
    fail_open: bool = False
    changes_text: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.timeout_s, bool) or not isinstance(self.timeout_s, int | float):
            raise ConfigError(f"guardrail {self.name!r}: timeout_s: a number of seconds is due, not {self.timeout_s!r}.")
        check_stages(self.name, self.stages)
        if not self.stages:
            raise ConfigError(f"guardrail {self.name!r}: stages is empty, so it would never be asked. Stages: {', '.join(STAGES)}.")
        if not self.timeout_s > 0:
            raise ConfigError(f"guardrail {self.name!r}: timeout_s must be above 0, not {self.timeout_s!r}.")

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return what the function says."""
        return await _answer(self.function(stage, payload, run))


@overload
def guardrail(function: Check, /) -> FunctionRail: ...
@overload
def guardrail(
    *,
    stages: Collection[str] = STAGES,
    name: str | None = None,
    pure: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    fail_open: bool = False,
    changes_text: bool = True,
) -> Callable[[Check], FunctionRail]: ...
def guardrail(
    function: Check | None = None,
    /,
    *,
    stages: Collection[str] = STAGES,
    name: str | None = None,
    pure: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    fail_open: bool = False,
    changes_text: bool = True,
) -> FunctionRail | Callable[[Check], FunctionRail]:
    """Make a guardrail of an async function `(stage, payload, run) -> Verdict`; its name is the function's.

    ```python
    @guardrail(stages=["output"], pure=True)
    async def no_promises(stage, payload, run):
        return Block("it promises a refund") if "refund" in payload else Allow()
    ```

    Raises:
        ConfigError: a stage that does not exist, or a timeout that is not above 0.
    """

    def make(function: Check) -> FunctionRail:
        return FunctionRail(
            function=function,
            name=name or str(getattr(function, "__name__", "guardrail")),
            stages=frozenset({stages} if isinstance(stages, str) else stages),
            pure=pure,
            timeout_s=timeout_s,
            fail_open=fail_open,
            changes_text=changes_text,
        )

    return make if function is None else make(function)
