"""The message to a caller whose call doesn't fit into a limit."""

from __future__ import annotations

import math

from llm.enums import LimitMetric
from llm.errors import InvalidRequest, QuotaExceeded, RateLimited, RequestError, UnboundedError
from llm.limits.admission import Exceeded
from llm.limits.amounts import format_limit_amount
from llm.money import plural

_SOON_S = 60.0
"""A limit that resets within this time is worth waiting for."""
_BUSY_RETRY_S = 1.0


def build_refusal(exceeded: Exceeded, *, shows_cost: bool) -> RequestError:
    """shows_cost: else a limit of cost is told without amounts, which divided by tokens would give our prices."""
    limit = f"{_owner(exceeded)}'s {_limit(exceeded, shows_cost=shows_cost)}"
    figures, advice = _figures(exceeded, shows_cost=shows_cost), _advice(exceeded)
    match exceeded.kind:
        case "busy":
            start = f"The rest of this {limit} is reserved by requests in flight."
            return RateLimited(_text(start, figures, "Try again in a moment.", advice), retry_after_s=_BUSY_RETRY_S)
        case "too_large":
            start = f"This request alone may exceed this {limit}."
            end = f"Shorten the prompt{', or set a lower max_completion_tokens' if exceeded.takes_maximum else ''}."
            return InvalidRequest(_text(start, figures, end), code="limit_too_small")
        case "unbounded":
            why = exceeded.why or "its maximum number of tokens can't be determined"
            return UnboundedError(f"This request can't be sent under this {limit}: {why}.")
    start = f"Not enough of this {limit} is left for this request."
    if exceeded.resets_in_s is None:
        return QuotaExceeded(_text(start, figures, advice))
    text = _text(start, figures, f"It resets in {_duration(exceeded.resets_in_s)}.", advice)
    if exceeded.resets_in_s <= _SOON_S:
        return RateLimited(text, retry_after_s=exceeded.resets_in_s)
    return QuotaExceeded(text)


def _text(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _figures(exceeded: Exceeded, *, shows_cost: bool) -> str:
    """What is left, and what the request would reserve.

    Amounts of money reveal what a token costs us, so only accounts that may see costs get them.
    """
    if exceeded.needed is None or (exceeded.metric is LimitMetric.COST and not shows_cost):
        return ""
    needed, left = (format_limit_amount(exceeded.metric, units) for units in (exceeded.needed, exceeded.left))
    return f"Left: {left}; the request would reserve up to {needed}."


def _advice(exceeded: Exceeded) -> str:
    """How to make a smaller request fit. For a limit of cost, the exact maximum would reveal the price too."""
    if exceeded.max_output_tokens is None:
        return ""
    if exceeded.metric is LimitMetric.COST:
        return "A lower max_completion_tokens reserves less."
    return f"With max_completion_tokens of at most {exceeded.max_output_tokens}, the request fits now."


def _owner(exceeded: Exceeded) -> str:
    if exceeded.is_per_end_user:
        return "end user"
    return "API key" if exceeded.is_of_key else "account"


def _limit(exceeded: Exceeded, *, shows_cost: bool) -> str:
    if exceeded.metric is LimitMetric.COST and not shows_cost:
        return f"cost limit {exceeded.per.label}"
    return f"limit of {format_limit_amount(exceeded.metric, exceeded.amount)} {exceeded.per.label}"


def _duration(seconds: float) -> str:
    for length, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds > length:
            return plural(math.ceil(seconds / length), name)
    return plural(max(1, math.ceil(seconds)), "second")
