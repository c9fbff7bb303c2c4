"""Which language model an agent uses, why, and which of its clients belongs to which event loop.

`choose` takes the first that is there, and says so on one line (`Choice.line`):

1. what was asked for: a chat model object, or a string `init_chat_model` understands ("openai:gpt-5-mini"), or
   "offline";
2. `AGENT_GRAPH_MODEL`, such a string;
3. `OPENAI_BASE_URL`, a server that speaks OpenAI's protocol (Ollama, vLLM, LM Studio, a gateway): its first model;
4. `OPENAI_API_KEY`: one named, cheap default under a limit of 0.05 USD a turn;
5. nothing: the offline model (`agent_graph_adapters.offline`).

While `OPENAI_BASE_URL` is set, a name without a provider known to `init_chat_model` ("llama3.2:1b") is a model of that
server.

Models built here never retry by themselves (`max_retries=0`: the agent owns retries, so that each attempt is counted)
and always ask for usage while streaming (langchain-openai leaves it off behind a custom base URL, where a bill of zero
would follow).

An async HTTP client belongs to the event loop that first used it, and langchain-openai shares one cached client between
all models of one base URL, over loops too. `per_loop` therefore gives each running loop its own copy of a model, with a
client of its own.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import TypeIs

from agent_graph.errors import ConfigError, MissingPackage, optional
from agent_graph_adapters.clients import PerLoop, detached

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = ["DEFAULT_COST_USD", "DEFAULT_MODEL", "Choice", "PerLoop", "choose", "per_loop"]

DEFAULT_MODEL = "gpt-5-mini"
"""What an OpenAI key alone leads to: cheap, and able to call tools."""
DEFAULT_COST_USD = Decimal("0.05")
"""The limit, in USD a turn, for a model that nobody named."""
MODELS_TIMEOUT_S = 3.0
"""How long a server may take to say which models it has."""

# The providers of langchain's init_chat_model; a test compares this with the installed langchain. Kept here because a
# name such as "mistral:7b" must be told from a provider's before, and without, importing langchain.
_PROVIDERS = """
    anthropic anthropic_bedrock azure_ai azure_openai baseten bedrock bedrock_converse bedrock_mantle_anthropic
    bedrock_mantle_openai cohere deepseek fireworks google_anthropic_vertex google_genai google_vertexai groq
    huggingface ibm langsmith litellm meta mistralai nvidia ollama openai openrouter perplexity together upstage xai
"""
PROVIDERS = frozenset(_PROVIDERS.split())
_UNPRICED = frozenset({"ollama", "huggingface", "offline"})
# As the integrations name themselves to LangSmith, where that differs from the above.
_PAID = (PROVIDERS - _UNPRICED) | {"amazon_bedrock", "azure", "google", "mistral"}
_OPENAI_NAMES = ("gpt-", "o1", "o3", "o4", "chatgpt")
_FORM = (
    "The form is 'provider:model', such as 'openai:gpt-5-mini' or 'anthropic:claude-sonnet-4-5';"
    " with 'offline', no language model is called."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A model, and why it is this one."""

    model: BaseChatModel | None
    """The object that was handed in; None where `factory` builds the model."""
    name: str
    """As its provider calls it."""
    reason: str
    """Half a sentence, to stand after "because"."""
    provider: str | None
    base_url: str | None
    """Where it is, unless that is the provider's own address."""
    priced: bool
    """Whether a price per token is due for it: a known paid provider at its own address."""
    default_cost_usd: Decimal | None
    """The limit that comes with a model nobody named, in USD a turn; None: none of its own."""
    factory: Callable[[], BaseChatModel]
    """Builds it anew, with clients of its own where that is possible, without retries of its own."""

    @property
    def line(self) -> str:
        """Return "model: <name> because <reason>", to be printed before the first call."""
        return self.said(priced=self.base_url is None)

    def said(self, *, priced: bool) -> str:
        """Return `line`, where it is known whether the model has a price."""
        where = f" at {self.base_url}" if self.base_url else ""
        return f"model: {self.name}{where}{'' if priced else ' (unpriced)'} because {self.reason}"


def choose(model: str | BaseChatModel | None = None, *, env: Mapping[str, str] | None = None) -> Choice:
    """Return the model to use, by the order in this module's docstring; `env` stands for `os.environ`.

    The model is built once, so that a missing key or package is found here. Only the third way may use the network
    (at most 3 s), and only where no model is named.

    Raises:
        ConfigError: the name has no known form, a package or a key is missing, or the server at `OPENAI_BASE_URL` does
        not answer.
    """
    env = os.environ if env is None else env
    if model is not None and not isinstance(model, str):
        return _handed_in(model)
    if model is not None:
        return _named(model, "it was asked for", env)
    if name := _get(env, "AGENT_GRAPH_MODEL"):
        return _named(name, "AGENT_GRAPH_MODEL names it", env)
    if url := _get(env, "OPENAI_BASE_URL"):
        return _openai(_first_model(url, _get(env, "OPENAI_API_KEY")), "it is the first model of OPENAI_BASE_URL", env)
    if _get(env, "OPENAI_API_KEY"):
        reason = f"OPENAI_API_KEY is set and no model is named; limited to ${DEFAULT_COST_USD} a turn"
        return _openai(DEFAULT_MODEL, reason, env, default_cost_usd=DEFAULT_COST_USD)
    return _offline("none of AGENT_GRAPH_MODEL, OPENAI_BASE_URL and OPENAI_API_KEY is set")


def per_loop(model_or_factory: Choice | BaseChatModel | Callable[[], BaseChatModel]) -> PerLoop:
    """Return an object whose `.current()` is the model for the running event loop.

    An OpenAI- or Anthropic-like model is copied for each loop, with an HTTP client of its own, closed when the loop
    ends; the copy has no retries of its own. Of any other model given as an object, that object serves every loop (a
    copy without retries where it has `max_retries`); of a factory, each loop gets another. The object handed in is
    never changed.
    """
    if isinstance(model_or_factory, Choice):
        model_or_factory = model_or_factory.model or model_or_factory.factory
    if _is_chat_model(model_or_factory):
        model = model_or_factory
        return PerLoop(lambda: model, shared=True)
    return PerLoop(model_or_factory, shared=False)


# -- the ways ----------------------------------------------------------------------------------------------------------


def _handed_in(model: BaseChatModel) -> Choice:
    if not _is_chat_model(model):
        raise ConfigError(
            f"The model is a {type(model).__name__}; a chat model (langchain_core's BaseChatModel) or a string was due."
            f" {_FORM} Of a model with something bound to it (`.bind(...)`, `.bind_tools(...)`) pass the model itself:"
            " the agent binds its tools."
        )
    params = model._get_ls_params()
    name = str(params.get("ls_model_name") or type(model).__name__)
    provider = params.get("ls_provider")
    base_url = _custom_url(model, provider)
    return Choice(
        model=model,
        name=name,
        reason="it was handed in",
        provider=provider,
        base_url=base_url,
        priced=_priced(provider, base_url),
        default_cost_usd=None,
        factory=lambda: detached(model).model,
    )


def _named(text: str, because: str, env: Mapping[str, str]) -> Choice:
    text = text.strip()
    provider, _, rest = text.partition(":")
    provider = provider.lower().replace("-", "_")
    if not text:
        raise ConfigError(f"The model's name is empty. {_FORM}")
    if text.lower() == "offline":
        return _offline(because)
    if provider in PROVIDERS and not rest.strip():
        raise ConfigError(f"The model {text!r} names a provider and no model. {_FORM}")
    if provider == "openai":
        return _openai(rest.strip(), because, env)
    if provider in PROVIDERS:
        return _other(text, provider, rest.strip(), because)
    if _get(env, "OPENAI_BASE_URL"):
        return _openai(text, f"{because} and OPENAI_BASE_URL is set", env)
    if text.lower().startswith(_OPENAI_NAMES):
        return _openai(text, because, env)
    return _other(text, None, text, because)


def _openai(name: str, reason: str, env: Mapping[str, str], *, default_cost_usd: Decimal | None = None) -> Choice:
    url = _get(env, "OPENAI_BASE_URL")
    # ChatOpenAI refuses to start without a key; local servers ask for none.
    key = _get(env, "OPENAI_API_KEY") or ("not-needed" if url else None)

    def build() -> BaseChatModel:
        from langchain_openai import ChatOpenAI
        from pydantic import SecretStr

        secret = SecretStr(key) if key else None
        return ChatOpenAI(model=name, base_url=url, api_key=secret, stream_usage=True)

    model = _built(build, name)
    return Choice(
        model=None,
        name=name,
        reason=reason,
        provider="openai",
        base_url=_custom_url(model, "openai"),
        priced=_priced("openai", _custom_url(model, "openai")),
        default_cost_usd=default_cost_usd,
        factory=lambda: detached(model).model,
    )


def _other(text: str, provider: str | None, name: str, because: str) -> Choice:
    def build() -> BaseChatModel:
        return _init_chat_model(text)

    model = _built(build, text)
    provider = provider or model._get_ls_params().get("ls_provider")
    return Choice(
        model=None,
        name=name,
        reason=because,
        provider=provider,
        base_url=_custom_url(model, provider),
        priced=_priced(provider, _custom_url(model, provider)),
        default_cost_usd=None,
        factory=lambda: detached(build()).model,
    )


def _offline(because: str) -> Choice:
    def build() -> BaseChatModel:
        from agent_graph_adapters.offline import OfflineChatModel

        return OfflineChatModel()

    return Choice(
        model=None,
        name="offline",
        reason=because,
        provider="offline",
        base_url=None,
        priced=False,
        default_cost_usd=None,
        factory=build,
    )


# -- their parts -------------------------------------------------------------------------------------------------------


def _init_chat_model(text: str) -> BaseChatModel:
    try:
        with optional(f"The model {text!r}"):
            from langchain.chat_models import init_chat_model
    except MissingPackage as error:
        if _nearest(text) or ":" not in text:
            raise ConfigError(_unknown(text)) from error
        raise MissingPackage(f"{error} (models of OpenAI, and of servers behind OPENAI_BASE_URL, need nothing more).") from error
    try:
        return init_chat_model(text)
    except ValueError as error:
        if "provider" in str(error):
            raise ConfigError(_unknown(text)) from error
        raise


def _built(build: Callable[[], BaseChatModel], name: str) -> BaseChatModel:
    """Return `build()`, whatever goes wrong there told as a ConfigError."""
    try:
        return build()
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(f"The model {name!r} cannot be used: {error}") from error
    except Exception as error:  # a provider's constructor raises what it likes: keys, names, files
        hint = "" if "OPENAI_API_KEY" not in str(error) else " Set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own."
        raise ConfigError(f"The model {name!r} cannot be built: {_first_lines(error)}.{hint}") from error


def _first_model(url: str, key: str | None) -> str:
    """Return the first model that the server at `url` lists."""
    import openai

    try:
        with openai.OpenAI(base_url=url, api_key=key or "not-needed", max_retries=0, timeout=MODELS_TIMEOUT_S) as client:
            names = [str(model.id) for model in client.models.list().data]
    except Exception as error:  # whatever listens at that address answers as it likes
        raise ConfigError(
            f"OPENAI_BASE_URL is {url!r}, but its list of models ({url.rstrip('/')}/models) cannot be read:"
            f" {_first_lines(error)}. Start the server, correct the address (most end in /v1), or name"
            " a model with AGENT_GRAPH_MODEL."
        ) from error
    if not names:
        raise ConfigError(f"The server at OPENAI_BASE_URL ({url!r}) lists no model. Load one, or name it with AGENT_GRAPH_MODEL.")
    return names[0]


def _custom_url(model: object, provider: str | None) -> str | None:
    """Return where an OpenAI model's client points, if not to OpenAI; None for providers with their own addresses."""
    if provider != "openai":
        return None
    client: Any = getattr(model, "root_async_client", None)
    url = str(getattr(client, "base_url", "") or "")
    return url.rstrip("/") if url and urlsplit(url).hostname != "api.openai.com" else None


def _priced(provider: str | None, base_url: str | None) -> bool:
    return base_url is None and provider in _PAID


def _unknown(text: str) -> str:
    near = _nearest(text)
    return f"The model {text!r} names no known provider{f'; did you mean {near!r}?' if near else '.'} {_FORM}"


def _nearest(text: str) -> str | None:
    """Return `text` with its misspelt provider put right, if one is near."""
    provider, colon, rest = text.partition(":")
    near = difflib.get_close_matches(provider.lower(), PROVIDERS, n=1, cutoff=0.75) if colon else []
    return f"{near[0]}:{rest}" if near and near[0] != provider else None


def _is_chat_model(value: object) -> TypeIs[BaseChatModel]:
    from langchain_core.language_models import BaseChatModel

    return isinstance(value, BaseChatModel)


def _get(env: Mapping[str, str], key: str) -> str | None:
    return env.get(key, "").strip() or None


def _first_lines(error: BaseException, limit: int = 300) -> str:
    """Return an error's text on one line, without its links and dumps."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= limit else text[:limit].rstrip() + "…").rstrip(".")
