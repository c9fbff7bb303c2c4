"""What an agent's tools are, in a line of text that a turn is begun with, and how two such lines differ.

A turn that goes on with other tools than it was begun with may call one that is gone, or run twice what was never to be run
twice. So a resume compares, and says what differs, which a single hash could not: the text is JSON, one entry a tool, its
name with a hash of its parameters and whether a call may be repeated. A description may change; it is words for the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

from agent_graph.decisions.tools import ToolSpec, canonical_json

__all__ = ["difference", "of_tools"]

_ONCE, _AGAIN = "once", "again"


def of_tools(specs: Iterable[ToolSpec], is_idempotent: Callable[[str], bool]) -> str:
    """Return the line of these tools; the same for the same tools in any order."""
    return canonical_json(
        {
            spec.name: [
                hashlib.sha256(canonical_json(spec.parameters).encode()).hexdigest()[:12],
                _AGAIN if is_idempotent(spec.name) else _ONCE,
            ]
            for spec in specs
        }
    )


def difference(before: str, now: str) -> str:
    """Return what differs between two lines, in plain words: "added: x; removed: y; changed: z (its parameters)"."""
    old, new = _read(before), _read(now)
    if old is None or new is None:
        return f"fingerprint {before}, now {now}"
    changed = [f"{name} ({words})" for name in sorted(old.keys() & new.keys()) if (words := _change(old[name], new[name]))]
    parts = {"added": sorted(new.keys() - old.keys()), "removed": sorted(old.keys() - new.keys()), "changed": changed}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def _read(line: str) -> dict[str, tuple[str, str]] | None:
    try:
        return {name: (str(parameters), str(policy)) for name, (parameters, policy) in json.loads(line).items()}
    except (ValueError, TypeError, AttributeError):
        return None  # of another program's making, or of a version before this layout


def _change(old: tuple[str, str], new: tuple[str, str]) -> str:
    words = ["its parameters"] if old[0] != new[0] else []
    if old[1] != new[1]:
        words.append("a call may be repeated now, which it could not" if new[1] == _AGAIN else "a call may not be repeated any more")
    return ", ".join(words)
