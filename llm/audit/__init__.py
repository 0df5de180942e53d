"""Audits the books against themselves: calls, their adjustments, and the limits that they used.

Nothing is locked and only the result is written, so it may run beside the busiest gateway. Calls are read in pieces,
each in its own statement: a closed call never changes, so what was recorded up to a cutoff stays the same while the
pieces are read. Only the end, where limits are compared, needs one consistent state of the database: it reads the open
calls and what was recorded since the last cutoff, which is little (docs/decisions/0029).

An audit of what is recent continues where the previous one ended, and also reads a tenth of the older days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from django.db import transaction

from llm.audit import reading
from llm.audit.calls import CallChecks
from llm.audit.history import (
    DayTally,
    day_of,
    days_on_books,
    latest_days,
    marks_to_keep,
    open_calls_of_day,
    problems_of_history,
)
from llm.audit.limit_windows import LATER, WindowSums, going_on_at
from llm.books.clock import database_now, take_cutoff
from llm.db.triggers import problems_of_triggers
from llm.enums import CheckScope
from llm.ids import first_id_at
from llm.models import BooksCheck, CheckedDay, LimitWindow, OpenCall, Usage, UsageAdjustment

MAX_FINDINGS = 1000
"""How many are listed; all are counted."""
KEPT_FINDINGS = 100
NIGHTS = 10
"""This many audits of what is recent read each older day once."""

_CATCHING_UP = 5


@dataclass
class Findings:
    """What was examined, and a sentence on each problem: which row, and how."""

    rows: int = 0
    windows: int = 0
    problems: int = 0
    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        self.problems += 1
        if len(self.sentences) < MAX_FINDINGS:
            self.sentences.append(sentence)


def verify(*, on_progress: Callable[[int, int], None] | None = None) -> Findings:
    """Audit everything and store the result for staff. on_progress: called with (days read, days)."""
    return _verify(None, on_progress)


def verify_recent() -> Findings:
    """Audit what was recorded since the last audit, and a tenth of the older days; everything if there was none."""
    return _verify(BooksCheck.objects.exclude(until=None).order_by("-id").first())


def _verify(former: BooksCheck | None, on_progress: Callable[[int, int], None] | None = None) -> Findings:
    started_at = database_now()
    findings = Findings()
    verification = _Verification(findings, former)
    verification.run(on_progress)
    with transaction.atomic():
        check = BooksCheck.objects.create(
            scope=CheckScope.ALL if former is None else CheckScope.RECENT,
            started_at=started_at,
            ended_at=database_now(),
            until=verification.until,
            rows=findings.rows,
            windows=findings.windows,
            problems=findings.problems,
            findings=findings.sentences[:KEPT_FINDINGS],
            marks=marks_to_keep(),
            used=verification.used,
        )
        for day in verification.days:
            day.books_check = check
        CheckedDay.objects.bulk_create(verification.days, batch_size=500)
    return findings


def problems_of_protection() -> Iterator[str]:
    """What should protect the books and doesn't, and what is missing or changed nevertheless."""
    yield from problems_of_triggers()
    yield from problems_of_history()


class _Verification:
    """until, used: see `BooksCheck`. days: marks to store, unsaved."""

    def __init__(self, findings: Findings, former: BooksCheck | None) -> None:
        self.until = take_cutoff()
        self.used: dict[str, int] = {}
        self.days: list[CheckedDay] = []
        self._findings = findings
        self._since = None if former is None else former.until
        self._calls = CallChecks()
        self._windows = WindowSums(self._since, {} if former is None else former.used)

    def run(self, on_progress: Callable[[int, int], None] | None) -> None:
        for sentence in problems_of_protection():
            self._findings.add(sentence)
        marks = latest_days()
        days = _days_to_read(self._since, self.until, marks)
        for done, day in enumerate(days, start=1):
            self._read_day(day, marks.get(day))
            if on_progress is not None:
                on_progress(done, len(days))
        self._catch_up()
        self.used = self._used_and_going_on()
        with reading.snapshot():
            self._read_recorded(self.until, LATER)
            self._read_open()
            for compared, problems in self._windows.problems():
                self._findings.windows += compared
                self._add(problems)

    def _add(self, sentences: Iterator[str] | Sequence[str]) -> None:
        for sentence in sentences:
            self._findings.add(sentence)

    def _read_day(self, day: date, former: CheckedDay | None) -> None:
        tally = DayTally(day, self.until, former, opened=open_calls_of_day(day).values_list("id", flat=True))
        problems = self._findings.problems
        for rows in reading.chunks_of_day(day):
            adjustments = reading.load_adjustments(rows)
            tally.add(rows, adjustments)
            closed = [row for row in rows if row.recorded_at <= self.until]
            self._findings.rows += len(closed)
            self._read_closed(closed, adjustments, self._since, self.until)
        self._add(tally.problems())
        self.days.append(tally.mark(problems=self._findings.problems - problems))

    def _catch_up(self) -> None:
        """What was recorded while the days were read, so that little is left for the snapshot."""
        for _ in range(_CATCHING_UP):
            cutoff = take_cutoff()
            rows = self._read_recorded(self.until, cutoff)
            self.until = cutoff
            if rows <= reading.CHUNK:
                break

    def _read_recorded(self, since: datetime, until: datetime) -> int:
        """Returns how many calls were closed or adjusted meanwhile."""
        found = 0
        for began, ended, ids in reading.recorded_between(since, until):
            for first in range(0, len(ids), reading.CHUNK):
                rows = list(Usage.objects.filter(pk__in=ids[first : first + reading.CHUNK]))
                found += len(rows)
                self._findings.rows += sum(row.recorded_at > began for row in rows)
                self._read_closed(rows, reading.load_adjustments(rows), began, ended)
        return found

    def _read_closed(
        self,
        rows: Sequence[Usage],
        adjustments: Mapping[UUID, Sequence[UsageAdjustment]],
        since: datetime | None,
        until: datetime,
    ) -> None:
        self._add(self._calls.problems(rows, adjustments))
        self._windows.add_closed(rows, adjustments, since, until)

    def _read_open(self) -> None:
        for rows in reading.read_chunks(OpenCall.objects.all()):
            self._findings.rows += len(rows)
            self._add(self._calls.problems_of_open(rows))
            self._windows.add_open(rows)

    def _used_and_going_on(self) -> dict[str, int]:
        going_on = set(LimitWindow.objects.filter(going_on_at(self.until)).order_by().values_list("pk", flat=True))
        return {pk: used for pk, used in self._windows.used_by_window().items() if int(pk) in going_on}


def _days_to_read(since: datetime | None, until: datetime, marks: Mapping[date, CheckedDay]) -> Sequence[date]:
    """since: where a former audit ended; None: all days. Includes days that have lost all their calls."""
    days = {*days_on_books(), *(day for day, mark in marks.items() if mark.rows)}
    if since is None:
        return sorted(days)
    first = day_of(first_id_at(since))
    due = {day for day in days if day >= first or day not in marks or marks[day].problems}
    due |= _days_recorded_in(since, until) & days
    rest = sorted(days - due, key=lambda day: marks[day].pk)
    return sorted(due | set(rest[: -(-len(rest) // NIGHTS)]))


def _days_recorded_in(since: datetime, until: datetime) -> set[date]:
    """Days of calls that were closed or adjusted meanwhile, whenever they were opened."""
    return {day_of(each) for _, _, ids in reading.recorded_between(since, until) for each in ids}
