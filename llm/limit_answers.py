"""What a caller is told of limits: why a call doesn't fit into one, and what they leave once it has ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm.books.batch import used_by
from llm.books.operations import CloseCall, Exceeded
from llm.enums import LimitMetric
from llm.errors import InvalidRequest, QuotaExceeded, RateLimited, RequestError
from llm.limits import format_amount
from llm.types import LimitState

_SOON_S = 60.0
"""A limit that resets within this time is worth waiting for."""
_BUSY_RETRY_S = 1.0


def refusal_of(exceeded: Exceeded, *, shows_cost: bool) -> RequestError:
    """shows_cost: whether the caller may know what calls cost."""
    limit = f"{'API key' if exceeded.is_of_key else 'account'}'s limit of {_amount(exceeded)}"
    figures, advice = _figures(exceeded, shows_cost=shows_cost), _advice(exceeded)
    match exceeded.kind:
        case "busy":
            start = f"The rest of this {limit} is reserved by requests in flight."
            return RateLimited(_text(start, figures, "Try again in a moment.", advice), retry_after_s=_BUSY_RETRY_S)
        case "too_large":
            start = f"This request could use more than the whole of this {limit}."
            end = "Send less, or set a lower output maximum."
            return InvalidRequest(_text(start, figures, end), code="limit_too_small")
        case "unbounded":
            why = exceeded.why or "nobody can say how many tokens it may use"
            return InvalidRequest(f"This call can't be made under this {limit}: {why}.", code="limit_not_applicable")
    start = f"What is left of this {limit} is not enough for this request."
    if exceeded.resets_in_s is None:
        return QuotaExceeded(_text(start, figures, advice))
    text = _text(start, figures, f"It resets in {_duration(exceeded.resets_in_s)}.", advice)
    if exceeded.resets_in_s <= _SOON_S:
        return RateLimited(text, retry_after_s=exceeded.resets_in_s)
    return QuotaExceeded(text)


def limits_after(limits: Sequence[LimitState], closing: CloseCall) -> tuple[LimitState, ...]:
    """What limits leave once the call has given back what it held and didn't use."""
    return tuple([_after(state, closing) for state in limits])


def _after(state: LimitState, closing: CloseCall) -> LimitState:
    used = used_by(closing, state.metric, state.held)
    return state._replace(remaining=max(0, state.remaining + state.held - used), held=0)


def _text(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _figures(exceeded: Exceeded, *, shows_cost: bool) -> str:
    """What is left, and what the request would reserve.

    Amounts of money tell what a token costs us, so only accounts that are shown costs get them.
    """
    if exceeded.needed is None or (exceeded.metric is LimitMetric.COST and not shows_cost):
        return ""
    needed, left = (format_amount(exceeded.metric, units) for units in (exceeded.needed, exceeded.left))
    return f"Left: {left}; it would reserve up to {needed}."


def _advice(exceeded: Exceeded) -> str:
    """How a smaller request fits. Under a limit of cost the exact maximum would tell the price too."""
    if exceeded.most_output_tokens is None:
        return ""
    if exceeded.metric is LimitMetric.COST:
        return "A lower max_completion_tokens reserves less."
    return f"With max_completion_tokens of at most {exceeded.most_output_tokens} it fits now."


def _amount(exceeded: Exceeded) -> str:
    return f"{format_amount(exceeded.metric, exceeded.amount)} {exceeded.per.label}"


def _duration(seconds: float) -> str:
    for length, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds > length:
            return _counted(math.ceil(seconds / length), name)
    return _counted(max(1, math.ceil(seconds)), "second")


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
