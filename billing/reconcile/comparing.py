"""Our books compared with a provider's report: by UTC day and model, each difference with its explanation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from billing.models import ProviderCost
from billing.reconcile.books import books_in_all, books_of_day
from billing.reconcile.reasons import OTHER_DAY, find_reasons, reasons_in_all
from billing.reconcile.types import (
    Books,
    ReconciledDay,
    ReconciledLine,
    ReconciledTotals,
    Reconciliation,
    Side,
    count_of,
    total_of,
)

MAX_DAYS = 366
_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens")


def reconciliation(provider: str, first: date, last: date) -> Reconciliation:
    """Both days inclusive. Reads usage one day at a time, by index. Raises ValueError beyond `MAX_DAYS`."""
    if not timedelta(0) <= last - first < timedelta(days=MAX_DAYS):
        raise ValueError(f"{first} to {last} is not a span of 1 to {MAX_DAYS} days")
    reported = _reported(provider, first, last)
    lines: list[ReconciledLine] = []
    totals: list[ReconciledDay] = []
    for day in _days(first, last):
        books = books_of_day(provider, day)
        lines += _lines_of_day(day, books, reported[day])
        totals.append(ReconciledDay(day, _totals(books, reported[day])))
    return Reconciliation(provider, first, last, tuple(_with_other_days(lines)), tuple(totals))


def _reported(provider: str, first: date, last: date) -> Mapping[date, list[ProviderCost]]:
    by_day: dict[date, list[ProviderCost]] = defaultdict(list)
    for row in ProviderCost.objects.filter(provider=provider, utc_day__range=(first, last)):
        by_day[row.utc_day].append(row)
    return by_day


def _lines_of_day(day: date, books: Mapping[str, Books], rows: Iterable[ProviderCost]) -> Iterator[ReconciledLine]:
    """By model; then figures that a report gives without models, and charges for no model in particular."""
    of_models: dict[str, list[ProviderCost]] = defaultdict(list)
    of_none: dict[str, list[ProviderCost]] = defaultdict(list)
    for row in rows:
        (of_models[row.model] if row.model else of_none[row.line_item]).append(row)
    whole = _in_all(day, books, of_none.pop("", []))
    for model in sorted({*books, *of_models}):
        ours = books.get(model)
        theirs, costs = _their_side(of_models[model])
        reasons = find_reasons(ours, theirs, line_items=costs, whole=whole, has_others=bool(of_none))
        yield ReconciledLine(day, model, "", ours, theirs, reasons)
    if whole is not None:
        yield whole
    for line_item in sorted(of_none):
        theirs, _ = _their_side(of_none[line_item])
        yield ReconciledLine(day, "", line_item, None, theirs, find_reasons(None, theirs, is_of_model=False))


def _in_all(day: date, books: Mapping[str, Books], rows: list[ProviderCost]) -> ReconciledLine | None:
    """Figures of a report that wasn't grouped by model: they can only be compared with all models together."""
    theirs, costs = _their_side(rows)
    if theirs is None:
        return None
    ours = books_in_all(books.values())
    return ReconciledLine(day, "", "", ours, theirs, reasons_in_all(ours, theirs, line_items=costs))


def _their_side(rows: list[ProviderCost]) -> tuple[Side | None, int]:
    """The sum of a model's rows in all reports, and how many amounts it adds up."""
    if not rows:
        return None, 0
    counts = {name: count_of(getattr(row, name) for row in rows) for name in _COUNTS}
    return Side(**counts, cost=total_of(row.cost for row in rows)), sum(row.cost is not None for row in rows)


def _totals(books: Mapping[str, Books], rows: Iterable[ProviderCost]) -> ReconciledTotals:
    ours = total_of(figures.side.cost for figures in books.values())
    return ReconciledTotals(ours=ours or Decimal(0), theirs=total_of(row.cost for row in rows))


def _with_other_days(lines: list[ReconciledLine]) -> Iterator[ReconciledLine]:
    """Two consecutive days that differ by the same tokens, up and down: calls were counted on the other day."""
    difference = {(line.model, line.utc_day): line.token_difference for line in lines if line.model}

    def is_shifted(line: ReconciledLine) -> bool:
        here = difference.get((line.model, line.utc_day))
        if not here:
            return False
        around = (line.utc_day - timedelta(days=1), line.utc_day + timedelta(days=1))
        return any(difference.get((line.model, day)) == -here for day in around)

    for line in lines:
        yield replace(line, reasons=(OTHER_DAY,)) if is_shifted(line) else line


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=offset) for offset in range((last - first).days + 1))
