"""The graph that `langgraph dev` serves (langgraph.json at the repository's root): an agent, and its loop without a saver.

LangGraph's server brings its own saver and refuses a graph that has one, so `agent.graph` cannot be handed to it. What is handed
over is the loop alone, bound to an agent; journal, ledger and memory stay in the agent's storage. Write your own like this one:

```python
agent = create_production_agent("openai:gpt-5-mini", tools=[...])
graph = build_graph().compile(name=agent.name).with_config(configurable={"agent_key": agent.key})
```
"""

from __future__ import annotations

from typing import Any

from agent_graph import build_graph, create_production_agent
from agent_graph_adapters.offline import demo_tools

__all__ = ["agent", "graph"]

agent = create_production_agent(tools=demo_tools(), name="agent")
"""The model is that of the environment (docs/models.md), else the offline one. Constructing opens nothing."""

graph: Any = build_graph().compile(name=agent.name).with_config(configurable={"agent_key": agent.key})
