"""An OpenAI-compatible server for tests: scripted, on loopback, with every fault that a client can meet and a bill of its own.

What an agent says that it spent is no proof; what its provider billed is. So this server counts and prices each reply by itself
(`script.bill`, a few lines that share nothing with the agent's price book), and honours the output cap as a provider does.

`script.py` is what it says, `requests.py` what it is asked, `chat.py` and `responses.py` how a reply looks in OpenAI's two dialects,
`server.py` the log and the bill, `connection.py` the HTTP. See docs/testing.md.
"""

from __future__ import annotations

from agent_graph.testing.openai_server.requests import ServedRequest
from agent_graph.testing.openai_server.script import Answer, Entry, Refusal, Tokens, broken, refuse
from agent_graph.testing.openai_server.server import OpenAIServer

__all__ = ["Answer", "Entry", "OpenAIServer", "Refusal", "ServedRequest", "Tokens", "broken", "refuse"]
