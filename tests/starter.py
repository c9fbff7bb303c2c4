"""What a user writes who has read the specification and nothing else: four backends, and how the tests of an afternoon ask.

Only the specification's own names are imported, and every backend is written here: no `async with`, no storage named, no keyword
of ours. Ground truth is what the backends saw.
"""

from __future__ import annotations

import asyncio
import copy
from types import SimpleNamespace

from agent_graph import LLMBackend, MemoryBackend, Message, MessageRole, ObservabilityBackend, ProductionAgent, ToolBackend

USER, ASSISTANT, TOOL, SYSTEM = MessageRole.USER, MessageRole.ASSISTANT, MessageRole.TOOL, MessageRole.SYSTEM
QUESTION = "What is the weather in Paris?"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather in a city.", "parameters": CITY, "idempotent": True}
PAY = {"name": "pay", "description": "Pay somebody.", "parameters": CITY, "idempotent": False}
FULL = {
    "max_steps": 10,
    "max_tokens": 50_000,
    "max_cost_usd": 0.05,
    "timeout_s": 30,
    "retry_attempts": 3,
    "compression_threshold": 32_000,
}
PARIS = {"city": "Paris"}


class LLM(LLMBackend):
    """Says its replies in order, the last one for ever; a reply may be an exception or a function of the messages and tools."""

    def __init__(self, *replies):
        self.replies = replies
        self.requests = []
        self.tools = []

    async def complete(self, messages, tools):
        reply = self.replies[min(len(self.requests), len(self.replies) - 1)]
        self.requests.append(copy.deepcopy(messages))
        self.tools.append(tools)
        if callable(reply):
            reply = reply(messages, tools)
            reply = await reply if asyncio.iscoroutine(reply) else reply
        if isinstance(reply, Exception):
            raise reply
        return Message(ASSISTANT, reply) if isinstance(reply, str) else reply

    def count_tokens(self, messages):
        return sum(4 + len(m.content) // 4 for m in messages)


class Tools(ToolBackend):
    """Runs functions of the call; counts how often."""

    def __init__(self, **functions):
        self.functions = {"get_weather": lambda call: f"sunny in {call.args['city']}", "pay": lambda call: "paid"} | functions
        self.calls = []

    async def execute(self, call):
        self.calls.append(copy.deepcopy(call))
        result = self.functions[call.tool_name](call)
        result = await result if asyncio.iscoroutine(result) else result
        if result is None or hasattr(result, "tool_name"):
            return result
        call.result = result
        return call


class Memory(MemoryBackend):
    def __init__(self):
        self.saved = {}

    async def load(self, run_id):
        return list(self.saved.get(run_id, []))

    async def save(self, run_id, messages):
        self.saved[run_id] = list(messages)


class Observability(ObservabilityBackend):
    def __init__(self):
        self.runs = []
        self.calls = []

    def record_run(self, run):
        self.runs.append(run)

    def record_tool_call(self, call, run_id):
        self.calls.append((call.call_id, run_id))


def said(content="", *, calls=(), **metadata):
    """Return an assistant's message, with tool calls `(name, args)` in the layout of the documentation."""
    entries = [{"id": f"c{i}", "name": name, "args": args} for i, (name, args) in enumerate(calls, 1)]
    return Message(ASSISTANT, content, {**({"tool_calls": entries} if entries else {}), **metadata})


def asks(city="Paris", tool="get_weather", **metadata):
    return said(calls=[(tool, {"city": city})], **metadata)


def make(*replies, agent=ProductionAgent, given=(WEATHER, PAY), config=None, **ports):
    """Return an agent and its backends; `given` are the tools that it is told of."""
    it = SimpleNamespace(llm=LLM(*replies), tools=Tools(), memory=Memory(), obs=Observability())
    vars(it).update(ports)
    it.agent = agent(it.llm, list(given), it.tools, it.memory, it.obs, FULL if config is None else config)
    return it


def ask(it, question=QUESTION, run_id="run_001"):
    return asyncio.run(it.agent.run(question, run_id=run_id))


def told(it, request=-1):
    """Return what the tools' messages in a request of the model say, joined."""
    return "\n".join(m.content for m in it.llm.requests[request] if m.role is TOOL)


def roles(messages):
    return [m.role.value for m in messages]


def raising(times, then="sunny"):
    """Return a function that raises `times` times."""
    left = iter(range(times))

    def function(call):
        if next(left, None) is not None:
            raise ConnectionError("the line is dead")
        return then

    return function
