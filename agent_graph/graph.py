"""The loop, on one screen.

```
START ─► load_memory ─► call_model ══► run_tool × n (one Send per call) ══► call_model ══► ... ─► finish ─► END
                           │   ▲
  when there is work:      ├─► check_budget (a limit reached, a landing) ─► call_model | finish
                           ├─► compress (over the threshold) ─► call_model
                           └─► guard (a verdict that is not Allow; rails that wait or cost) ─► run_tool | call_model | finish
```

The steady path (══) is two supersteps a step: each superstep is a checkpoint, and a node that has nothing to decide would cost one.
So `call_model` takes the pure decisions itself and leaves by `Command` only where there is something to do.

What must stay true: a node that leaves by `Command` has no plain edge (both targets would run), and one that is entered by `Send`
has a plain edge only (a conditional one would run once per call and see only its own write).
"""

from __future__ import annotations

import functools
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agent_graph.nodes.call_model import call_model
from agent_graph.nodes.check_budget import check_budget
from agent_graph.nodes.compress import compress
from agent_graph.nodes.finish import finish
from agent_graph.nodes.guard import guard
from agent_graph.nodes.load_memory import load_memory
from agent_graph.nodes.run_tool import run_tool
from agent_graph.state import Call, Conversation, RunState

__all__ = ["build_graph", "compiled_graph"]


def build_graph() -> StateGraph[RunState, Any, Any, Any]:
    """Return the loop as an uncompiled graph; bind it to an agent with `agent.graph`, or compile it and set `agent_key` yourself."""
    graph: StateGraph[RunState, Any, Any, Any] = StateGraph(RunState, output_schema=Conversation)
    graph.add_node("load_memory", load_memory, destinations=("call_model", "finish"))
    graph.add_node("check_budget", check_budget, destinations=("call_model", "finish"))
    graph.add_node("compress", compress)
    graph.add_node("call_model", call_model, destinations=("check_budget", "compress", "guard", "run_tool", "finish"))
    graph.add_node("guard", guard, destinations=("run_tool", "call_model", "finish"))
    graph.add_node("run_tool", run_tool, input_schema=Call)  # type: ignore[arg-type]  # its stubs want the graph's state; a Send carries its own
    graph.add_node("finish", finish)
    graph.add_edge(START, "load_memory")
    graph.add_edge("compress", "call_model")
    graph.add_edge("run_tool", "call_model")
    graph.add_edge("finish", END)
    return graph


@functools.cache
def compiled_graph() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the loop, compiled once for the process: compiling reads the source of every node, 20 ms that each agent would pay."""
    return build_graph().compile()
