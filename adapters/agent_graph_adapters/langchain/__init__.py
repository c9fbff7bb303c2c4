"""LangChain's components as the agent's backends, the backends as LangChain components, and the agent itself as one; the agent's
guarantees as middleware for `create_agent` (docs/middleware.md).

```python
from agent_graph_adapters.langchain import as_runnable

chain = prompt | as_runnable(agent) | StrOutputParser()
```

A name's module is imported when the name is first asked for (PEP 562), as in `agent_graph`. docs/langchain.md shows each at work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_graph_adapters.langchain.callbacks import as_callback_handler
    from agent_graph_adapters.langchain.chat_model import as_chat_model, as_llm_backend
    from agent_graph_adapters.langchain.history import as_chat_history, as_memory_backend
    from agent_graph_adapters.langchain.middleware.budget import BudgetMiddleware
    from agent_graph_adapters.langchain.middleware.compression import CompressionMiddleware
    from agent_graph_adapters.langchain.middleware.guardrail import GuardrailMiddleware
    from agent_graph_adapters.langchain.middleware.journal import ToolJournalMiddleware
    from agent_graph_adapters.langchain.middleware.retry import RetryMiddleware
    from agent_graph_adapters.langchain.runnable import as_runnable
    from agent_graph_adapters.langchain.subagent import as_tool
    from agent_graph_adapters.langchain.tools import as_tool_backend, as_tools

__all__ = [
    "BudgetMiddleware",
    "CompressionMiddleware",
    "GuardrailMiddleware",
    "RetryMiddleware",
    "ToolJournalMiddleware",
    "as_callback_handler",
    "as_chat_history",
    "as_chat_model",
    "as_llm_backend",
    "as_memory_backend",
    "as_runnable",
    "as_tool",
    "as_tool_backend",
    "as_tools",
]

_HOMES = {
    "agent_graph_adapters.langchain.callbacks": "as_callback_handler",
    "agent_graph_adapters.langchain.chat_model": "as_chat_model as_llm_backend",
    "agent_graph_adapters.langchain.history": "as_chat_history as_memory_backend",
    "agent_graph_adapters.langchain.middleware.budget": "BudgetMiddleware",
    "agent_graph_adapters.langchain.middleware.compression": "CompressionMiddleware",
    "agent_graph_adapters.langchain.middleware.guardrail": "GuardrailMiddleware",
    "agent_graph_adapters.langchain.middleware.journal": "ToolJournalMiddleware",
    "agent_graph_adapters.langchain.middleware.retry": "RetryMiddleware",
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
