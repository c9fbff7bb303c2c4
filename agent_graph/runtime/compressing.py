"""Compression, driven: the plan is pure (`decisions/compression.py`), the summary in its middle is a model call like any other.

The call is a row of the ledger, inside the limits: it is made only if the turn's next call and a landing still fit behind it. Where
it does not fit, fails, or gives nothing smaller, a deterministic summary stands in. Outside a turn there is no ledger to book on,
hence no call: the summary is then always the deterministic one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_graph.decisions.budget import Normal, admit
from agent_graph.decisions.compression import assemble, limit_of, plan, summary_prompt
from agent_graph.errors import describe
from agent_graph.runtime.governor import ModelOverflow, ModelsFailed
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
    chosen = plan(messages, count=count, limit=limit, task=None if turn is None else _task(messages, turn.run.input))
    summary = None if turn is None or not chosen.to_summarise else await _summary(agent, turn, chosen)
    result = assemble(chosen, summary, count=count)
    if turn is not None and result.problem is not None:
        turn.warn(result.problem)
    return result.messages


def window_of(agent: Any, turn: Turn | None) -> int | None:
    """Return the model's context window in tokens: what it was found to be, else what it is known for."""
    known: int | None = agent.governor.model.window
    return turn.learned_window if turn is not None and turn.learned_window is not None else known


def _task(messages: list[Message], text: str) -> int | None:
    """Return where the turn's input stands: a guardrail's feedback after it is a user message too."""
    return next(
        (at for at in range(len(messages) - 1, -1, -1) if messages[at].role is MessageRole.USER and messages[at].content == text), None
    )


async def _summary(agent: Any, turn: Turn, chosen: Plan) -> str | None:
    """Return the model's summary, or None where the limits or the model do not give one."""
    asked = summary_prompt(chosen.to_summarise, chosen.summary_tokens, room=window_of(agent, turn))
    tokens = agent.count(turn, asked)
    cap = _admitted(agent, turn, tokens, next_call=chosen.limit)
    if cap is None:
        turn.warn("compression: the summary was made without the model, because its call would not leave enough for the answer.")
        return None
    try:
        reply = await agent.governor.reply(
            turn,
            turn.conversion.to_langchain(asked),
            input_tokens=tokens,
            step=turn.run.steps,
            kind="summary",
            tools=False,
            max_output_tokens=min(cap, chosen.summary_tokens) if cap else None,
        )
    except (ModelsFailed, ModelOverflow) as error:
        turn.warn(f"compression: the summary was made without the model ({describe(error)}).")
        return None
    text: str = reply.text
    return text


def _admitted(agent: Any, turn: Turn, tokens: int, *, next_call: int) -> int | None:
    """Return the output cap of a summary that the limits can pay beside the next call (0: none can be given); None where they cannot."""
    candidate = agent.governor.model
    admission = admit(
        turn.limits,
        turn.spent,
        call=agent.governor.estimate(turn, candidate, tokens),
        landing=agent.governor.estimate(turn, candidate, next_call),
        first=False,
        output_price_usd=agent.governor.output_price_usd(candidate, tokens),
        can_shrink=candidate.backend is None,
        reasoning=candidate.reasoning,
    )
    return (admission.max_output_tokens or 0) if isinstance(admission, Normal) else None
