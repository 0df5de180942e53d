"""What can be wrong with a call on the books: states and times, digests, cost, and later corrections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from django.conf import settings

from llm.books.adjusting import DECLARED_FREE, last_rerating
from llm.books.clock import database_now
from llm.books.figures import compute_figures, is_in_doubt
from llm.enums import AdjustmentSource, CallOutcome, UsageStatus
from llm.models import ApiKey, OpenCall, Process, RateSet, Usage, UsageAdjustment
from llm.money import usd_to_pico
from llm.prices.pricing import PriceSnapshot, known_cost
from llm.prices.snapshots import load_snapshots
from llm.types import TOKEN_FIELDS, TokenCounts

_FORGOTTEN_AFTER = timedelta(hours=1)
_ATTEMPT = ("request_id", "attempt")


class CallChecks:
    """Checks calls in batches; what they refer to is read once."""

    def __init__(self) -> None:
        self._now = database_now()
        self._accounts: dict[int, int] = {}
        self._prices: dict[int, PriceSnapshot] = {}
        self._prices_of_rates: dict[int, int] = {}
        self._doubled: set[tuple[UUID, int]] = set()
        self._alive = set(
            Process.objects.filter(seen_at__gte=self._now - _FORGOTTEN_AFTER).values_list("id", flat=True)
        )

    def problems(self, rows: Sequence[Usage], adjustments: Mapping[UUID, Sequence[UsageAdjustment]]) -> Iterator[str]:
        """A sentence on each problem. adjustments: of each row, oldest first."""
        self._load_accounts(rows)
        self._load_prices(rows, adjustments)
        for row in rows:
            yield from (f"Call {row.pk}: {problem}." for problem in self._find_all(row, adjustments.get(row.pk, ())))
        yield from self._problems_of_attempts(rows)

    def problems_of_open(self, rows: Sequence[OpenCall]) -> Iterator[str]:
        """A sentence on each problem of calls in flight."""
        self._load_accounts(rows)
        closed = set(Usage.objects.filter(pk__in=[row.pk for row in rows]).values_list("pk", flat=True))
        for row in rows:
            problems = self._problems_of_open(row, is_closed=row.pk in closed)
            yield from (f"Call {row.pk}: {problem}." for problem in problems)
        yield from self._problems_of_attempts(rows)

    def _find_all(self, row: Usage, adjustments: Sequence[UsageAdjustment]) -> Iterator[str]:
        yield from self._find_problems(row)
        yield from _problems_of_adjustments(row, adjustments)
        yield from self._problems_of_corrected_cost(row, adjustments)

    def _load_accounts(self, rows: Sequence[Usage] | Sequence[OpenCall]) -> None:
        if unknown := {row.api_key_id for row in rows} - set(self._accounts):
            self._accounts |= dict(ApiKey.objects.filter(pk__in=unknown).values_list("id", "account_id"))

    def _problems_of_attempts(self, rows: Sequence[Usage] | Sequence[OpenCall]) -> Iterator[str]:
        requests = {row.request_id for row in rows}
        calls: dict[UUID, tuple[UUID, int]] = {}
        # By id, since a call may be closed between the two statements. Open ones first.
        for model in (OpenCall, Usage):
            found = model._default_manager.filter(request_id__in=requests).order_by()
            calls |= {pk: (request_id, attempt) for pk, request_id, attempt in found.values_list("pk", *_ATTEMPT)}
        for (request_id, attempt), number in Counter(calls.values()).items():
            if number > 1 and (request_id, attempt) not in self._doubled:
                self._doubled.add((request_id, attempt))
                yield f"Request {request_id}: attempt {attempt} is on the books {number} times."

    def _find_problems(self, row: Usage) -> Iterator[str]:
        if self._accounts.get(row.api_key_id) != row.account_id:
            yield "its key belongs to another account"
        if row.closed_at is None or row.closed_at < row.opened_at or row.recorded_at < row.closed_at:
            yield "it was closed before it was opened, or recorded before it was closed"
        if row.outcome == CallOutcome.PENDING or row.status == UsageStatus.OPEN:
            yield "it is closed but has no outcome"
        if not row.is_as_written:
            yield "its digest does not match its values: they were changed, or written outside the gateway"
        yield from self._problems_of_cost(row)

    def _problems_of_open(self, row: OpenCall, *, is_closed: bool) -> Iterator[str]:
        if self._accounts.get(row.api_key_id) != row.account_id:
            yield "its key belongs to another account"
        if is_closed:
            yield "it is closed and still holds what it had reserved as an open call"
        age = self._now - row.opened_at
        is_old = age > _FORGOTTEN_AFTER + timedelta(seconds=settings.LLM_TOTAL_TIMEOUT_SECONDS)
        if is_old and row.process_id not in self._alive:
            yield "it is open, its process has been dead for over an hour, and nothing has closed it"

    def _problems_of_cost(self, row: Usage) -> Iterator[str]:
        figures = compute_figures(row, ())
        if figures.is_priced_as_reported and row.rate_set_id is None:
            # The other model is free, or has no rates for the usage: no column says which model it was.
            if row.cost:
                yield "it has a cost but no rates"
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
        if expected is None and _was_free(price, actual):
            return
        if actual != expected:
            yield f"its cost is {_pico(actual)}, but its tokens at its price cost {_pico(expected)}"
        elif cost is not None and cost.rate_set_id != row.rate_set_id:
            yield f"its cost was computed with rates {cost.rate_set_id}, not {row.rate_set_id}"

    def _problems_of_corrected_cost(self, row: Usage, adjustments: Sequence[UsageAdjustment]) -> Iterator[str]:
        """A provider's report has its own cost, and a late settlement of an earlier release one that can't be
        recomputed, since it recorded neither extra meters nor service.
        """
        figures = compute_figures(row, adjustments)
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
        if expected is None and _was_free(price, figures.cost_pico):
            return
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


def _problems_of_adjustments(row: Usage, adjustments: Sequence[UsageAdjustment]) -> Iterator[str]:
    if not adjustments:
        return
    if row.status == UsageStatus.VOID:
        yield f"it is {row.status} but has adjustments"
    for adjustment in adjustments:
        if not adjustment.is_as_written:
            yield f"the digest of its adjustment {adjustment.pk} ({adjustment.source}) does not match its values"
    counted = Counter((each.source, each.rerating_id) for each in adjustments)
    if repeated := [source for (source, _), count in counted.items() if count > 1]:
        yield f"it was adjusted more than once by {', '.join(repeated)}"
    if not is_in_doubt(row) and AdjustmentSource.DECISION in {each.source for each in adjustments}:
        yield "staff decided on it, but it is neither lost nor disputed"
    totals = compute_figures(row, adjustments)
    if min(getattr(totals.counts, name) for name in TOKEN_FIELDS) < 0 or (totals.written_pico or 0) < 0:
        yield "with its adjustments it has negative tokens or a negative cost"
    elif totals.cost_pico is None and totals.written_pico:
        yield f"its cost is unknown, but the books hold a cost of {_pico(totals.written_pico)}"


def _was_free(price: PriceSnapshot | None, cost_pico: int | None) -> bool:
    """As closed by an earlier release, in which a free price also covered other services and units beside tokens."""
    return price is not None and price.is_free and cost_pico == 0


def _counts_of(row: Usage) -> TokenCounts:
    return TokenCounts(**{name: getattr(row, name) for name in TOKEN_FIELDS}, extra_meters=row.extra_meters)


def _pico(value: int | None) -> str:
    return "unknown" if value is None else f"{value} pico-USD"
