"""An agent as a tool of another one, or of any LangChain agent.

Inside a tool of one of our agents it is a sub-agent: it spends its parent's money and time, and its run is named by its parent's call
(`runtime/lineage.py`). So the tool may be called again: the call finds the run that it had begun, and what that run did is not
repeated. That is why it is marked idempotent whatever the sub-agent's own tools do; those are journaled by the sub-agent itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from agent_graph.errors import ConfigError
from agent_graph.runtime.sync import run_sync

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent
    from agent_graph.types import AgentRun

__all__ = ["as_tool"]


def as_tool(agent: ProductionAgent, *, name: str | None = None, description: str) -> BaseTool:
    """Return `agent` as a LangChain tool with one argument, `input`, that returns the answer's text.

    ```python
    lead = create_production_agent("openai:gpt-5-mini", tools=[as_tool(research, description="Researches a question.")])
    ```

    Args:
        agent: whom the tool asks.
        name: the tool's name; None for the agent's.
        description: what the calling model is told: what this agent is good for.

    A turn without an answer is a failed call, which the calling model is told with the reason. Raises ConfigError for what is no
    agent, and for a name or a description that is empty.
    """
    if not hasattr(agent, "driver"):
        raise ConfigError(f"as_tool: a ProductionAgent is due, not {type(agent).__name__}.")
    for key, value in (("name", name), ("description", description)):
        if (value is not None or key == "description") and not (isinstance(value, str) and value.strip()):
            raise ConfigError(f"{key}: a text that is not empty is due, not {value!r}.")

    async def ask(input: str) -> str:  # noqa: A002  the argument's name is the tool's
        return _answer(await agent.run(input))

    def ask_sync(input: str) -> str:  # noqa: A002  the argument that the model sees is named so
        return run_sync(ask(input))

    return StructuredTool.from_function(
        ask_sync, ask, name=name or agent.name, description=description, handle_tool_error=True, extras={"idempotent": True}
    )


def _answer(run: AgentRun) -> str:
    if run.status == "complete" and run.output is not None:
        return run.output
    if run.status == "running":
        waits = ", ".join(f"{entry['call_id']} ({entry['reason']})" for entry in run.pending)
        raise ToolException(f"run {run.run_id!r} waits for a person's word on {waits or 'nothing that is known'}.")
    raise ToolException(f"no answer ({run.status}): {run.error}")
