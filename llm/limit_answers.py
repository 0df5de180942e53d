"""What a caller is told whose call does not fit into a limit."""

from __future__ import annotations

import math

from llm.books.operations import Exceeded
from llm.enums import LimitMetric
from llm.errors import InvalidRequest, QuotaExceeded, RateLimited, RequestError, UnboundedError
from llm.limits import format_amount

_SOON_S = 60.0
"""A limit that resets within this time is worth waiting for."""
_BUSY_RETRY_S = 1.0


def refusal_of(exceeded: Exceeded, *, shows_cost: bool) -> RequestError:
    """shows_cost: else a limit of cost is told without its amount, which divided by tokens would give our prices."""
    limit = f"{'API key' if exceeded.is_of_key else 'account'}'s {_limit(exceeded, shows_cost=shows_cost)}"
    match exceeded.kind:
        case "busy":
            return RateLimited(
                f"What is left of this {limit} is held for calls that are under way. Try again in a moment.",
                retry_after_s=_BUSY_RETRY_S,
            )
        case "too_large":
            return InvalidRequest(
                f"This call could use more than the whole of this {limit}. Send less, or set a lower output maximum.",
                code="limit_too_small",
            )
        case "unbounded":
            why = exceeded.why or "nobody can say how many tokens it may use"
            return UnboundedError(f"This call can't be made under this {limit}: {why}.")
    return _spent(limit, exceeded.resets_in_s)


def _spent(limit: str, resets_in_s: float | None) -> RequestError:
    if resets_in_s is None:
        return QuotaExceeded(f"What is left of this {limit} is not enough for this call.")
    text = f"What is left of this {limit} is not enough for this call. It begins anew in {_duration(resets_in_s)}."
    if resets_in_s <= _SOON_S:
        return RateLimited(text, retry_after_s=resets_in_s)
    return QuotaExceeded(text)


def _limit(exceeded: Exceeded, *, shows_cost: bool) -> str:
    if exceeded.metric is LimitMetric.COST and not shows_cost:
        return f"cost limit {exceeded.per.label}"
    return f"limit of {format_amount(exceeded.metric, exceeded.amount)} {exceeded.per.label}"


def _duration(seconds: float) -> str:
    for length, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds > length:
            return _counted(math.ceil(seconds / length), name)
    return _counted(max(1, math.ceil(seconds)), "second")


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
