"""Pages of a table too large to count: each starts where another ended, and reads a bounded number of rows.

A page asks for rows before (or after) an id, so the thousandth costs as little as the first. Conditions that no index
serves are looked for in a window of `WINDOW` rows; if that ends before the page is full, the page says so and offers
to read on, instead of reading the whole table for the few rows that fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q, QuerySet

from llm.models import Usage

WINDOW = 20_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page starts: older than `before`, or newer than `after`; neither gives the latest rows."""

    before: UUID | None = None
    after: UUID | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """rows: the newest first. older, newer: where the next pages start, None where there is none.

    window_end: set when the window ended before the page was full; rows before it were not looked at.
    """

    rows: list[Usage]
    older: UUID | None
    newer: UUID | None
    window_end: UUID | None


def read_page(indexed: QuerySet[Usage], condition: Q, cursor: Cursor, *, size: int, window: int = WINDOW) -> Page:
    """indexed: rows in the order of an index; condition: what has to be looked for among them, or an empty Q."""
    if cursor.after is not None:
        page = _read_newer(indexed, condition, cursor.after, size=size, window=window)
        if page is not None:
            return page
        cursor = Cursor()
    return _read_older(indexed, condition, cursor.before, size=size, window=window)


def _read_older(indexed: QuerySet[Usage], condition: Q, before: UUID | None, *, size: int, window: int) -> Page:
    candidates = indexed.order_by("-id")
    if before is not None:
        candidates = candidates.filter(id__lt=before)
    edge = _window_edge(candidates, condition, window)
    if edge is not None:
        candidates = candidates.filter(id__gte=edge)
    rows = list(candidates.filter(condition)[: size + 1])
    is_full = len(rows) > size
    rows = rows[:size]
    newer = (rows[0].id if rows else before) if before is not None else None
    return Page(
        rows=rows,
        older=rows[-1].id if is_full else edge,
        newer=newer,
        window_end=None if is_full else edge,
    )


def _read_newer(indexed: QuerySet[Usage], condition: Q, after: UUID, *, size: int, window: int) -> Page | None:
    """None where less than a page is newer and the window held it all: that is the first page then."""
    candidates = indexed.filter(id__gt=after).order_by("id")
    edge = _window_edge(candidates, condition, window)
    if edge is not None:
        candidates = candidates.filter(id__lte=edge)
    rows = list(candidates.filter(condition)[: size + 1])
    is_full = len(rows) > size
    if not is_full and edge is None:
        return None
    rows = rows[:size][::-1]
    # The row that this page started after comes next when one goes back again.
    older = rows[-1].id if rows else _following(after)
    return Page(rows=rows, older=older, newer=rows[0].id if is_full else edge, window_end=None if is_full else edge)


def _window_edge(ordered: QuerySet[Usage], condition: Q, window: int) -> UUID | None:
    """The last row of the window; None where nothing has to be looked for or the rows end first."""
    if not condition:
        return None
    return next(iter(ordered.values_list("id", flat=True)[window - 1 : window]), None)


def _following(identifier: UUID) -> UUID:
    return UUID(int=identifier.int + 1)
