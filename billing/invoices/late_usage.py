"""What was billed for a period so far, and which billed periods have changed since.

Billed is what is on frozen documents that aren't void: on invoices and supplements, less what reductions and
corrections took back. Goodwill gives money back and leaves the usage billed; `billing.invoices.goodwill` says how it
counts. `others`: such documents of one account and currency, see `find_prior_invoices`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from django.db.models import QuerySet, Sum
from django.db.models.functions import TruncMonth

from billing.enums import InvoiceKind, InvoiceState, LineKind
from billing.invoices.one_offs import keys_with_own_tax
from billing.models import BilledUsage, BillingProfile, Invoice, InvoiceLine
from billing.models.invoices import FINAL_STATES
from billing.models.rollups import SUM_FIELDS
from billing.periods import BillingPeriod
from billing.rollup import rows_with
from billing.types import NO_DIGEST, ChargeLine
from llm.digests import DIGEST_FIELDS, words_of_hex
from llm.fields import ExactSum
from llm.money import exact_sum, usd_to_pico

_MAX_DESCRIPTION = 300
_COUNTED = ("calls", *DIGEST_FIELDS)


@dataclass(frozen=True, slots=True)
class PriorInvoices:
    """What an account was charged in one currency, as far as it matters to a document that is being computed.

    charging: documents that count, including goodwill. corrected: months with an issued correction in any currency, and
    whether this currency is the one in which they are billed now. elsewhere: documents that count, in other currencies.
    """

    currency: str
    charging: Sequence[Invoice]
    corrected: Mapping[BillingPeriod, bool] = field(default_factory=dict)
    elsewhere: Sequence[Invoice] = ()

    @property
    def billing(self) -> Sequence[Invoice]:
        """Documents whose lines bill usage, or take it back."""
        return [each for each in self.charging if not each.is_goodwill]

    @property
    def goodwill(self) -> Sequence[Invoice]:
        return [each for each in self.charging if each.is_goodwill]

    @property
    def corrections(self) -> Sequence[Invoice]:
        return [each for each in self.charging if each.is_correction]


def load_invoices(account_ids: Iterable[int]) -> Mapping[int, list[Invoice]]:
    """The accounts' invoices that aren't void, by period, with the terms that they were calculated under."""
    found: dict[int, list[Invoice]] = defaultdict(list)
    rows = Invoice.objects.filter(account__in=account_ids).exclude(state=InvoiceState.VOID)
    for invoice in rows.select_related("plan_version", "exchange_rate").order_by("period_start", "id"):
        found[invoice.account_id].append(invoice)
    return found


def find_prior_invoices(invoice: Invoice, invoices: Iterable[Invoice], *, profile: BillingProfile) -> PriorInvoices:
    """The account's documents that count beside this one, in its currency.

    profile: the account's; a month that was corrected wholly is billed again in the profile's currency.
    """
    charging = [each for each in invoices if is_charging(each) and each.pk != invoice.pk]
    return PriorInvoices(
        invoice.currency,
        [each for each in charging if each.currency == invoice.currency],
        {
            period: currency == invoice.currency
            for period, currency in _currencies_of_corrected(charging, profile).items()
        },
        [each for each in charging if each.currency != invoice.currency],
    )


def is_charging(invoice: Invoice) -> bool:
    """Same condition as `InvoiceQuerySet.charging`."""
    return invoice.is_frozen and (not invoice.is_correction or invoice.state in FINAL_STATES)


def currency_of_month(period: BillingPeriod, invoices: Sequence[Invoice], profile: BillingProfile) -> str:
    """The currency in which the month is billed; late usage is charged in the currency of the month's invoice."""
    charging = [each for each in invoices if is_charging(each)]
    corrected = _currencies_of_corrected(charging, profile)
    regular = next((each for each in charging if _is_regular(each) and each.period == period), None)
    return corrected.get(period, profile.currency_in(period) if regular is None else regular.currency)


def regular_of(others: PriorInvoices, period: BillingPeriod) -> Invoice | None:
    """The frozen regular invoice of the period."""
    return next((each for each in others.charging if _is_regular(each) and each.period == period), None)


def last_charge(others: PriorInvoices, period: BillingPeriod) -> InvoiceLine | None:
    """A line of the document that last billed the period since its last correction; late usage is charged at its terms.

    Invoices come before credit notes, which carry the tax of what they credit.
    """
    lines = _lines_of_month(others, period)
    since = max((_issued(line.invoice) for line in lines if line.invoice.is_correction), default=0.0)
    charges = [line for line in lines if not line.invoice.is_correction and _submitted(line.invoice) >= since]
    if charges:
        own_tax = keys_with_own_tax(charges[0].invoice.account_id, period)
        charges = [line for line in charges if line.key not in own_tax]
    return max(charges, key=lambda line: (not line.invoice.is_reduction, _submitted(line.invoice)), default=None)


def as_billed_last(others: PriorInvoices, period: BillingPeriod) -> PriorInvoices:
    """Without corrections after which the month hasn't been billed again yet."""
    lines = _lines_of_month(others, period)
    last = max((_submitted(line.invoice) for line in lines if not line.invoice.is_correction), default=0.0)
    pending = {line.invoice_id for line in lines if line.invoice.is_correction and _issued(line.invoice) > last}
    is_done = any(line.invoice.is_correction and line.invoice_id not in pending for line in lines)
    is_done = is_done or _was_corrected_elsewhere(others, period, last)
    corrected = {each: is_here for each, is_here in others.corrected.items() if each != period or is_done}
    charging = [each for each in others.charging if each.pk not in pending]
    return replace(others, charging=charging, corrected=corrected)


def _was_corrected_elsewhere(others: PriorInvoices, period: BillingPeriod, until: float) -> bool:
    """Whether it was corrected in another currency before it was last billed in this one."""
    corrections = [each.pk for each in others.elsewhere if each.is_correction and _issued(each) <= until]
    lines = InvoiceLine.objects.filter(invoice__in=corrections, period_start=period.start)
    return bool(corrections) and lines.exists()


def _lines_of_month(others: PriorInvoices, period: BillingPeriod) -> list[InvoiceLine]:
    lines = InvoiceLine.objects.filter(invoice__in=[each.pk for each in others.billing], period_start=period.start)
    return list(lines.exclude(kind=LineKind.GOODWILL).select_related("invoice", "plan_version"))


def _issued(invoice: Invoice) -> float:
    return 0.0 if invoice.issued_at is None else invoice.issued_at.timestamp()


def _submitted(invoice: Invoice) -> float:
    return 0.0 if invoice.submitted_at is None else invoice.submitted_at.timestamp()


def billed_lines(others: PriorInvoices, period: BillingPeriod) -> tuple[ChargeLine, ...]:
    """The period's lines on these invoices, summed by key."""
    if not (billing := ids_that_can_bill(others, period)):
        return ()
    return added_lines(InvoiceLine.objects.filter(invoice__in=billing, period_start=period.start))


def added_lines(rows: QuerySet[InvoiceLine]) -> tuple[ChargeLine, ...]:
    """The lines summed up, one per key."""
    by_key: dict[str, list[InvoiceLine]] = defaultdict(list)
    for row in rows.select_related("invoice").order_by("invoice", "position"):
        by_key[row.key].append(row)
    return tuple(_added(group) for group in by_key.values())


def described(description: str, period: BillingPeriod, invoice: Invoice) -> str:
    """The line's description on this document, which names the month unless it is the document's own."""
    text = description if period == invoice.period else f"{_month_prefix(period)}{description}"
    return text[:_MAX_DESCRIPTION]


def _plain_description(row: InvoiceLine) -> str:
    """Without the month that its document put in front of it."""
    is_late = row.period_start != row.invoice.period_start
    return row.description.removeprefix(_month_prefix(BillingPeriod(row.period_start))) if is_late else row.description


def _month_prefix(period: BillingPeriod) -> str:
    return f"{period}: "


def billed_usage(others: PriorInvoices, period: BillingPeriod) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    """Sums of `UsageSums` by (provider, model, rate set id) over these invoices."""
    billing = ids_that_can_bill(others, period)
    return usage_on(billing, period.start) if billing else {}


def usage_on(document_ids: Sequence[int], start: date) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    """`billed_usage` of one month, on these documents."""
    rows = BilledUsage.objects.filter(invoice__in=document_ids, period_start=start).order_by()
    sums = rows.values_list("provider", "model", "rate_set_id").annotate(
        **{f"sum_{name}": ExactSum(name) for name in SUM_FIELDS}
    )
    return {tuple(row[:3]): dict(zip(SUM_FIELDS, row[3:], strict=True)) for row in sums}


def changed_periods(
    others_by_account: Mapping[int, PriorInvoices], before: BillingPeriod | None = None
) -> dict[int, list[BillingPeriod]]:
    """Billed periods before that one (None: all) whose usage differs from what was billed, by account.

    Usage is compared by calls and digests: a correction changes them like a new call. A month with lines that were
    credited to be billed again is included, whether its usage has changed or not. If all are requested, also months
    that only later invoices have billed, because their own was voided.
    """
    billed = _usage_billed([each for others in others_by_account.values() for each in others.billing])
    found: dict[int, set[BillingPeriod]] = {
        account_id: {each.period for each in others.charging if _is_regular(each)}
        for account_id, others in others_by_account.items()
    }
    if before is None:
        for account_id, start in billed:
            found[account_id].add(BillingPeriod(start))
    candidates = {
        account_id: sorted(period for period in periods if before is None or period < before)
        for account_id, periods in found.items()
    }
    changed = _changed({account_id: periods for account_id, periods in candidates.items() if periods}, billed)
    for account_id, others in others_by_account.items():
        if others.corrected:
            again = {period for period, is_here in others.corrected.items() if is_here}
            wanted = again.union(changed.get(account_id, ())) - _elsewhere(others)
            changed[account_id] = sorted(period for period in wanted if before is None or period < before)
    return changed


def _changed(candidates: Mapping[int, Sequence[BillingPeriod]], billed: _Counted) -> dict[int, list[BillingPeriod]]:
    if not candidates:
        return {}
    first = min(periods[0] for periods in candidates.values())
    last = max(periods[-1] for periods in candidates.values())
    now = _usage_now(candidates, first, last)
    return {
        account_id: [
            period
            for period in periods
            if now.get((account_id, period.start)) != billed.get((account_id, period.start))
        ]
        for account_id, periods in candidates.items()
    }


def _elsewhere(others: PriorInvoices) -> set[BillingPeriod]:
    return {period for period, is_here in others.corrected.items() if not is_here}


def _currencies_of_corrected(charging: Sequence[Invoice], profile: BillingProfile) -> dict[BillingPeriod, str]:
    corrections = [each.pk for each in charging if each.is_correction]
    if not corrections:
        return {}
    starts = InvoiceLine.objects.filter(invoice__in=corrections).order_by().values_list("period_start", flat=True)
    periods = {BillingPeriod(start) for start in starts.distinct()}
    return {each: _currency_of_corrected(each, charging, profile.currency_in(each)) for each in periods}


def _currency_of_corrected(period: BillingPeriod, charging: Sequence[Invoice], currency_now: str) -> str:
    """The currency of its latest invoice, unless all that was billed in it was taken back."""
    billing = [each for each in charging if not each.is_goodwill]
    rows = InvoiceLine.objects.filter(invoice__in=[each.pk for each in billing], period_start=period.start)
    rows = rows.exclude(kind=LineKind.GOODWILL)
    with_lines = set(rows.order_by().values_list("invoice_id", flat=True))
    currency = max(
        (each for each in billing if each.pk in with_lines and each.kind != InvoiceKind.CREDIT_NOTE),
        key=_submitted,
    ).currency
    left = added_lines(rows.filter(invoice__currency=currency))
    return currency if any(line.exact_amount or line.quantity for line in left) else currency_now


def _is_regular(invoice: Invoice) -> bool:
    return invoice.kind == InvoiceKind.REGULAR


def ids_that_can_bill(others: PriorInvoices, period: BillingPeriod) -> list[int]:
    """Ids of documents that may bill the period: a document bills its own period and earlier ones."""
    return [each.pk for each in others.billing if each.period >= period]


def _added(rows: list[InvoiceLine]) -> ChargeLine:
    first = rows[0]
    quantities = [row.quantity for row in rows if row.quantity is not None]
    return ChargeLine(
        key=first.key,
        kind=LineKind(first.kind),
        description=_plain_description(first),
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
"""By account and first day of a month: calls and digest; omitted if both are zero."""


def _usage_now(account_ids: Iterable[int], first: BillingPeriod, last: BillingPeriod) -> _Counted:
    """Call it with the accounts' rollups locked."""
    wanted = {
        "account__in": list(account_ids),
        "is_billable": True,
        "local_day__range": (first.start, last.last_day),
    }
    by_month = (
        rows.filter(**wanted).annotate(month=TruncMonth("local_day"))
        for rows in rows_with("account_id", "local_day", "is_billable")
    )
    return _counted(by_month, "account_id", "month")


def _usage_billed(billing: Iterable[Invoice]) -> _Counted:
    rows = BilledUsage.objects.filter(invoice__in=[each.pk for each in billing])
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
