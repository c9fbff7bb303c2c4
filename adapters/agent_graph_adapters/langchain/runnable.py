"""The agent as a LangChain Runnable: in LCEL pipes, in batches, as a node of somebody's graph.

What goes in decides what comes out:

- a string, a PromptValue or a list of messages: the final AIMessage;
- `Command(resume=...)`, a person's word for the turn of this thread that waits for one: the final AIMessage;
- `{"messages": [...]}`: `{"messages": [...]}` with this turn's new messages only, so that `add_messages` takes it as it is; with a
  `response_format`, `structured_response` beside it, as `create_agent` has it.

The last human message is the turn's input. Messages before it take the place of what the memory holds of the run; a human message
alone continues the run from its memory. `configurable.thread_id` names the run, as everywhere in LangGraph; without one each call
is a new run. Inside another graph's node the run's name is that graph's thread and the node's, inside a tool the call's key too:
two agents of one app do not share a conversation, and a call that is made again after a crash finds the run that it had begun.

A turn that ends without an answer is an exception (NoAnswer), so that `with_fallbacks` and `with_retry` do what they say; the
account is in it. An unfinished turn of the run is closed by another input: a chain knows of no other way to go on.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.utils import AddableDict
from langgraph.types import Command
from typing_extensions import override

from agent_graph.context import idempotency_key
from agent_graph.decisions.tools import canonical_json
from agent_graph.errors import ConfigError, NoAnswer
from agent_graph.events import RunFinished, TextDelta
from agent_graph.messages import ensure_id
from agent_graph.resolutions import from_json
from agent_graph.runtime import lineage
from agent_graph.runtime.asked import for_input
from agent_graph.runtime.streaming import streamed
from agent_graph.runtime.sync import run_sync
from agent_graph_adapters.langchain.injected import around

if TYPE_CHECKING:
    from agent_graph.agent import ProductionAgent
    from agent_graph.runtime.asked import Asked
    from agent_graph.types import AgentRun

__all__ = ["AgentRunnable", "as_runnable"]

Input: TypeAlias = str | PromptValue | Sequence[Any] | Mapping[str, Any] | Command[Any]
"""What the runnable takes; messages in any of the forms that LangChain takes."""

_PASSED_ON = ("callbacks", "tags", "metadata", "run_name", "run_id", "max_concurrency")
"""Keys of a RunnableConfig that reach the graph as they are."""


def as_runnable(agent: ProductionAgent) -> AgentRunnable:
    """Return `agent` as a LangChain Runnable.

    ```python
    chain = prompt | as_runnable(agent) | StrOutputParser()
    answer = await chain.ainvoke({"city": "Paris"}, {"configurable": {"thread_id": "run_001"}})
    ```

    See the module's text for what goes in and what comes out. Raises ConfigError for what is no agent.
    """
    return AgentRunnable(agent)


class AgentRunnable(Runnable[Input, Any]):
    """A ProductionAgent behind LangChain's interface."""

    def __init__(self, agent: ProductionAgent) -> None:
        if not hasattr(agent, "driver"):
            raise ConfigError(f"as_runnable: a ProductionAgent is due, not {type(agent).__name__}.")
        self.agent = agent
        self.name = agent.name

    @override
    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run one turn, for a caller that cannot await; see `ainvoke`."""
        return run_sync(self.ainvoke(input, config, **kwargs))

    @override
    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run one turn and return the final AIMessage, or the turn's new messages.

        Args:
            input: see the module's text.
            config: which of its keys are honoured, and how, docs/langchain.md says.
            kwargs: `context=`, what tools see as their runtime's `context`; a graph around gives its own. No other option is taken.

        Raises:
            NoAnswer: the turn failed, or waits for a person. ConfigError: an input or a thread_id that cannot be. What `run` raises.
        """
        context = _context(**kwargs)
        if isinstance(input, Command):
            return await self._resumed(input, config, context)
        question = _read(input)
        run = await self.agent.driver.drive(await self._again(self._asked(question, config, context)))
        return await self._answer(question, run)

    async def _resumed(self, word: Command[Any], config: RunnableConfig | None, context: Any) -> AIMessage:
        """Give a person's word to the turn that waits for it, and return the answer that it then comes to."""
        whole = ensure_config(config)
        run_id = _run_id(whole)
        if run_id is None:
            raise ConfigError("thread_id: a Command(resume=...) answers a run that waits; name it: {'configurable': {'thread_id': ...}}.")
        run = await self.agent.get(run_id)
        pending, decisions = run.pending, _decisions(word)
        if len(decisions) != len(pending) or not pending:
            waits = ", ".join(repr(entry["call_id"]) for entry in pending) or "nothing"
            raise ConfigError(f"resume: {len(decisions)} decisions were given; run {run_id!r} waits for a word on {waits}, one each.")
        for entry, decision in zip(pending, decisions, strict=True):
            outcome = from_json(decision)
            run = await self.agent.driver.resolve(run_id, entry["call_id"], outcome, config=_passed(whole), context=context)
        answer: AIMessage = await self._answer(_Question("", None, as_state=False), run)
        return answer

    @override
    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Run one turn and yield as `astream` does, for a caller that cannot await."""
        chunks = self._chunks(input, config, **kwargs)
        try:
            while True:
                try:
                    yield run_sync(anext(chunks))
                except StopAsyncIteration:
                    return
        finally:
            run_sync(chunks.aclose())

    @override
    async def astream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Run one turn and yield the answer as it comes: AIMessageChunks, or `{"messages": [...]}` for each step.

        The chunks hold what the model says before it calls tools, too. `stream_mode=` yields what LangGraph yields instead
        ("updates", "values", "messages", "custom", or a list of these). Closing the iterator stops the turn; the same input under
        the same thread_id goes on with it.
        """
        async with contextlib.aclosing(self._chunks(input, config, **kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk

    @override
    def get_graph(self, config: RunnableConfig | None = None) -> Any:
        """Return the drawing of the agent's graph."""
        return self.agent.graph.get_graph(config)

    def __repr__(self) -> str:
        return f"as_runnable({self.name!r})"

    # -- in ---------------------------------------------------------------------------------------------------------------------

    def _asked(self, question: _Question, config: RunnableConfig | None, context: Any) -> Asked:
        whole = ensure_config(config)
        asked = for_input(self.agent, question.text, _run_id(whole), None, None)
        return replace(
            asked,
            request_id=asked.request_id or _task_of(whole, question.text),
            messages=question.messages,
            on_unfinished="close",
            config=_passed(whole),
            context=context,
        )

    async def _again(self, asked: Asked) -> Asked:
        """Return what is asked, where a task of LangGraph's asks: the request that it was before, unless that came to no answer."""
        base = asked.request_id
        if base is None or not base.startswith(_TASK):
            return asked
        rows = await self.agent.storage.turns(self.agent.namespace, asked.run_id)
        failed = [row for row in rows if (row.request_id or "").startswith(base) and row.status in ("failed", "timeout", "closed")]
        return replace(asked, request_id=f"{base}-{len(failed)}")

    # -- out --------------------------------------------------------------------------------------------------------------------

    async def _answer(self, question: _Question, run: AgentRun) -> Any:
        if run.status != "complete":
            raise NoAnswer(_why(run), run=run)
        new = await self._new_messages(question, run)
        if question.as_state:
            return {"messages": new} if self.agent.response_format is None else {"messages": new, "structured_response": run.structured}
        final = next((message for message in reversed(new) if isinstance(message, AIMessage)), AIMessage(run.output or ""))
        return final if final.text == run.output else final.model_copy(update={"content": run.output})

    async def _new_messages(self, question: _Question, run: AgentRun) -> list[BaseMessage]:
        """Return the messages that the turn added, with the ids under which the run keeps them."""
        row = (await self.agent.storage.turns(self.agent.namespace, run.run_id))[-1]
        state = await self.agent.graph.aget_state({"configurable": {"thread_id": row.key.thread_id}})
        if state.values.get("turn") != run.turn:  # somebody has begun the next one meanwhile
            return [AIMessage(run.output or "")]
        given = {message.id for message in question.messages or ()}
        return [message for message in state.values["messages"][state.values["first"] + 1 :] if message.id not in given]

    def _chunks(self, given: Input, config: RunnableConfig | None, *, stream_mode: Any = None, **options: Any) -> AsyncGenerator[Any, None]:
        context = _context(**options)
        if isinstance(given, Command):
            return self._answered(given, config, context)
        question = _read(given)
        asked = self._asked(question, config, context)
        if stream_mode is not None:
            return self._relayed(question, asked, stream_mode)
        return self._steps(question, asked) if question.as_state else self._texts(question, asked)

    async def _answered(self, word: Command[Any], config: RunnableConfig | None, context: Any) -> AsyncGenerator[Any, None]:
        yield _last_chunk(await self._resumed(word, config, context), "")

    async def _texts(self, question: _Question, asked: Asked) -> AsyncGenerator[Any, None]:
        shown = step = None
        async with contextlib.aclosing(self.agent.driver.stream(await self._again(asked))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    shown = (shown or "") + event.text if event.step == step and not event.restarts else event.text
                    step = event.step
                    if event.text:
                        yield AIMessageChunk(content=event.text)
                elif isinstance(event, RunFinished):
                    yield _last_chunk(await self._answer(question, event.run), shown or "")

    async def _steps(self, question: _Question, asked: Asked) -> AsyncGenerator[Any, None]:
        """Yield the new messages, each once, as the steps end."""
        told = {message.id for message in question.messages or ()}
        answer: Any = {"messages": []}
        async with await self._driven(replace(asked, modes=("updates",))) as chunks:
            async for mode, chunk in chunks:
                if mode is None:
                    answer = await self._answer(question, chunk)
                    continue
                new = [message for update in chunk.values() for message in _messages_of(update) if message.id not in told]
                told |= {message.id for message in new}
                if new:
                    yield AddableDict(messages=new)
        rest = [message for message in answer["messages"] if message.id not in told]
        if rest:
            yield AddableDict(messages=rest)
        if "structured_response" in answer:
            yield AddableDict(structured_response=answer["structured_response"])

    async def _relayed(self, question: _Question, asked: Asked, stream_mode: Any) -> AsyncGenerator[Any, None]:
        modes = [stream_mode] if isinstance(stream_mode, str) else list(stream_mode)
        async with await self._driven(replace(asked, modes=modes)) as chunks:
            async for mode, chunk in chunks:
                if mode is None:
                    await self._answer(question, chunk)
                else:
                    yield chunk if isinstance(stream_mode, str) else (mode, chunk)

    async def _driven(self, asked: Asked) -> contextlib.aclosing[AsyncGenerator[tuple[str | None, Any], None]]:
        """Return the chunks of the graph's stream with their modes, at last the AgentRun with None."""
        asked = await self._again(asked)

        async def driven(put: Callable[[tuple[str | None, Any]], None]) -> None:
            put((None, await self.agent.driver.drive(replace(asked, relay=lambda mode, chunk: put((mode, chunk))))))

        return contextlib.aclosing(streamed(driven))


@dataclass(frozen=True, slots=True)
class _Question:
    """An input, read."""

    text: str
    """The turn's input."""
    messages: list[BaseMessage] | None
    """The conversation that was given, the input in it; None where only a text was."""
    as_state: bool
    """Whether messages under a key came in, and are to go out."""


def _context(context: Any = None, **others: Any) -> Any:
    """Return what tools are to see as their runtime's context: the given one, else that of a graph around.

    Raises ConfigError for any other option: it would be lost without a word.
    """
    if others:
        raise ConfigError(
            f"as_runnable: {', '.join(f'{name}=' for name in others)} is no option of an agent's runnable. Beside a config it takes "
            "context= and, of a stream, stream_mode=; limits, storage and durability are the agent's own."
        )
    return around().context if context is None else context


def _passed(config: RunnableConfig) -> dict[str, Any]:
    """Return what of a configuration reaches the agent's graph."""
    configurable = {key: value for key, value in config.get("configurable", {}).items() if _is_the_users(key)}
    return {**{key: value for key, value in config.items() if key in _PASSED_ON and value}, "configurable": configurable}


def _decisions(word: Command[Any]) -> list[Any]:
    """Return a person's words: as LangChain's HumanInTheLoopMiddleware takes them, or one alone."""
    resume = word.resume
    return list(resume["decisions"]) if isinstance(resume, Mapping) and isinstance(resume.get("decisions"), list) else [resume]


def _read(given: Any) -> _Question:
    if isinstance(given, str):
        return _Question(given, None, as_state=False)
    if isinstance(given, PromptValue) and not isinstance(given, ChatPromptValue):
        return _Question(given.to_string(), None, as_state=False)
    as_state, messages = False, given
    if isinstance(given, Mapping) and "messages" in given:
        as_state, messages = True, given["messages"]
    messages = _messages(messages)
    question = next((message for message in reversed(messages) if isinstance(message, HumanMessage)), None)
    if question is None:
        raise ConfigError("messages: at least one human message is due; the last one is the turn's input.")
    return _Question(question.text or _kinds(question), messages, as_state=as_state)


def _messages(given: Any) -> list[BaseMessage]:
    if isinstance(given, PromptValue):
        given = given.to_messages()
    if isinstance(given, BaseMessage | str):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise ConfigError(
            f"input: {type(given).__name__} is nothing to ask. A string, a PromptValue, a list of messages or {{'messages': [...]}} is due."
        )
    try:
        return [ensure_id(message) for message in convert_to_messages(given)]
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"messages: {error}") from error


def _kinds(message: BaseMessage) -> str:
    """Return what a message without any text holds, as a person would say it: "[image]"."""
    return " ".join(f"[{block['type']}]" for block in message.content_blocks) or "[empty]"


def _run_id(config: RunnableConfig) -> str | None:
    """Return the run that a configuration names; None for a new one."""
    configurable = config.get("configurable") or {}
    thread_id, run_id = configurable.get("thread_id"), configurable.get("run_id")
    if thread_id is not None and run_id is not None and thread_id != run_id:
        raise ConfigError(
            f"thread_id: it is {thread_id!r}, but run_id is {run_id!r}. They name the same run: give one, or the same for both."
        )
    name = run_id if thread_id is None else thread_id
    if name is None:
        return None
    nodes = [node for part in str(configurable.get("checkpoint_ns") or "").split("|") if (node := part.split(":", 1)[0])]
    key = idempotency_key() if nodes else None  # a thread_id that somebody inside a tool names is the name
    if key is not None and lineage.parent() is not None:
        return None  # a child of the turn whose tool this is: `run` names it by its parent's call
    return "/".join([str(name), *nodes, *([] if key is None else [key])])


_TASK = "task-"


def _task_of(config: RunnableConfig, text: str) -> str | None:
    """Return the name of a request that a node of somebody's graph makes; None outside one.

    LangGraph gives a task that it runs again (the process died, the node raised) the name that it had, and the next visit of the node
    another: so what this node had asked and been answered is neither asked nor paid for twice.
    """
    configurable = config.get("configurable") or {}
    place = str(configurable.get("checkpoint_ns") or "")
    if ":" not in place or configurable.get("thread_id") is None or idempotency_key() is not None:
        return None
    return f"{_TASK}{hashlib.sha256(canonical_json([place, text]).encode()).hexdigest()[:32]}"


def _is_the_users(key: str) -> bool:
    """Return whether a configurable key is no part of LangGraph's own book-keeping."""
    return not key.startswith(("__", "checkpoint")) and key not in ("thread_id", "run_id", "agent_key")


def _messages_of(update: Any) -> list[BaseMessage]:
    messages = update.get("messages", []) if isinstance(update, Mapping) else []
    return list(messages) if isinstance(messages, list) else []


def _last_chunk(answer: AIMessage, shown: str) -> AIMessageChunk:
    """Return what is left of the answer after the text that has been shown, with everything else that it holds."""
    rest: Any = answer.content
    if shown:
        left = answer.text[len(shown) :] if answer.text.startswith(shown) else ""
        blocks = [block for block in rest if isinstance(block, dict) and block.get("type") != "text"] if isinstance(rest, list) else []
        rest = [*blocks, *([{"type": "text", "text": left}] if left else [])] if blocks else left
    fields = answer.model_dump(exclude={"type", "content", "tool_calls", "invalid_tool_calls"})
    return AIMessageChunk(content=rest, **fields, chunk_position="last")


def _why(run: AgentRun) -> str:
    if run.status != "running":
        return f"run {run.run_id!r}: turn {run.turn} ended without an answer ({run.status}): {run.error}"
    waits = "; ".join(f"await agent.resolve({run.run_id!r}, {entry['call_id']!r}, ...) ({entry['reason']})" for entry in run.pending)
    return f"run {run.run_id!r}: turn {run.turn} waits for a person's word: {waits or 'it was stopped'}; or Command(resume=...) as input."
