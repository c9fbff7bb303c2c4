"""Compression, driven: the plan is pure (`decisions/compression.py`), the summary in its middle is a model call like any other.

The call is a row of the ledger, inside the limits: it is made only if the turn's next call and a landing still fit behind it. Where
it does not fit, fails, or gives nothing smaller, a deterministic summary stands in. Outside a turn there is no ledger to book on,
hence no call: the summary is then always the deterministic one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_graph.decisions.budget import Normal
from agent_graph.decisions.compression import assemble, limit_of, plan, summary_prompt
from agent_graph.errors import describe
from agent_graph.runtime.model_call import ModelOverflow, ModelsFailed, NotAffordable, TimeToLand
from agent_graph.types import Message, MessageRole

if TYPE_CHECKING:
    from agent_graph.decisions.compression import Plan
    from agent_graph.runtime.turn import Turn

__all__ = ["compressed"]


async def compressed(agent: Any, messages: list[Message], turn: Turn | None) -> list[Message]:
    """Return `messages` itself while it is within its limit, else a shorter list; a turn is warned where it is still over."""

    def count(some: list[Message]) -> int:
        tokens: int = agent.count(turn, some)
        return tokens

    limit = limit_of(agent.config.compression_threshold, window_of(agent, turn))
    if limit is None or count(messages) <= limit:
        return messages
    chosen = plan(messages, count=count, size=agent.size, limit=limit, task=None if turn is None else _task(messages, turn.run.input))
    summary = None if turn is None or not chosen.to_summarise else await _summary(agent, turn, chosen)
    result = assemble(chosen, summary, count=count)
    if turn is not None and result.problem is not None:
        turn.warn(result.problem)
    return result.messages


def window_of(agent: Any, turn: Turn | None) -> int | None:
    """Return the model's context window in tokens: what it was found to be, else what it is known for."""
    known: int | None = agent.governor.model.window
    return turn.learned.window if turn is not None and turn.learned.window is not None else known


def _task(messages: list[Message], text: str) -> int | None:
    """Return where the turn's input stands: a guardrail's feedback after it is a user message too."""
    return next(
        (at for at in range(len(messages) - 1, -1, -1) if messages[at].role is MessageRole.USER and messages[at].content == text), None
    )


async def _summary(agent: Any, turn: Turn, chosen: Plan) -> str | None:
    """Return the model's summary, or None where the limits or the model do not give one."""
    asked = summary_prompt(chosen.to_summarise, chosen.summary_tokens, room=window_of(agent, turn))
    tokens = agent.count_bound(turn, asked)
    call = agent.governor.call(
        turn, input_tokens=tokens, step=turn.run.steps, kind="summary", behind=chosen.limit, most=chosen.summary_tokens
    )
    if not isinstance(await call.admission(), Normal):
        turn.warn("compression: the summary was made without the model, because its call would not leave enough for the answer.")
        return None
    try:
        reply = await call.reply(turn.conversion.to_langchain(asked), tools=False)
    except (ModelsFailed, ModelOverflow, NotAffordable, TimeToLand) as error:
        turn.warn(f"compression: the summary was made without the model ({describe(error)}).")
        return None
    text: str = reply.text
    return text
