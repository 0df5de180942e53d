"""Goodwill: what was given back for a month isn't given back again if the month turns out to cost less.

A goodwill credit of 20.00 on a month of 100.00 leaves 80.00 to pay, whatever the month comes to between 80.00 and
100.00. Below 80.00 the customer pays what the month costs; above 100.00, 20.00 less than that. So the order in which
prices go up and down doesn't matter, and a month is never charged less than nothing.

Under content version 1, reductions were given back in full, whatever had been credited. That stays given: it isn't
charged again because the rule has changed.

A month that was corrected may be billed again in another currency. Goodwill given in the former one still counts, at
the month's exchange rates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.currencies import DECIMALS
from billing.enums import LineKind
from billing.invoices.late_usage import PriorInvoices
from billing.models import Invoice, InvoiceLine
from billing.periods import BillingPeriod
from billing.rating.lines import month_line
from billing.types import ChargeLine
from llm.money import exact_sum, round_half_away

KEY = "goodwill"
_GAVE_BACK_WHOLE = 1
"""The `content_version` of such invoices."""
DESCRIPTION = "Goodwill that was credited already"


@dataclass(frozen=True, slots=True)
class Goodwill:
    """A goodwill credit for a month. charged: what the month had been charged when it was given. Without tax.

    is_here: whether its document is in the requested currency; otherwise the amounts are converted.
    """

    amount: Decimal
    charged: Decimal
    is_here: bool = True

    def applied_to(self, charge: Decimal) -> Decimal:
        """What is left to pay of a month that comes to `charge`."""
        if charge >= self.charged:
            return charge - self.amount
        return min(charge, self.charged - self.amount)


@dataclass(frozen=True, slots=True)
class _Amount:
    """What one document charges for the month, without tax. per_usd: the exchange rate of the month on it."""

    invoice: Invoice
    amount: Decimal
    per_usd: Decimal

    @property
    def gave_back_whole(self) -> bool:
        invoice = self.invoice
        return self.amount < 0 and not invoice.is_goodwill and invoice.content_version == _GAVE_BACK_WHOLE


def goodwill_line(
    lines: Sequence[ChargeLine], period: BillingPeriod, others: PriorInvoices, *, per_usd: Decimal | None, decimals: int
) -> tuple[ChargeLine, ...]:
    """The line for goodwill beside the month's lines; usually there is none.

    Positive: the part of it that reductions have used up. Negative: given in another currency, and counting in this
    one.
    per_usd: the month's exchange rate; None in USD.
    """
    found = find_goodwill(others, period, per_usd=per_usd)
    if not found:
        return ()
    charge = left = exact_sum(line.amount for line in lines)
    for each in found:
        left = each.applied_to(left)
    due = left - charge + exact_sum(each.amount for each in found if each.is_here)
    if not due:
        return ()
    return (month_line(LineKind.GOODWILL, KEY, DESCRIPTION, due, decimals=decimals),)


def find_goodwill(others: PriorInvoices, period: BillingPeriod, *, per_usd: Decimal | None) -> list[Goodwill]:
    """In the order of submission. per_usd: see `goodwill_line`."""
    elsewhere = _goodwill_elsewhere(others, period)
    if not (others.goodwill or elsewhere):
        return []
    amounts = list(_amounts([*others.charging, *others.elsewhere] if elsewhere else others.charging, period))
    settled = max((position for position, each in enumerate(amounts) if each.gave_back_whole), default=-1)
    wanted = {each.pk for each in (*others.goodwill, *elsewhere)}
    charged: dict[str, Decimal] = {}
    found = []
    for position, each in enumerate(amounts):
        before = charged.get(each.invoice.currency, Decimal(0))
        charged[each.invoice.currency] = before + each.amount
        if each.amount and each.invoice.pk in wanted and position > settled:
            given = Goodwill(-each.amount, before)
            is_here = each.invoice.currency == others.currency
            found.append(given if is_here else _exchanged(given, each.per_usd, per_usd, others.currency))
    return found


def _exchanged(given: Goodwill, former: Decimal, per_usd: Decimal | None, currency: str) -> Goodwill:
    """Converted at the month's rates, rounded to the currency's decimals."""
    amount, charged = (
        round_half_away(each * (per_usd or 1) / former, DECIMALS[currency]) for each in (given.amount, given.charged)
    )
    return Goodwill(amount, charged, is_here=False)


def _goodwill_elsewhere(others: PriorInvoices, period: BillingPeriod) -> list[Invoice]:
    """Given in other currencies: all of it if a correction moved the month to this one; if it moved on, what was given
    before that.
    """
    if period not in others.corrected:
        return []
    given = [each for each in others.elsewhere if each.is_goodwill]
    if not given or others.corrected[period]:
        return given
    here = [each for each in others.billing if not each.is_correction]
    last = max((_since(each) for each in here), default=None)
    return [] if last is None else [each for each in given if _since(each) < last]


def _since(invoice: Invoice) -> tuple[bool, object, int]:
    return (invoice.submitted_at is not None, invoice.submitted_at, invoice.pk)


def _amounts(documents: Sequence[Invoice], period: BillingPeriod) -> Iterator[_Amount]:
    """In the order of submission."""
    rows = InvoiceLine.objects.filter(invoice__in=[each.pk for each in documents], period_start=period.start)
    amounts: dict[int, Decimal] = {}
    rates: dict[int, Decimal] = {}
    for invoice_id, amount, per_usd in rows.order_by().values_list("invoice_id", "amount", "per_usd"):
        amounts[invoice_id] = amounts.get(invoice_id, Decimal(0)) + amount
        if per_usd is not None:
            rates[invoice_id] = per_usd
    for each in sorted(documents, key=_since):
        if each.pk in amounts:
            # Lines of version 1 don't state their rate: it is their invoice's.
            yield _Amount(each, amounts[each.pk], rates.get(each.pk) or each.per_usd or Decimal(1))
