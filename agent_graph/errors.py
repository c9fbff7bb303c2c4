"""The errors of agent_graph.

```
AgentGraphError
├─ ConfigError(ValueError)      a setting that cannot be: unknown key, negative limit, bad run_id
│  └─ MissingPackage(ImportError)  an optional package is not installed; the text has the pip line
├─ BackendError                 a port failed; .backend names it, the cause is kept, .retryable says whether trying again may help
│  ├─ LLMError
│  ├─ StorageError
│  └─ ToolError
│     ├─ ToolNotFound
│     ├─ ToolTimeout(TimeoutError)
│     ├─ ToolNotExecuted        the tool's own word: nothing happened, safe to retry
│     └─ OutcomeUnknown         the call was started and its end is not known
├─ ContractError(TypeError)     a backend broke its port: which method, what was due
├─ Blocked                      a guardrail lets something go no further, where that is no result: in middleware; .rail names it
├─ LimitReached                 a limit ended what was asked for, where that is no result: in middleware; .key names it
├─ RunError                     .run_id
│  ├─ RunNotFound
│  ├─ RunInProgress
│  ├─ RunConflict
│  ├─ LeaseLost
│  └─ NoAnswer                 only where a turn stands in a chain (`as_runnable`); .run is its account
└─ NotDurable                   a write did not reach the disk: never swallowed
```

What happens *inside* a turn is a result (`AgentRun.status`, `.error`), not an exception. `ProductionAgent.run` raises only
ConfigError, RunConflict, RunInProgress, RunNotFound, LeaseLost, StorageError, NotDurable and CancelledError.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from agent_graph.types import AgentRun

__all__ = [
    "AgentGraphError",
    "BackendError",
    "Blocked",
    "ConfigError",
    "ContractError",
    "LLMError",
    "LeaseLost",
    "LimitReached",
    "MissingPackage",
    "NoAnswer",
    "NotDurable",
    "OutcomeUnknown",
    "RunConflict",
    "RunError",
    "RunInProgress",
    "RunNotFound",
    "StorageError",
    "ToolError",
    "ToolNotExecuted",
    "ToolNotFound",
    "ToolTimeout",
    "blame",
    "blamed",
    "describe",
    "did_you_mean",
    "optional",
    "pip_line",
]

DISTRIBUTION = "agent-graph-runtime"
_OPTIONAL = {
    "langchain": f"'{DISTRIBUTION}[langchain]'",
    "langchain_mcp_adapters": f"'{DISTRIBUTION}[mcp]'",
    "mcp": f"'{DISTRIBUTION}[mcp]'",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}
"""What pip installs for an optional package."""


class AgentGraphError(Exception):
    """Something in agent_graph went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else inspect.cleandoc(type(self).__doc__ or ""))


class ConfigError(AgentGraphError, ValueError):
    """A setting cannot be used. Look at the named key and its allowed values."""


class MissingPackage(ConfigError, ImportError):
    """An optional package is not installed. The text says what needs it, and has the pip line that installs it."""


class BackendError(AgentGraphError):
    """A backend failed. The cause is chained to this error."""

    retryable: bool = True
    """Whether trying again may help."""

    def __init__(self, message: str | None = None, *, backend: str = "", retryable: bool | None = None) -> None:
        super().__init__(message)
        self.backend = backend
        if retryable is not None:
            self.retryable = retryable


class LLMError(BackendError):
    """The language model failed. The cause is chained to this error."""


class StorageError(BackendError):
    """The storage cannot be used. Check that the path exists, is writable, has space, and belongs to agent_graph."""

    retryable = False


class ToolError(BackendError):
    """A tool failed. The cause is chained to this error."""


class ToolNotFound(ToolError):
    """The model asked for a tool that this agent does not have."""

    retryable = False


class ToolTimeout(ToolError, TimeoutError):
    """A tool did not finish within its time."""


class ToolNotExecuted(ToolError):
    """The tool did not run: nothing happened, so calling it again is safe. Raise this from a tool to say so."""


class OutcomeUnknown(ToolError):
    """The call was started and its end is not known: it may have happened. Check before you repeat it."""

    retryable = False


class ContractError(AgentGraphError, TypeError):
    """A backend broke its port: it returned something else than its method owes."""


class Blocked(AgentGraphError):
    """A guardrail lets this go no further. Its reason says why."""

    def __init__(self, message: str | None = None, *, rail: str = "") -> None:
        super().__init__(message)
        self.rail = rail


class LimitReached(AgentGraphError):
    """A limit admits no further model call. Raise the limit, or ask for less."""

    def __init__(self, message: str | None = None, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class RunError(AgentGraphError):
    """A run cannot be used in this way."""

    def __init__(self, message: str | None = None, *, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id


class RunNotFound(RunError):
    """No run of this name is in the storage. `agent-graph runs` lists those that are."""


class RunInProgress(RunError):
    """This run is being worked on elsewhere. Wait for it, or use another run_id."""


class RunConflict(RunError):
    """This run_id has an unfinished turn with another input. Resume it, close it (`on_unfinished="close"`), or use another run_id."""


class LeaseLost(RunError):
    """Another process took this run over while this one was stopped; nothing that this one does can be recorded any more."""


class NoAnswer(RunError):
    """A turn ended, or waits for a person, without an answer. Its account is in `.run`: what it did, what it cost, why it ended."""

    def __init__(self, message: str | None = None, *, run: AgentRun) -> None:
        super().__init__(message, run_id=run.run_id)
        self.run = run


class NotDurable(AgentGraphError):
    """A write did not reach the disk, so nothing that depends on it was done. Check the storage's space and rights, then resume the run."""


def describe(error: BaseException) -> str:
    """Return `"<class>: <message>"`, the form in which an error enters `AgentRun.error`; before it, where `blamed` said so, whose it is."""
    where = getattr(error, _WHERE, "")
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001  somebody's __str__: an error that cannot say itself is still to be booked
        text = "(its text cannot be read)"
    return ": ".join(part for part in (where, type(error).__name__, text) if part)


_WHERE = "_agent_graph_where"
"""The attribute of an exception that says whose it is. Not a class of ours around it: what it is decides whether it is tried again."""


def blame(error: BaseException, where: str) -> None:
    """Note that `error` came out of `where`, unless that is known already; our own errors say themselves what they are about."""
    if isinstance(error, Exception) and not isinstance(error, AgentGraphError) and not hasattr(error, _WHERE):
        with contextlib.suppress(Exception):  # a frozen one: then it is only not said whose it is
            setattr(error, _WHERE, where)


class blamed:  # noqa: N801  used like a function
    """Let `describe` say, of what the block raises, that it came from `where`: `with blamed("memory.load"): ...`.

    "": it says itself whose it is, and nobody further out is to be blamed for it.
    """

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Nothing is done before there is an error."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            blame(error, self._where)


def did_you_mean(typed: object, known: Iterable[str], *, most: int = 1) -> str:
    """Return `" Did you mean 'max_steps'?"` with the nearest of `known`, `most` at most; nothing where none is near."""
    import difflib

    near = difflib.get_close_matches(str(typed), known, n=most, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def pip_line(package: str) -> str:
    """Return the line that installs an optional package, or, of one that is always needed, the whole."""
    return f"pip install {_OPTIONAL.get(package, DISTRIBUTION)}"


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Say of an optional package that the block imports and does not find, that `what` needs it, and how to install it.

    Raises:
        MissingPackage: it is not there. Any other error of an import is raised as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _OPTIONAL:
            raise
        raise MissingPackage(f"{what} needs {package}: {pip_line(package)}") from error
