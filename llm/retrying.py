"""When another call of the same request makes sense: only where the one before it surely did nothing."""

from __future__ import annotations

import random

from llm.errors import UpstreamError, UpstreamRejected

_LONGEST_PAUSE_S = 5.0


def is_final(failure: UpstreamError) -> bool:
    """Whether no other call may follow: this one may have worked, or what was asked is refused by its nature."""
    return failure.may_have_worked or isinstance(failure, UpstreamRejected)


def pause_before(repeat: int, failure: UpstreamError) -> float | None:
    """Seconds until the same target is worth another call; None if it is not, soon."""
    if not failure.is_passing:
        return None
    pause: float = failure.retry_after_s or 0.25 * 2**repeat * random.uniform(0.5, 1)  # noqa: S311  # spreads load
    return pause if pause <= _LONGEST_PAUSE_S else None
