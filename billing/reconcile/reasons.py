"""Why the provider's figures of a model's day differ from the books'. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from billing.reconcile.types import Books, Reason, ReasonCode, Side, difference_of
from llm.money import format_usd

ROUNDING_USD = Decimal("0.000001")
"""A reported amount may be off by so much for having been rounded; a price that is wrong shows in more."""

OTHER_DAY = Reason(
    ReasonCode.OTHER_DAY,
    "As many tokens are missing on the next day or the day before: calls around midnight UTC stand on different days.",
)
_NOT_ATTRIBUTABLE = Reason(
    ReasonCode.NOT_ATTRIBUTABLE,
    "The report names no model for it: tools, storage and the like, or a report that wasn't asked for by model.",
)
_NOT_HERE = Reason(
    ReasonCode.NOT_HERE, "The books have no such call: the provider's account was used past the gateway."
)
_NOT_THERE = Reason(
    ReasonCode.NOT_THERE, "The imported reports have nothing of it: it isn't charged, or the reports aren't complete."
)


def reasons_of(
    ours: Books | None, theirs: Side | None, *, line_items: int = 0, is_of_model: bool = True
) -> tuple[Reason, ...]:
    """Empty where both agree. line_items: how many reported amounts the provider's cost was added up from."""
    if not is_of_model:
        return (_NOT_ATTRIBUTABLE,)
    if ours is None or (ours.side.requests == 0 and ours.open_calls == 0):
        return (_NOT_HERE,)
    if theirs is None:
        return () if ours.is_nothing else (_NOT_THERE, *_doubts(ours))
    return tuple(_differences(ours, theirs, line_items))


def _differences(ours: Books, theirs: Side, line_items: int) -> Iterator[Reason]:
    tokens_differ = _tokens_differ(ours.side, theirs)
    cost_differs = theirs.cost is not None and theirs.cost != ours.side.cost
    if not tokens_differ and not cost_differs and theirs.cost is not None:
        return
    doubts = tuple(_doubts(ours))
    if theirs.total_tokens is None:
        yield Reason(ReasonCode.NO_TOKENS, "No usage report of the day was imported, so tokens can't be compared.")
    elif tokens_differ:
        yield from doubts or (_of_tokens(ours.side, theirs),)
    if theirs.cost is None:
        yield Reason(ReasonCode.NO_COSTS, "No cost report of the day was imported, so costs can't be compared.")
    elif cost_differs and not tokens_differ:
        yield from _of_cost(ours, theirs, line_items)


def _of_tokens(ours: Side, theirs: Side) -> Reason:
    missing = (theirs.total_tokens or 0) - (ours.total_tokens or 0)
    if missing > 0:
        return Reason(
            ReasonCode.NOT_HERE,
            f"The provider counted {missing:,} tokens more: its account was used past the gateway, or we lack calls.",
        )
    if missing < 0:
        return Reason(
            ReasonCode.NOT_THERE, f"The provider counted {-missing:,} tokens fewer than it had reported to us."
        )
    return Reason(ReasonCode.UNEXPLAINED, "As many tokens in all, but split otherwise into input, output and cached.")


def _of_cost(ours: Books, theirs: Side, line_items: int) -> Iterator[Reason]:
    """Tokens agree, or nobody knows them."""
    difference = difference_of(theirs.cost or Decimal(0), ours.side.cost or Decimal(0))
    if ours.unpriced_calls:
        yield _unpriced(ours)
    elif theirs.total_tokens is None:
        yield from _doubts(ours)
    elif difference.copy_abs() <= ROUNDING_USD * line_items:
        yield Reason(ReasonCode.ROUNDING, "The provider's amounts are rounded.")
    else:
        yield Reason(
            ReasonCode.PRICE,
            f"The tokens agree, the cost doesn't: the provider charges {format_usd(difference.copy_abs())} USD"
            f" {'more' if difference > 0 else 'less'} than our price list says.",
        )


def _doubts(ours: Books) -> Iterator[Reason]:
    """What in our own figures may be the cause."""
    if ours.estimated_calls:
        yield Reason(ReasonCode.ESTIMATED, f"The tokens of {_calls(ours.estimated_calls)} were counted by us.")
    if ours.open_calls:
        yield Reason(ReasonCode.OPEN, f"Still open, so without figures: {_calls(ours.open_calls)}.")
    if ours.unpriced_calls:
        yield _unpriced(ours)


def _unpriced(ours: Books) -> Reason:
    return Reason(ReasonCode.UNPRICED, f"No price was known for {_calls(ours.unpriced_calls)}.")


def _tokens_differ(ours: Side, theirs: Side) -> bool:
    """Only where both say something."""
    pairs = (
        (ours.prompt_tokens, theirs.prompt_tokens),
        (ours.completion_tokens, theirs.completion_tokens),
        (ours.cache_read_tokens, theirs.cache_read_tokens),
        (ours.cache_write_tokens, theirs.cache_write_tokens),
    )
    return any(one is not None and other is not None and one != other for one, other in pairs)


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number:,} calls"
