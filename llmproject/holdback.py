"""Deliberately delayed responses: the gate holds them back after the request has released all its resources.

So a delay takes a timer and the response's bytes, and no place, thread or connection.
"""

from __future__ import annotations

from contextvars import ContextVar


class HoldBack:
    """For one request. seconds: how long to hold back its response."""

    def __init__(self) -> None:
        self.seconds = 0.0


# An object, not a number: the gate wouldn't see a value set in the request thread's copy of the context.
current_hold_back: ContextVar[HoldBack | None] = ContextVar("current_hold_back", default=None)


def hold_back(seconds: float) -> bool:
    """False if there is no gate: the caller must wait itself."""
    if (held := current_hold_back.get()) is None:
        return False
    held.seconds = max(held.seconds, seconds)
    return True
