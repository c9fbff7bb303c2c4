"""Which model is chosen, and that the reason, the errors and the price marks are right."""

import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI

from agent_graph.errors import ConfigError
from agent_graph_adapters.models import DEFAULT_MODEL, PROVIDERS, choose
from agent_graph_adapters.offline import OfflineChatModel

URL = "http://127.0.0.1:9/v1"


class ModelList(BaseHTTPRequestHandler):
    """A server that lists the models of its `body`."""

    body = b'{"object": "list", "data": []}'

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def model_server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), type("Handler", (ModelList,), {})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("asked", "env", "name", "because", "priced"),
    [
        pytest.param(None, {}, "offline", "none of AGENT_GRAPH_MODEL", False, id="nothing"),
        pytest.param("offline", {"OPENAI_API_KEY": "k"}, "offline", "asked for", False, id="offline asked for"),
        pytest.param(None, {"AGENT_GRAPH_MODEL": "Offline"}, "offline", "AGENT_GRAPH_MODEL", False, id="offline by env"),
        pytest.param(None, {"OPENAI_API_KEY": "k"}, DEFAULT_MODEL, "$0.05", True, id="key alone"),
        pytest.param(None, {"OPENAI_API_KEY": " "}, "offline", "none of", False, id="blank key is none"),
        pytest.param("openai:gpt-5", {"OPENAI_API_KEY": "k"}, "gpt-5", "asked for", True, id="string"),
        pytest.param("gpt-5", {"OPENAI_API_KEY": "k"}, "gpt-5", "asked for", True, id="bare OpenAI name"),
        pytest.param("OpenAI: gpt-5 ", {"OPENAI_API_KEY": "k"}, "gpt-5", "asked for", True, id="case and blanks"),
        pytest.param(
            "openai:gpt-5",
            {"OPENAI_API_KEY": "k", "AGENT_GRAPH_MODEL": "offline"},
            "gpt-5",
            "asked for",
            True,
            id="asked for wins over env",
        ),
        pytest.param(
            None,
            {"OPENAI_API_KEY": "k", "AGENT_GRAPH_MODEL": "openai:gpt-4o"},
            "gpt-4o",
            "AGENT_GRAPH_MODEL",
            True,
            id="env wins over key",
        ),
        pytest.param(
            None,
            {"OPENAI_BASE_URL": URL, "AGENT_GRAPH_MODEL": "llama3.2:1b"},
            "llama3.2:1b",
            "OPENAI_BASE_URL",
            False,
            id="a server's model",
        ),
        pytest.param(
            "mistral:7b",
            {"OPENAI_BASE_URL": URL},
            "mistral:7b",
            "OPENAI_BASE_URL",
            False,
            id="no provider of that name",
        ),
        pytest.param("openai:x", {"OPENAI_BASE_URL": URL}, "x", "asked for", False, id="prefixed at a server"),
    ],
)
def test_choice(asked: str | None, env: dict[str, str], name: str, because: str, priced: bool) -> None:
    choice = choose(asked, env=env)
    assert (choice.name, choice.priced) == (name, priced)
    assert because in choice.reason
    assert "\n" not in choice.line
    assert choice.model is None


def test_default_model_brings_its_limit_and_no_other_does() -> None:
    assert choose(env={"OPENAI_API_KEY": "k"}).default_cost_usd == Decimal("0.05")
    assert choose("openai:gpt-5-mini", env={"OPENAI_API_KEY": "k"}).default_cost_usd is None


def test_built_models_leave_retries_to_the_agent_and_ask_for_usage() -> None:
    model = choose("m", env={"OPENAI_BASE_URL": URL}).factory()
    assert isinstance(model, ChatOpenAI)
    assert (model.max_retries, model.root_async_client.max_retries, model.root_client.max_retries) == (0, 0, 0)
    assert model.stream_usage is True
    assert model.root_client.api_key == "not-needed"
    assert str(model.root_async_client.base_url).rstrip("/") == URL


def test_a_server_is_named_and_said_to_be_unpriced() -> None:
    choice = choose("m", env={"OPENAI_BASE_URL": URL})
    assert choice.base_url == URL
    assert f"at {URL} (unpriced)" in choice.line


def test_first_model_of_the_server(model_server: HTTPServer) -> None:
    model_server.RequestHandlerClass.body = b'{"object": "list", "data": [{"id": "qwen3:4b"}, {"id": "other"}]}'  # type: ignore[attr-defined]  # this test's own handler
    url = f"http://127.0.0.1:{model_server.server_port}/v1"
    choice = choose(env={"OPENAI_BASE_URL": url})
    assert (choice.name, choice.base_url, choice.priced) == ("qwen3:4b", url, False)


def test_server_without_models(model_server: HTTPServer) -> None:
    with pytest.raises(ConfigError, match="lists no model"):
        choose(env={"OPENAI_BASE_URL": f"http://127.0.0.1:{model_server.server_port}/v1"})


def test_address_without_the_protocol(model_server: HTTPServer) -> None:
    with pytest.raises(ConfigError, match="most end in /v1"):
        choose(env={"OPENAI_BASE_URL": f"http://127.0.0.1:{model_server.server_port}"})


@pytest.mark.parametrize(
    ("asked", "env", "says"),
    [
        pytest.param(None, {"OPENAI_BASE_URL": URL}, "Start the server", id="server down"),
        pytest.param("openai:", {}, "names a provider and no model", id="no model"),
        pytest.param("groq:", {}, "names a provider and no model", id="no model, other provider"),
        pytest.param("opnai:gpt-5", {}, "did you mean 'openai:gpt-5'", id="misspelt provider"),
        pytest.param("wat", {}, "'provider:model'", id="bare unknown"),
        pytest.param("", {}, "'provider:model'", id="empty"),
        pytest.param("openai:gpt-5", {}, "Set OPENAI_API_KEY", id="no key"),
        pytest.param("together:m", {}, "pip install langchain-together", id="integration missing"),
        pytest.param(object(), {}, "BaseChatModel", id="no model at all"),
        pytest.param(OfflineChatModel().bind(stop=["x"]), {}, "pass the model itself", id="a bound model"),
    ],
)
def test_errors_say_what_is_due(asked: Any, env: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(asked, env=env)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_providers_without_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(ConfigError, match=r"pip install 'agent-graph-runtime\[langchain\]'"):
        choose("anthropic:claude-sonnet-4-5", env={})
    with pytest.raises(ConfigError, match="did you mean 'anthropic:x'"):
        choose("antropic:x", env={})
    assert choose("openai:gpt-5", env={"OPENAI_API_KEY": "k"}).name == "gpt-5"


def test_providers_are_those_of_the_installed_langchain() -> None:
    from langchain.chat_models.base import _BUILTIN_PROVIDERS

    assert set(_BUILTIN_PROVIDERS) == PROVIDERS


@pytest.mark.parametrize(
    ("model", "name", "provider", "priced"),
    [
        pytest.param(ChatOpenAI(model="gpt-5", api_key="k"), "gpt-5", "openai", True, id="openai"),  # type: ignore[arg-type]  # pydantic takes a str for the secret
        pytest.param(ChatOpenAI(model="m", base_url=URL, api_key="k"), "m", "openai", False, id="a server"),  # type: ignore[arg-type]  # pydantic takes a str for the secret
        pytest.param(OfflineChatModel(), "offline", "offline", False, id="offline"),
        pytest.param(FakeListChatModel(responses=["a"]), "FakeListChatModel", "fakelistchatmodel", False, id="one's own"),
    ],
)
def test_handed_in_model(model: Any, name: str, provider: str, priced: bool) -> None:
    choice = choose(model, env={"AGENT_GRAPH_MODEL": "wat"})
    assert choice.model is model
    assert (choice.name, choice.provider, choice.priced) == (name, provider, priced)
    assert "handed in" in choice.reason
