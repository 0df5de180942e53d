"""Whoever owns the database can switch its triggers off and change anything: `verify_books --month` says what.

Each forger switches them on again and redoes the digests of what was changed, as somebody would who knows the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F, QuerySet

from billing.invoices.digests import content_digest
from billing.models import (
    BilledUsage,
    ExchangeRate,
    Invoice,
    InvoiceEvent,
    InvoiceLine,
    InvoiceSeries,
    Payment,
    PlanVersion,
)
from llm.audit import verify
from llm.db.triggers import _found, drop_triggers, install_triggers
from llm.digests import DIGEST_FIELDS
from llm.models import Rate, Usage, UsageAdjustment
from tests.billing.calls import make_call
from tests.billing.october import make_october
from tests.databases import only_on_postgresql

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture(autouse=True)
def _books() -> None:
    """With the check that they are compared with."""
    make_october()
    verify()


def test_books_that_nobody_forged_are_in_order() -> None:
    assert verify().sentences == []
    assert complaints() == ""


def complaints() -> str:
    """What `verify_books --month` says; "" where all is in order."""
    output = StringIO()
    try:
        call_command("verify_books", "--month", "2026-10", stdout=output)
    except CommandError:
        return output.getvalue()
    return ""


@contextmanager
def triggers_off() -> Iterator[None]:
    drop_triggers(connection)
    yield
    install_triggers()


def invoice_of(name: str, kind: str = "regular") -> Invoice:
    return Invoice.objects.get(account__name=name, kind=kind)


def redo_digest(invoice: Invoice) -> None:
    digest = content_digest(Invoice.objects.get(pk=invoice.pk))
    Invoice.objects.filter(pk=invoice.pk).update(content_digest=digest, approved_digest=digest)


def change_invoice(kind: str = "regular", **values: object) -> None:
    invoice = invoice_of("Acme", kind)
    Invoice.objects.filter(pk=invoice.pk).update(**values)
    redo_digest(invoice)


def change_line(kind: str = "regular", **values: object) -> None:
    invoice = invoice_of("Acme", kind)
    line = invoice.lines.order_by("position")[0]
    InvoiceLine.objects.filter(pk=line.pk).update(**values)
    redo_digest(invoice)


def set_amount(kind: str, amount: Decimal) -> None:
    """The first line's, with all sums that follow from it."""
    change_line(kind, exact_amount=amount, amount=amount, residual=0, unit_price=None, quantity=None)
    invoice = invoice_of("Acme", kind)
    subtotal = sum(invoice.lines.values_list("amount", flat=True), Decimal(0))
    tax = (subtotal * Decimal("0.19")).quantize(Decimal("0.01"))
    change_invoice(kind, subtotal=subtotal, tax=tax, total=subtotal + tax)


def change_call(**values: object) -> None:
    call = Usage.objects.filter(account__name="Acme").order_by("id")[1]
    for name, value in values.items():
        setattr(call, name, value)
    call.stamp_digest()
    Usage.objects.filter(pk=call.pk).update(**values, **{name: getattr(call, name) for name in DIGEST_FIELDS})


def delete(rows: QuerySet[Any]) -> None:
    """Past what Django protects."""
    rows._raw_delete(using="default")


def delete_invoice() -> None:
    """The last one, its number given back: there is no gap."""
    note = invoice_of("Acme", "credit_note")
    for model in (InvoiceLine, InvoiceEvent, BilledUsage):
        model._default_manager.filter(invoice=note).delete()
    InvoiceSeries.objects.filter(pk=note.series_id).update(last_number=F("last_number") - 1)
    InvoiceEvent.objects.filter(action="credit").delete()
    note.delete()


def empty_everything() -> None:
    for model in (Payment, InvoiceLine, InvoiceEvent, BilledUsage, Invoice, InvoiceSeries, UsageAdjustment, Usage):
        delete(model._default_manager.all())


def swap_numbers() -> None:
    acme, globex = invoice_of("Acme"), invoice_of("Globex")
    Invoice.objects.filter(pk=acme.pk).update(number=99)
    Invoice.objects.filter(pk=globex.pk).update(number=acme.number)
    Invoice.objects.filter(pk=acme.pk).update(number=globex.number)


def back_date_call() -> None:
    call = Usage.objects.filter(account__name="Acme").order_by("id")[0]
    cutoff = invoice_of("Acme").cutoff_at
    assert cutoff is not None
    make_call(call.account, price=call.price, prompt_tokens=10, recorded_at=cutoff - timedelta(minutes=1))


def change_adjustment() -> None:
    adjustment = UsageAdjustment.objects.order_by("id")[0]
    adjustment.prompt_tokens, adjustment.cost = 400, Decimal("0.0008")
    adjustment.stamp_digest()
    values = {name: getattr(adjustment, name) for name in (*DIGEST_FIELDS, "prompt_tokens", "cost")}
    UsageAdjustment.objects.filter(pk=adjustment.pk).update(**values)


def add_event() -> None:
    event = invoice_of("Acme").events.latest("id")
    event.pk, event.action, event.to_state = None, "pay", "paid"
    event.save(force_insert=True)


SUBMITTED = "its content no longer matches its history"
DATED = "its number or its dates don't match its history"

FORGERIES: dict[str, tuple[Callable[[], object], str]] = {
    "tax": (lambda: change_invoice(tax_percent=0, tax=0, total=F("subtotal")), SUBMITTED),
    "bill to": (lambda: change_invoice(bill_to={**invoice_of("Acme").bill_to, "name": "Other"}), SUBMITTED),
    "seller": (lambda: change_invoice(seller={"name": "Other"}), SUBMITTED),
    "line's description": (lambda: change_line(description="Other"), SUBMITTED),
    "line's amount with all sums": (lambda: set_amount("regular", Decimal("0.01")), SUBMITTED),
    "line of a credit note": (lambda: set_amount("credit_note", Decimal(0)), SUBMITTED),
    "due date": (lambda: Invoice.objects.update(due_on=date(2027, 12, 31)), DATED),
    "issue date": (lambda: Invoice.objects.update(issued_on=date(2026, 11, 1)), DATED),
    "payment date": (lambda: Invoice.objects.filter(state="paid").update(paid_on=date(2026, 11, 2)), DATED),
    "numbers swapped": (swap_numbers, DATED),
    "line deleted": (lambda: delete(InvoiceLine.objects.filter(invoice=invoice_of("Globex"))), "its lines come to 0"),
    "invoice deleted": (delete_invoice, "invoices: there are 2, but there were 3 at an earlier check"),
    "issued made void": (
        lambda: Invoice.objects.filter(state="paid").update(
            state="void", series=None, number=None, issued_at=None, paid_on=None
        ),
        "Series INV-",
    ),
    "paid": (
        lambda: Invoice.objects.filter(state="issued", kind="regular").update(state="paid", paid_on=date(2026, 11, 9)),
        "its history does not end in its current state",
    ),
    "series raised": (lambda: InvoiceSeries.objects.update(last_number=9), "9 numbers assigned"),
    "event added": (add_event, "its history does not end in its current state"),
    "event changed": (
        lambda: InvoiceEvent.objects.filter(action="approve").update(reason="As agreed."),
        "invoice events: rows differ from an earlier check",
    ),
    "event deleted": (
        lambda: InvoiceEvent.objects.filter(action="approve").delete(),
        "invoice events: there are",
    ),
    "call deleted": (
        lambda: Usage.objects.filter(adjustments=None, account__name="Acme").delete(),
        "there are 4, but there were 6 at an earlier check",
    ),
    "call's tokens": (
        lambda: change_call(prompt_tokens=1, cost=Decimal("0.000002")),
        "are billed, but its calls come to",
    ),
    "call's request": (
        lambda: change_call(request_id="00000000-0000-0000-0000-000000000007"),
        "its calls are not the ones that were billed, although their figures agree",
    ),
    "call moved to another month": (
        lambda: change_call(local_day=date(2026, 9, 30)),
        "are billed, but its calls come to",
    ),
    "call back-dated": (back_date_call, "are billed, but its calls come to"),
    "adjustment": (change_adjustment, "are billed, but its calls come to"),
    "billed usage": (lambda: BilledUsage.objects.update(calls=7), "are billed, but its calls come to"),
    "rate of a price": (
        lambda: QuerySet(Rate).update(amount=Decimal(7)),
        "rates: rows differ from an earlier check",
    ),
    "exchange rate of an invoice": (
        lambda: ExchangeRate.objects.filter(currency="EUR").update(per_usd=Decimal("0.8")),
        "its exchange rate is 0.900000, but the rate it refers to is",
    ),
    "exchange rate of none": (
        lambda: ExchangeRate.objects.filter(currency="GBP").update(per_usd=Decimal("0.7")),
        "exchange rates: rows differ from an earlier check",
    ),
    "plan": (lambda: PlanVersion.objects.update(markup_percent=Decimal(20)), "is billed at"),
    "everything": (empty_everything, "there are 0, but there were 6 at an earlier check"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_was_forged_is_named(name: str) -> None:
    forge, sentence = FORGERIES[name]
    with triggers_off():
        forge()

    assert sentence in complaints()
    # Also to who asks again.
    verify()
    assert sentence in complaints()


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Invoice, {"currency": "EUx"}),
        (Invoice, {"content_version": 3}),
        (Invoice, {"taxes": [1]}),
        (InvoiceLine, {"digest": "no digest"}),
    ],
)
def test_a_value_that_nothing_can_read_is_named_and_hides_nothing(model: Any, values: dict[str, Any]) -> None:
    with triggers_off():
        model.objects.filter(pk=model.objects.order_by("pk")[0].pk).update(**values)
        forge, sentence = FORGERIES["exchange rate of none"]
        forge()

    said = complaints()
    assert "it holds a value that can't be read" in said
    assert sentence in said


def test_a_trigger_that_is_gone_is_named() -> None:
    drop_triggers(connection)

    assert "llm_keeps_billing_invoice_delete" in complaints()


def test_a_trigger_that_does_nothing_is_named_and_mended() -> None:
    name = next(each for each in _names() if each.startswith("llm_keeps_usage_delete_"))
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"DROP TRIGGER {name}")
            cursor.execute(f"CREATE TRIGGER {name} BEFORE DELETE ON llm_usage BEGIN SELECT 1; END")
        else:
            cursor.execute(
                "CREATE OR REPLACE FUNCTION llm_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN IF TG_OP = ''DELETE'' THEN RETURN OLD; END IF; RETURN NEW; END'"
            )

    assert f"The database's trigger {name} does something else than it should" in complaints()
    install_triggers()
    assert complaints() == ""


@only_on_postgresql("SQLite's triggers can't be disabled")
def test_a_disabled_trigger_is_named_and_mended() -> None:
    name = next(each for each in _names() if each.startswith("llm_keeps_billing_invoiceline_update_"))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE billing_invoiceline DISABLE TRIGGER {name}")

    assert f"The database's trigger {name} is disabled" in complaints()
    install_triggers()
    assert complaints() == ""


@only_on_postgresql("SQLite has no such setting")
@pytest.mark.parametrize("how", ["SET LOCAL", "ALTER ROLE CURRENT_USER IN DATABASE {database} SET"])
def test_a_session_without_triggers_is_named(how: str) -> None:
    database = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute(f"{how.format(database=database)} session_replication_role = replica")

    assert "session_replication_role is “replica” there" in complaints()


def _names() -> list[str]:
    return sorted(_found(connection))
