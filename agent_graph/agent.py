"""ProductionAgent: the specification's constructor and methods, and the verbs around them. The composition root: no decisions here.

The specification's underscore methods are the very path that the graph's nodes call, so an override in a subclass takes effect;
they also work alone, before any run, and then write nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional  # the specification's own spelling

from agent_graph import parts, resolutions
from agent_graph.config import AgentConfig, Budget, cutoff, validate_name, validate_run_id
from agent_graph.decisions import fingerprints, prompt
from agent_graph.decisions.budget import Limits, Spent, violation
from agent_graph.decisions.structured import answer_format
from agent_graph.decisions.tools import read_tools
from agent_graph.errors import RunNotFound
from agent_graph.graph import compiled_graph
from agent_graph.guardrails import by_stage
from agent_graph.runtime import asked, compressing, memory, promises, sync
from agent_graph.runtime.clock import SystemClock
from agent_graph.runtime.counter import Counter
from agent_graph.runtime.driver import Driver
from agent_graph.runtime.governor import Governor
from agent_graph.runtime.history import Entry, history
from agent_graph.runtime.recorder import Recorder
from agent_graph.runtime.tools import Tools
from agent_graph.runtime.turn import Turn, current_turn
from agent_graph.runtime.vocabulary import exact_counter
from agent_graph.state import AgentKey
from agent_graph.storage.opening import open_storage
from agent_graph.types import AgentRun, Message, ToolCall

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.store.base import BaseStore

    from agent_graph.events import Event
    from agent_graph.guardrails import Guardrail
    from agent_graph.ports import Clock, LLMBackend, MemoryBackend, ObservabilityBackend, ToolBackend
    from agent_graph.resolutions import Resolution
    from agent_graph.runtime.promises import Promise
    from agent_graph.storage.port import Redactor, Storage, TurnRow

__all__ = ["ProductionAgent", "create_production_agent"]


class ProductionAgent:
    """An agent that can be trusted with money and side effects.

    Args:
        llm: an `LLMBackend`; also any LangChain chat model, or a string such as "openai:gpt-5-mini".
        tools: one dict a tool: `{"name", "description", "parameters", "idempotent"}` (docs/backends.md).
        tool_backend: what runs them.
        memory: what a run remembers between its turns.
        observability: what is told of every tool call and every end of a turn.
        config: limits and policies (`AgentConfig`); any key may also be a keyword. Copied; the dict may be changed afterwards.
        system_prompt: comes before the list of the tools.
        name: the agent's name, by which `unfinished()` chooses its runs.
        namespace: separates tenants in one storage file.
        storage: a path, ":memory:" or a `Storage`; None for the default place (docs/storage.md).
        guardrails: rails in addition to the default ones; one that bears a default rail's name takes its place.
        store: LangGraph's store, for tools that have it injected.
        response_format: what the answer is to be: a pydantic model, a dataclass, a TypedDict or a JSON Schema. The object is
            `AgentRun.structured`; an answer that does not fit goes back to the model, at most twice, and then fails the turn.
        fallbacks: models that are asked, in order, when `llm` has failed for good.
        prices: USD per million tokens for models that the price table does not know: `{"my-model": {"input": 0.1, "output": 0.4}}`.
        budget: a limit that all agents of this storage share which name it: `Budget("team-a", max_cost_usd=5, per="day")`.
        redact: takes text that is about to be written and returns it without secrets.
        clock: where time comes from.

    Raises:
        ConfigError: a setting that cannot be.

    Constructing opens and writes nothing. One agent serves many concurrent runs, threads and event loops.
    """

    def __init__(
        self,
        llm: LLMBackend,
        tools: List[Dict],  # type: ignore[type-arg]  # the specification's own annotation
        tool_backend: ToolBackend,
        memory: MemoryBackend,
        observability: ObservabilityBackend,
        config: Dict,  # type: ignore[type-arg]  # the specification's own annotation
        *,
        system_prompt: str | None = None,
        name: str = "agent",
        namespace: str = "default",
        storage: str | Path | Storage | None = None,
        guardrails: Sequence[Guardrail] = (),
        store: BaseStore | None = None,
        response_format: Any = None,
        fallbacks: Sequence[LLMBackend | BaseChatModel | str] = (),
        prices: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        redact: Redactor | None = None,
        clock: Clock | None = None,
        **policies: Any,
    ) -> None:
        self._assemble(
            llm,
            tools,
            tool_backend,
            memory,
            observability,
            AgentConfig.from_mapping(config, **policies),
            system_prompt=system_prompt,
            name=name,
            namespace=namespace,
            storage=storage,
            guardrails=guardrails,
            store=store,
            response_format=response_format,
            fallbacks=fallbacks,
            prices=prices,
            budget=budget,
            redact=redact,
            clock=clock,
            unmarked="retry",
        )

    def _assemble(
        self,
        llm: Any,
        tools: Sequence[Mapping[str, Any]],
        tool_backend: Any,
        memory_backend: Any,
        observability: Any,
        config: AgentConfig,
        *,
        system_prompt: str | None,
        name: str,
        namespace: str,
        storage: str | Path | Storage | None,
        guardrails: Sequence[Guardrail],
        store: BaseStore | None,
        response_format: Any,
        fallbacks: Sequence[Any],
        prices: Mapping[str, Any] | None,
        budget: Budget | None,
        redact: Redactor | None,
        clock: Clock | None,
        unmarked: str,
        around_model: Any = None,
        hooks: Any = None,
    ) -> None:
        self.name, self.namespace = validate_name(name, "name"), validate_name(namespace, "namespace")
        parts.check_keywords(system_prompt=system_prompt, store=store, redact=redact, clock=clock)
        specs = read_tools(tools)
        self.tools = list(tools)
        self.system_prompt = system_prompt
        self.budget = parts.budget(budget)
        self.around_model, self.hooks = around_model, hooks
        self.clock: Clock = clock if clock is not None else SystemClock()
        models = parts.models(llm, fallbacks, specs, self.tools, prices, config)
        self.config = models.config
        self.model_line = models.line
        self.llm, self.tool_backend, self.observability = llm, tool_backend, observability
        parts.check_port(tool_backend, "tool_backend", "ToolBackend", ("execute",), optional=not specs)
        parts.check_port(memory_backend, "memory", "MemoryBackend", ("load", "save"), optional=True)
        parts.check_port(observability, "observability", "ObservabilityBackend", ("record_run", "record_tool_call"), optional=True)
        self.storage = open_storage(storage, durability=self.config.durability, redact=redact)
        self._opened_storage = self.storage is not storage
        self.memory: Any = memory_backend if memory_backend is not None else memory.StoredMemory(self)
        self.recorder = Recorder(observability)
        self.response_format = answer_format(response_format)
        self.guardrails = parts.rails(guardrails, specs, self.response_format)
        self.rails = by_stage(self.guardrails)
        self.governor = Governor(
            models.candidates, models.prices, attempts=self.config.attempts, max_output_tokens=self.config.max_output_tokens
        )
        model = models.candidates[0]
        self._counter = Counter(model.backend, specs, exact=exact_counter(model.name, model.provider))
        self._tools = Tools(
            tool_backend,
            specs,
            attempts=self.config.attempts,
            unmarked_idempotent=(self.config.unmarked_tools or unmarked) == "retry",
            clock=self.clock,
        )
        self.specs = self._tools.specs
        self.is_idempotent = self._tools.is_idempotent
        self.can_reconcile, self.reconcile = self._tools.can_reconcile, self._tools.reconcile
        self.compresses_always = type(self)._compress_if_needed is not ProductionAgent._compress_if_needed
        self.fingerprint = fingerprints.of_tools(specs, self.is_idempotent)
        self.driver = Driver(self)
        self.key = AgentKey.of(self, self.name)
        bound: dict[str, Any] = {"checkpointer": self.storage.checkpointer, "store": store, "name": self.name}
        self.graph: CompiledStateGraph[Any, Any, Any, Any] = (
            compiled_graph().copy(bound).with_config({"configurable": {"agent_key": self.key}})
        )

    # -- the specification ----------------------------------------------------------------------------------------------------

    async def run(
        self,
        user_input: str,
        run_id: str = None,  # type: ignore[assignment]  # the specification's own signature
        *,
        request_id: str | None = None,
        deadline_at: float | datetime | None = None,
    ) -> AgentRun:
        """Run one turn and return its account.

        Args:
            user_input: what the user says; not empty.
            run_id: names the conversation; None for a new one. The same run_id again is the conversation's next turn; where the
                last turn is unfinished (its process died, its caller stopped) and the input is the same, that turn goes on.
            request_id: makes the call safe to repeat: the turn that bears it is run once, and its stored AgentRun returned ever after.
                Without a `run_id` it names the run too.
            deadline_at: seconds since the epoch (or a datetime) at which the turn must be over, beside `timeout_s`.

        Raises:
            ConfigError, RunConflict, RunInProgress, StorageError, NotDurable, LeaseLost, CancelledError. Everything that goes
            wrong *inside* the turn is in the AgentRun: `status`, `error`.
        """
        return await self.driver.drive(asked.for_input(self, user_input, run_id, request_id, deadline_at))

    async def _execute_tool(self, call: ToolCall) -> ToolCall:
        """Execute `call` with retries, timeout and idempotency, and return it with `result` or `error`. See runtime/tools.py."""
        return await self._tools.execute(call, current_turn.get())

    async def _check_budgets(self, run: AgentRun) -> Optional[str]:
        """Return the first limit that `run` has reached, as "<key>: <value> of <limit>", or None."""
        turn = current_turn.get()
        if turn is not None and run is turn.run:
            left = turn.time_left_s
            return violation(turn.limits, turn.spent) or (turn.time_is_up() if left is not None and left <= 0 else None)
        return violation(Limits.of(self.config), Spent.of(run))

    def _build_system_prompt(self, tools: List[Dict]) -> str:  # type: ignore[type-arg]  # the specification's own annotation
        """Return the system prompt: the agent's own, one line a tool, the answer's format; byte for byte the same for the same tools."""
        specs = self._tools.all if tools is self.tools else read_tools(tools)
        return prompt.system_prompt(self.system_prompt, specs, self.response_format.prompt if self.response_format else "")

    async def _compress_if_needed(self, messages: List[Message]) -> List[Message]:
        """Return `messages` itself while it is within `compression_threshold`, else a shorter list; calls and results stay together."""
        return await compressing.compressed(self, messages, current_turn.get())

    # -- verbs ------------------------------------------------------------------------------------------------------------------

    def run_sync(
        self,
        user_input: str,
        run_id: str | None = None,
        *,
        request_id: str | None = None,
        deadline_at: float | datetime | None = None,
    ) -> AgentRun:
        """Run one turn for a caller that cannot await: in scripts, and in notebooks where a loop is already running."""
        return sync.run_sync(self.driver.drive(asked.for_input(self, user_input, run_id, request_id, deadline_at)))

    async def stream(
        self,
        user_input: str,
        run_id: str | None = None,
        *,
        request_id: str | None = None,
        deadline_at: float | datetime | None = None,
    ) -> AsyncIterator[Event]:
        """Run one turn and yield its events, the last a `RunFinished`. Closing the iterator stops the turn; it can be resumed."""
        given = asked.for_input(self, user_input, run_id, request_id, deadline_at)
        async with contextlib.aclosing(self.driver.stream(given)) as events:
            async for event in events:
                yield event

    async def resume(self, run_id: str, *, force: bool = False, add_budget: Mapping[str, Any] | None = None) -> AgentRun:
        """Go on with the unfinished turn of `run_id` and return its account; the part before the crash is in it.

        ```python
        run = await agent.resume("run_001", add_budget={"max_cost_usd": 0.50, "max_steps": 5})
        ```

        A turn that ended at a limit of a shared `Budget` goes on too, without `add_budget`, where that limit holds by now.

        Args:
            run_id: the run whose last turn is to go on.
            force: also with other tools than those it was begun with.
            add_budget: what to add to which limit, for this turn alone; each call adds. A turn that ended `failed` or `timeout` at a
                limit goes on where it was, with the same number, and ends (and is told to the observability backend) again.

        Raises:
            RunNotFound: nothing of this name is unfinished. RunConflict: the tools differ from those it was begun with
            (`force=True` goes on all the same), or it ended at no limit. ConfigError: `add_budget` names no limit, or no amount.
            RunInProgress and the rest as for `run`.
        """
        return await self.driver.drive(asked.to_go_on(self, run_id, force, add_budget))

    async def stream_resume(self, run_id: str, *, force: bool = False, add_budget: Mapping[str, Any] | None = None) -> AsyncIterator[Event]:
        """Like `resume`, and yield the events."""
        given = asked.to_go_on(self, run_id, force, add_budget)
        async with contextlib.aclosing(self.driver.stream(given)) as events:
            async for event in events:
                yield event

    async def resolve(self, run_id: str, call_id: str, outcome: Resolution | Mapping[str, Any] | str) -> AgentRun:
        """Give a person's word on something that a turn waits for; once nothing is left to wait for, the turn goes on.

        ```python
        run = await agent.resolve("run_001", "call_1", Done("receipt 17"))
        ```

        Args:
            run_id: a run whose `status` is "running" and whose `pending` is not empty.
            call_id: the `call_id` of an entry of `AgentRun.pending`.
            outcome: of a call in doubt `Done(result)`, `NotDone()`, `Unknown()`; of what a guardrail asked about `Approve()`,
                `Edit(value)`, `Reject(reason)`, `Respond(text)`; or the same as JSON, `{"type": "done", "result": ...}`.

        Raises:
            RunNotFound, RunConflict (nothing waits under this call_id), ConfigError (this outcome makes no sense here).
        """
        return await self.driver.resolve(validate_run_id(run_id), call_id, resolutions.from_json(outcome))

    async def unfinished(self) -> list[str]:
        """Return the run_ids of this agent's turns that were begun, not ended, and that nobody alive works on; oldest first."""
        return [row.key.run_id for row in await self.storage.unfinished(self.namespace, self.name)]

    async def get(self, run_id: str) -> AgentRun:
        """Return the account of the run's last turn, finished or not. Raises RunNotFound."""
        return await self.driver.account(await self._last_turn(run_id))

    async def history(self, run_id: str) -> list[Entry]:
        """Return every message of the run over all its turns, those that compression took out included. Raises RunNotFound."""
        row = await self._last_turn(run_id)
        return await history(self.storage.checkpointer, row.key.thread_id)

    async def runs(self, limit: int = 50) -> list[TurnRow]:
        """Return the newest turn of each run in this namespace, newest first."""
        return list(await self.storage.runs(self.namespace, limit=limit))

    async def delete(self, run_id: str) -> None:
        """Delete everything of a run: turns, calls, checkpoints, memory. Raises RunInProgress while somebody works on it."""
        await self.storage.delete(self.namespace, validate_run_id(run_id))

    async def prune(self, *, older_than: timedelta | datetime | float) -> list[str]:
        """Delete the runs of this namespace that are over and were last touched before then; return their run_ids.

        ```python
        await agent.prune(older_than=timedelta(days=30))
        ```

        Args:
            older_than: an age (a timedelta, or seconds) or an instant (a datetime with a time zone).

        A run is over when each of its turns has ended. One that is unfinished or waits for a person can still go on, and stays
        however old it is; `delete` is the way to drop it. Raises ConfigError.
        """
        before = cutoff(older_than, self.clock.time())
        return [run_id for _, run_id in await self.storage.prune(before=before, namespace=self.namespace)]

    def guarantees(self) -> list[Promise]:
        """Return what holds with these backends, what is best effort, and what does not, each in a plain sentence."""
        return promises.of(self)

    @property
    def storage_location(self) -> str:
        """Where the runs are kept, as a person would name it."""
        return self.storage.location

    async def aclose(self) -> None:
        """Write what is queued and close what the agent opened; a second call does nothing.

        A `Storage` that was handed in stays open: other agents may use it, and whoever made it closes it.
        """
        await self.recorder.delivered()
        await self.governor.aclose()
        if self._opened_storage:
            await self.storage.close()

    async def __aenter__(self) -> ProductionAgent:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- what the nodes ask of their agent ------------------------------------------------------------------------------------------

    async def attend(self, run_id: str, turn: int) -> Turn:
        """Return the live turn that a node works for."""
        return await self.driver.hosting.attend(run_id, turn)

    def count(self, turn: Turn | None, messages: Sequence[Message]) -> int:
        """Return the tokens of `messages`, by the model's own counter where it has one."""
        return self._counter.count(messages, None if turn is None else turn.learned)

    def count_bound(self, turn: Turn, messages: Sequence[Message]) -> int:
        """Return the tokens that a call which shows `messages` reserves, where they have been made smaller since the last reply."""
        return self._counter.bound(messages, turn.learned)

    def shrunk(self, turn: Turn, messages: Sequence[Message]) -> None:
        """Let the counter know that the list has been made smaller."""
        self._counter.shrunk(turn.learned, messages)

    def size(self, message: Message) -> int:
        """Return the tokens that one message adds to a list."""
        return self._counter.size(message)

    def count_text(self, text: str) -> int:
        """Return the estimated tokens of a reply's text."""
        return self._counter.count_text(text)

    def learn(self, turn: Turn, messages: Sequence[Message]) -> None:
        """Let the counter learn what the newest reply said of its input."""
        self._counter.learn(turn.learned, messages)

    async def remember(self, turn: Turn, messages: Sequence[BaseMessage], *, at_end: bool) -> None:
        """Save the memory where a save is due."""
        await memory.save(turn, self.memory, messages, at_end=at_end)

    async def _last_turn(self, run_id: str) -> TurnRow:
        rows = await self.storage.turns(self.namespace, validate_run_id(run_id))
        if not rows:
            raise RunNotFound(f"run {run_id!r}: nothing of this name is in {self.storage.location}.", run_id=run_id)
        return rows[-1]


def create_production_agent(
    model: LLMBackend | BaseChatModel | str | None = None,
    tools: Sequence[Any] = (),
    *,
    system_prompt: str | None = None,
    name: str = "agent",
    namespace: str = "default",
    memory: MemoryBackend | None = None,
    observability: ObservabilityBackend | None = None,
    storage: str | Path | Storage | None = None,
    guardrails: Sequence[Guardrail] = (),
    store: BaseStore | None = None,
    response_format: Any = None,
    middleware: Sequence[Any] = (),
    fallbacks: Sequence[LLMBackend | BaseChatModel | str] = (),
    prices: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    redact: Redactor | None = None,
    clock: Clock | None = None,
    **config: Any,
) -> ProductionAgent:
    """Return an agent made of LangChain's components.

    ```python
    agent = create_production_agent("openai:gpt-5-mini", tools=[get_weather], max_cost_usd=0.05)
    run = await agent.run("What is the weather in Paris?")
    ```

    Args:
        model: any `init_chat_model` string or chat model, or an `LLMBackend`; None chooses by the environment (docs/models.md).
        tools: `@tool` functions, `BaseTool`s, plain callables. One that is not marked is called at most once a call, since what it
            does may not be repeatable; mark it with `@tool(extras={"idempotent": True})`.
        memory: None keeps the conversation in the agent's own storage.
        observability: None tells nobody.
        middleware: LangChain's `AgentMiddleware`; what cannot be honoured is refused by name (docs/middleware.md).
        config: limits and policies, as keywords (`AgentConfig`).

    The rest is as for `ProductionAgent`. Raises ConfigError.
    """
    from agent_graph_adapters.langchain.tools import as_tool_backend

    hooks = None
    if middleware:
        from agent_graph_adapters.langchain.hooks import Hooks

        hooks = Hooks(middleware, tools)
    backend = as_tool_backend(tools) if hooks is None else as_tool_backend(hooks.tools, around=hooks.around_tool)
    agent = ProductionAgent.__new__(ProductionAgent)
    agent._assemble(
        model,
        backend.specs,
        backend,
        memory,
        observability,
        AgentConfig.from_mapping(config),
        system_prompt=system_prompt,
        name=name,
        namespace=namespace,
        storage=storage,
        guardrails=guardrails,
        store=store,
        response_format=response_format,
        fallbacks=fallbacks,
        prices=prices,
        budget=budget,
        redact=redact,
        clock=clock,
        unmarked="once",
        around_model=None if hooks is None else hooks.around_model,
        hooks=None if hooks is None else hooks.steps,
    )
    parts.name_unmarked(agent.specs.values(), agent.config)
    return agent
