"""The index page's part on invoices: where the last month is, and what is still to be paid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django import template
from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.db.models import Count, QuerySet
from django.utils import timezone

from billing.admin.invoices.due import outstanding, overdue
from billing.currencies import format_money
from billing.enums import InvoiceKind, InvoiceState
from billing.invoices.payments import balances
from billing.models import Invoice
from billing.periods import BillingPeriod
from llm.fields import ExactSum
from llm.money import exact_sum

register = template.Library()

_STATES = (
    InvoiceState.DRAFT,
    InvoiceState.IN_REVIEW,
    InvoiceState.APPROVED,
    InvoiceState.ISSUED,
    InvoiceState.PAID,
)


@dataclass(frozen=True, slots=True)
class Sum:
    """amounts: as text, one for each currency."""

    number: int
    amounts: str


@dataclass(frozen=True, slots=True)
class MonthOfInvoices:
    """period: the last month that is over. states: value, label and number. former: all of the month before it."""

    period: BillingPeriod
    states: tuple[tuple[str, str, int], ...]
    total: Sum
    former: Sum
    outstanding: Sum
    overdue: Sum


@register.simple_tag
def invoices_of_last_month(user: PermissionsMixin | AnonymousUser) -> MonthOfInvoices | None:
    """None for people who may not see invoices."""
    return _read(timezone.now()) if user.has_perm("billing.view_invoice") else None


def _read(now: datetime) -> MonthOfInvoices:
    period = BillingPeriod.of(now.date()).previous
    invoices = Invoice.objects.exclude(kind=InvoiceKind.CREDIT_NOTE).exclude(state=InvoiceState.VOID)
    numbers = dict(
        invoices.filter(period_start=period.start).order_by().values_list("state").annotate(number=Count("id"))
    )
    by_month: dict[object, list[tuple[str, int, Decimal]]] = defaultdict(list)
    months = invoices.filter(period_start__in=(period.start, period.previous.start)).order_by()
    for start, *rest in months.values_list("period_start", "currency").annotate(Count("id"), ExactSum("total")):
        by_month[start].append((rest[0], rest[1], rest[2]))
    return MonthOfInvoices(
        period=period,
        states=tuple((state.value, state.label, numbers.get(state.value, 0)) for state in _STATES),
        total=_sum(by_month[period.start]),
        former=_sum(by_month[period.previous.start]),
        outstanding=_sum(_by_currency(outstanding(Invoice.objects.all()))),
        overdue=_sum(_by_currency(overdue(Invoice.objects.all(), now))),
    )


def _by_currency(invoices: QuerySet[Invoice]) -> list[tuple[str, int, Decimal]]:
    """Of each currency: how many there are, and what is left to pay of them."""
    found = list(invoices)
    left = balances(found)
    amounts: dict[str, list[Decimal]] = defaultdict(list)
    for invoice in found:
        amounts[invoice.currency].append(left[invoice.pk].outstanding)
    return [(currency, len(each), exact_sum(each)) for currency, each in amounts.items()]


def _sum(parts: Iterable[tuple[str, int, Decimal]]) -> Sum:
    rows = sorted(parts)
    amounts = " + ".join(f"{format_money(amount, currency)} {currency}" for currency, _, amount in rows)
    return Sum(sum(number for _, number, _ in rows), amounts)
