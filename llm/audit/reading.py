"""Reads the books in pieces, each by its own statements, so that no audit holds much memory or a long snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from llm.audit.history import calls_of_day
from llm.models import OpenCall, Usage, UsageAdjustment

_Call = TypeVar("_Call", Usage, OpenCall)

CHUNK = 2000
"""Calls in memory at a time."""

_FIRST_STEP = timedelta(minutes=1)
_SHORTEST_STEP = timedelta(milliseconds=1)


def chunks_of_day(day: date) -> Iterator[list[Usage]]:
    """The day's calls by id."""
    return read_chunks(calls_of_day(day))


def read_chunks(calls: QuerySet[_Call]) -> Iterator[list[_Call]]:
    """By id, a bounded number at a time."""
    calls = calls.order_by("id")
    last: UUID | None = None
    while rows := list((calls if last is None else calls.filter(id__gt=last))[:CHUNK]):
        last = rows[-1].pk
        yield rows


def load_adjustments(rows: Sequence[Usage]) -> Mapping[UUID, list[UsageAdjustment]]:
    """Of each call, oldest first."""
    found: defaultdict[UUID, list[UsageAdjustment]] = defaultdict(list)
    for adjustment in UsageAdjustment.objects.filter(usage_id__in=[row.pk for row in rows]).order_by("id"):
        found[adjustment.usage_id].append(adjustment)
    return found


def recorded_between(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, list[UUID]]]:
    """Pieces of the time after `since` up to `until`: their bounds, and which calls were closed or adjusted in them.

    Pieces without any are omitted. A piece is as long as a bounded number of calls takes, but at least a millisecond.
    """
    step = _FIRST_STEP
    while since < until:
        end = until if until - since <= step else since + step
        ids = _ids_recorded(since, end)
        if len(ids) > CHUNK and step > _SHORTEST_STEP:
            step = max(min(step, end - since) / 4, _SHORTEST_STEP)
            continue
        if ids:
            yield since, end, sorted(ids)
        since = end
        if len(ids) <= CHUNK // 4:
            step *= 2


def _ids_recorded(since: datetime, until: datetime) -> set[UUID]:
    """May be more than CHUNK only for the shortest possible time."""
    limit = CHUNK + 1 if until - since > _SHORTEST_STEP else None
    closed = Usage.objects.filter(recorded_at__gt=since, recorded_at__lte=until)
    adjusted = UsageAdjustment.objects.filter(recorded_at__gt=since, recorded_at__lte=until)
    return {
        *closed.order_by().values_list("id", flat=True)[:limit],
        *adjusted.order_by().values_list("usage_id", flat=True)[:limit],
    }


@contextmanager
def snapshot() -> Iterator[None]:
    """One consistent state of the database for many reads. Not Django's own transaction, which on SQLite blocks
    writers.
    """
    if connection.in_atomic_block:
        yield
        return
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        cursor.execute("BEGIN DEFERRED" if is_sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
