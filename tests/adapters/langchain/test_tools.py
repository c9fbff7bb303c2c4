"""LangChain tools behind the tool port, and a tool backend as LangChain tools."""

import functools
import threading
from dataclasses import dataclass
from typing import Any, Optional

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException, tool
from langgraph.types import Command

from agent_graph.context import idempotency_key
from agent_graph.decisions.tools import check_args, read_tools
from agent_graph.errors import ConfigError, ContractError, ToolNotExecuted
from agent_graph.ports import ToolBackend
from agent_graph.types import ToolCall
from agent_graph_adapters.langchain.tools import ArtifactCall, as_tool_backend, as_tools


@tool(extras={"idempotent": False, "timeout_s": 5, "cache_control": {"type": "ephemeral"}})
async def pay(payee: str, amount: float) -> dict[str, Any]:
    """Pay somebody."""
    return {"payee": payee, "amount": amount, "key": idempotency_key()}


def forecast(city: str, days: int = 1) -> str:
    """Tell the weather.

    Args:
        city: Where.
        days: How many days.
    """
    return f"{city} {days} {idempotency_key()} {threading.current_thread().name}"


def call(name: str, key: str | None = "k1", **args: Any) -> ToolCall:
    return ToolCall(tool_name=name, args=args, call_id="c1", idempotency_key=key)


async def result_of(given: Any, **args: Any) -> ToolCall:
    backend = as_tool_backend([given])
    return await backend.execute(call(backend.specs[0]["name"], **args))


def test_what_the_model_is_told_of_the_tools() -> None:
    paying, weather = as_tool_backend([pay, forecast]).specs

    assert (paying["name"], paying["description"], paying["idempotent"], paying["timeout_s"]) == ("pay", "Pay somebody.", False, 5)
    assert weather == {
        "name": "forecast",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where."},
                "days": {"type": "integer", "default": 1, "description": "How many days."},
            },
            "required": ["city"],
        },
    }


def marked(**attributes: Any) -> Any:
    def search(query: str) -> str:
        """Search."""
        return query

    for name, value in attributes.items():
        setattr(search, name, value)
    return search


def built(**options: Any) -> BaseTool:
    return StructuredTool.from_function(marked(), **options)


@pytest.mark.parametrize(
    ("given", "idempotent"),
    [
        (marked(), None),
        (marked(idempotent=True), True),
        (marked(non_idempotent=True), False),
        (built(extras={"idempotent": False}), False),
        (built(metadata={"idempotent": True}), True),
        (built(metadata={"readOnlyHint": True, "title": "Search"}), True),
        (built(tags=["idempotent"]), None),
    ],
    ids=["unmarked", "attribute", "attribute no", "extras", "metadata", "MCP's annotations", "a tag is no mark"],
)
def test_whether_a_tool_may_run_twice_is_said_and_never_guessed(given: Any, idempotent: bool | None) -> None:
    assert as_tool_backend([given]).specs[0].get("idempotent") is idempotent


def test_the_schema_given_is_the_schema_that_arguments_are_checked_with() -> None:
    [spec] = read_tools(as_tool_backend([forecast]).specs)

    assert check_args(spec, {"city": "Paris"}) is None
    assert check_args(spec, {"days": 2}) is not None


class Weather(BaseTool):
    name: str = "pay"
    description: str = "Another tool of that name."

    def _run(self) -> str:
        return ""


def undescribed(city: str) -> str:
    return city


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ([pay, Weather()], "two tools are named 'pay'"),
        ([{"type": "web_search_preview"}], "'web_search_preview' is a dict: it describes a tool but cannot run it"),
        ([{"name": "pay", "parameters": {}}], "'pay' is a dict"),
        ([undescribed], "cannot be made a tool: .*docstring"),
        ([ToolCall], "is no tool; a LangChain tool or a function"),
        (["pay"], "'pay' is no tool"),
        ([marked(idempotent="yes")], "idempotent"),
        ([built(extras={"idempotant": True})], "Did you mean 'idempotent'"),
        ([built(extras={"timeout_s": -1})], "timeout_s"),
    ],
    ids=["same name", "provider's tool", "dict", "no docstring", "class", "text", "mark", "misspelt mark", "timeout"],
)
def test_what_cannot_be_a_tool_is_refused_at_construction(tools: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        as_tool_backend(tools)


async def test_the_result_is_the_object_and_not_its_text() -> None:
    done = await result_of(pay, payee="Ann", amount=5)

    assert done.result == {"payee": "Ann", "amount": 5.0, "key": "k1"}
    assert (done.error, done.call_id, done.args) == (None, "c1", {"payee": "Ann", "amount": 5})


async def test_a_synchronous_function_runs_in_a_thread_that_knows_its_call() -> None:
    done = await result_of(forecast, city="Paris")

    assert done.result == "Paris 1 k1 forecast"


async def test_bound_methods_and_partials_are_functions_too() -> None:
    class Shop:
        def stock(self, item: str) -> str:
            """Count."""
            return f"3 {item}"

    assert (await result_of(Shop().stock, item="pears")).result == "3 pears"
    with pytest.raises(ConfigError):
        as_tool_backend([functools.partial(forecast, days=2)])


async def test_after_the_call_no_key_is_left_behind() -> None:
    await result_of(pay, payee="Ann", amount=5)

    assert idempotency_key() is None


def returning(value: Any, **options: Any) -> Any:
    @tool(**options)
    async def given() -> Any:
        """Give."""
        return value

    return given


def raising(error: Exception) -> Any:
    @tool
    async def given() -> str:
        """Fail."""
        raise error

    return given


def failing(blocks: list[Any]) -> Any:
    """A tool that fails as an MCP server's does: what it says is content blocks."""
    return returning(ToolMessage(blocks, tool_call_id="c1", status="error"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (raising(ToolException("no such payee")), "no such payee"),
        (raising(ToolException()), "ToolException"),
        (returning(ToolMessage("overdrawn", tool_call_id="c1", status="error")), "overdrawn"),
        (failing([{"type": "text", "text": "overdrawn"}, "since May", {"type": "image", "url": "x"}]), "overdrawn\nsince May"),
        (failing([{"type": "image", "url": "x"}]), "The tool failed and said nothing in words"),
        (returning(Command(update={"x": 1})), "given returned a Command"),
        (returning(Command(update={"messages": [ToolMessage("x", tool_call_id="other")]})), "given returned a Command"),
        (returning(Command(update={"messages": [ToolMessage("x", tool_call_id="c1")]}, goto="a")), "given returned a Command"),
        (returning(Command(update={"messages": [ToolMessage("no", tool_call_id="c1", status="error")]})), "no"),
        (returning([Command(goto="a"), ToolMessage("x", tool_call_id="c1")]), "given returned a Command"),
    ],
    ids=[
        "ToolException",
        "without words",
        "error message",
        "blocks",
        "an image",
        "Command",
        "another's message",
        "goto",
        "Command of an error",
        "list of instructions",
    ],
)
async def test_a_known_failure_is_told_to_the_model(given: Any, words: str) -> None:
    done = await result_of(given)

    assert done.result is None
    assert done.error is not None
    assert done.error.startswith(words)


async def test_wrong_arguments_are_told_to_the_model() -> None:
    done = await result_of(pay, payee="Ann")

    assert done.error == "InvalidArguments: amount: Field required"


async def test_an_unknown_tool_is_told_to_the_model() -> None:
    done = await as_tool_backend([pay]).execute(call("pya"))

    assert done.error == "ToolNotFound: there is no tool 'pya'. Tools: pay."


@pytest.mark.parametrize(
    "error", [ConnectionError("reset"), ToolNotExecuted("busy"), ValueError("bad")], ids=lambda error: type(error).__name__
)
async def test_every_other_exception_leaves_the_outcome_open(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await result_of(raising(error))

    assert raised.value is error


async def test_an_artifact_is_kept_beside_the_result() -> None:
    done = await result_of(returning(("2 rows", {"rows": [1, 2]}), response_format="content_and_artifact"))

    assert isinstance(done, ArtifactCall)
    assert (done.result, done.artifact, done.idempotency_key) == ("2 rows", {"rows": [1, 2]}, "k1")


async def test_a_call_of_the_starter_code_is_taken_by_shape() -> None:
    @dataclass
    class Pasted:
        tool_name: str
        args: dict[str, Any]
        call_id: str
        result: Optional[Any] = None  # noqa: UP045  # as pasted
        error: Optional[str] = None  # noqa: UP045  the specification's own spelling
        latency_ms: float = 0.0

    done = await as_tool_backend([pay]).execute(Pasted("pay", {"payee": "Ann", "amount": 1}, "c1"))  # type: ignore[arg-type]  # a class pasted from the specification

    assert done.result == {"payee": "Ann", "amount": 1.0, "key": None}


# --- the other way ----------------------------------------------------------------------------------------------------


class Echo(ToolBackend):
    """Gives its calls back."""

    async def execute(self, call: ToolCall) -> ToolCall:
        if call.args.get("fail"):
            call.error = "as you wished"
        else:
            call.result = {"tool": call.tool_name, "args": call.args, "id": call.call_id, "key": call.idempotency_key}
        return call


ECHO = {
    "name": "echo",
    "description": "Echo.",
    "parameters": {"type": "object", "properties": {"config": {"type": "string"}, "fail": {"type": "boolean"}}},
    "idempotent": True,
}


def as_call(**args: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": "c7", "name": "echo", "args": args}


async def test_a_backends_tool_is_called_by_langchain() -> None:
    [echo] = as_tools(Echo(), [ECHO])

    message = await echo.ainvoke(as_call(config="x", run_manager="y"))

    assert isinstance(message, ToolMessage)
    assert message.content == '{"tool": "echo", "args": {"config": "x", "run_manager": "y"}, "id": "c7", "key": null}'
    assert (echo.name, echo.description, echo.args) == ("echo", "Echo.", ECHO["parameters"]["properties"])


async def test_an_error_of_a_backend_is_told_to_the_model() -> None:
    [echo] = as_tools(Echo(), [ECHO])

    message = await echo.ainvoke(as_call(fail=True))

    assert (message.content, message.status) == ("as you wished", "error")


def test_without_a_loop_it_can_be_invoked() -> None:
    [echo] = as_tools(Echo(), [ECHO])

    assert echo.invoke(as_call(config="x")).content.startswith('{"tool": "echo"')
    assert echo.invoke({"config": "x"})["id"] == ""


async def test_a_backend_that_returns_no_call_broke_its_contract() -> None:
    class Broken(ToolBackend):
        async def execute(self, call: ToolCall) -> ToolCall:
            return "done"  # type: ignore[return-value]  # that is the breach

    with pytest.raises(ContractError, match=r"Broken\.execute returned str; the ToolCall with result or error set was due"):
        await as_tools(Broken(), [ECHO])[0].ainvoke(as_call())


async def test_there_and_back_nothing_is_lost() -> None:
    """Inside an agent, a backend's tools handed on to LangChain and back keep marks, schema, key and result."""
    backend = as_tool_backend(as_tools(Echo(), [ECHO]))

    done = await backend.execute(call("echo", config="x"))
    failed = await backend.execute(call("echo", fail=True))

    assert backend.specs == [ECHO]
    assert done.result == '{"tool": "echo", "args": {"config": "x"}, "id": "c1", "key": "k1"}'
    assert failed.error == "as you wished"
