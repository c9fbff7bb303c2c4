"""The guardrails that are off until asked for: personal data, secrets, allow and deny lists (and `injection.py`).

What must stay true
    A reason names kinds and counts, never the text that was found: reasons are journaled, traced and logged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, TypeAlias

from agent_graph.errors import ConfigError
from agent_graph.guardrails.detectors import PII, SECRETS, Detector, mask, scan
from agent_graph.guardrails.payloads import map_payload, payload_texts
from agent_graph.guardrails.verdicts import STAGES, Allow, Ask, Block, Replace, Revise, Verdict
from agent_graph.types import AgentRun

__all__ = ["AllowDeny", "PiiRail", "SecretsRail"]

Action: TypeAlias = Literal["redact", "block", "ask", "revise"]
"""What to do with a find: replace it by its kind in brackets; block; wait for a person; let the model try again."""

_ACTIONS = ("redact", "block", "ask", "revise")
_ALLOW = Allow()


def _verdict(action: Action, reason: str) -> Verdict:
    if action == "block":
        return Block(reason)
    return Ask(reason) if action == "ask" else Revise(f"{reason}. Try again without it.")


def _checked_stages(rail: str, stages: Iterable[str]) -> frozenset[str]:
    """Return `stages` as a set; ConfigError for one that does not exist."""
    given = frozenset((stages,) if isinstance(stages, str) else stages)
    unknown = sorted(given - set(STAGES))
    if unknown:
        raise ConfigError(f"{rail}: {unknown[0]!r} is no stage. Stages: {', '.join(STAGES)}.")
    return given


class _DetectorRail:
    """A guardrail over typed detectors."""

    pure = True
    _all: tuple[Detector, ...] = ()

    def __init__(
        self,
        *,
        name: str,
        action: Action,
        stages: Iterable[str],
        kinds: Iterable[str] | None,
        extra: Sequence[Detector],
    ) -> None:
        if action not in _ACTIONS:
            raise ConfigError(f"{name}: action {action!r} is not one of {', '.join(map(repr, _ACTIONS))}.")
        self.name = name
        self.action: Action = action
        self.stages: Collection[str] = _checked_stages(name, stages)
        self.detectors = (*_of_kinds(name, self._all, kinds), *extra)
        self.changes_text = not self.stages.isdisjoint({"reply", "output"})

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return Allow where nothing is found."""
        found: Counter[str] = Counter()
        redacted = map_payload(stage, payload, lambda text: self._redact(text, found))
        if not found:
            return _ALLOW
        finds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
        reason = f"{self.name}: {finds} in the {stage.replace('_', ' ')}"
        return Replace(redacted, reason) if self.action == "redact" else _verdict(self.action, reason)

    def _redact(self, text: str, found: Counter[str]) -> str:
        matches = scan(text, self.detectors)
        if not matches:
            return text
        found.update(match.kind for match in matches)
        return mask(text, matches, lambda kind: f"[{kind}]")


def _of_kinds(rail: str, detectors: tuple[Detector, ...], kinds: Iterable[str] | None) -> tuple[Detector, ...]:
    if kinds is None:
        return detectors
    wanted, known = set(kinds), {detector.kind for detector in detectors}
    if wanted - known:
        raise ConfigError(f"{rail}: unknown kind {min(wanted - known)!r}. Kinds: {', '.join(sorted(known))}.")
    return tuple(detector for detector in detectors if detector.kind in wanted)


class PiiRail(_DetectorRail):
    """Finds personal data: e-mail addresses, cards, IBANs, US social security numbers, telephones, IP addresses.

    `kinds`: of these only (`{d.kind for d in detectors.PII}`); `extra`: detectors of your own; `stages`: by default what the
    model writes to the outside. Measured precision and recall: docs/guardrails.md.

    Raises:
        ConfigError: an unknown action, stage or kind.
    """

    _all = PII

    def __init__(
        self,
        *,
        action: Action = "redact",
        stages: Iterable[str] = ("output",),
        kinds: Iterable[str] | None = None,
        extra: Sequence[Detector] = (),
        name: str = "pii",
    ) -> None:
        super().__init__(name=name, action=action, stages=stages, kinds=kinds, extra=extra)


class SecretsRail(_DetectorRail):
    """Finds secrets: keys by their issuers' prefixes, AWS keys, JWTs, private keys, passwords in URLs, bearer tokens.

    By default in tool results (so that the model never reads one), in tool arguments (so that none leaves) and in the output.

    Raises:
        ConfigError: an unknown action, stage or kind.
    """

    _all = SECRETS

    def __init__(
        self,
        *,
        action: Action = "redact",
        stages: Iterable[str] = ("tool_args", "tool_result", "output"),
        kinds: Iterable[str] | None = None,
        extra: Sequence[Detector] = (),
        name: str = "secrets",
    ) -> None:
        super().__init__(name=name, action=action, stages=stages, kinds=kinds, extra=extra)


# -- allow and deny ------------------------------------------------------------------------------------------------------------


class AllowDeny:
    """Lets a text pass if it matches one of `allow` (where given) and none of `deny`: regular expressions, searched for.

    ```python
    AllowDeny(deny=[r"(?i)competitor"], stages=["output"], action="revise")
    ```

    At `tool_args` every text of the arguments is looked at; `tools` limits it to these tools.

    Raises:
        ConfigError: no pattern, a pattern that does not compile, an unknown stage or action.
    """

    pure = True

    def __init__(
        self,
        *,
        allow: Iterable[str | re.Pattern[str]] = (),
        deny: Iterable[str | re.Pattern[str]] = (),
        stages: Iterable[str] = ("output",),
        action: Literal["block", "ask", "revise"] = "block",
        tools: Iterable[str] | None = None,
        name: str = "allow_deny",
    ) -> None:
        if action not in ("block", "ask", "revise"):
            raise ConfigError(f"{name}: action {action!r} is not one of 'block', 'ask', 'revise'.")
        self.name = name
        self.action: Action = action
        self.stages: Collection[str] = _checked_stages(name, stages)
        self.tools = None if tools is None else frozenset(tools)
        self.allow = _compiled(name, allow)
        self.deny = _compiled(name, deny)
        self.changes_text = not self.stages.isdisjoint({"reply", "output"})
        if not self.allow and not self.deny:
            raise ConfigError(f"{name}: give at least one pattern in allow or deny.")

    async def check(self, stage: str, payload: Any, run: AgentRun) -> Verdict:
        """Return Allow for a payload whose every text may pass."""
        if self.tools is not None and stage.startswith("tool") and payload.tool_name not in self.tools:
            return _ALLOW
        where = stage.replace("_", " ")
        for text in payload_texts(stage, payload):
            if self.allow and not any(pattern.search(text) for pattern in self.allow):
                return _verdict(self.action, f"{self.name}: the {where} matches none of the allowed patterns")
            denied = next((pattern for pattern in self.deny if pattern.search(text)), None)
            if denied is not None:
                return _verdict(self.action, f"{self.name}: the {where} matches the denied pattern {denied.pattern!r}")
        return _ALLOW


def _compiled(rail: str, patterns: Iterable[str | re.Pattern[str]]) -> tuple[re.Pattern[str], ...]:
    given = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    compiled = []
    for pattern in given:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ConfigError(f"{rail}: the pattern {pattern!r} does not compile: {error}.") from error
    return tuple(compiled)
