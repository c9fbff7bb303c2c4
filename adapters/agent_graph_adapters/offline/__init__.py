"""The offline model: no network, no weights, no key, and everything else real.

`OfflineChatModel` is a chat model that reads a question by rules, picks among the tools bound to it, fills their
arguments from the words, and reports what they returned. It is what an agent runs with where no model can be reached,
so that its loop, tools, limits and persistence can be tried, tested and demonstrated; `LABEL` says so and belongs on
the first and last line of what a person sees.

`reading` finds requests and typed values in a text, `choosing` matches them with tools, `answering` puts results into
sentences: pure functions all; `model` is LangChain's interface around them, `tools` the demo tools.
"""

from __future__ import annotations

from agent_graph_adapters.offline.model import LABEL, OfflineChatModel
from agent_graph_adapters.offline.tools import demo_tools

__all__ = ["LABEL", "OfflineChatModel", "demo_tools"]
