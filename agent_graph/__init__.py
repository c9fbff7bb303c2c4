"""agent_graph: AI agents on LangGraph that can be trusted with money and side effects.

```python
from agent_graph import create_production_agent

agent = create_production_agent()
run = agent.run_sync("What is the weather in Paris?")
print(run.output)
```

This file is the door: the public names, sorted, and where each lives. A name's module is imported when the name is
first asked for (PEP 562), so `import agent_graph` costs a few milliseconds and loads neither LangGraph nor LangChain;
whoever implements a backend against `LLMBackend` never pays for them. Type checkers read the imports under
`TYPE_CHECKING`. `tests/test_door.py` keeps the three lists below equal.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent, create_production_agent
    from agent_graph.config import AgentConfig, Budget
    from agent_graph.context import idempotency_key
    from agent_graph.errors import (
        AgentGraphError,
        BackendError,
        Blocked,
        ConfigError,
        ContractError,
        LeaseLost,
        LimitReached,
        LLMError,
        MissingPackage,
        NoAnswer,
        NotDurable,
        OutcomeUnknown,
        RunConflict,
        RunError,
        RunInProgress,
        RunNotFound,
        StorageError,
        ToolError,
        ToolNotExecuted,
        ToolNotFound,
        ToolTimeout,
    )
    from agent_graph.events import (
        Event,
        GuardrailVerdict,
        RunFinished,
        RunStarted,
        StepFinished,
        TextDelta,
        ToolFinished,
        ToolStarted,
    )
    from agent_graph.graph import build_graph
    from agent_graph.guardrails import Allow, Ask, Block, Guardrail, Replace, Revise, guardrail
    from agent_graph.ports import LLMBackend, MemoryBackend, ObservabilityBackend, ToolBackend
    from agent_graph.resolutions import Approve, Done, Edit, NotDone, Reject, Respond, Unknown
    from agent_graph.storage.port import Storage
    from agent_graph.storage.sqlite import SqliteStorage
    from agent_graph.types import AgentRun, Message, MessageRole, ToolCall
    from agent_graph_adapters.langchain.chat_model import as_chat_model, as_llm_backend
    from agent_graph_adapters.langchain.runnable import as_runnable
    from agent_graph_adapters.langchain.subagent import as_tool
    from agent_graph_adapters.langchain.tools import as_tool_backend, as_tools

__version__ = "0.1.0"

__all__ = [
    "AgentConfig",
    "AgentGraphError",
    "AgentRun",
    "Allow",
    "Approve",
    "Ask",
    "BackendError",
    "Block",
    "Blocked",
    "Budget",
    "ConfigError",
    "ContractError",
    "Done",
    "Edit",
    "Event",
    "Guardrail",
    "GuardrailVerdict",
    "LLMBackend",
    "LLMError",
    "LeaseLost",
    "LimitReached",
    "MemoryBackend",
    "Message",
    "MessageRole",
    "MissingPackage",
    "NoAnswer",
    "NotDone",
    "NotDurable",
    "ObservabilityBackend",
    "OutcomeUnknown",
    "ProductionAgent",
    "Reject",
    "Replace",
    "Respond",
    "Revise",
    "RunConflict",
    "RunError",
    "RunFinished",
    "RunInProgress",
    "RunNotFound",
    "RunStarted",
    "SqliteStorage",
    "StepFinished",
    "Storage",
    "StorageError",
    "TextDelta",
    "ToolBackend",
    "ToolCall",
    "ToolError",
    "ToolFinished",
    "ToolNotExecuted",
    "ToolNotFound",
    "ToolStarted",
    "ToolTimeout",
    "Unknown",
    "as_chat_model",
    "as_llm_backend",
    "as_runnable",
    "as_tool",
    "as_tool_backend",
    "as_tools",
    "build_graph",
    "create_production_agent",
    "guardrail",
    "idempotency_key",
]

_HOMES = {
    "agent_graph.agent": "ProductionAgent create_production_agent",
    "agent_graph.config": "AgentConfig Budget",
    "agent_graph.context": "idempotency_key",
    "agent_graph.errors": "AgentGraphError BackendError Blocked ConfigError ContractError LLMError LeaseLost LimitReached"
    " MissingPackage NoAnswer NotDurable OutcomeUnknown RunConflict RunError RunInProgress RunNotFound StorageError ToolError"
    " ToolNotExecuted ToolNotFound ToolTimeout",
    "agent_graph.events": "Event GuardrailVerdict RunFinished RunStarted StepFinished TextDelta ToolFinished ToolStarted",
    "agent_graph.graph": "build_graph",
    "agent_graph.guardrails": "Allow Ask Block Guardrail Replace Revise guardrail",
    "agent_graph.ports": "LLMBackend MemoryBackend ObservabilityBackend ToolBackend",
    "agent_graph.resolutions": "Approve Done Edit NotDone Reject Respond Unknown",
    "agent_graph.storage.port": "Storage",
    "agent_graph.storage.sqlite": "SqliteStorage",
    "agent_graph.types": "AgentRun Message MessageRole ToolCall",
    "agent_graph_adapters.langchain.chat_model": "as_chat_model as_llm_backend",
    "agent_graph_adapters.langchain.runnable": "as_runnable",
    "agent_graph_adapters.langchain.subagent": "as_tool",
    "agent_graph_adapters.langchain.tools": "as_tool_backend as_tools",
}
"""Module -> the names that live there."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value  # the next look-up does not come here any more
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
