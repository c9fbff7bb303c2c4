"""Fakes, contract suites and strategies for whoever builds on agent_graph. See docs/testing.md.

```python
from agent_graph.testing import DictMemory, FakeTools, ListObservability, ScriptedLLM, call

llm = ScriptedLLM([call("weather", city="Paris"), "21 degrees and clear."], cost_usd=0.001)
```

Names are imported when first asked for (PEP 562): the pytest plugin lives in this package too and must cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_graph.testing.backends import DictMemory, FakeTools, ListObservability
    from agent_graph.testing.chat_model import ScriptedChatModel
    from agent_graph.testing.clock import FakeClock
    from agent_graph.testing.contracts import LLMContract, MemoryContract, ObservabilityContract, ToolContract
    from agent_graph.testing.crash.fuzz import crash_fuzz
    from agent_graph.testing.crash.report import CrashFound, CrashReport
    from agent_graph.testing.crash.world import World
    from agent_graph.testing.langsmith import LangSmithServer, TracedRun
    from agent_graph.testing.openai_server import Answer, OpenAIServer, Refusal, ServedRequest, Tokens, broken, refuse
    from agent_graph.testing.scripted import Request, ScriptedLLM, ScriptEnded, after, call, calls, hang
    from agent_graph.testing.storage_contract import StorageContract

__all__ = [
    "Answer",
    "CrashFound",
    "CrashReport",
    "DictMemory",
    "FakeClock",
    "FakeTools",
    "LLMContract",
    "LangSmithServer",
    "ListObservability",
    "MemoryContract",
    "ObservabilityContract",
    "OpenAIServer",
    "Refusal",
    "Request",
    "ScriptEnded",
    "ScriptedChatModel",
    "ScriptedLLM",
    "ServedRequest",
    "StorageContract",
    "Tokens",
    "ToolContract",
    "TracedRun",
    "World",
    "after",
    "broken",
    "call",
    "calls",
    "crash_fuzz",
    "hang",
    "refuse",
]

_HOMES = {
    "agent_graph.testing.backends": "DictMemory FakeTools ListObservability",
    "agent_graph.testing.chat_model": "ScriptedChatModel",
    "agent_graph.testing.clock": "FakeClock",
    "agent_graph.testing.contracts": "LLMContract MemoryContract ObservabilityContract ToolContract",
    "agent_graph.testing.langsmith": "LangSmithServer TracedRun",
    "agent_graph.testing.openai_server": "Answer OpenAIServer Refusal ServedRequest Tokens broken refuse",
    "agent_graph.testing.crash.fuzz": "crash_fuzz",
    "agent_graph.testing.crash.report": "CrashFound CrashReport",
    "agent_graph.testing.crash.world": "World",
    "agent_graph.testing.scripted": "Request ScriptEnded ScriptedLLM after call calls hang",
    "agent_graph.testing.storage_contract": "StorageContract",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from agent_graph.errors import optional

    with optional(f"{__name__}.{name}"):
        value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
