"""Goodwill: what it gave back of a month isn't given back a second time when the month turns out to cost less.

A goodwill credit of 20.00 on a month of 100.00 leaves 80.00 to pay, whatever the month comes to between 80.00 and
100.00. Below 80.00 the customer pays what the month costs; above 100.00, 20.00 less than that. So the order in which
prices go up and down doesn't matter, and a month is never charged less than nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.enums import LineKind
from billing.late import Others
from billing.models import Invoice, InvoiceLine
from billing.periods import Period
from billing.rating.lines import month_line
from billing.types import ChargeLine
from llm.money import exact_sum

KEY = "goodwill"
DESCRIPTION = "Goodwill that was credited already"


@dataclass(frozen=True, slots=True)
class Goodwill:
    """A credit of a month. charged: what the month was charged when it was given. Without tax."""

    amount: Decimal
    charged: Decimal

    def applied_to(self, charge: Decimal) -> Decimal:
        """What is left to pay of a month that comes to `charge`."""
        if charge >= self.charged:
            return charge - self.amount
        return min(charge, self.charged - self.amount)


def goodwill_line(
    lines: Sequence[ChargeLine], period: Period, others: Others, *, decimals: int
) -> tuple[ChargeLine, ...]:
    """What reductions of the month have used up of its goodwill, as a line beside the others; mostly none."""
    found = goodwill_of(others, period)
    if not found:
        return ()
    charge = left = exact_sum(line.amount for line in lines)
    for each in found:
        left = each.applied_to(left)
    used = left - charge + exact_sum(each.amount for each in found)
    if not used:
        return ()
    return (month_line(LineKind.GOODWILL, KEY, DESCRIPTION, used, decimals=decimals),)


def goodwill_of(others: Others, period: Period) -> list[Goodwill]:
    """In the order in which it was submitted."""
    if not others.goodwill:
        return []
    amounts = _amounts(others, period)
    in_order = sorted(others.charging, key=_since)
    found, charged = [], Decimal(0)
    for each in in_order:
        amount = amounts.get(each.pk, Decimal(0))
        if each.is_goodwill and amount:
            found.append(Goodwill(-amount, charged))
        charged += amount
    return found


def _since(invoice: Invoice) -> tuple[bool, object, int]:
    return (invoice.submitted_at is not None, invoice.submitted_at, invoice.pk)


def _amounts(others: Others, period: Period) -> dict[int, Decimal]:
    """What each document charges of the month, without tax."""
    rows = InvoiceLine.objects.filter(invoice__in=[each.pk for each in others.charging], period_start=period.start)
    amounts: dict[int, Decimal] = {}
    for invoice_id, amount in rows.order_by().values_list("invoice_id", "amount"):
        amounts[invoice_id] = amounts.get(invoice_id, Decimal(0)) + amount
    return amounts
