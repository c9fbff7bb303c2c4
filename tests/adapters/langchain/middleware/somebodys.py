"""Pieces of somebody's `create_agent`, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Died(BaseException):
    """Stands for the end of a process: nothing that runs catches it."""


def calls(*asked: tuple[str, dict[str, Any]], **fields: Any) -> AIMessage:
    """Return a reply that asks for these tools."""
    return AIMessage("", tool_calls=[{"id": f"{name}_{at}", "name": name, "args": args} for at, (name, args) in enumerate(asked)], **fields)
