"""call_model: the heart of a step.

First the pure decisions, each by the specification's own method: is a limit reached, is the list over its threshold, may the next
call be paid? Where there is something to do, the node leaves for it and is entered again. Then one reply: reserved, called,
settled. Then the pure rails; a verdict that is not Allow, and every rail that waits or costs, is for `guard`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send

from agent_graph.decisions import compression, prompt, routing
from agent_graph.decisions.budget import Land, Refuse
from agent_graph.decisions.replies import withheld
from agent_graph.errors import ContractError, blamed
from agent_graph.events import StepFinished
from agent_graph.guardrails import judge
from agent_graph.nodes import hooked, outcome
from agent_graph.runtime.compressing import window_of
from agent_graph.runtime.judging import all_pure, holds_text, rails_at
from agent_graph.runtime.landing import OF_SIZE, Shortened, shortened
from agent_graph.runtime.model_call import ModelCall, ModelOverflow, ModelsFailed, NotAffordable, TimeToLand
from agent_graph.runtime.text_relay import TextRelay
from agent_graph.runtime.transcript import answerable, last_reply, text_of
from agent_graph.state import Call, RunState, turn_of

if TYPE_CHECKING:
    from agent_graph.runtime.candidate import Candidate
    from agent_graph.runtime.turn import Turn
    from agent_graph.types import Message

__all__ = ["call_model", "sends"]

Next = Literal["check_budget", "compress", "guard", "run_tool", "finish"]

LOOKS = 10
"""So often the limits are looked at again for one call, where others took meanwhile what was left."""


async def call_model(state: RunState, config: RunnableConfig) -> Command[Next]:
    """Take one step, or leave for what must be done before it."""
    turn = await turn_of(state, config)
    with turn.at_work():
        try:
            return await _step(turn, state)
        except outcome.PASSES:
            raise
        except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
            return _failed(turn, error)


def _failed(turn: Turn, error: Exception) -> Command[Next]:
    return Command(update={"outcome": outcome.of_error(error, turn), "landing": turn.run.landed}, goto="finish")


async def _step(turn: Turn, state: RunState) -> Command[Next]:
    if state.get("outcome"):
        return Command(goto="finish")
    await turn.agent.remember(turn, state["messages"], at_end=False)
    return await (_called(turn, state) if turn.agent.hooks is None else _hooked(turn, state))


async def _hooked(turn: Turn, state: RunState) -> Command[Next]:
    """The step between the hooks of others; what those before the model wrote is kept whatever comes of the call."""
    shown = await hooked.before_model(turn, state)
    try:
        command = await _called(turn, shown) if shown.get("ended_by") is None else _answered(turn, state, shown)
    except outcome.PASSES:
        raise
    except Exception as error:  # noqa: BLE001  whatever goes wrong inside a turn is its result
        command = _failed(turn, error)
    return hooked.merged(state, shown, command)


def _answered(turn: Turn, state: RunState, shown: RunState) -> Command[Next]:
    """A hook ended the turn before the model was called: what it answers with, if it does, is judged as a reply is."""
    reply = last_reply(shown["messages"][shown.get("first", 0) :])
    if reply is None or not text_of(reply).strip():
        return Command(goto="finish")
    fresh = state.get("ended_by") is not None or all(message.id != reply.id for message in state["messages"])
    if fresh and not holds_text(turn):  # else `guard` tells it
        TextRelay(turn, state["step"]).tell(reply)
    return Command(goto="guard")


async def _called(turn: Turn, state: RunState) -> Command[Next]:
    messages, step = state["messages"], state["step"] + 1
    turn.run.landed = landing = state.get("landing")
    asked, text = _input_of(turn, messages, landing), TextRelay(turn, step)
    for left in reversed(range(LOOKS)):
        plan = await _before(turn, state, asked)
        if plan.call is None:
            return plan.leave
        try:
            reply, shown = await _replied(turn, plan, text, step=step, landing=landing)
        except NotAffordable as error:  # others spent meanwhile what was left: look again
            if not left:
                return Command(update={"stop": str(error), "landing": landing}, goto="check_budget")
        except ModelOverflow as error:
            return _compress_once(turn, state, plan.input_tokens, error)
        except (ModelsFailed, TimeToLand) as error:
            return await _landed_on_another(turn, state, plan.call, error, text)
        else:
            if shown is not None:
                turn.agent.learn(turn, shown)
            return await _after(turn, state, answerable(reply, step), text, landing=landing)
    raise AssertionError("unreachable: the last look returns")  # pragma: no cover


async def _replied(turn: Turn, plan: _Plan, text: TextRelay, *, step: int, landing: str | None) -> tuple[AIMessage, list[Message] | None]:
    """Return a reply, and what the model was shown for it; None where a hook around the call may have shown it something else.

    A hook (`middleware=`) may make several calls, each admitted and reserved as one of its own, or none.
    """
    hook, call, asked = turn.agent.around_model, plan.call, plan.asked
    assert call is not None, "there is a call to be made"
    if hook is None:
        return await call.reply(asked, tools=landing is None, text=text.live), plan.spec

    async def ask(messages: list[BaseMessage]) -> AIMessage:
        made = call
        if messages is not asked:
            count = turn.agent.count_bound(turn, turn.conversion.to_spec(messages))
            made = turn.agent.governor.call(turn, input_tokens=count, step=step, landing=landing is not None)
        return await made.reply(messages, tools=landing is None)

    return await hook(turn.agent.governor.model.source(), asked, ask), None


async def _landed_on_another(
    turn: Turn, state: RunState, call: ModelCall, error: ModelsFailed | TimeToLand, text: TextRelay
) -> Command[Next]:
    """Land on a model that has not just failed, if there is one and something to answer from; else the error is the turn's end.

    A model that was only too slow has not failed: without another one it gets the time that was kept for the landing.
    """
    slow = isinstance(error, TimeToLand)
    others = [candidate for candidate in call.candidates[1:] if candidate not in call.failed]
    spent = call.candidates[:1] if slow and others else call.failed
    left = [candidate for candidate in call.candidates if candidate not in spent]
    if state.get("landing") is not None or not turn.run.steps or not left:
        raise error
    turn.run.landed = landing = "timeout_s" if slow else "error"
    turn.note("landing", {"limit": landing}, step=state["step"])
    asked = _input_of(turn, state["messages"], landing)
    count = turn.agent.count(turn, turn.conversion.to_spec(asked))
    again = turn.agent.governor.call(turn, input_tokens=count, step=state["step"] + 1, landing=True, without=tuple(spent))
    said = await again.admission()
    if isinstance(said, Refuse) and (less := await _shortened(turn, state, said, without=tuple(spent))) is not None:
        _say_shortened(turn, less, said)
        again, asked = less.call, less.shown
    try:
        reply = await again.reply(asked, tools=False, text=text.live)
    except (NotAffordable, ModelsFailed, ModelOverflow) as other:
        if isinstance(other, NotAffordable):
            turn.run.landed = None  # nobody was asked
        raise error from None
    update = await _after(turn, state, answerable(reply, state["step"] + 1), text, landing=landing)
    return replace(update, update={**(update.update or {}), "landing": landing})


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the pure decisions say: make the call, or leave for another node."""

    leave: Command[Next]
    call: ModelCall | None = None
    asked: list[BaseMessage] = field(default_factory=list[BaseMessage])
    """What the model is shown ..."""
    spec: list[Message] = field(default_factory=list["Message"])
    """... the same, as the specification has it ..."""
    input_tokens: int = 0
    """... and the tokens of the whole."""


def _input_of(turn: Turn, messages: Sequence[BaseMessage], landing: str | None) -> list[BaseMessage]:
    """Return what the model is shown: our system prompt (a loaded one merged into it), then the conversation."""
    own, rest = turn.system, list(messages)
    if rest and isinstance(rest[0], SystemMessage):
        own = prompt.merge(own, text_of(rest.pop(0)))
    if landing is not None:
        own = f"{own}\n\n{prompt.LANDING}"
    return [turn.system_message(own), *rest]


async def _before(turn: Turn, state: RunState, asked: list[BaseMessage]) -> _Plan:
    step, spec = state["step"], turn.conversion.to_spec(asked)
    with blamed("_check_budgets"):
        stop = await turn.agent._check_budgets(turn.refresh())
    if not (stop is None or isinstance(stop, str)):
        raise ContractError(f"_check_budgets returned {type(stop).__name__}; None or the violation as a text was due.")
    count = 0 if stop is not None else turn.agent.count(turn, spec)
    over = compression.needed(count, turn.config.compression_threshold, window_of(turn.agent, turn))
    compress = (over or turn.agent.compresses_always) and state.get("compressed_at", -1) != step
    landing, call = state.get("landing"), None
    if stop is None and not compress:
        call = turn.agent.governor.call(turn, input_tokens=count, step=step + 1, landing=landing is not None)
        said = await call.admission()
        if isinstance(said, Refuse):
            less = await _shortened(turn, state, said)
            if less is None:
                stop = said.text
            elif landing is None:
                landing = said.key
            else:
                _say_shortened(turn, less, said)
                return _Plan(Command(), less.call, less.shown, less.spec, count)
        elif isinstance(said, Land):
            landing = said.key
    goto = routing.before_model(stop=stop, landing=landing, landing_known=state.get("landing") is not None, compress=compress)
    if goto == "call_model":
        return _Plan(Command(), call, asked, spec, count)
    update = {"stop": stop, "landing": landing} if goto == "check_budget" else {}
    return _Plan(Command(update=update, goto=goto))


async def _shortened(turn: Turn, state: RunState, refused: Refuse, *, without: Collection[Candidate] = ()) -> Shortened | None:
    """Return a landing that is shown less of the tool results, where the limits refuse one that is shown all; None if none fits."""
    if not state["step"] or refused.key not in OF_SIZE:
        return None
    return await shortened(turn, _input_of(turn, state["messages"], refused.key), step=state["step"] + 1, without=without)


def _say_shortened(turn: Turn, less: Shortened, refused: Refuse) -> None:
    turn.warn(f"the landing was shown tool results of at most {less.most} tokens each: the whole did not fit ({refused.text}).")


def _compress_once(turn: Turn, state: RunState, input_tokens: int, error: ModelOverflow) -> Command[Next]:
    """The model's context is smaller than we thought: learn it, compress, try once more."""
    if state.get("compressed_at", -1) == state["step"]:
        return Command(update={"outcome": outcome.ended("failed", str(error), "error")}, goto="finish")
    turn.learned.window = max(1, int(input_tokens * 0.8))
    return Command(goto="compress")


async def _after(turn: Turn, state: RunState, reply: AIMessage, text: TextRelay, *, landing: str | None) -> Command[Next]:
    step = state["step"] + 1
    written, ended_by = [reply], None
    if turn.agent.hooks is not None:
        reply, written, ended_by = await hooked.after_model(turn, state["messages"], reply, step)
    if text.live is None:
        text.tell(reply)
    if reason := withheld(reply.response_metadata):
        turn.warn(f"the provider withheld a reply, or the rest of it, for what it was about (finish reason {reason!r}).", step=step)
    calls = sends(turn, reply, step)
    stages = ("reply",) if calls and ended_by is None else ("reply", "output")
    waiting = not all(all_pure(rails_at(turn, stage)) for stage in stages)
    allowed = not waiting and await _allowed(turn, reply, stages)
    if allowed:
        text.release()
    run = turn.refresh()
    turn.emit(
        StepFinished(
            step, run.total_tokens, run.total_cost_usd, str(reply.response_metadata.get("model_name") or turn.agent.governor.model.name)
        )
    )
    goto = routing.after_reply(allowed=allowed, calls=len(calls), landing=landing is not None or ended_by is not None)
    update = {"messages": written, "step": step} | ({} if ended_by is None else {"ended_by": ended_by})
    return Command(update=update, goto=calls if goto == "run_tool" else goto)


async def _allowed(turn: Turn, reply: AIMessage, stages: Sequence[str]) -> bool:
    """Return whether the pure rails allow the reply as it is. Their findings are booked by `guard`, which asks them again."""
    message = turn.conversion.to_spec([reply])[0]
    for stage in stages:
        judgement = await judge(rails_at(turn, stage), stage, message if stage == "reply" else text_of(reply), turn.run)
        if judgement.findings:
            return False
    return True


def sends(turn: Turn, reply: AIMessage, step: int) -> list[Send]:
    """Return one `Send` per tool call, malformed ones too: each is answered in its own task."""
    calls: list[tuple[str, str, Any, str | None]] = [(str(call["id"]), call["name"], call["args"], None) for call in reply.tool_calls]
    calls += [
        (str(call["id"]), call["name"] or "", call["args"], call["error"] or "the arguments are not a JSON object.")
        for call in reply.invalid_tool_calls
    ]
    return [
        Send(
            "run_tool",
            Call(run_id=turn.key.run_id, turn=turn.key.turn, step=step, index=index, id=id_, name=name, args=args, problem=problem),
        )
        for index, (id_, name, args, problem) in enumerate(calls)
    ]
