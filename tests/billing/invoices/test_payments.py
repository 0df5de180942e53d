"""Payments: in parts, undone, and what is left to pay."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, transaction
from django.utils import timezone

from billing.calendar import sellers_date
from billing.enums import InvoiceState
from billing.errors import InvoiceError
from billing.invoices.crediting import credit
from billing.invoices.payments import balance_of, balances, find_overdue
from billing.invoices.review import mark_paid, undo_payment
from billing.models import Invoice, Payment
from tests.billing.admin.pages import OCTOBER, make_issued
from tests.billing.factories import make_account, make_invoice, make_profile
from tests.billing.months import approver, findings, preparer, through_review

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture
def invoice() -> Invoice:
    """119.00."""
    return make_issued(tokens=50_000_000, tax_percent=Decimal(19))


def today() -> date:
    return timezone.now().date()


def pay(invoice: Invoice, amount: str | None = None, **values: str) -> Invoice:
    given = None if amount is None else Decimal(amount)
    return mark_paid(invoice.pk, user=approver(), paid_on=today(), amount=given, **values)


def undo(invoice: Invoice, payment: Payment) -> Invoice:
    return undo_payment(invoice.pk, user=approver(), reason="bounced", payment_id=payment.pk)


def outstanding(invoice: Invoice) -> Decimal:
    return balance_of(Invoice.objects.get(pk=invoice.pk)).outstanding


def given_back(invoice: Invoice, amount: str | None = None) -> Invoice:
    [line] = invoice.lines.all()
    amounts = None if amount is None else {line.pk: Decimal(amount)}
    return through_review(credit(invoice.pk, user=approver(), reason="an outage", amounts=amounts))


def test_an_invoice_is_paid_in_parts(invoice: Invoice) -> None:
    assert pay(invoice, "50", reference="4711").state == InvoiceState.ISSUED
    assert outstanding(invoice) == Decimal(69)
    paid = pay(invoice, "69", reference="4712")
    assert (paid.state, paid.paid_on, outstanding(invoice)) == (InvoiceState.PAID, today(), Decimal(0))
    assert [(each.amount, each.reference) for each in Payment.objects.order_by("id")] == [
        (Decimal(50), "4711"),
        (Decimal(69), "4712"),
    ]
    assert [event.to_state for event in invoice.events.filter(action="pay").order_by("id")] == ["issued", "paid"]
    assert findings(OCTOBER) == []


def test_without_an_amount_the_rest_is_paid(invoice: Invoice) -> None:
    pay(invoice, "50")
    assert pay(invoice).state == InvoiceState.PAID
    assert Payment.objects.latest("id").amount == Decimal(69)
    with pytest.raises(InvoiceError, match="status is “paid”"):
        pay(invoice)
    assert Payment.objects.count() == 2


def test_a_payment_is_undone_by_a_row_of_its_own(invoice: Invoice) -> None:
    pay(invoice, "50")
    pay(invoice)
    last = Payment.objects.latest("id")
    undone = undo(invoice, last)
    assert (undone.state, undone.paid_on, outstanding(invoice)) == (InvoiceState.ISSUED, None, Decimal(69))
    reversal = Payment.objects.get(reverses=last)
    assert (reversal.amount, reversal.reason, Payment.objects.count()) == (Decimal(-69), "bounced", 3)
    with pytest.raises(InvoiceError, match="undone already"):
        undo(invoice, last)
    with pytest.raises(InvoiceError, match="undone already"):
        undo(invoice, reversal)
    undo(invoice, Payment.objects.earliest("id"))
    assert outstanding(invoice) == Decimal(119)
    assert findings(OCTOBER) == []
    assert pay(invoice).state == InvoiceState.PAID


@pytest.mark.parametrize(
    ("amount", "sentence"),
    [
        ("119.01", r"119\.01 exceeds the 119\.00 USD outstanding"),
        ("0", "positive amount"),
        ("-5", "positive amount"),
        ("1.001", "at most 2 decimals"),
        ("NaN", "positive amount"),
    ],
)
def test_what_cant_have_been_paid_is_refused(invoice: Invoice, amount: str, sentence: str) -> None:
    with pytest.raises(InvoiceError, match=sentence):
        pay(invoice, amount)
    assert not Payment.objects.exists()
    assert Invoice.objects.get().state == InvoiceState.ISSUED


def test_only_who_may_issue_records_payments(invoice: Invoice) -> None:
    with pytest.raises(InvoiceError, match="permission"):
        mark_paid(invoice.pk, user=preparer(), paid_on=today())
    pay(invoice)
    with pytest.raises(InvoiceError, match="permission"):
        undo_payment(invoice.pk, user=preparer(), reason="x", payment_id=Payment.objects.get().pk)
    with pytest.raises(InvoiceError, match="Give a reason"):
        undo_payment(invoice.pk, user=approver(), reason=" ", payment_id=Payment.objects.get().pk)
    assert Invoice.objects.get().state == InvoiceState.PAID


def test_a_credit_note_lessens_what_is_left_to_pay(invoice: Invoice) -> None:
    note = given_back(invoice, "20")
    assert outstanding(invoice) == Decimal("95.20")
    assert outstanding(note) == Decimal(0)
    paid = pay(invoice)
    assert (paid.state, Payment.objects.get().amount) == (InvoiceState.PAID, Decimal("95.20"))
    assert pay(note).state == InvoiceState.PAID
    assert Payment.objects.count() == 1
    assert findings(OCTOBER) == []


def test_what_was_paid_too_much_is_refunded_on_the_credit_note(invoice: Invoice) -> None:
    pay(invoice)
    note = given_back(invoice, "20")
    assert outstanding(invoice) == outstanding(note) == Decimal("-23.80")
    assert pay(note, "10").state == InvoiceState.ISSUED
    assert outstanding(invoice) == Decimal("-13.80")
    refunded = pay(note)
    assert (refunded.state, outstanding(invoice), outstanding(note)) == (InvoiceState.PAID, Decimal(0), Decimal(0))
    assert [each.amount for each in Payment.objects.filter(invoice=note).order_by("id")] == [
        Decimal(-10),
        Decimal("-13.80"),
    ]
    undo(note, Payment.objects.filter(invoice=note).latest("id"))
    assert outstanding(invoice) == Decimal("-13.80")


def test_an_invoice_is_overdue_until_nothing_is_left(invoice: Invoice) -> None:
    after = timezone.now() + timedelta(days=40)
    assert find_overdue() == []
    assert [each.pk for each in find_overdue(now=after)] == [invoice.pk]
    assert not balance_of(invoice).is_overdue(invoice.due_on or sellers_date())
    pay(invoice, "50")
    assert [each.pk for each in find_overdue(now=after)] == [invoice.pk]
    given_back(invoice)
    assert outstanding(invoice) == Decimal(-50)
    assert find_overdue(now=after) == []


def test_many_balances_take_few_queries(invoice: Invoice, django_assert_num_queries: Any) -> None:
    given_back(invoice, "20")
    found = list(Invoice.objects.all())
    with django_assert_num_queries(5):
        assert set(balances(found * 3)) == {each.pk for each in found}


def test_the_database_refuses_changes(invoice: Invoice) -> None:
    pay(invoice)
    for refused in (
        lambda: Payment.objects.update(amount=Decimal(1)),
        lambda: Payment.objects.get().delete(),
        lambda: Invoice.objects.update(state="issued", paid_on=None),
        lambda: Invoice.objects.update(paid_on=date(2026, 1, 1)),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            refused()
    assert Invoice.objects.get().state == InvoiceState.PAID


def test_former_payments_are_recorded_by_the_migration(invoice: Invoice) -> None:
    migration = import_module("billing.migrations.0018_payments")
    given_back(invoice, "20")
    pay(invoice)
    note = given_back(invoice, "10")
    pay(note)
    recorded = list(Payment.objects.order_by("id").values("invoice", "amount", "paid_on", "recorded_by"))
    others = make_invoice(make_profile(make_account("Other")), state=InvoiceState.PAID, number=99)
    migration.record_former_payments(apps, None)
    made = list(Payment.objects.order_by("id").values("invoice", "amount", "paid_on", "recorded_by"))[len(recorded) :]
    assert made[: len(recorded)] == recorded
    assert made[-1] == {"invoice": others.pk, "amount": Decimal(10), "paid_on": others.paid_on, "recorded_by": None}
