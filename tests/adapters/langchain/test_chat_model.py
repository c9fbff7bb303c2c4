"""A backend of the specification behind LangChain's interface, and the other way round."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from pydantic import Field

from agent_graph import create_production_agent
from agent_graph.decisions.tokens import estimate_messages
from agent_graph.errors import ConfigError, ContractError
from agent_graph.messages import Conversion, current_conversion
from agent_graph.testing import ScriptedChatModel, ScriptedLLM, call
from agent_graph.types import Message, MessageRole
from agent_graph_adapters.langchain.chat_model import as_chat_model, as_llm_backend

USER, ASSISTANT = MessageRole.USER, MessageRole.ASSISTANT
WEATHER = {"name": "weather", "description": "The weather.", "parameters": {"city": {"type": "string"}}, "idempotent": True}
CALLS = Message(
    ASSISTANT,
    "",
    {
        "tool_calls": [{"id": "a", "name": "weather", "args": {"city": "Paris"}}, {"id": "b", "name": "weather", "args": "{"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
        "model": "mine-1",
        "cost_usd": 0.25,
        "of_mine": {"request": "r1"},
    },
)


class Heard(AsyncCallbackHandler):
    """Notes what LangChain tells of model runs."""

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.tokens: list[str] = []

    async def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.starts.append({"serialized": serialized, **kwargs})

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)


class Streams(ScriptedLLM):
    """Streams the pieces that it was given."""

    def __init__(self, pieces: list[Any]) -> None:
        super().__init__(["complete was called"], last_forever=True)
        self.pieces, self.closed = pieces, False

    async def stream(self, messages: list[Message], tools: list[dict[str, Any]]) -> AsyncIterator[str | Message]:
        try:
            for piece in self.pieces:
                yield piece
        finally:
            self.closed = True


async def test_the_reply_is_a_full_langchain_message() -> None:
    reply = await as_chat_model(ScriptedLLM([CALLS])).bind_tools([WEATHER]).ainvoke("Paris?")

    assert reply.tool_calls == [{"type": "tool_call", "id": "a", "name": "weather", "args": {"city": "Paris"}}]
    assert [(call["id"], call["name"]) for call in reply.invalid_tool_calls] == [("b", "weather")]
    assert reply.usage_metadata == {
        "input_tokens": 10,
        "output_tokens": 5,
        "total_tokens": 15,
        "input_token_details": {"cache_read": 4},
    }
    assert (reply.response_metadata["model_name"], Decimal(reply.response_metadata["cost_usd"])) == ("mine-1", Decimal("0.25"))


async def test_the_backend_gets_the_very_dicts_that_were_bound() -> None:
    backend = ScriptedLLM(["Hi"], last_forever=True)
    model = as_chat_model(backend)

    await model.bind_tools([WEATHER], tool_choice="any", strict=True).ainvoke("Hi")
    await model.bind_tools([]).ainvoke("Hi")

    assert backend.requests[0].tools[0] is WEATHER
    assert backend.requests[1].tools == []


async def test_langchain_tools_are_described_in_a_layout_that_backends_know() -> None:
    @tool
    def weather(city: str) -> str:
        """The weather."""
        return city

    backend = ScriptedLLM(["Hi"])
    await as_chat_model(backend).bind_tools([weather]).ainvoke("Hi")

    [described] = backend.requests[0].tools
    assert (described["function"]["name"], list(described["function"]["parameters"]["properties"])) == ("weather", ["city"])


async def test_its_own_metadata_comes_back_to_the_backend_unchanged() -> None:
    backend = ScriptedLLM([CALLS, "Sunny"])
    model = as_chat_model(backend).bind_tools([WEATHER])

    first = await model.ainvoke([HumanMessage("Paris?")], step=3)
    first.usage_metadata = None  # whatever the run does to its side of the message
    await model.ainvoke([HumanMessage("Paris?"), first, ToolMessage("12", tool_call_id="a", name="weather")])

    assert list(backend.requests[1].messages) == [
        Message(USER, "Paris?"),
        CALLS,
        Message(MessageRole.TOOL, "12", {"tool_call_id": "a", "name": "weather"}),
    ]


async def test_within_a_run_it_is_the_very_object_even_if_it_is_no_json() -> None:
    raw = Message(ASSISTANT, "Hi", {"response": object()})
    seen: list[Message] = []

    class Raw(ScriptedLLM):
        async def complete(self, messages: list[Message], tools: list[dict[str, Any]]) -> Message:
            seen[:] = messages
            return raw

    model = as_chat_model(Raw([]))
    token = current_conversion.set(Conversion())
    try:
        first = await model.ainvoke([HumanMessage("Hi")])
        await model.ainvoke([HumanMessage("Hi"), first])
    finally:
        current_conversion.reset(token)

    assert seen[1] is raw


async def test_a_call_in_the_text_is_run_only_if_it_names_a_tool_that_was_given() -> None:
    text = '{"tool": "weather", "args": {"city": "Paris"}}'
    model = as_chat_model(ScriptedLLM([text], last_forever=True))

    with_tool = await model.bind_tools([WEATHER]).ainvoke("Paris?", step=2)
    without = await model.ainvoke("Paris?")

    assert [call["id"] for call in with_tool.tool_calls] == ["call_2_0"]
    assert (with_tool.content, without.tool_calls) == (text, [])


async def test_unknown_usage_is_none_and_not_zero() -> None:
    assert (await as_chat_model(ScriptedLLM(["Hi"])).ainvoke("Hi")).usage_metadata is None


@pytest.mark.parametrize(("answer", "named"), [({"role": "assistant"}, "dict"), (None, "NoneType"), ("Hi", "str")])
async def test_a_reply_that_is_no_message_is_a_broken_contract(answer: Any, named: str) -> None:
    class Broken(ScriptedLLM):
        async def complete(self, messages: Any, tools: Any) -> Any:
            return answer

    with pytest.raises(ContractError, match=rf"LLMBackend.complete returned {named}; a Message\(role, content, metadata\) was due"):
        await as_chat_model(Broken([])).ainvoke("Hi")


async def test_an_error_reaches_the_caller_as_it_was_raised() -> None:
    error = ConnectionResetError("peer")

    with pytest.raises(ConnectionResetError) as raised:
        await as_chat_model(ScriptedLLM([error])).ainvoke("Hi")

    assert raised.value is error


async def test_what_is_no_backend_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"llm: object has no method complete\(\)"):
        as_chat_model(object())  # type: ignore[arg-type]  # that is the point


async def test_a_trace_tells_provider_model_and_tools() -> None:
    heard = Heard()
    backend = ScriptedLLM(["Hi"])
    backend.provider, backend.model = "acme", "acme-large"  # type: ignore[attr-defined]  # a backend may have them; this one gets them here

    await as_chat_model(backend, name="writer").bind_tools([WEATHER]).ainvoke("Hi", config={"callbacks": [heard]})

    [start] = heard.starts
    assert start["metadata"]["ls_provider"] == "acme"
    assert start["metadata"]["ls_model_name"] == "acme-large"
    assert start["metadata"]["ls_model_type"] == "chat"
    assert start["invocation_params"]["tools"] == [WEATHER]
    assert start["serialized"]["name"] == "writer"


def test_without_a_loop_it_can_be_invoked() -> None:
    assert as_chat_model(ScriptedLLM(["Hi"])).invoke("Hi").content == "Hi"


async def test_inside_a_loop_blocking_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"await ainvoke\(\) instead"):
        as_chat_model(ScriptedLLM(["Hi"])).invoke("Hi")


def test_tokens_are_counted_by_the_backend() -> None:
    model = as_chat_model(ScriptedLLM([], tokens=lambda messages: 100 * len(messages)))

    assert model.get_num_tokens_from_messages([HumanMessage("Hi"), AIMessage("Ho")]) == 200
    assert model.get_num_tokens("Hi") == 100


def test_a_count_that_is_no_number_is_a_broken_contract() -> None:
    model = as_chat_model(ScriptedLLM([], tokens=lambda messages: None))  # type: ignore[arg-type,return-value]  # that is the breach

    with pytest.raises(ContractError, match="count_tokens returned NoneType; an int was due"):
        model.get_num_tokens("Hi")


async def test_a_stop_sequence_ends_the_text() -> None:
    reply = await as_chat_model(ScriptedLLM(["one\nObservation: two"])).ainvoke("Hi", stop=["\nObservation", "Nothing"])

    assert reply.content == "one"


# --- streaming --------------------------------------------------------------------------------------------------------


async def whole(model: Any, **kwargs: Any) -> tuple[list[str], BaseMessage]:
    chunks = [chunk async for chunk in model.astream("Hi", **kwargs)]
    total: AIMessageChunk = sum(chunks[1:], start=chunks[0])
    return [chunk.text for chunk in chunks], message_chunk_to_message(total)


async def test_a_backend_that_streams_is_streamed() -> None:
    last = Message(ASSISTANT, "Hello!", CALLS.metadata)

    texts, message = await whole(as_chat_model(Streams(["Hel", "lo", last])).bind_tools([WEATHER]))

    assert texts == ["Hel", "lo", "!"]
    assert isinstance(message, AIMessage)
    assert [call["id"] for call in message.tool_calls] == ["a"]
    assert [call["id"] for call in message.invalid_tool_calls] == ["b"]
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == 10
    assert Conversion().to_spec([message]) == [last]


async def test_streamed_or_not_the_reply_is_the_same() -> None:
    streamed = (await whole(as_chat_model(Streams([CALLS])).bind_tools([WEATHER])))[1]
    at_once = await as_chat_model(ScriptedLLM([CALLS])).bind_tools([WEATHER]).ainvoke("Hi")

    assert isinstance(streamed, AIMessage)
    assert (streamed.content, streamed.tool_calls, streamed.usage_metadata) == (at_once.content, at_once.tool_calls, at_once.usage_metadata)
    assert Conversion().to_spec([streamed]) == Conversion().to_spec([at_once]) == [CALLS]


async def test_a_stream_of_text_alone_is_a_reply_of_unknown_usage() -> None:
    texts, message = await whole(as_chat_model(Streams(["Hel", "lo"])))

    assert texts == ["Hel", "lo", ""]
    assert isinstance(message, AIMessage)
    assert (message.content, message.usage_metadata) == ("Hello", None)


async def test_a_stream_that_contradicts_its_message_is_a_broken_contract() -> None:
    with pytest.raises(ContractError, match=r"Streams\.stream yielded text that is not the beginning"):
        await whole(as_chat_model(Streams(["Goodbye", Message(ASSISTANT, "Hello")])))


async def test_a_stream_is_closed_when_its_reader_leaves() -> None:
    backend = Streams(["Hel", "lo"])
    stream = as_chat_model(backend).astream("Hi")
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]  # LangChain's return type says iterator, it is a generator

    assert backend.closed


async def test_a_handler_that_listens_for_tokens_hears_each_once() -> None:
    heard = Heard()
    async for _ in as_chat_model(Streams(["Hel", "lo"])).astream("Hi", config={"callbacks": [heard]}):
        pass

    assert heard.tokens == ["Hel", "lo", ""]


async def test_with_a_stop_sequence_the_text_comes_whole() -> None:
    texts, _ = await whole(as_chat_model(Streams(["never shown"])), stop=["was"])

    assert texts == ["complete "]


# --- a LangChain model as a backend -------------------------------------------------------------------------------------


class Recorder(BaseChatModel):
    """Answers with what it was given, and notes what it was asked."""

    answer: AIMessage
    asked: list[tuple[list[BaseMessage], dict[str, Any]]] = Field(default_factory=list)
    binds: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.asked.append((messages, kwargs))
        return ChatResult(generations=[ChatGeneration(message=self.answer.model_copy())])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        self.binds.append(tools)
        return self.bind(tools=tools)


def recorder(answer: AIMessage) -> Recorder:
    return Recorder(answer=answer)


async def test_a_langchain_model_answers_as_a_backend() -> None:
    blocks: list[Any] = [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "text", "text": "Yes"}]
    model = recorder(AIMessage(blocks, id="msg_1", tool_calls=[{"id": "c1", "name": "weather", "args": {}}]))
    backend = as_llm_backend(model)

    reply = await backend.complete([Message(USER, "Hi")], [WEATHER])
    await backend.complete([Message(USER, "Hi"), reply], [])

    assert (reply.role, reply.content) == (ASSISTANT, "Yes")
    assert reply.metadata["tool_calls"] == [{"id": "c1", "name": "weather", "args": {}}]
    assert model.asked[1][0] == [HumanMessage("Hi"), model.answer]
    assert "tools" not in model.asked[1][1]


async def test_tools_go_to_a_langchain_model_in_openais_form_and_are_bound_once() -> None:
    model = recorder(AIMessage("Hi"))
    backend = as_llm_backend(model)

    for _ in range(3):
        await backend.complete([Message(USER, "Hi")], [WEATHER])

    assert len(model.binds) == 1
    function = model.binds[0][0]["function"]
    assert (model.binds[0][0]["type"], function["name"], function["parameters"]["type"]) == ("function", "weather", "object")
    assert set(function) == {"name", "description", "parameters"}


async def test_a_model_without_tools_says_so() -> None:
    backend = as_llm_backend(GenericFakeChatModel(messages=iter([AIMessage("Hi")])))

    with pytest.raises(ConfigError, match="GenericFakeChatModel takes no tools"):
        await backend.complete([Message(USER, "Hi")], [WEATHER])


def test_its_tokens_are_estimated_without_a_download() -> None:
    asked = [Message(USER, "Hi " * 100), CALLS]

    assert as_llm_backend(recorder(AIMessage("Hi"))).count_tokens(asked) == estimate_messages(asked)


def test_there_and_back_is_the_same_object() -> None:
    model, backend = recorder(AIMessage("Hi")), ScriptedLLM([])

    assert as_chat_model(as_llm_backend(model)) is model
    assert as_llm_backend(as_chat_model(backend)) is backend


async def test_one_model_serves_many_tasks_at_once() -> None:
    model = as_chat_model(ScriptedLLM([lambda messages, tools: messages[0].content.upper()], last_forever=True))

    replies = await asyncio.gather(*(model.ainvoke(f"question {number}") for number in range(50)))

    assert [reply.content for reply in replies] == [f"QUESTION {number}" for number in range(50)]


async def test_an_agent_asks_a_wrapped_langchain_model_as_one() -> None:
    """Its price is known before the call, and it can be given an output cap; as a mere backend it would tell its cost afterwards."""
    model = ScriptedChatModel(["hi"], model_name="gpt-4o-mini", usage=(1_000_000, 0))
    agent = create_production_agent(as_llm_backend(model), prices={"gpt-4o-mini": {"input": 1, "output": 1}})
    run = await agent.run("q")
    assert run.total_cost_usd == 1.0
    assert model.requests[0][1]["max_tokens"] > 0


def test_a_client_is_used_again_by_the_next_synchronous_call() -> None:
    """A connection belongs to its event loop; with a loop for each call the second found it on a closed one."""
    loops = []

    class Backend(ScriptedLLM):
        async def complete(self, messages: Any, tools: Any) -> Message:
            loops.append(asyncio.get_running_loop())
            return await super().complete(messages, tools)

    model = as_chat_model(Backend(["a", "b"]))
    assert [model.invoke("q").text, model.invoke("q").text] == ["a", "b"]
    assert loops[0] is loops[1]
    assert not loops[0].is_closed()


@pytest.mark.parametrize("sync", [True, False])
async def test_a_backend_that_does_not_stream_gives_its_reply_as_one_chunk(sync: bool) -> None:
    model = as_chat_model(ScriptedLLM([call("weather", city="Paris")]))
    chunks = await asyncio.to_thread(lambda: list(model.stream("q"))) if sync else [chunk async for chunk in model.astream("q")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    assert [made["args"] for made in whole.tool_calls] == [{"city": "Paris"}]


def test_a_bare_schema_is_bound_as_a_tool() -> None:
    """As `with_structured_output` binds it."""
    schema = {"title": "Joke", "description": "A joke.", "type": "object", "properties": {"setup": {"type": "string"}}}
    bound: Any = as_chat_model(ScriptedLLM([])).bind_tools([schema])
    assert bound.kwargs["tools"][0]["function"]["name"] == "Joke"
