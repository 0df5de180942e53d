"""What was billed of a period so far, and which billed periods have changed since.

Billed is what stands on frozen invoices that aren't void; credit notes give money back, they don't unbill usage.
`others`: such invoices of one account and currency, see `others_of`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from django.db.models import QuerySet, Sum
from django.db.models.functions import TruncMonth

from billing.enums import InvoiceKind, InvoiceState, LineKind
from billing.models import BilledUsage, Invoice, InvoiceLine
from billing.models.rollups import SUM_FIELDS
from billing.periods import Period
from billing.rollup import rows_with
from billing.types import NO_DIGEST, ChargeLine
from llm.digests import DIGEST_FIELDS, words_of_hex
from llm.fields import ExactSum
from llm.money import exact_sum, usd_to_pico

_COUNTED = ("calls", *DIGEST_FIELDS)

Others = Sequence[Invoice]


def invoices_of(account_ids: Iterable[int]) -> Mapping[int, list[Invoice]]:
    """The accounts' invoices that aren't void, by period, with the terms that they were reckoned under."""
    found: dict[int, list[Invoice]] = defaultdict(list)
    rows = Invoice.objects.filter(account__in=account_ids).exclude(state=InvoiceState.VOID)
    for invoice in rows.select_related("plan_version", "exchange_rate").order_by("period_start", "id"):
        found[invoice.account_id].append(invoice)
    return found


def others_of(invoice: Invoice, invoices: Iterable[Invoice]) -> Others:
    """Those of the account's invoices that bill usage beside this one."""
    return [
        each
        for each in invoices
        if each.is_frozen
        and each.kind != InvoiceKind.CREDIT_NOTE
        and each.currency == invoice.currency
        and each.pk != invoice.pk
    ]


def regular_of(others: Others, period: Period) -> Invoice | None:
    """The frozen regular invoice of the period: what comes late is charged under its terms."""
    return next((each for each in others if _is_regular(each) and each.period == period), None)


def billed_lines(others: Others, period: Period) -> tuple[ChargeLine, ...]:
    """The lines of the period on these invoices, added up by key."""
    if not (billing := _that_can_bill(others, period)):
        return ()
    return added_lines(InvoiceLine.objects.filter(invoice__in=billing, period_start=period.start))


def added_lines(rows: QuerySet[InvoiceLine]) -> tuple[ChargeLine, ...]:
    """One line for each key."""
    by_key: dict[str, list[InvoiceLine]] = defaultdict(list)
    for row in rows.order_by("invoice", "position"):
        by_key[row.key].append(row)
    return tuple(_added(group) for group in by_key.values())


def billed_usage(others: Others, period: Period) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    """Sums of `UsageSums` by (provider, model, rate set id) over these invoices."""
    if not (billing := _that_can_bill(others, period)):
        return {}
    rows = BilledUsage.objects.filter(invoice__in=billing, period_start=period.start).order_by()
    sums = rows.values_list("provider", "model", "rate_set_id").annotate(
        **{f"sum_{name}": ExactSum(name) for name in SUM_FIELDS}
    )
    return {tuple(row[:3]): dict(zip(SUM_FIELDS, row[3:], strict=True)) for row in sums}


def changed_periods(others_by_account: Mapping[int, Others], before: Period) -> dict[int, list[Period]]:
    """Billed periods before that one whose usage isn't what was billed, by account.

    Usage is compared by calls and digests: a correction changes them as a new call does.
    """
    billed_periods = {
        account_id: sorted(each.period for each in others if _is_regular(each) and each.period < before)
        for account_id, others in others_by_account.items()
    }
    account_ids = [account_id for account_id, periods in billed_periods.items() if periods]
    if not account_ids:
        return {}
    first = min(billed_periods[account_id][0] for account_id in account_ids)
    now = _usage_now(account_ids, first, before)
    billed = _usage_billed([each for account_id in account_ids for each in others_by_account[account_id]])
    return {
        account_id: [
            period
            for period in billed_periods[account_id]
            if now.get((account_id, period.start)) != billed.get((account_id, period.start))
        ]
        for account_id in account_ids
    }


def _is_regular(invoice: Invoice) -> bool:
    return invoice.kind == InvoiceKind.REGULAR


def _that_can_bill(others: Others, period: Period) -> list[int]:
    """Ids; an invoice bills its own period and earlier ones."""
    return [each.pk for each in others if each.period >= period]


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


_Counted = dict[tuple[int, date], tuple[int, ...]]
"""By account and first day of a month: calls and digest; not there where both are nothing."""


def _usage_now(account_ids: Iterable[int], first: Period, before: Period) -> _Counted:
    """The accounts' rollups are locked."""
    wanted = {
        "account__in": account_ids,
        "is_billable": True,
        "local_day__range": (first.start, before.previous.last_day),
    }
    by_month = (
        rows.filter(**wanted).annotate(month=TruncMonth("local_day"))
        for rows in rows_with("account_id", "local_day", "is_billable")
    )
    return _counted(by_month, "account_id", "month")


def _usage_billed(others: Others) -> _Counted:
    rows = BilledUsage.objects.filter(invoice__in=[each.pk for each in others])
    return _counted([rows], "invoice__account_id", "period_start")


def _counted(parts: Iterable[QuerySet[Any]], *group: str) -> _Counted:
    sums = {f"sum_{name}": Sum(name) for name in _COUNTED}
    added: dict[tuple[int, date], tuple[int, ...]] = {}
    for rows in parts:
        for account_id, start, *found in rows.order_by().values_list(*group).annotate(**sums):
            before = added.get((account_id, start), (0,) * len(_COUNTED))
            added[account_id, start] = tuple(map(sum, zip(before, found, strict=True)))
    counted = {key: (calls, *(word % 2**32 for word in words)) for key, (calls, *words) in added.items()}
    return {key: counts for key, counts in counted.items() if any(counts)}
