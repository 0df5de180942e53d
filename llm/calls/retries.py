"""When another call of the same request makes sense: only if the previous one certainly did nothing.

docs/reliability.md, "What is tried again", lists the cases; a test compares that table with this code.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from llm.errors import UpstreamError, UpstreamRateLimited, UpstreamRejected

_LONGEST_PAUSE_S = 5.0


def is_final(failure: UpstreamError, *, falls_back_on_server_error: bool = False) -> bool:
    """Whether no other call may follow: this one may have worked, or the request itself was refused.

    falls_back_on_server_error: the route accepts the risk that both calls are charged.
    """
    if failure.may_have_worked:
        return not (falls_back_on_server_error and failure.is_server_error)
    if not isinstance(failure, UpstreamRejected):
        return False
    # A request refused before it was sent couldn't be expressed in this provider's dialect; another provider may take
    # it.
    was_sent = failure.upstream_status is not None
    return was_sent and not failure.is_of_target


def pause_before(repeat: int, failure: UpstreamError) -> float | None:
    """Seconds until the same target may be called again; None if that makes no sense, or not soon."""
    if not failure.is_passing:
        return None
    pause: float = failure.retry_after_s or 0.25 * 2**repeat * random.uniform(0.5, 1)  # noqa: S311  # spreads load
    return pause if pause <= _LONGEST_PAUSE_S else None


def is_of_key(failure: UpstreamError) -> bool:
    """Whether another key of the same instance may be let through: this one is refused, or has used up its share."""
    return bool(failure.operator_fault) or isinstance(failure, UpstreamRateLimited)


def failure_to_report(failures: Sequence[UpstreamError]) -> UpstreamError:
    """The most useful of a request's failures for its caller. failures: in order, at least one.

    Work that may have been done comes first, since repeating it would be charged again; then temporary failures, so
    that a later target's refusal doesn't hide that retrying helps; then the last one.
    """
    if worked := [failure for failure in failures if failure.may_have_worked]:
        return worked[-1]
    return next((failure for failure in failures if failure.is_passing), failures[-1])
