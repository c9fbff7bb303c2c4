"""The guardrails that are on unless the user gives others: size caps, the empty answer, the cut reply.

All three compute and never wait, so the loop asks them on the spot. That a tool exists and that its arguments fit its schema is
checked by the agent itself (`decisions.tools.check_args`), before any guardrail is asked.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_graph.decisions.results import make_storable
from agent_graph.errors import ConfigError
from agent_graph.guardrails.judging import check_stages, stages_of
from agent_graph.guardrails.verdicts import Allow, Block, Guardrail, Replace, Revise, Verdict
from agent_graph.types import AgentRun

__all__ = ["CutReply", "EmptyAnswer", "SizeCaps", "beside_defaults", "default_rails"]

_MARK = "\n[... cut: {left:,} of {all:,} characters left out]"
_ALLOW = Allow()


def default_rails(
    *,
    max_input_chars: int | None = 1_000_000,
    max_reply_chars: int | None = 1_000_000,
    max_args_chars: int | None = 1_000_000,
    max_result_chars: int | None = 1_000_000,
) -> tuple[Guardrail, ...]:
    """Return the default guardrails. A cap is a number of characters, from 1; None: no cap.

    Raises:
        ConfigError: a cap that is not a whole number above 0.
    """
    caps = SizeCaps(
        max_input_chars=max_input_chars,
        max_reply_chars=max_reply_chars,
        max_args_chars=max_args_chars,
        max_result_chars=max_result_chars,
    )
    return (caps, CutReply(), EmptyAnswer())


def beside_defaults(given: Sequence[Guardrail]) -> list[Guardrail]:
    """Return the default guardrails and the given ones; one that bears a default one's name takes its place.

    Raises:
        ConfigError: something that is no guardrail, or one that would never be asked.
    """
    rails: object = given
    if not isinstance(rails, Sequence) or isinstance(rails, str):
        raise ConfigError(f"guardrails: a list of guardrails is due, not {given!r}.")
    for rail in given:
        if not (isinstance(getattr(rail, "name", None), str) and callable(getattr(rail, "check", None))):
            raise ConfigError(f"guardrails: {rail!r} is no guardrail: it needs a `name` and an async `check(stage, payload, run)`.")
        check_stages(rail.name, stages_of(rail))
    own = {rail.name: rail for rail in given}
    kept = [own.pop(rail.name, rail) for rail in default_rails()]
    return [*kept, *own.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeCaps:
    """Keeps sizes sane: a larger input is blocked, larger arguments go back to the model, a larger reply or result is cut."""

    name: str = "size_caps"
    max_input_chars: int | None = 1_000_000
    max_reply_chars: int | None = 1_000_000
    max_args_chars: int | None = 1_000_000
    """Of the arguments' JSON, roughly."""
    max_result_chars: int | None = 1_000_000
    """Of a text; of any other result, roughly its JSON. The model reads less of it in any case (`decisions.results`)."""
    stages: frozenset[str] = field(default=frozenset({"input", "reply", "tool_args", "tool_result"}), init=False)
    pure: bool = field(default=True, init=False)
    changes_text: bool = field(default=False, init=False)
    """A streamed text is not held for the cap of a reply: what is cut is the record, after the fact."""

    def __post_init__(self) -> None:
        for key in ("max_input_chars", "max_reply_chars", "max_args_chars", "max_result_chars"):
            cap = getattr(self, key)
            if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or cap < 1):
                raise ConfigError(f"{key}: a whole number above 0 is due, or None for no cap, not {cap!r}.")

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return Allow within the cap of `stage`."""
        if stage == "input":
            return self._input(payload)
        if stage == "reply":
            return self._reply(payload)
        return self._args(payload) if stage == "tool_args" else self._result(payload)

    def _input(self, text: str) -> Verdict:
        cap = self.max_input_chars
        if cap is None or len(text) <= cap:
            return _ALLOW
        return Block(f"the input has {len(text):,} characters; at most {cap:,} are allowed (max_input_chars)")

    def _reply(self, message: Any) -> Verdict:
        cap = self.max_reply_chars
        text = _text(message)
        if cap is None or len(text) <= cap:
            return _ALLOW
        shorter = copy.copy(message)
        shorter.content = _cut(text, cap)
        return Replace(shorter, f"the reply had {len(text):,} characters; {cap:,} were kept (max_reply_chars)")

    def _args(self, call: Any) -> Verdict:
        cap = self.max_args_chars
        if cap is None or not _longer(call.args, cap):
            return _ALLOW
        return Revise(
            f"The arguments of {call.tool_name} are too long: at most {cap:,} characters in one call. Send less.",
            limit=3,
        )

    def _result(self, call: Any) -> Verdict:
        cap = self.max_result_chars
        if cap is None or not (_longer(call.result, cap) or _longer(call.error, cap)):
            return _ALLOW
        shorter = copy.copy(call)
        if _longer(call.result, cap):
            shorter.result = _cut(call.result, cap) if isinstance(call.result, str) else make_storable(call.result, max_chars=cap).text
        if _longer(call.error, cap):
            shorter.error = _cut(str(call.error), cap)
        return Replace(shorter, f"the result of {call.tool_name} was cut to {cap:,} characters (max_result_chars)")


def _cut(text: str, cap: int) -> str:
    """Return at most `cap` characters of `text`, the mark that says so included where it fits."""
    mark = _MARK.format(left=len(text) - cap, all=len(text))
    kept = max(cap - len(mark), 0)
    return text[:kept] + _MARK.format(left=len(text) - kept, all=len(text)) if kept else text[:cap]


def _longer(value: Any, cap: int) -> bool:
    """Return whether `value`, roughly as JSON, has more than `cap` characters, looking at no more of it than that takes."""
    left = cap
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str | bytes | bytearray):
            left -= len(item)
        elif isinstance(item, dict):
            left -= 2 * len(item)
            if left >= 0:
                stack += (*item.keys(), *item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            left -= len(item)
            if left >= 0:
                stack += item
        elif isinstance(item, int) and not isinstance(item, bool):
            left -= 1 + item.bit_length() // 4
        else:
            left -= 1
        if left < 0:
            return True
    return False


_CUT_REASONS = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "incomplete"})
"""How providers say that a reply ended at its length limit (OpenAI, Anthropic, Google, Mistral, OpenAI's responses API)."""


def _text(message: Any) -> str:
    """Return a reply's text; many providers' null beside tool calls is no text."""
    return message.content if isinstance(message.content, str) else ""


def _was_cut(message: Any) -> bool:
    metadata = message.metadata
    reason = metadata.get("finish_reason") or metadata.get("stop_reason")
    return isinstance(reason, str) and reason.lower() in _CUT_REASONS


def _has_calls(message: Any) -> bool:
    return bool(message.metadata.get("tool_calls") or message.metadata.get("tool_call"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CutReply:
    """A reply that ended at its length limit: its tool calls are not run, its text is continued, once."""

    name: str = "cut_reply"
    stages: frozenset[str] = field(default=frozenset({"reply"}), init=False)
    pure: bool = field(default=True, init=False)
    changes_text: bool = field(default=False, init=False)

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return Allow for a reply that is whole."""
        if not _was_cut(payload):
            return _ALLOW
        if _has_calls(payload) or not _text(payload).strip():
            return Revise(
                "Your reply was cut off at its length limit, so nothing of it was used. Write it again, shorter; "
                "make one tool call at a time."
            )
        return Revise(
            "Your reply was cut off at its length limit. Continue exactly where it stopped, without repeating anything.",
            after="allow",
            keep_text=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyAnswer:
    """A reply with neither text nor tool calls is asked for again, once."""

    name: str = "empty_answer"
    stages: frozenset[str] = field(default=frozenset({"reply"}), init=False)
    pure: bool = field(default=True, init=False)
    changes_text: bool = field(default=False, init=False)

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return Allow for a reply that says or asks something."""
        if _text(payload).strip() or _has_calls(payload):
            return _ALLOW
        return Revise("Your last reply was empty. Answer the question, or say what keeps you from answering it.")
