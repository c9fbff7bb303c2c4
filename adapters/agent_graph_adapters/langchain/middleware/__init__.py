"""Our guarantees, one by one, as middleware for anybody's `create_agent`.

```python
from langchain.agents import create_agent
from agent_graph_adapters.langchain import BudgetMiddleware, ToolJournalMiddleware

agent = create_agent("openai:gpt-5-mini", [pay], middleware=[ToolJournalMiddleware(storage="runs.db"), BudgetMiddleware(max_cost_usd=0.5)])
```

Each works alone, in sync and async agents alike, by `wrap_model_call` and `wrap_tool_call` only: hooks before and after the model would
cost a superstep each. They decide by `agent_graph.decisions` and write through the `Storage` port, as the agent itself does; what is
theirs is only how LangChain's requests are read. docs/middleware.md shows each at work.

both_ways.py runs one implementation in sync and async agents; names.py says what a turn and a call is in a graph that is not ours;
turns.py keeps the turns that this process works on.
"""

import importlib

from agent_graph.errors import optional

with optional("Middleware for create_agent"):  # all of ours is written for it, whichever is imported
    importlib.import_module("langchain.agents.middleware")
