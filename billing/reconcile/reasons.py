"""Why the provider's figures for a model's day differ from the books'. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from billing.reconcile.types import Books, Reason, ReasonCode, ReconciledLine, Side, difference_of
from llm.money import format_usd, plural

ROUNDING_USD = Decimal("0.000001")
"""By how much rounding may change a reported amount; a wrong price causes larger differences."""

OTHER_DAY = Reason(
    ReasonCode.OTHER_DAY,
    (
        "The same number of tokens is missing on the next or previous day: calls around midnight UTC are "
        "counted on different days."
    ),
)
_NOT_ATTRIBUTABLE = Reason(
    ReasonCode.NOT_ATTRIBUTABLE,
    "The report names no model for this: web searches, storage and similar items.",
)
_ROUNDING = Reason(ReasonCode.ROUNDING, "The provider's amounts are rounded.")
_NOT_HERE = Reason(
    ReasonCode.NOT_HERE, "The books have no such call: the provider's account was used outside the gateway."
)
_NOT_THERE = Reason(
    ReasonCode.NOT_THERE,
    "The imported reports don't contain these calls: they aren't charged, or the reports are incomplete.",
)


def find_reasons(
    ours: Books | None,
    theirs: Side | None,
    *,
    line_items: int = 0,
    is_of_model: bool = True,
    whole: ReconciledLine | None = None,
    has_others: bool = False,
) -> tuple[Reason, ...]:
    """Empty if both agree. line_items: how many reported amounts add up to the provider's cost.

    whole: the day's figures in reports without models. has_others: whether there are charges without a model.
    """
    if not is_of_model:
        return (_NOT_ATTRIBUTABLE,)
    if ours is None or (ours.side.requests == 0 and ours.open_calls == 0):
        return (_NOT_HERE,)
    if theirs is None:
        if whole is not None:
            return (*_in_whole(whole), *(() if whole.agrees else _doubts(ours)))
        return () if ours.is_nothing else (_NOT_THERE, *_doubts(ours))
    return tuple(_differences(ours, theirs, line_items, whole, has_others=has_others))


def reasons_in_all(ours: Books, theirs: Side, *, line_items: int) -> tuple[Reason, ...]:
    """For reports without models: only the sums of a day can be compared."""
    if _tokens_differ(ours.side, theirs):
        return tuple(_doubts(ours)) or (_of_tokens(ours.side, theirs),)
    if theirs.cost is None or theirs.cost == ours.side.cost:
        return ()
    difference = difference_of(theirs.cost, ours.side.cost or Decimal(0))
    if _is_rounding(difference, line_items):
        return (_ROUNDING,)
    words = (
        f"In total, the provider charges {_more_or_less(difference)} than the books say; a report by model shows where."
    )
    return (*_doubts(ours), Reason(ReasonCode.IN_ALL, words))


def _in_whole(whole: ReconciledLine) -> Iterator[Reason]:
    """For a model of which only the day's sum is reported: nothing is wrong if that agrees."""
    if not whole.agrees:
        yield Reason(ReasonCode.IN_ALL, "The report names no models, so only the sums of the day can be compared.")


def _differences(
    ours: Books, theirs: Side, line_items: int, whole: ReconciledLine | None, *, has_others: bool
) -> Iterator[Reason]:
    tokens_differ = _tokens_differ(ours.side, theirs)
    cost_differs = theirs.cost is not None and theirs.cost != ours.side.cost
    if not tokens_differ and not cost_differs and theirs.cost is not None:
        return
    doubts = tuple(_doubts(ours))
    if theirs.total_tokens is None:
        if whole is not None and whole.theirs is not None and whole.theirs.total_tokens is not None:
            yield from _in_whole(whole)
        else:
            yield Reason(ReasonCode.NO_TOKENS, "No usage report of the day was imported, so tokens can't be compared.")
    elif tokens_differ:
        yield from doubts or (_of_tokens(ours.side, theirs),)
    if theirs.cost is None:
        if whole is not None and whole.theirs is not None and whole.theirs.cost is not None:
            yield from _in_whole(whole)
        else:
            yield Reason(ReasonCode.NO_COSTS, "No cost report of the day was imported, so costs can't be compared.")
    elif cost_differs and not tokens_differ:
        yield from _of_cost(ours, theirs, line_items, has_others=has_others)


def _of_tokens(ours: Side, theirs: Side) -> Reason:
    missing = (theirs.total_tokens or 0) - (ours.total_tokens or 0)
    if missing > 0:
        return Reason(
            ReasonCode.NOT_HERE,
            (
                f"The provider counted {missing:,} tokens more: its account was used outside the gateway, or calls "
                "are missing from the books."
            ),
        )
    if missing < 0:
        return Reason(
            ReasonCode.NOT_THERE, f"The provider counted {-missing:,} tokens fewer than it had reported to us."
        )
    return Reason(
        ReasonCode.UNEXPLAINED,
        ("The total number of tokens is the same, but the split into input, output and cached differs."),
    )


def _of_cost(ours: Books, theirs: Side, line_items: int, *, has_others: bool) -> Iterator[Reason]:
    """For equal tokens, or tokens that aren't known."""
    difference = difference_of(theirs.cost or Decimal(0), ours.side.cost or Decimal(0))
    if ours.unpriced_calls:
        yield _unpriced(ours)
        return
    if ours.beside_tokens and has_others:
        of_tokens = difference_of(difference, ours.beside_tokens.copy_negate())
        if of_tokens.copy_abs() < difference.copy_abs():
            yield Reason(
                ReasonCode.BESIDE_TOKENS,
                f"{format_usd(ours.beside_tokens)} USD is for web searches and similar items, which the provider "
                "charges without a model.",
            )
            difference = of_tokens
    if not difference:
        return
    if theirs.total_tokens is None:
        yield from _doubts(ours)
    elif _is_rounding(difference, line_items):
        yield _ROUNDING
    else:
        words = f"The tokens agree but the cost doesn't: the provider charges {_more_or_less(difference)}"
        yield Reason(ReasonCode.PRICE, f"{words} than our price list says.")


def _is_rounding(difference: Decimal, line_items: int) -> bool:
    return difference.copy_abs() <= ROUNDING_USD * line_items


def _more_or_less(difference: Decimal) -> str:
    return f"{format_usd(difference.copy_abs())} USD {'more' if difference > 0 else 'less'}"


def _doubts(ours: Books) -> Iterator[Reason]:
    """What in our own figures may be the cause."""
    if ours.estimated_calls:
        yield Reason(ReasonCode.ESTIMATED, f"The tokens of {_calls(ours.estimated_calls)} are our estimate.")
    if ours.open_calls:
        yield Reason(ReasonCode.OPEN, f"Still in flight, so not counted yet: {_calls(ours.open_calls)}.")
    if ours.unpriced_calls:
        yield _unpriced(ours)


def _unpriced(ours: Books) -> Reason:
    return Reason(ReasonCode.UNPRICED, f"No price was known for {_calls(ours.unpriced_calls)}.")


def _tokens_differ(ours: Side, theirs: Side) -> bool:
    """Only if both sides have figures."""
    pairs = (
        (ours.prompt_tokens, theirs.prompt_tokens),
        (ours.completion_tokens, theirs.completion_tokens),
        (ours.cache_read_tokens, theirs.cache_read_tokens),
        (ours.cache_write_tokens, theirs.cache_write_tokens),
    )
    return any(one is not None and other is not None and one != other for one, other in pairs)


def _calls(number: int) -> str:
    return plural(number, "call")
