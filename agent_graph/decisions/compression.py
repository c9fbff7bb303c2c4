"""When the message list is compressed, and how."""

from __future__ import annotations

__all__ = ["needed"]


def needed(count: int, threshold: int | None, window: int | None) -> bool:
    """Return whether a message list of `count` tokens is over: above `threshold`, or above 0.9 of the model's context `window`.

    None is no limit. At the limit is not over.
    """
    return (threshold is not None and count > threshold) or (window is not None and count * 10 > window * 9)
