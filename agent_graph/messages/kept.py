"""A backend's own metadata, kept on the LangChain message that stands for its reply."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage

from agent_graph.decisions.plain import plain

__all__ = ["NATIVE", "calls_changed", "keep", "kept_metadata"]

NATIVE: Final = "agent_graph"
"""Key of `response_metadata` under which it stands."""


def keep(message: BaseMessage, metadata: object) -> None:
    """Keep `metadata`, plain JSON, on `message`, so that it is there when `message` becomes a `Message` again."""
    kept: dict[str, Any] = {"metadata": metadata}
    if (calls := _digest(message)) is not None:
        kept["calls"] = calls
    message.response_metadata = {**message.response_metadata, NATIVE: kept}


def kept_metadata(message: BaseMessage) -> dict[str, Any] | None:
    """Return what was kept; None if nothing was."""
    kept = message.response_metadata.get(NATIVE)
    if not isinstance(kept, dict) or not isinstance(kept.get("metadata"), dict):
        return None
    return dict(kept["metadata"])


def calls_changed(message: BaseMessage) -> bool:
    """Return whether somebody has put other tool calls into `message` since `keep`."""
    return bool(message.response_metadata[NATIVE].get("calls") != _digest(message))


def _digest(message: BaseMessage) -> str | None:
    """Return what tells calls apart. (Of malformed ones only id and name: streaming drops the rest.)"""
    if not isinstance(message, AIMessage) or not (message.tool_calls or message.invalid_tool_calls):
        return None
    calls = [[call["id"], call["name"], plain(call["args"])] for call in message.tool_calls]
    malformed = [[call["id"], call["name"]] for call in message.invalid_tool_calls]
    text = json.dumps([calls, malformed], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
