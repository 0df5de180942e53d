"""The demo's invoices: each month is closed, reviewed, issued and paid by the code that does so every month."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.contrib.auth.models import Group, User
from django.db.models import QuerySet

from billing.enums import InvoiceKind, InvoiceState
from billing.errors import BillingError
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit
from billing.invoices.exchange_rates import add_rate
from billing.invoices.review import approve, issue, mark_paid, submit, void
from billing.management.demo.cast import APPROVER, PREPARER, STAFF, Customer, Stage
from billing.management.demo.clock import example_seller, set_clock
from billing.models import ExchangeRate, Invoice
from billing.periods import BillingPeriod, months_between

OnMonth = Callable[[BillingPeriod], None]

_CURRENCY = "EUR"
_PER_USD = ("0.92", "0.91", "0.93", "0.95", "0.94", "0.9", "0.88", "0.87", "0.86", "0.85", "0.86", "0.87")
_LATE_PAYERS = 5
"""One in so many invoices of the month before last is not paid yet."""


def write_staff() -> tuple[User, User]:
    """The preparer and the approver; they can't sign in until a password is set."""
    for name, group in STAFF:
        user, is_new = User.objects.get_or_create(username=name, defaults={"is_staff": True})
        if is_new:
            user.set_unusable_password()
            user.save()
            user.groups.add(Group.objects.get(name=group))
    return User.objects.get(username=PREPARER), User.objects.get(username=APPROVER)


def write_exchange_rates(first: date, until: date) -> None:
    for number, period in enumerate(months_between(BillingPeriod.of(first), BillingPeriod.of(until))):
        if not ExchangeRate.objects.filter(currency=_CURRENCY, on=period.start).exists():
            per_usd = Decimal(_PER_USD[number % len(_PER_USD)])
            add_rate(_CURRENCY, per_usd, on=period.start, source="Demo data")


def bill_months(customers: Sequence[Customer], first: date, until: datetime, *, on_month: OnMonth) -> None:
    """Months that have ended: older ones are paid, the month before last is partly overdue, the last is in review."""
    preparer, approver = write_staff()
    last = BillingPeriod.of(until.date()).previous
    with example_seller():
        for period in months_between(BillingPeriod.of(first), last):
            on_month(period)
            with set_clock(min(_moment(period.end, 1), until)):
                close_month(period)
            if period < last:
                _settle(_of(customers, period), preparer, approver, until=until, is_recent=period == last.previous)
            else:
                _review(_of(customers, period), customers, preparer, approver)


def _of(customers: Sequence[Customer], period: BillingPeriod) -> QuerySet[Invoice]:
    """Only of these: the database may have other accounts, without calls."""
    names = [customer.name for customer in customers]
    invoices = Invoice.objects.filter(account__name__in=names, period_start=period.start)
    return invoices.exclude(kind=InvoiceKind.CREDIT_NOTE).select_related("account").order_by("account__id")


def _settle(invoices: QuerySet[Invoice], preparer: User, approver: User, *, until: datetime, is_recent: bool) -> None:
    """Issued on the third of the next month, and paid within two weeks by most; what is blocked stays as it is."""
    first = invoices.first()
    if first is None:
        return
    submitted_at, issued_at = (min(_moment(first.period.end, day), until) for day in (1, 3))
    with set_clock(submitted_at):
        for draft in list(invoices.filter(state=InvoiceState.DRAFT)):
            with suppress(BillingError):
                submit(draft.pk, user=preparer)
    with set_clock(issued_at):
        for invoice in list(invoices.filter(state__in=(InvoiceState.IN_REVIEW, InvoiceState.APPROVED))):
            with suppress(BillingError):
                if invoice.state == InvoiceState.IN_REVIEW:
                    approve(invoice.pk, user=approver)
                issue(invoice.pk, user=approver)
    issued = list(invoices.filter(state=InvoiceState.ISSUED))
    for number, invoice in enumerate(issued):
        paid_at = issued_at + timedelta(days=4 + number % 9)
        if paid_at <= until and not (is_recent and number % _LATE_PAYERS == 1):
            with set_clock(paid_at):
                mark_paid(invoice.pk, user=approver, paid_on=paid_at.date())
    if is_recent and issued and not issued[0].credit_notes.exists():
        with set_clock(min(issued_at + timedelta(days=6), until)):
            _credit(issued[0], preparer, approver)


def _credit(invoice: Invoice, preparer: User, approver: User) -> None:
    line = max(invoice.lines.all(), key=lambda each: each.amount)
    amount = (line.amount / 4).quantize(Decimal("0.01"))
    note = credit(invoice.pk, user=approver, reason="Slow answers on the 12th", amounts={line.pk: amount})
    submit(note.pk, user=preparer)
    approve(note.pk, user=approver)
    issue(note.pk, user=approver)


def _review(invoices: QuerySet[Invoice], customers: Sequence[Customer], preparer: User, approver: User) -> None:
    """Each customer's as far as it goes: what is blocked, or not over where the customer is, stays a draft."""
    stages = {customer.name: customer.stage for customer in customers}
    for draft in list(invoices.filter(state=InvoiceState.DRAFT)):
        stage = stages[draft.account.name]
        with suppress(BillingError):
            if stage >= Stage.IN_REVIEW:
                submit(draft.pk, user=preparer)
            if stage >= Stage.APPROVED:
                approve(draft.pk, user=approver)
            if stage == Stage.ISSUED:
                issue(draft.pk, user=approver)
            elif stage == Stage.VOID:
                void(draft.pk, user=approver, reason="Trial month, agreed with the customer")


def _moment(month_end: date, days: int) -> datetime:
    """In the morning, so many days after the first of the month."""
    return datetime.combine(month_end + timedelta(days=days), time(9, 30), UTC)
