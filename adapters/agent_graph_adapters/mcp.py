"""Tools of MCP servers, for the agent and for `create_agent` alike. Needs the extra `[mcp]` (langchain-mcp-adapters).

A server is somebody else's program, so nothing that it says is believed unless you say so:

- Its hints (`readOnlyHint`, `idempotentHint`) are only hints, and the MCP specification itself warns of relying on those of a server
  that is not trusted. A tool is therefore called *once*: never again when its outcome is unknown. `trust_hints=True` believes them.
- What its tools return is untrusted text: once it is in a turn, tools marked `sensitive` wait for a person. `trusted=True` takes it
  as yours.

The key of each call goes along as `_meta.idempotency_key`, so that a server can recognise a repetition.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any

from langchain_core.tools import InjectedToolArg

from agent_graph.context import idempotency_key
from agent_graph.errors import ConfigError, ToolError, describe, optional

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool
    from mcp import ClientSession

__all__ = ["META_KEY", "load_tools"]

META_KEY = "idempotency_key"
"""Key of `_meta` under which a call's idempotency key is sent."""
_EXAMPLE = '{"files": {"transport": "stdio", "command": "python", "args": ["server.py"]}}'


async def load_tools(
    servers: Mapping[str, Mapping[str, Any] | ClientSession],
    *,
    trusted: bool = False,
    trust_hints: bool = False,
    prefix: bool = False,
    timeout_s: float | None = None,
) -> list[BaseTool]:
    """Return the tools of MCP servers as LangChain tools.

    ```python
    tools = await load_tools({"files": {"transport": "stdio", "command": "python", "args": ["server.py"]}})
    agent = create_production_agent("openai:gpt-5-mini", tools=tools)
    ```

    Args:
        servers: by name, how to reach each (a connection of langchain-mcp-adapters: `transport` "stdio", "http", "sse" or "websocket" and
            what belongs to it; a session is opened for each call), or an open `mcp.ClientSession`, which stays open and yours.
        trusted: take what the tools return as trusted text.
        trust_hints: believe what the server says of its tools: one that only reads, or is idempotent, may be called again.
        prefix: call each tool "<server>_<tool>".
        timeout_s: seconds that a call may take in our agent; None: only the turn's own limit.

    Raises:
        ConfigError: a connection cannot be one, two tools have one name. MissingPackage: the extra `[mcp]` is not installed.
        ToolError: a server cannot be reached.
    """
    with optional("load_tools"):
        importlib.import_module("langchain_mcp_adapters.sessions")
    given: object = servers
    if not isinstance(given, Mapping) or not given or isinstance(given.get("transport"), str):
        raise ConfigError(
            f"servers: a mapping of names to connections or sessions is due, such as {_EXAMPLE} or {{'files': session}}, not {given!r}."
        )
    tools: dict[str, tuple[str, BaseTool]] = {}
    for name, server in servers.items():
        for tool in await _listed(name, _Caller(_opener(name, server)), prefix=prefix):
            if tool.name in tools:
                raise ConfigError(
                    f"servers: {tools[tool.name][0]!r} and {name!r} both have a tool named {tool.name!r}; a name must be one tool's own. "
                    "prefix=True puts the server's name before each."
                )
            tools[tool.name] = (name, _marked(tool, trusted=trusted, trust_hints=trust_hints, timeout_s=timeout_s))
    return [tool for _, tool in tools.values()]


def _opener(name: str, server: object) -> Callable[[], AbstractAsyncContextManager[ClientSession]]:
    """Return what opens a session with a server."""
    from langchain_mcp_adapters.sessions import create_session
    from mcp import ClientSession

    if isinstance(server, ClientSession):
        return lambda: contextlib.nullcontext(server)
    if not isinstance(server, Mapping) or "transport" not in server:
        raise ConfigError(f"servers[{name!r}]: a connection or a ClientSession is due, such as {_EXAMPLE}, not {server!r}.")
    connection: Any = dict(server)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[ClientSession]:
        async with create_session(connection) as session:
            await session.initialize()
            yield session

    return opened


class _Caller:
    """What langchain-mcp-adapters takes for a session: opens one for each request, and sends the call's key along."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[ClientSession]]) -> None:
        self._opened = opened

    async def list_tools(self, **options: Any) -> Any:
        """Return one page of the server's tools."""
        async with self._opened() as session:
            return await session.list_tools(**options)

    async def call_tool(self, name: str, arguments: dict[str, Any], *, progress_callback: Any = None) -> Any:
        """Call a tool once."""
        key = idempotency_key()
        failed: Exception | None = None
        result: Any = None
        async with self._opened() as session:
            try:
                meta = None if key is None else {META_KEY: key}
                result = await session.call_tool(name, arguments, progress_callback=progress_callback, meta=meta)
            except Exception as error:  # noqa: BLE001  a session that closes may swallow it: it is raised outside
                failed = error
        if failed is not None:
            raise failed
        return result


async def _listed(name: str, caller: _Caller, *, prefix: bool) -> list[BaseTool]:
    from langchain_mcp_adapters.tools import load_mcp_tools

    session: Any = caller
    try:
        return await load_mcp_tools(session, server_name=name, tool_name_prefix=prefix)
    except ConfigError:
        raise
    except Exception as error:  # a server, or what stands for one, fails as it likes
        raise ToolError(f"MCP server {name!r}: its tools cannot be listed: {describe(_first_cause(error))}", backend=name) from error


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


def _marked(tool: BaseTool, *, trusted: bool, trust_hints: bool, timeout_s: float | None) -> BaseTool:
    """Return the tool with our marks, in the place of what the server says of it."""
    hints = tool.metadata or {}
    idempotent = trust_hints and (hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True)
    marks: dict[str, Any] = {"idempotent": idempotent, **({} if trusted else {"untrusted": True})}
    if timeout_s is not None:
        marks["timeout_s"] = timeout_s
    call: Any = getattr(tool, "coroutine", None)

    async def called(runtime: Annotated[object | None, InjectedToolArg()] = None, **arguments: Any) -> tuple[Any, Any]:
        content, artifact = await call(runtime=runtime, **arguments)
        return _plain(content), artifact

    return tool.model_copy(update={"extras": {**(tool.extras or {}), **marks}, "coroutine": called})


def _plain(content: Any) -> Any:
    """Return a result of text alone as that text."""
    if isinstance(content, list) and content and all(isinstance(block, dict) and block.get("type") == "text" for block in content):
        return "\n".join(str(block["text"]) for block in content)
    return content
