"""Checks the books against themselves: every row, every window of a limit, in one snapshot of the database.

Nothing is locked and nothing is written but the result, so it may run beside the busiest gateway.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Count

from llm.books.adjusting import DECLARED_FREE, last_rerating
from llm.books.clock import database_now
from llm.books.figures import Figures, figures_of, is_in_doubt
from llm.enums import AdjustmentSource, Outcome, UsageStatus
from llm.models import ApiKey, BooksCheck, LimitWindow, Process, RateSet, Usage, UsageAdjustment
from llm.money import usd_to_pico
from llm.price_rows import load_snapshots
from llm.pricing import PriceSnapshot, known_cost
from llm.triggers import missing_triggers
from llm.types import TOKEN_FIELDS, TokenCounts

MOST_FINDINGS = 1000
"""So many are told; all are counted."""
KEPT_FINDINGS = 100

_CHUNK = 2000
_FORGOTTEN_AFTER = timedelta(hours=1)


@dataclass
class Findings:
    """What was looked at, and a sentence on each thing that is wrong: which row, and how."""

    rows: int = 0
    windows: int = 0
    problems: int = 0
    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        self.problems += 1
        if len(self.sentences) < MOST_FINDINGS:
            self.sentences.append(sentence)


def verify() -> Findings:
    """Check everything and keep the result for staff."""
    started_at = database_now()
    findings = Findings()
    with _snapshot():
        _Verification(findings).run()
    BooksCheck.objects.create(
        started_at=started_at,
        ended_at=database_now(),
        rows=findings.rows,
        windows=findings.windows,
        problems=findings.problems,
        findings=findings.sentences[:KEPT_FINDINGS],
    )
    return findings


@contextmanager
def _snapshot() -> Iterator[None]:
    """One state of the database for many reads. Not Django's own transaction, which on SQLite locks writers out."""
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


@dataclass(slots=True)
class _Sums:
    used: int = 0
    held: int = 0


class _Verification:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._now = database_now()
        self._windows = {window.pk: window for window in LimitWindow.objects.select_related("limit")}
        self._sums: defaultdict[int, _Sums] = defaultdict(_Sums)
        self._accounts = dict(ApiKey.objects.values_list("id", "account_id"))
        self._prices: dict[int, PriceSnapshot] = {}
        self._prices_of_rates: dict[int, int] = {}
        self._alive = set(
            Process.objects.filter(seen_at__gte=self._now - _FORGOTTEN_AFTER).values_list("id", flat=True)
        )

    def run(self) -> None:
        for name in missing_triggers():
            self._findings.add(f"The database's trigger {name} is missing: run “manage.py migrate”.")
        for rows in _chunks():
            self._findings.rows += len(rows)
            adjustments = _adjustments_of(rows)
            self._load_prices(rows, adjustments)
            for row in rows:
                self._check(row, adjustments.get(row.pk, []))
        self._check_windows()
        self._check_attempts()

    # --- A row --------------------------------------------------------------------------------------------------------

    def _check(self, row: Usage, adjustments: Sequence[UsageAdjustment]) -> None:
        problems = [*self._problems_of(row), *_problems_of_adjustments(row, adjustments)]
        problems += self._problems_of_corrected_cost(row, adjustments)
        for problem in problems:
            self._findings.add(f"Call {row.pk}: {problem}.")
        self._add_holds(row, figures_of(row, adjustments))

    def _problems_of(self, row: Usage) -> Iterator[str]:
        if self._accounts.get(row.api_key_id) != row.account_id:
            yield "its key belongs to another account"
        if row.status == UsageStatus.OPEN:
            yield from self._problems_of_open(row)
            return
        if row.closed_at is None or row.closed_at < row.opened_at or row.recorded_at < row.closed_at:
            yield "it was closed before it was opened, or recorded before it was closed"
        if row.outcome == Outcome.PENDING:
            yield "it is closed and has no outcome"
        if not row.is_as_written:
            yield "its digest is not that of its values: they were changed, or written past the books"
        yield from self._problems_of_cost(row)

    def _problems_of_open(self, row: Usage) -> Iterator[str]:
        if row.cost is not None or row.closed_at is not None or _counts_of(row).total_tokens:
            yield "it is open and has figures of a closed one"
        age = self._now - row.opened_at
        is_old = age > _FORGOTTEN_AFTER + timedelta(seconds=settings.LLM_TOTAL_TIMEOUT_SECONDS)
        if is_old and row.process_id not in self._alive:
            yield "it is open, its process has been dead for over an hour, and nothing has closed it"

    def _problems_of_cost(self, row: Usage) -> Iterator[str]:
        figures = figures_of(row, ())
        if figures.is_priced_as_reported and row.rate_set_id is None:
            # The other model is free, or has no rates for what was used: no column tells which one it was.
            if row.cost:
                yield "it has a cost and no rates"
            return
        price = None
        price_id = row.price_id
        if (rates := figures.reported_rate_set_id) is not None:
            price_id = self._prices_of_rates[rates]
        if price_id is not None and (price := self._prices.get(price_id)) is None:
            yield f"its price {price_id} does not exist"
            return
        counts = _counts_of(row)
        if min(getattr(counts, name) for name in TOKEN_FIELDS) < 0:
            yield "it has negative tokens"
            return
        cost = known_cost(counts, price, row.service)
        expected = None if cost is None else cost.pico
        actual = None if row.cost is None else usd_to_pico(row.cost)
        if actual != expected:
            yield f"its cost is {_pico(actual)}, but its tokens at its price cost {_pico(expected)}"
        elif cost is not None and cost.rate_set_id != row.rate_set_id:
            yield f"its cost was computed with rates {cost.rate_set_id}, not {row.rate_set_id}"

    def _problems_of_corrected_cost(self, row: Usage, adjustments: Sequence[UsageAdjustment]) -> Iterator[str]:
        """A provider's report brings its own cost, and a late settlement of an earlier release one that no column
        explains: it kept neither extra meters nor service.
        """
        figures = figures_of(row, adjustments)
        reported = AdjustmentSource.PROVIDER in {each.source for each in adjustments}
        if not adjustments or reported or not figures.is_complete:
            return
        rerated = last_rerating(adjustments)
        rates = figures.reported_rate_set_id if rerated is None else rerated.rate_set_id
        if rates is None and rerated is None and figures.is_priced_as_reported:
            return
        price_id = row.price_id if rates is None else self._prices_of_rates[rates]
        price = None if price_id is None else self._prices.get(price_id)
        is_free = rerated is not None and rates is None
        cost = DECLARED_FREE if is_free else known_cost(figures.counts, price, figures.service)
        expected = None if cost is None else cost.pico
        if figures.cost_pico != expected:
            yield (
                f"with its adjustments its cost is {_pico(figures.cost_pico)}, "
                f"but its tokens at its price cost {_pico(expected)}"
            )

    def _load_prices(self, rows: Sequence[Usage], adjustments: Mapping[UUID, Sequence[UsageAdjustment]]) -> None:
        corrections = [each for corrected in adjustments.values() for each in corrected]
        priced: Iterable[Usage | UsageAdjustment] = (*rows, *corrections)
        rates = {each.rate_set_id for each in priced if each.rate_set_id is not None}
        if unknown := rates - set(self._prices_of_rates):
            self._prices_of_rates |= dict(RateSet.objects.filter(pk__in=unknown).values_list("pk", "price_id"))
        wanted = {row.price_id for row in rows if row.price_id is not None} | set(self._prices_of_rates.values())
        if missing := wanted - set(self._prices):
            self._prices |= load_snapshots(missing)

    # --- Limits -------------------------------------------------------------------------------------------------------

    def _add_holds(self, row: Usage, figures: Figures) -> None:
        for window_id, held in row.holds or ():
            window = self._windows.get(window_id)
            sums = self._sums[window_id]
            if row.status == UsageStatus.OPEN:
                sums.held += held
            elif window is not None:
                sums.used += figures.units_used(window.limit.metric, held)

    def _check_windows(self) -> None:
        self._findings.windows = len(self._windows)
        for window_id, window in self._windows.items():
            sums = self._sums.get(window_id, _Sums())
            if window.held != sums.held:
                self._findings.add(
                    f"Window {window_id} ({window}): it holds {window.held}, its open calls {sums.held}."
                )
            if window.used != sums.used:
                self._findings.add(
                    f"Window {window_id} ({window}): {window.used} are used, its calls used {sums.used}."
                )
        for window_id, sums in self._sums.items():
            if window_id not in self._windows and sums.held:
                self._findings.add(f"Window {window_id} does not exist, and open calls hold {sums.held} of it.")

    # --- Requests -----------------------------------------------------------------------------------------------------

    def _check_attempts(self) -> None:
        doubled = (
            Usage.objects.values("request_id", "attempt").annotate(calls=Count("id")).filter(calls__gt=1).order_by()
        )
        for found in doubled[:MOST_FINDINGS]:
            self._findings.add(
                f"Request {found['request_id']}: attempt {found['attempt']} is on the books {found['calls']} times."
            )


def _chunks() -> Iterator[list[Usage]]:
    """All rows by id, a bounded number at a time."""
    last: UUID | None = None
    rows_by_id = Usage.objects.order_by("id")
    while rows := list((rows_by_id if last is None else rows_by_id.filter(id__gt=last))[:_CHUNK]):
        last = rows[-1].pk
        yield rows


def _adjustments_of(rows: Sequence[Usage]) -> Mapping[UUID, list[UsageAdjustment]]:
    found: defaultdict[UUID, list[UsageAdjustment]] = defaultdict(list)
    between = UsageAdjustment.objects.filter(usage_id__gte=rows[0].pk, usage_id__lte=rows[-1].pk)
    for adjustment in between.order_by("id"):
        found[adjustment.usage_id].append(adjustment)
    return found


def _problems_of_adjustments(row: Usage, adjustments: Sequence[UsageAdjustment]) -> Iterator[str]:
    if not adjustments:
        return
    if row.status in (UsageStatus.OPEN, UsageStatus.VOID):
        yield f"it is {row.status} and has adjustments"
    for adjustment in adjustments:
        if not adjustment.is_as_written:
            yield f"the digest of its adjustment {adjustment.pk} ({adjustment.source}) is not that of its values"
    counted = Counter((each.source, each.rerating_id) for each in adjustments)
    if repeated := [source for (source, _), count in counted.items() if count > 1]:
        yield f"it was adjusted more than once by {', '.join(repeated)}"
    if not is_in_doubt(row) and AdjustmentSource.DECISION in {each.source for each in adjustments}:
        yield "staff decided on it, but it is neither lost nor disputed"
    totals = figures_of(row, adjustments)
    if min(getattr(totals.counts, name) for name in TOKEN_FIELDS) < 0 or (totals.cost_pico or 0) < 0:
        yield "with its adjustments it has negative tokens or a negative cost"


def _counts_of(row: Usage) -> TokenCounts:
    return TokenCounts(**{name: getattr(row, name) for name in TOKEN_FIELDS}, extra_meters=row.extra_meters)


def _pico(value: int | None) -> str:
    return "unknown" if value is None else f"{value} pico-USD"
