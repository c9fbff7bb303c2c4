"""The prepared way to call a tool is held equal to LangChain's own, `BaseTool.ainvoke`: results, errors, and what handlers hear."""

import asyncio
import threading
from typing import Annotated, Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda, ensure_config
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, Tool, ToolException, tool
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from pydantic import BaseModel, Field, field_validator

from agent_graph.errors import ConfigError
from agent_graph_adapters.langchain.prepared import Outcome, PreparedTool


class Heard(AsyncCallbackHandler):
    """Notes everything that handlers are told of tools and of what runs inside them."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.tools: set[Any] = set()

    async def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.tools.add(kwargs["run_id"])
        told = {key: kwargs.get(key) for key in ("inputs", "tool_call_id", "tags", "metadata", "color", "name")}
        self.events.append(("start", serialized, input_str, told))

    async def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.events.append(("end", output, kwargs.get("color"), kwargs.get("name")))

    async def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append(("error", type(error), str(error), kwargs.get("tool_call_id")))

    async def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.events.append(("inside", inputs, kwargs["parent_run_id"] in self.tools, kwargs.get("tags")))


class City(BaseModel):
    name: str
    country: str = "FR"


class Trip(BaseModel):
    city: City
    days: int = Field(default=1, ge=1, alias="length")
    notes: list[str] = Field(default_factory=list)

    @field_validator("days")
    @classmethod
    def _at_most_a_month(cls, days: int) -> int:
        if days > 31:
            raise ValueError("too long")
        return days


@tool
async def add(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


@tool(args_schema=Trip)
def trip(city: City, days: int, notes: list[str]) -> str:
    """Plan."""
    return f"{city.name} {city.country} {days} {notes}"


@tool
def rows(n: int) -> list[dict[str, int]]:
    """Rows."""
    return [{"n": number} for number in range(n)]


@tool
async def blocks() -> list[dict[str, Any]]:
    """An image."""
    return [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "u"}}]


@tool(response_format="content_and_artifact")
async def both(n: int) -> tuple[str, dict[str, int]]:
    """Both."""
    return f"{n} rows", {"n": n}


@tool(response_format="content_and_artifact")
async def not_both(n: int) -> int:
    """Not both."""
    return n


@tool
async def own_message(call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
    """Its own message."""
    return ToolMessage("mine", tool_call_id=call_id, artifact=[1], status="error")


@tool
async def configured(word: str, config: RunnableConfig) -> str:
    """Uses the configuration, and runs something inside."""
    inner = await RunnableLambda(str.upper).ainvoke(word)
    return f"{inner} {config['configurable']['user']} {config['tags']}"


@tool
def threaded(word: str) -> str:
    """Runs something inside a thread."""
    return RunnableLambda(str.upper).invoke(word)


@tool
async def refuses(n: int) -> str:
    """Refuses."""
    raise ToolException(f"not {n}")


@tool
async def breaks(n: int) -> str:
    """Breaks."""
    raise LookupError(f"broken {n}")


async def remote(**args: Any) -> str:
    """Any arguments, as an MCP tool has them."""
    return str(sorted(args.items()))


SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}, "limit": {"type": "integer"}}, "required": ["q"]}
mcp = StructuredTool(name="mcp", description="Remote.", args_schema=SCHEMA, coroutine=remote, metadata={"server": "x"}, tags=["remote"])


class Classic(BaseTool):
    """A tool as a class of its own, which is called through `ainvoke` here too."""

    name: str = "classic"
    description: str = "Classic."

    def _run(self, word: str) -> str:
        return f"{word} {threading.current_thread() is threading.main_thread()}"


CALLS: list[tuple[BaseTool, dict[str, Any]]] = [
    (add, {"a": "1"}),
    (add, {"a": 1, "b": 5, "unknown": 3}),
    (trip, {"city": {"name": "Lyon"}, "length": 3}),
    (trip, {"city": {"name": "Lyon"}, "notes": ["x"]}),
    (rows, {"n": 2}),
    (blocks, {}),
    (both, {"n": 2}),
    (not_both, {"n": 2}),
    (own_message, {}),
    (configured, {"word": "hi"}),
    (threaded, {"word": "hi"}),
    (refuses, {"n": 2}),
    (breaks, {"n": 2}),
    (mcp, {"q": "x", "limit": 3}),
    (Classic(), {"word": "hi"}),
    (Tool(name="single", description="One string.", func=str.upper), {"__arg1": "hi"}),
]
NAMES = [f"{number}-{entry[0].name}" for number, entry in enumerate(CALLS)]


def config(heard: Heard | None) -> RunnableConfig:
    handlers = {} if heard is None else {"callbacks": [heard]}
    return RunnableConfig(tags=["t"], metadata={"m": 1}, configurable={"user": "ann"}, **handlers)  # type: ignore[typeddict-item]  # callbacks or none of them


async def by_ainvoke(called: BaseTool, args: dict[str, Any], heard: Heard | None) -> Any:
    try:
        return await called.ainvoke({"type": "tool_call", "id": "c1", "name": called.name, "args": args}, config(heard))
    except Exception as error:
        return type(error), str(error)


async def by_us(called: BaseTool, args: dict[str, Any], heard: Heard | None) -> Any:
    async def node(_: None) -> Outcome:
        return await PreparedTool(called).run(args, "c1")

    try:
        return await RunnableLambda(node).ainvoke(None, config(heard))
    except Exception as error:
        return type(error), str(error)


def as_message(outcome: Any, called: BaseTool) -> Any:
    """Return what LangChain makes of a result, for comparison."""
    if not isinstance(outcome, Outcome):
        return outcome
    if outcome.failed and called is refuses:
        return ToolException, outcome.content
    from agent_graph_adapters.langchain.prepared import _told

    told = _told(called, outcome.content, outcome.artifact, "c1")
    return told.model_copy(update={"status": "error"}) if outcome.failed else told


@pytest.mark.parametrize("watched", [False, True], ids=["unwatched", "watched"])
@pytest.mark.parametrize(("called", "args"), CALLS, ids=NAMES)
async def test_the_outcome_is_that_of_ainvoke(called: BaseTool, args: dict[str, Any], watched: bool) -> None:
    expected = await by_ainvoke(called, args, Heard() if watched else None)
    got = as_message(await by_us(called, args, Heard() if watched else None), called)

    if called is own_message:
        expected = expected.model_copy(update={"name": "own_message"})
    if called is not_both:
        assert got[0] is expected[0] is ValueError
    else:
        assert got == expected


@pytest.mark.parametrize(("called", "args"), CALLS, ids=NAMES)
async def test_handlers_hear_what_ainvoke_tells_them(called: BaseTool, args: dict[str, Any]) -> None:
    theirs, ours = Heard(), Heard()
    await by_ainvoke(called, args, theirs)
    await by_us(called, args, ours)

    node, *heard = ours.events  # the first is the node that calls the tool
    assert node[0] == "inside"
    assert [without_our_words(event) for event in heard] == [without_our_words(event) for event in theirs.events]


def without_our_words(event: tuple[Any, ...]) -> tuple[Any, ...]:
    return event[:2] if event[0] == "error" and event[1] is ValueError else event


@pytest.mark.parametrize(
    ("called", "args", "words"),
    [
        (add, {"a": "x"}, "InvalidArguments: a: Input should be a valid integer"),
        (add, {}, "InvalidArguments: a: Field required"),
        (trip, {"city": {}, "length": 40}, "InvalidArguments: city.name: Field required; length: Value error, too long"),
        (own_message, {"call_id": "forged"}, None),
    ],
    ids=["type", "missing", "nested", "an injected argument is not the model's to give"],
)
async def test_wrong_arguments_are_told_before_anything_runs(called: BaseTool, args: dict[str, Any], words: str | None) -> None:
    outcome = await PreparedTool(called).run(args, "c1")

    assert outcome.failed
    assert outcome.content.startswith(words or "mine")


async def test_a_pydantic_error_of_the_tool_itself_is_not_the_models_fault() -> None:
    """A tool that paid, and then could not read the receipt, must not be told as one that never ran."""

    @tool
    async def pay(amount: int) -> str:
        """Pay."""
        return City.model_validate({"amount": amount}).name

    with pytest.raises(ValueError, match="City"):
        await PreparedTool(pay).run({"amount": 3}, "c1")


@pytest.mark.parametrize("handled", [True, "sorry", lambda error: f"handled {error}"], ids=["True", "text", "function"])
async def test_a_tool_that_treats_its_errors_itself_still_fails(handled: Any) -> None:
    @tool
    def strict(n: int) -> str:
        """Strict."""
        raise ToolException("no")

    strict.handle_tool_error = handled

    outcome = await PreparedTool(strict).run({"n": 1}, "c1")

    assert (outcome.failed, outcome.content) == (True, {"sorry": "sorry", "True": "no"}.get(str(handled), "handled no"))


async def test_the_runtime_is_injected_and_says_that_it_has_no_state() -> None:
    @tool
    async def looks(word: str, runtime: ToolRuntime) -> str:
        """Looks around."""
        assert ensure_config()["configurable"] == runtime.config["configurable"]
        try:
            return str(runtime.state["messages"])
        except ConfigError as error:
            return f"{word} {runtime.tool_call_id} {runtime.store} {error}"

    outcome = await PreparedTool(looks).run({"word": "hi", "runtime": "forged"}, "c1")

    assert outcome.content.startswith("hi c1 None tools: looks reads 'messages' of the graph's state, which has nothing")


@tool
def with_secret(secret: Annotated[str, InjectedToolArg]) -> str:
    """Secret."""
    return secret


@tool
def with_unknown_key(user: Annotated[str, InjectedState("user")]) -> str:
    """State."""
    return user


@pytest.mark.parametrize("wanting", [with_secret, with_unknown_key], ids=lambda wanting: wanting.name)
def test_what_cannot_be_injected_is_refused_at_construction(wanting: BaseTool) -> None:
    with pytest.raises(ConfigError, match=f"tools: {wanting.name} wants .* injected"):
        PreparedTool(wanting)


@tool
def with_state(state: Annotated[dict[str, Any], InjectedState]) -> str:
    """State."""
    raise AssertionError("it is not called")


@tool
def with_store(store: Annotated[Any, InjectedStore()]) -> str:
    """Store."""
    raise AssertionError("it is not called")


@pytest.mark.parametrize(
    ("wanting", "words"), [(with_state, "called outside of a graph"), (with_store, "it has none")], ids=["state", "store"]
)
async def test_what_is_not_there_fails_the_call_before_the_tool_runs(wanting: BaseTool, words: str) -> None:
    outcome = await PreparedTool(wanting).run({}, "c1")
    assert outcome.failed
    assert outcome.content.startswith("ToolNotExecuted: ")
    assert words in outcome.content


async def test_an_injected_argument_with_a_default_keeps_it() -> None:
    @tool
    def tuned(word: str, depth: Annotated[int, InjectedToolArg] = 3) -> str:
        """Tuned."""
        return f"{word} {depth}"

    assert (await PreparedTool(tuned).run({"word": "hi"}, "c1")).content == "hi 3"


async def test_a_tool_without_an_asynchronous_way_gets_a_thread_of_its_own() -> None:
    class Where(Classic):
        def _run(self, word: str) -> str:
            return threading.current_thread().name

    assert (await PreparedTool(Where()).run({"word": "hi"}, "c1")).content == "classic"


async def test_a_hundred_blocking_tools_do_not_wait_for_each_other() -> None:
    """The event loop's own pool has six threads on two processors: tools of many runs would queue."""
    together = threading.Barrier(100, timeout=30)

    @tool
    def meets(n: int) -> int:
        """Waits for all the others."""
        together.wait()
        return n

    prepared = PreparedTool(meets)
    outcomes = await asyncio.gather(*(prepared.run({"n": number}, str(number)) for number in range(100)))

    assert [outcome.content for outcome in outcomes] == list(range(100))
