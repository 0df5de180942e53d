"""Pages of a table too large to count: each starts where another ended, and reads a bounded number of rows.

A page asks for rows before (or after) an id, so the thousandth costs as little as the first. Conditions without an
index are checked within a window of `WINDOW` rows; if the window ends before the page is full, the page offers to read
on instead of scanning the whole table for a few matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet, Sum

from llm.fields import ExactSum
from llm.models import OpenCall, Usage
from llm.models.usage import is_unpriced, merge_calls
from llm.money import exact_sum

WINDOW = 20_000
SUMMED = 50_000
"""How many calls, at most, are added up or put in another order than that of time: some tenths of a second."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page starts: older than `before`, or newer than `after`; with neither, at the latest rows."""

    before: UUID | None = None
    after: UUID | None = None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """rows: newest first. older, newer: where the next pages start, None if there is none.

    window_end: set if the window ended before the page was full; rows before it weren't checked.
    """

    rows: list[Usage]
    older: UUID | None
    newer: UUID | None
    window_end: UUID | None


def read_page(
    indexed: Sequence[QuerySet[Usage]],
    condition: Q,
    cursor: Cursor,
    *,
    size: int,
    window: int = WINDOW,
    opened: QuerySet[OpenCall] | None = None,
) -> UsagePage:
    """indexed: querysets in index order, without common rows; they are read as one list.

    condition: to be checked on them, or an empty Q. opened: calls in flight, which belong to the list too; they are
    few, so no window bounds them.
    """
    opened = OpenCall.objects.none() if opened is None else opened
    if cursor.after is not None:
        page = _read_newer(indexed, condition, cursor.after, size=size, window=window, opened=opened)
        if page is not None:
            return page
        cursor = Cursor()
    return _read_older(indexed, condition, cursor.before, size=size, window=window, opened=opened)


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the latest calls that match. cost: of priced ones, corrections included. edge: set where older calls weren't
    looked at.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    unpriced: int
    edge: UUID | None


def read_totals(indexed: Sequence[QuerySet[Usage]], condition: Q, *, window: int = SUMMED) -> Totals:
    """Arguments as of `read_page`."""
    matching, edge = _latest(indexed, condition, window)
    own = [rows.aggregate(calls=Count("pk"), **_SUMS) for rows in matching]
    later = [rows.filter(adjustments__isnull=False).aggregate(**_SUMS_OF_CORRECTIONS) for rows in matching]
    both = [*own, *later]
    return Totals(
        calls=sum(each["calls"] for each in own),
        prompt_tokens=sum(each["prompt"] or 0 for each in both),
        completion_tokens=sum(each["completion"] or 0 for each in both),
        cost=exact_sum(each["cost"] or Decimal(0) for each in both),
        unpriced=sum(rows.filter(is_unpriced()).count() for rows in matching),
        edge=edge,
    )


def read_sorted(
    indexed: Sequence[QuerySet[Usage]], condition: Q, *, by: str, offset: int, size: int, window: int = SUMMED
) -> tuple[list[UUID], bool]:
    """Ids from `offset` on in the order of a figure, the largest first, and whether there are more."""
    end = offset + size + 1
    found: list[tuple[Any, UUID]] = []
    for rows in _latest(indexed, condition, window)[0]:
        figures = rows.annotate(figure=ORDERS[by]).exclude(figure=None).order_by("-figure", "-id")
        found += figures.values_list("figure", "id")[:end]
    ids = [identifier for _, identifier in sorted(found, reverse=True)]
    return ids[offset : offset + size], len(ids) >= end


def _latest(indexed: Sequence[QuerySet[Usage]], condition: Q, window: int) -> tuple[list[QuerySet[Usage]], UUID | None]:
    """Of the latest so many of each, those that match; and where these end. None: there are no more."""
    edges = _window_edges([rows.order_by("-id") for rows in indexed], _ANYTHING, window)
    edge = max(edges, default=None)
    bound = Q() if edge is None else Q(id__gte=edge)
    plain = (rows.select_related(None).prefetch_related(None).order_by() for rows in indexed)
    return [rows.filter(bound, condition) for rows in plain], edge


_ANYTHING = Q(pk__isnull=False)
_SUMS: Mapping[str, Any] = {
    "prompt": Sum("prompt_tokens"),
    "completion": Sum("completion_tokens"),
    "cost": ExactSum("cost"),
}
_SUMS_OF_CORRECTIONS: Mapping[str, Any] = {
    "prompt": Sum("adjustments__prompt_tokens"),
    "completion": Sum("adjustments__completion_tokens"),
    "cost": ExactSum("adjustments__cost"),
}
ORDERS: Mapping[str, Any] = {
    "cost": F("cost"),
    "tokens": F("prompt_tokens") + F("completion_tokens"),
    "duration": F("duration_ms"),
}
"""By what the list can be sorted: as the call was closed, without later corrections."""


def _read_older(
    indexed: Sequence[QuerySet[Usage]],
    condition: Q,
    before: UUID | None,
    *,
    size: int,
    window: int,
    opened: QuerySet[OpenCall],
) -> UsagePage:
    candidates, opened = [rows.order_by("-id") for rows in indexed], opened.order_by("-id")
    if before is not None:
        candidates, opened = [rows.filter(id__lt=before) for rows in candidates], opened.filter(id__lt=before)
    edge = max(_window_edges(candidates, condition, window), default=None)
    if edge is not None:
        candidates, opened = [rows.filter(id__gte=edge) for rows in candidates], opened.filter(id__gte=edge)
    in_flight = list(opened[: size + 1])
    rows = merge_calls(in_flight, _first(candidates, condition, size + 1))
    is_full = len(rows) > size
    rows = rows[:size]
    newer = (rows[0].id if rows else before) if before is not None else None
    return UsagePage(
        rows=rows,
        older=rows[-1].id if is_full else edge,
        newer=newer,
        window_end=None if is_full else edge,
    )


def _read_newer(
    indexed: Sequence[QuerySet[Usage]],
    condition: Q,
    after: UUID,
    *,
    size: int,
    window: int,
    opened: QuerySet[OpenCall],
) -> UsagePage | None:
    """None if fewer rows than a page are newer and the window held them all: then it is the first page."""
    candidates = [rows.filter(id__gt=after).order_by("id") for rows in indexed]
    opened = opened.filter(id__gt=after).order_by("id")
    edge = min(_window_edges(candidates, condition, window), default=None)
    if edge is not None:
        candidates, opened = [rows.filter(id__lte=edge) for rows in candidates], opened.filter(id__lte=edge)
    in_flight = list(opened[: size + 1])
    rows = merge_calls(in_flight, _first(candidates, condition, size + 1), newest_first=False)
    is_full = len(rows) > size
    if not is_full and edge is None:
        return None
    rows = rows[:size][::-1]
    # The row that this page started after comes next when paging back.
    older = rows[-1].id if rows else _following(after)
    return UsagePage(
        rows=rows, older=older, newer=rows[0].id if is_full else edge, window_end=None if is_full else edge
    )


def _window_edges(ordered: Iterable[QuerySet[Usage]], condition: Q, window: int) -> list[UUID]:
    """The last row of each window; empty if there is nothing to check, or the rows end first."""
    if not condition:
        return []
    return [edge for rows in ordered for edge in rows.values_list("id", flat=True)[window - 1 : window]]


def _first(ordered: Iterable[QuerySet[Usage]], condition: Q, number: int) -> Iterator[Usage]:
    """The first `count` of each."""
    for rows in ordered:
        yield from rows.filter(condition)[:number]


def _following(identifier: UUID) -> UUID:
    return UUID(int=identifier.int + 1)
