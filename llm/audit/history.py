"""What an audit has seen, so that a later one notices what is missing or changed.

For each table from which no row is ever deleted an audit stores the number of rows, and a digest if rows never change
either. These marks are on the audits' own rows, which are only ever added to. A mark is replaced only if it held: a
problem found once is reported by each later audit. Calls are far too many for one mark: each of their days has its own,
made whenever an audit has read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Max, Model, Q, QuerySet

from llm.db.triggers import tables_only_added_to, tables_that_lose_no_row
from llm.digests import DIGEST_FIELDS, digest_hex
from llm.ids import first_id_at
from llm.models import BooksCheck, CheckedDay, OpenCall, Usage, UsageAdjustment
from llm.models.digested import Digested

Mark = Mapping[str, Any]
"""rows; for rows that never change also last (the highest id), columns, and sha256 of those columns up to it."""

# The time in an id can be later than any date.
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(9998, 12, 31)
_DAY, _DAY_MS = timedelta(days=1), 86_400_000


def problems_of_history() -> Iterator[str]:
    """A sentence on each table that lost or changed rows since earlier audits, and on each day that lost calls."""
    for day, day_mark in sorted(latest_days().items(), key=lambda item: item[0]):
        # Open ones first: a call that is closed between the two statements is in both, not in neither.
        if (rows := open_calls_of_day(day).count() + calls_of_day(day).count()) < day_mark.rows:
            yield f"Calls of {day}: there are {rows:,}, but there were {day_mark.rows:,} at an earlier check."
    for table, mark in _latest_marks().items():
        if (model := _models().get(table)) is not None and (problem := _problem(model, mark)):
            yield f"{model._meta.verbose_name_plural}: {problem}."


def marks_to_keep() -> dict[str, Mark]:
    """For the audit being written: today's marks, or former ones that no longer hold."""
    former = _latest_marks()
    kept = {}
    for table in sorted(tables_that_lose_no_row() - {Usage._meta.db_table}):
        model = _models()[table]
        mark = former.get(table)
        kept[table] = mark if mark is not None and _problem(model, mark) else _compute_mark(model)
    return kept


# --- Days of calls ----------------------------------------------------------------------------------------------------


class DayTally:
    """Sums up a day's calls while they are read. until: what is recorded later isn't in the digest.

    opened: those in flight, read before the closed ones; one that is closed in between is counted once.
    """

    def __init__(self, day: date, until: datetime, former: CheckedDay | None, *, opened: Iterable[UUID] = ()) -> None:
        self._day, self._until, self._former, self._opened = day, until, former, set(opened)
        self._closed = 0
        self._words = [0] * len(DIGEST_FIELDS)
        self._former_words = [0] * len(DIGEST_FIELDS)

    def add(self, rows: Sequence[Usage], adjustments: Mapping[UUID, Sequence[UsageAdjustment]]) -> None:
        """rows: closed calls, including later ones."""
        self._closed += len(rows)
        self._opened.difference_update(row.pk for row in rows)
        for row in rows:
            self._add(row)
        for corrected in adjustments.values():
            for adjustment in corrected:
                self._add(adjustment)

    def _add(self, row: Usage | UsageAdjustment) -> None:
        if row.recorded_at > self._until:
            return
        is_former = self._former is not None and row.recorded_at <= self._former.until
        for number, word in enumerate(row.digest):
            self._words[number] += word or 0
            if is_former:
                self._former_words[number] += word or 0

    def problems(self) -> Iterator[str]:
        """Missing calls are reported by `problems_of_history` instead."""
        if self._former is not None and digest_hex(self._former_words) != self._former.digest:
            yield f"Calls of {self._day}: rows differ from an earlier check."

    def mark(self, *, problems: int) -> CheckedDay:
        """Unsaved. problems: all that this audit found in the day."""
        former, found = self._former, self._closed + len(self._opened)
        if former is not None and found < former.rows:
            problems += 1
        if former is not None and problems:
            until, rows, digest = former.until, former.rows, former.digest
        else:
            until, rows, digest = self._until, found, digest_hex(self._words)
        return CheckedDay(day=self._day, until=until, rows=rows, digest=digest, problems=problems)


def latest_days() -> Mapping[date, CheckedDay]:
    """The newest mark of each day that was ever read."""
    newest = CheckedDay.objects.order_by().values("day").annotate(newest=Max("id")).values("newest")
    return {mark.day: mark for mark in CheckedDay.objects.filter(pk__in=newest)}


def days_on_books() -> Iterator[date]:
    """The days that have calls, by their ids: one index lookup for each."""
    calls = Usage.objects.order_by("id").values_list("id", flat=True)
    found = calls.first()
    while found is not None:
        day = day_of(found)
        yield day
        found = None if day == _LAST_DAY else calls.filter(id__gte=first_id_at(_midnight(day + _DAY))).first()


def day_of(usage_id: UUID) -> date:
    """The UTC day on which an id was made, by the host's clock."""
    days = (usage_id.int >> 80) // _DAY_MS
    return _FIRST_DAY + timedelta(days=min(days, (_LAST_DAY - _FIRST_DAY).days))


def calls_of_day(day: date) -> QuerySet[Usage]:
    """The closed ones. Every call has exactly one such day, whatever its id."""
    return Usage.objects.filter(_has_day(day))


def open_calls_of_day(day: date) -> QuerySet[OpenCall]:
    return OpenCall.objects.filter(_has_day(day))


def _has_day(day: date) -> Q:
    begins = Q(id__gte=first_id_at(_midnight(day)))
    return begins if day == _LAST_DAY else begins & Q(id__lt=first_id_at(_midnight(day + _DAY)))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


# --- Tables -----------------------------------------------------------------------------------------------------------


def _latest_marks() -> Mapping[str, Mark]:
    latest = BooksCheck.objects.exclude(marks={}).order_by("-id").values_list("marks", flat=True).first()
    return latest or {}


def _models() -> Mapping[str, type[Model]]:
    return {model._meta.db_table: model for model in apps.get_models()}


def _problem(model: type[Model], mark: Mark) -> str:
    rows = model._default_manager.count()
    if rows < mark["rows"]:
        return f"there are {rows:,}, but there were {mark['rows']:,} at an earlier check"
    columns = {field.attname for field in model._meta.concrete_fields}
    is_comparable = "sha256" in mark and columns.issuperset(mark["columns"])
    if is_comparable and _digest(model, mark["columns"], mark["last"]) != mark["sha256"]:
        return "rows differ from an earlier check"
    return ""


def _compute_mark(model: type[Model]) -> Mark:
    mark: dict[str, Any] = {"rows": model._default_manager.count()}
    # Rows with their own digests are checked by those, and may be millions.
    if model._meta.db_table not in tables_only_added_to() or issubclass(model, Digested | BooksCheck | CheckedDay):
        return mark
    columns = [field.attname for field in model._meta.concrete_fields]
    last = model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
    return {**mark, "last": last, "columns": columns, "sha256": _digest(model, columns, last)}


def _digest(model: type[Model], columns: list[str], last: Any) -> str:
    """Of the rows up to that id, as texts; "" for none."""
    digest = hashlib.sha256()
    if last is not None:
        rows = model._default_manager.filter(pk__lte=last).order_by("pk").values_list(*columns)
        for row in rows.iterator(chunk_size=2000):
            digest.update("\x1f".join(map(str, row)).encode() + b"\x1e")
    return digest.hexdigest()
