"""What becomes of a model that is handed in, by the shape of its kind: a copy with its own pool and without retries of its own."""

from functools import cached_property
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from pydantic import Field

from agent_graph_adapters import clients
from agent_graph_adapters.clients import detached


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    """What is said once a class is said anew in each test."""
    clients._say_it_retries.cache_clear()


class Retrying(FakeListChatModel):
    """A model that keeps retries in a field and a client built from it."""

    max_retries: int = 6
    responses: list[str] = Field(default=["a"])

    @cached_property
    def client(self) -> tuple[str, int]:
        return ("client", self.max_retries)


def test_retries_of_other_models_are_switched_off_in_a_copy() -> None:
    model = Retrying()
    assert model.client == ("client", 6)
    copy = detached(model).model
    assert isinstance(copy, Retrying)
    assert copy.client == ("client", 0)
    assert (model.max_retries, model.client) == (6, ("client", 6))


class AnthropicLike(FakeListChatModel):
    """The shape of langchain-anthropic's model: the client is a cached property."""

    max_retries: int = 2
    responses: list[str] = Field(default=["a"])

    @cached_property
    def _async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="k", max_retries=self.max_retries)


def test_anthropic_like_models_get_their_own_pool() -> None:
    model = AnthropicLike()
    one, other = detached(model), detached(model)
    assert "_async_client" not in vars(model)
    assert one.model._async_client._client is one.pool  # type: ignore[attr-defined]  # the real client's own parts
    assert one.pool is not other.pool
    assert one.model._async_client.max_retries == 0  # type: ignore[attr-defined]  # the real client's own parts


class GroqLike(FakeListChatModel):
    """The shape of langchain-groq's model: the clients are made with it, and only the part of them that it calls is kept."""

    max_retries: int = 2
    responses: list[str] = Field(default=["a"])
    client: Any = None
    async_client: Any = None
    http_async_client: Any = None

    def model_post_init(self, context: Any) -> None:
        self.client = openai.OpenAI(api_key="k", max_retries=self.max_retries).chat.completions
        self.async_client = self.async_client or openai.AsyncOpenAI(api_key="k", max_retries=self.max_retries).chat.completions


def test_groq_like_models_get_their_own_pool_and_no_retries() -> None:
    """Three attempts of ours were nine on the wire."""
    model = GroqLike()
    one, other = detached(model), detached(model)
    for copy in (one, other):
        made: Any = copy.model
        assert (made.max_retries, made.client._client.max_retries, made.async_client._client.max_retries) == (0, 0, 0)
        assert made.async_client._client._client is copy.pool
    assert one.pool is not other.pool
    assert (model.max_retries, model.async_client._client.max_retries, model.client._client.max_retries) == (2, 2, 2)


def test_a_pool_given_to_a_groq_like_model_is_left_alone() -> None:
    given = openai.AsyncOpenAI(api_key="k")
    own = detached(GroqLike(async_client=given.chat.completions, http_async_client=given._client))
    assert (own.pool, own.foreign) == (None, True)
    assert own.model.async_client._client._client is given._client  # type: ignore[attr-defined]  # the real client's own parts


class OpenRouterLike(FakeListChatModel):
    """The shape of langchain-openrouter's model: without a word on retries, its SDK retries for an hour."""

    max_retries: int = 2
    key: str = Field(alias="api_key")
    responses: list[str] = Field(default=["a"])
    client: Any = None

    def model_post_init(self, context: Any) -> None:
        told = {"retry_config": self.max_retries} if self.max_retries else {"retry_config": "unset"}
        self.client = SimpleNamespace(sdk_configuration=SimpleNamespace(**told))


@pytest.mark.parametrize("retries", [2, 0])
def test_openrouter_like_models_do_not_retry_also_where_the_sdk_would_by_itself(retries: int) -> None:
    model = OpenRouterLike(api_key="k", max_retries=retries)
    copy: Any = detached(model).model
    assert copy.client.sdk_configuration.retry_config is None
    assert (copy.key, copy.client is model.client) == ("k", False)
    assert (model.max_retries, model.client.sdk_configuration.retry_config) == (retries, retries or "unset")


class BotoLike(FakeListChatModel):
    """The shape of langchain-aws's model, with a client of boto's."""

    max_retries: int | None = None
    responses: list[str] = Field(default=["a"])
    client: Any = Field(default=SimpleNamespace(meta=SimpleNamespace(config=SimpleNamespace(retries={"mode": "legacy"}))))


@pytest.mark.parametrize(("retries", "said"), [(None, True), (3, True), (0, False)])
def test_a_client_whose_retries_cannot_be_switched_off_is_said_to_have_them(
    retries: int | None, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        detached(BotoLike(max_retries=retries))
    assert [("max_retries=0" in record.message) for record in caplog.records] == [True] * said


def test_a_model_of_the_users_that_only_looks_like_one_is_left_as_it_is() -> None:
    """Its calls ended in an AttributeError, or went to another part of the SDK."""

    class Mine(FakeListChatModel):
        async_client: Any

    for part in ("chat", "responses"):
        mine = Mine(responses=["hi"], async_client=getattr(openai.AsyncOpenAI(api_key="k"), part))
        assert detached(mine).model.async_client is mine.async_client  # type: ignore[attr-defined]  # it has one


def test_an_openrouter_like_model_that_cannot_be_made_anew_stays_and_is_said_to_retry(caplog: pytest.LogCaptureFixture) -> None:
    class MyOpenRouter(OpenRouterLike):
        def __init__(self, tenant: str, **fields: Any) -> None:
            super().__init__(**fields)

    model = MyOpenRouter("t", api_key="k")
    assert detached(model).model is not None
    assert "MyOpenRouter retries by itself" in caplog.text
