"""The usage behind an invoice, by day, key, model and rate set: the same rows whenever they are read.

Rollups keep changing: a call recorded after an invoice's cutoff changes a day that was billed. So what a document bills
of a period is defined by cutoffs: all that was recorded up to its own, less all that earlier documents have billed; a
correction takes back what its invoice billed. If the rollups still equal what was billed, they are used; otherwise the
same days are recalculated from the books as of those cutoffs. Only usage on invoices, billable usage, is exported.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Exists, F, OuterRef, Sum
from django.db.models.functions import Collate

from billing.errors import BillingError
from billing.invoices.states import count_states
from billing.models import BilledUsage, DailyUsage, Invoice
from billing.models.rollups import SUM_FIELDS
from billing.periods import BillingPeriod
from billing.rollup.statements import COLUMNS, DAYS_OF_ACCOUNT, DAYS_OF_ACCOUNTS, days_sql
from llm.db.json_rows import moment_text
from llm.digests import DIGEST_FIELDS
from llm.fields import ExactDecimalField
from llm.models import ApiKey
from llm.money import PICO_DECIMALS, exact_arithmetic

ROWS_AT_A_TIME = 2000
_KEY_FIELDS = ("local_day", "api_key_id", "provider", "model", "rate_set_id")
_COMPARED = ("calls", *DIGEST_FIELDS)
_COMPARED_INDEXES = tuple(SUM_FIELDS.index(name) for name in _COMPARED)
_COST_INDEXES = frozenset(index for index, name in enumerate(SUM_FIELDS) if name.endswith("cost"))
_KEY = attrgetter("key")
_COST = ExactDecimalField[Any, Any](decimals=PICO_DECIMALS)


class UsageMovedError(BillingError):
    """The rollups changed while they were read; a second try finds them settled."""


class DetailKey(NamedTuple):
    """In export order. rate_set_id: 0 for none, since None can't be ordered."""

    day: date
    api_key_id: int
    provider: str
    model: str
    rate_set_id: int


class Detail(NamedTuple):
    """sums: in the order of SUM_FIELDS; negative where a correction took something back."""

    key: DetailKey
    sums: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """period: the one that the usage is billed for, the invoice's own or an earlier one. masked_key: as shown to
    people.
    """

    invoice: Invoice
    period: BillingPeriod
    detail: Detail
    masked_key: str


def read_usage(invoice: Invoice) -> Iterator[UsageRow]:
    """All usage that the invoice bills, by period, then in `DetailKey` order; none for goodwill."""
    keys = {key.pk: key.masked for key in ApiKey.objects.filter(account=invoice.account_id)}
    starts = BilledUsage.objects.filter(invoice=invoice).values_list("period_start", flat=True)
    for start in sorted(set(starts.order_by())):
        for detail in _billed(invoice, BillingPeriod(start)):
            yield UsageRow(invoice, BillingPeriod(start), detail, keys[detail.key.api_key_id])


def _billed(invoice: Invoice, period: BillingPeriod) -> Iterator[Detail]:
    """A draft that was computed without rollups has no cutoff, and no usage."""
    if invoice.cutoff_at is None:
        return iter(())
    states = _count_states(invoice, period)
    if states == {invoice.cutoff_at: 1} and _is_as_billed(invoice, period):
        return _kept_still(_from_rollups(invoice.account_id, period), invoice, period)
    return _added({cutoff: (from_books(invoice.account_id, period, cutoff), times) for cutoff, times in states.items()})


def _count_states(invoice: Invoice, period: BillingPeriod) -> dict[datetime, int]:
    """Cutoff -> how often the books as of it count in the document's usage: 1, or -1 where they are subtracted."""
    with_usage = BilledUsage.objects.filter(invoice=OuterRef("pk"), period_start=period.start)
    documents = Invoice.objects.filter(Exists(with_usage), account=invoice.account_id, currency=invoice.currency)
    found: dict[datetime, int] = defaultdict(int)
    for state, times in count_states(invoice, documents).items():
        found[state.cutoff_at] += times
    return {cutoff: times for cutoff, times in found.items() if times}


def _is_as_billed(invoice: Invoice, period: BillingPeriod) -> bool:
    """Whether the rollups hold exactly the calls that the invoice bills: the same number, with the same digests."""
    billed = BilledUsage.objects.filter(invoice=invoice, period_start=period.start)
    return _by_rates(_days_of(invoice.account_id, period)) == _by_rates(billed)


def _kept_still(details: Iterator[Detail], invoice: Invoice, period: BillingPeriod) -> Iterator[Detail]:
    """The same rows; raises UsageMovedError at the end if the days were rolled up again meanwhile."""
    found = [0] * len(_COMPARED)
    for detail in details:
        for place, index in enumerate(_COMPARED_INDEXES):
            found[place] += detail.sums[index]
        yield detail
    billed = BilledUsage.objects.filter(invoice=invoice, period_start=period.start)
    expected = billed.aggregate(**{f"sum_{name}": Sum(name) for name in _COMPARED})
    if _wrapped(found) != _wrapped([expected[f"sum_{name}"] for name in _COMPARED]):
        raise UsageMovedError(f"The usage of {invoice} changed while it was exported. Export the month again.")


def _by_rates(rows: Any) -> dict[tuple[Any, ...], tuple[int, ...]]:
    sums = rows.values_list("provider", "model", "rate_set_id").annotate(
        *(Sum(name) for name in _COMPARED)  # each fits 64 bits: see `llm.models.digested`
    )
    found = {row[:3]: _wrapped(row[3:]) for row in sums.order_by()}
    return {key: figures for key, figures in found.items() if any(figures)}


def _wrapped(figures: Sequence[int]) -> tuple[int, ...]:
    """Values in the order of COMPARED; digest words modulo 2**32, which makes equal ones equal."""
    calls, *words = figures
    return (calls, *(word % 2**32 for word in words))


def _days_of(account_id: int, period: BillingPeriod) -> Any:
    return DailyUsage.objects.filter(
        account=account_id, is_billable=True, local_day__gte=period.start, local_day__lt=period.end
    )


def _from_rollups(account_id: int, period: BillingPeriod) -> Iterator[Detail]:
    order = (
        "local_day",
        "api_key_id",
        _by_bytes("provider"),
        _by_bytes("model"),
        F("rate_set_id").asc(nulls_first=True),
    )
    rows = _days_of(account_id, period).order_by(*order).values_list(*_KEY_FIELDS, *SUM_FIELDS)
    yield from _merged(
        Detail(_key_of(row), row[len(_KEY_FIELDS) :]) for row in rows.iterator(chunk_size=ROWS_AT_A_TIME)
    )


def _merged(details: Iterable[Detail]) -> Iterator[Detail]:
    """Days tell calls apart also by how they ended, which no bill does. details: in the order of their keys."""
    for key, found in groupby(details, key=_KEY):
        parts = [part.sums for part in found]
        with exact_arithmetic():
            sums = parts[0] if len(parts) == 1 else tuple(map(sum, zip(*parts, strict=True)))
        yield Detail(key, sums)


def from_books(account_id: int, period: BillingPeriod, cutoff: datetime) -> Iterator[Detail]:
    """What the rollups were, or would have been, at the cutoff."""
    return _merged(_read_books(account_id, period, cutoff))


def _read_books(account_id: int, period: BillingPeriod, cutoff: datetime) -> Iterator[Detail]:
    collation = f'"{_bytewise()}"'
    scope = DAYS_OF_ACCOUNT if connection.vendor == "sqlite" else DAYS_OF_ACCOUNTS
    sql = (
        f"WITH days ({', '.join(COLUMNS)}) AS ({days_sql(scope, connection.vendor)}) "  # noqa: S608
        f"SELECT {', '.join((*_KEY_FIELDS, *SUM_FIELDS))} FROM days WHERE is_billable "
        f"ORDER BY local_day, api_key_id, provider COLLATE {collation}, model COLLATE {collation}, "
        "rate_set_id NULLS FIRST"
    )
    with closing(connection.chunked_cursor()) as cursor:
        cursor.execute(sql, _parameters(account_id, period, cutoff))
        while rows := cursor.fetchmany(ROWS_AT_A_TIME):
            yield from (Detail(_key_of(row), _sums_of(row)) for row in rows)


def _parameters(account_id: int, period: BillingPeriod, cutoff: datetime) -> dict[str, Any]:
    days = [day.isoformat() for day in period.days]
    stamp = moment_text(cutoff, connection.vendor)
    if connection.vendor == "sqlite":
        return {"account": account_id, "days": json.dumps(days), "cutoff": stamp}
    return {"accounts": [account_id] * len(days), "days": days, "cutoff": stamp}


def _added(streams: Mapping[datetime, tuple[Iterator[Detail], int]]) -> Iterator[Detail]:
    """Merges streams sorted by key, each counted so many times; rows that cancel out are omitted."""
    scaled = [_scaled(details, times) for details, times in streams.values()]
    for key, parts in groupby(heapq.merge(*scaled, key=_KEY), key=_KEY):
        with exact_arithmetic():
            sums = tuple(map(sum, zip(*(part.sums for part in parts), strict=True)))
        if any(sums):
            yield Detail(key, sums)


def _scaled(details: Iterator[Detail], times: int) -> Iterator[Detail]:
    for detail in details:
        for _ in range(abs(times)):
            yield detail if times > 0 else Detail(detail.key, tuple(map(_negated, detail.sums)))


def _negated(figure: Any) -> Any:
    """Not by a minus sign, which would round a Decimal."""
    return figure.copy_negate() if isinstance(figure, Decimal) else -figure


def _key_of(row: Sequence[Any]) -> DetailKey:
    """SQLite returns days as text."""
    day, api_key_id, provider, model, rate_set_id = row[: len(_KEY_FIELDS)]
    return DetailKey(
        date.fromisoformat(day) if isinstance(day, str) else day, api_key_id, provider, model, rate_set_id or 0
    )


def _sums_of(row: Sequence[Any]) -> tuple[Any, ...]:
    """Figures as `DailyUsage`'s columns give them."""
    figures = row[len(_KEY_FIELDS) :]
    return tuple(
        _COST.from_db_value(figure, None, connection) if index in _COST_INDEXES else int(figure)
        for index, figure in enumerate(figures)
    )


def _by_bytes(name: str) -> Collate:
    """In Python's order of text: the database's collation may change with its version."""
    return Collate(name, _bytewise())


def _bytewise() -> str:
    return "BINARY" if connection.vendor == "sqlite" else "C"
