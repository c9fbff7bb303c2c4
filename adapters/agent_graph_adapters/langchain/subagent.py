"""An agent as a tool of another one, or of any LangChain agent.

Inside a tool of one of our agents it is a sub-agent: it spends its parent's money and time, and its run is named by its parent's call
(`runtime/lineage.py`). So the tool may be called again: the call finds the run that it had begun, and what that run did is not
repeated. That is why it is marked idempotent whatever the sub-agent's own tools do; those are journaled by the sub-agent itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from agent_graph.errors import ConfigError
from agent_graph.runtime.sync import run_sync

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent
    from agent_graph.types import AgentRun

__all__ = ["as_tool"]

_TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""What OpenAI, Anthropic and Gemini all take: a call of another name is refused by the provider, in the middle of a turn."""


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
    agent, for a description that is empty, and for a name that providers refuse.
    """
    if not hasattr(agent, "driver"):
        raise ConfigError(f"as_tool: a ProductionAgent is due, not {type(agent).__name__}.")
    given: object = description
    if not (isinstance(given, str) and given.strip()):
        raise ConfigError(f"description: a text that is not empty is due, not {given!r}.")
    called = _tool_name(name, agent.name)

    async def ask(input: str) -> str:  # noqa: A002  the argument's name is the tool's
        return _answer(await agent.run(input))

    def ask_sync(input: str) -> str:  # noqa: A002  the argument that the model sees is named so
        return run_sync(ask(input))

    return StructuredTool.from_function(
        ask_sync, ask, name=called, description=description, handle_tool_error=True, extras={"idempotent": True}
    )


def _tool_name(given: object, agent: str) -> str:
    """Return the tool's name: the given one, or the agent's. Raises ConfigError where providers would refuse it."""
    name, whose = (agent, "the agent's name") if given is None else (given, "name")
    if isinstance(name, str) and _TOOL_NAME.fullmatch(name):
        return name
    near = re.sub(r"^(?=[-0-9])", "_", "_".join(re.findall(r"[A-Za-z0-9_-]+", str(name))))[:64] or "agent"
    raise ConfigError(
        f"as_tool: {whose} is {name!r}, and no provider takes a tool of that name: 1 to 64 letters (A-Z, a-z), digits, _ and - are due, "
        f"the first a letter or _. Name the tool: as_tool(agent, name={near!r}, ...)"
    )


def _answer(run: AgentRun) -> str:
    if run.status == "complete" and run.output is not None:
        return run.output
    if run.status == "running":
        waits = ", ".join(f"{entry['call_id']} ({entry['reason']})" for entry in run.pending)
        raise ToolException(f"run {run.run_id!r} waits for a person's word on {waits or 'nothing that is known'}.")
    raise ToolException(f"no answer ({run.status}): {run.error}")
