"""A MemoryBackend as a chat history, and histories and stores as a MemoryBackend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.store.memory import InMemoryStore

from agent_graph import ConfigError, ContractError, MemoryBackend, create_production_agent
from agent_graph.testing import DictMemory, MemoryContract, ScriptedChatModel
from agent_graph_adapters.langchain import as_chat_history, as_memory_backend


class Kept(BaseChatMessageHistory):
    """A history as an application has one."""

    def __init__(self) -> None:
        self.messages: list[BaseMessage] = []
        self.cleared = 0

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        self.messages += messages

    def clear(self) -> None:
        self.cleared += 1
        self.messages = []


class TestStore(MemoryContract):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return as_memory_backend(InMemoryStore())


class TestHistories(MemoryContract):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return as_memory_backend(defaultdict(Kept).__getitem__)


class TestThereAndBack(MemoryContract):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return as_memory_backend(as_chat_history(DictMemory()))


BLOCKS = [{"type": "text", "text": "a cat"}, {"type": "image", "base64": "AAAA", "mime_type": "image/png"}]


async def test_messages_are_kept_whole() -> None:
    history = as_chat_history(DictMemory(), "t")
    given = [HumanMessage(BLOCKS, id="h"), AIMessage("", tool_calls=[{"id": "c", "name": "f", "args": {"n": 1}}], id="a")]  # type: ignore[arg-type]  # blocks
    await history.aadd_messages(given[:1])
    await history.aadd_messages(given[1:])
    assert await history.aget_messages() == given
    await history.aclear()
    assert await history.aget_messages() == []


def test_without_a_loop_too() -> None:
    history = as_chat_history(DictMemory(), "t")
    history.add_user_message("hi")
    assert [message.text for message in history.messages] == ["hi"]
    history.clear()
    assert history.messages == []


async def test_in_a_running_loop_the_sync_way_works_too() -> None:
    """As in a notebook."""
    history = as_chat_history(DictMemory(), "t")
    history.add_messages([HumanMessage("hi")])
    assert len(history.messages) == 1


@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory:langchain_core._api.deprecation.LangChainDeprecationWarning")
async def test_a_chain_with_the_agents_memory() -> None:
    memory = DictMemory()
    model = ScriptedChatModel(["first", "second"])
    prompt = ChatPromptTemplate([("placeholder", "{history}"), ("user", "{q}")])
    chain: Any = RunnableWithMessageHistory(prompt | model, as_chat_history(memory), input_messages_key="q", history_messages_key="history")
    for question in ("one?", "two?"):
        await chain.ainvoke({"q": question}, {"configurable": {"session_id": "t"}})
    assert [message.content for message in memory.saved["t"]] == ["one?", "first", "two?", "second"]
    agent = create_production_agent(ScriptedChatModel(["third"]), memory=memory)
    await agent.run("three?", "t")
    assert len(memory.saved["t"]) == 6, "the agent goes on with the chain's conversation"


async def test_saving_adds_what_is_new_and_clears_only_what_changed() -> None:
    history = Kept()
    agent = create_production_agent(ScriptedChatModel(["one", "two"]), memory=as_memory_backend(history))
    await agent.run("1?", "t")
    ids = [message.id for message in history.messages]
    await agent.run("2?", "t")
    assert [message.text for message in history.messages] == ["1?", "one", "2?", "two"]
    assert history.cleared == 0
    assert [message.id for message in history.messages][:2] == ids
    backend = as_memory_backend(history)
    await backend.save("t", (await backend.load("t"))[2:])
    assert (history.cleared, [message.text for message in history.messages]) == (1, ["2?", "two"])


async def test_one_history_is_one_runs() -> None:
    backend = as_memory_backend(Kept())
    await backend.save("t", [])
    with pytest.raises(ConfigError, match="is that of run 't', so run 'u' cannot use it"):
        await backend.load("u")


async def test_a_function_may_be_async_and_must_return_a_history() -> None:
    made = Kept()

    async def history_of(run_id: str) -> BaseChatMessageHistory:
        return made

    assert await as_memory_backend(history_of).load("t") == []
    with pytest.raises(ContractError, match="a BaseChatMessageHistory was due for run 't', not NoneType"):
        await as_memory_backend(lambda run_id: None).load("t")


@pytest.mark.parametrize("wrong", [None, 17, DictMemory, {}], ids=repr)
def test_what_is_neither_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="memory: "):
        as_memory_backend(wrong)
    with pytest.raises(ConfigError, match="no MemoryBackend"):
        as_chat_history(wrong)


@pytest.mark.parametrize("run_id", ["", "\x00", "x" * 256, 17], ids=["empty", "control", "long", "a number"])
def test_a_run_id_that_cannot_be_is_refused(run_id: Any) -> None:
    with pytest.raises(ConfigError, match="run_id: "):
        as_chat_history(DictMemory(), run_id)
