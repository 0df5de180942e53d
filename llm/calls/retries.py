"""When another call of the same request makes sense: only where the one before it surely did nothing.

docs/reliability.md, "What is tried again", says it case by case; a test holds that table against this code.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from llm.errors import UpstreamError, UpstreamRateLimited, UpstreamRejected

_LONGEST_PAUSE_S = 5.0


def is_final(failure: UpstreamError, *, falls_back_on_server_error: bool = False) -> bool:
    """Whether no other call may follow: this one may have worked, or the request itself is what is refused.

    falls_back_on_server_error: the route takes the risk that both calls are charged.
    """
    if failure.may_have_worked:
        return not (falls_back_on_server_error and failure.is_server_error)
    if not isinstance(failure, UpstreamRejected):
        return False
    # What was refused before it was sent could not be said in this provider's dialect; another one may know it.
    was_sent = failure.upstream_status is not None
    return was_sent and not failure.is_of_target


def pause_before(repeat: int, failure: UpstreamError) -> float | None:
    """Seconds until the same target is worth another call; None if it is not, soon."""
    if not failure.is_passing:
        return None
    pause: float = failure.retry_after_s or 0.25 * 2**repeat * random.uniform(0.5, 1)  # noqa: S311  # spreads load
    return pause if pause <= _LONGEST_PAUSE_S else None


def is_of_key(failure: UpstreamError) -> bool:
    """Whether another key of the same instance may be let through: this one is refused, or has used up its share."""
    return bool(failure.operator_fault) or isinstance(failure, UpstreamRateLimited)


def failure_to_report(failures: Sequence[UpstreamError]) -> UpstreamError:
    """Of all that went wrong with a request, what its caller can act on. failures: in their order, at least one.

    Work that may have been done comes first, since repeating it would be charged again; then what passes, so that a
    later target's refusal doesn't hide that trying again helps; then the last.
    """
    if worked := [failure for failure in failures if failure.may_have_worked]:
        return worked[-1]
    return next((failure for failure in failures if failure.is_passing), failures[-1])
