"""A step's text on its way to whoever streams the turn: at once, once the hooks of others have returned, or when the rails have spoken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage

from agent_graph.events import TextDelta
from agent_graph.runtime.judging import holds_text, may_change_text
from agent_graph.runtime.transcript import text_of

if TYPE_CHECKING:
    from agent_graph.runtime.turn import Turn

__all__ = ["TextRelay"]


class TextRelay:
    """The text of one step."""

    def __init__(self, turn: Turn, step: int) -> None:
        self._turn, self._step = turn, step
        self._changeable, self._holds = turn.streaming and may_change_text(turn), turn.streaming and holds_text(turn)
        self._held: list[str] = []
        self._told = False
        hooks = turn.agent.around_model is not None or (turn.agent.hooks is not None and turn.agent.hooks.has("after_model"))
        self._is_live = turn.streaming and not hooks

    @property
    def live(self) -> TextRelay | None:
        """Where the model's text goes while it speaks; None where it is told afterwards, or to nobody."""
        return self if self._is_live else None

    def tell(self, reply: AIMessage) -> None:
        """Hand on the whole text of a reply."""
        if self._turn.streaming and text_of(reply):
            self.begin()
            self.take(text_of(reply))

    def begin(self) -> None:
        """Forget what was taken of an attempt that failed; who has heard it already is told."""
        self._held.clear()
        if self._told:
            self._turn.emit(TextDelta("", self._step, provisional=self._changeable, restarts=True))
            self._told = False

    def take(self, text: str) -> None:
        """Hand on a piece of text, or hold it back."""
        if self._holds:
            self._held.append(text)
        else:
            self._turn.emit(TextDelta(text, self._step, provisional=self._changeable))
            self._told = True

    def release(self) -> None:
        """Hand on what was held: the rails have spoken."""
        for text in self._held:
            self._turn.emit(TextDelta(text, self._step))
        self._held.clear()
