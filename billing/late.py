"""What was billed of a period so far, and which billed periods have changed since.

Billed is what stands on frozen invoices that aren't void; credit notes give money back, they don't unbill usage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from typing import Any

from django.db.models import QuerySet, Sum
from django.db.models.functions import TruncMonth

from billing.enums import InvoiceKind, LineKind
from billing.models import BilledUsage, DailyUsage, Invoice, InvoiceLine
from billing.models.invoices import FROZEN_STATES
from billing.models.rollups import SUM_FIELDS
from billing.periods import Period
from billing.types import NO_DIGEST, ChargeLine
from llm.digests import DIGEST_FIELDS, words_of_hex
from llm.fields import ExactSum
from llm.money import exact_sum, usd_to_pico

_COUNTED = ("calls", *DIGEST_FIELDS)


def billed_lines(invoice: Invoice, period: Period) -> tuple[ChargeLine, ...]:
    """The lines of the period on the account's other invoices, added up by key."""
    return added_lines(InvoiceLine.objects.filter(invoice__in=_others(invoice), period_start=period.start))


def added_lines(rows: QuerySet[InvoiceLine]) -> tuple[ChargeLine, ...]:
    """One line for each key."""
    by_key: dict[str, list[InvoiceLine]] = defaultdict(list)
    for row in rows.order_by("invoice", "position"):
        by_key[row.key].append(row)
    return tuple(_added(group) for group in by_key.values())


def billed_usage(invoice: Invoice, period: Period) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    """Sums of `UsageSums` by (provider, model, rate set id) over the account's other invoices."""
    rows = BilledUsage.objects.filter(invoice__in=_others(invoice), period_start=period.start).order_by()
    sums = rows.values_list("provider", "model", "rate_set_id").annotate(
        **{f"sum_{name}": ExactSum(name) for name in SUM_FIELDS}
    )
    return {tuple(row[:3]): dict(zip(SUM_FIELDS, row[3:], strict=True)) for row in sums}


def changed_periods(invoice: Invoice) -> list[tuple[Period, Invoice]]:
    """Billed periods before the invoice's own whose usage isn't what was billed, each with its regular invoice.

    Usage is compared by calls and digests: a correction changes them as a new call does.
    """
    regular = {
        each.period_start: each
        for each in _others(invoice)
        .filter(kind=InvoiceKind.REGULAR, period_start__lt=invoice.period_start)
        .select_related("plan_version", "exchange_rate")
    }
    if not regular:
        return []
    now = _usage_now(invoice.account_id, min(regular), invoice.period_start)
    billed = _usage_billed(invoice)
    return [
        (Period(start), regular[start])
        for start in sorted(regular)
        if now.get(start, _nothing()) != billed.get(start, _nothing())
    ]


def regular_of(invoice: Invoice) -> Invoice | None:
    """The frozen invoice that a supplement adds to: what came late is charged under its terms."""
    if invoice.kind != InvoiceKind.SUPPLEMENT:
        return None
    regular = _others(invoice).filter(kind=InvoiceKind.REGULAR, period_start=invoice.period_start)
    return regular.select_related("plan_version", "exchange_rate").first()


def _others(invoice: Invoice) -> QuerySet[Invoice]:
    others = Invoice.objects.filter(account=invoice.account_id, currency=invoice.currency, state__in=FROZEN_STATES)
    return others.exclude(kind=InvoiceKind.CREDIT_NOTE).exclude(pk=invoice.pk)


def _added(rows: list[InvoiceLine]) -> ChargeLine:
    first = rows[0]
    quantities = [row.quantity for row in rows if row.quantity is not None]
    return ChargeLine(
        key=first.key,
        kind=LineKind(first.kind),
        description=first.description,
        exact_amount=exact_sum(row.exact_amount for row in rows),
        amount=exact_sum(row.amount for row in rows),
        quantity=sum(quantities) if quantities else None,
        provider=first.provider,
        model=first.model,
        meter=first.meter,
        cost_pico=sum(usd_to_pico(row.cost_usd) for row in rows),
        calls=sum(row.calls for row in rows),
        digest=_digest_of(rows),
    )


def _digest_of(rows: Iterable[InvoiceLine]) -> tuple[int, ...]:
    total: tuple[int, ...] = NO_DIGEST
    for row in rows:
        if row.digest:
            total = tuple(a + b for a, b in zip(total, words_of_hex(row.digest), strict=True))
    return total


def _usage_now(account_id: int, first: date, end: date) -> dict[date, tuple[int, ...]]:
    days = DailyUsage.objects.filter(
        account=account_id, is_billable=True, local_day__gte=first, local_day__lt=end
    ).annotate(month=TruncMonth("local_day"))
    return _by_period(days, "month")


def _usage_billed(invoice: Invoice) -> dict[date, tuple[int, ...]]:
    return _by_period(BilledUsage.objects.filter(invoice__in=_others(invoice)), "period_start")


def _by_period(rows: QuerySet[Any], start: str) -> dict[date, tuple[int, ...]]:
    sums = rows.values(start).annotate(**{f"sum_{name}": Sum(name) for name in _COUNTED}).order_by()
    return {row[start]: _counted(row[f"sum_{name}"] for name in _COUNTED) for row in sums}


def _counted(values: Iterable[int]) -> tuple[int, ...]:
    calls, *words = values
    return (calls, *(word % 2**32 for word in words))


def _nothing() -> tuple[int, ...]:
    return (0, *NO_DIGEST)
