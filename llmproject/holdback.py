"""Answers that come later on purpose: the gate holds them back once the request has given all back that it had.

So waiting takes a timer and the answer's bytes, and no place, thread or connection.
"""

from __future__ import annotations

from contextvars import ContextVar


class HoldBack:
    """Of one request. seconds: for how long its answer is held back."""

    def __init__(self) -> None:
        self.seconds = 0.0


# An object and not a number: what a request's thread sets in its copy of the context, the gate would not see.
current_hold_back: ContextVar[HoldBack | None] = ContextVar("current_hold_back", default=None)


def hold_back(seconds: float) -> bool:
    """False where no gate stands in front of this code: whoever asks must wait by itself."""
    if (held := current_hold_back.get()) is None:
        return False
    held.seconds = max(held.seconds, seconds)
    return True
