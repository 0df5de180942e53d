"""The worked examples of docs/accounting.md, figure by figure."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from billing.documents import invoice_context
from billing.invoices.crediting import credit, credit_and_bill_again
from billing.models import BillingProfile, Invoice, Plan
from billing.plans import add_version
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.months import (
    IN_SEPTEMBER,
    OCTOBER,
    SEPTEMBER,
    approver,
    charged,
    close_and_issue,
    findings,
    reprice,
    through_review,
)

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def september(*, tax: str = "19") -> Invoice:
    """A million tokens at 100.00."""
    account = make_account()
    make_profile(account, tax_percent=Decimal(tax), address="1 Old Street")
    make_call(account, day=IN_SEPTEMBER, price=make_price(input="100"), prompt_tokens=1_000_000)
    [invoice] = close_and_issue(account, SEPTEMBER)
    return invoice


def billed_again(invoice: Invoice) -> tuple[Invoice, Invoice]:
    """The credit note, and the next invoice."""
    note = through_review(credit_and_bill_again(invoice.pk, user=approver(), reason="a mistake"))
    [october] = close_and_issue(invoice.account, OCTOBER)
    assert findings(SEPTEMBER, OCTOBER) == []
    return note, october


def totals(*documents: Invoice) -> list[str]:
    return [f"{document.total:.2f}" for document in documents]


def test_wrong_tax() -> None:
    invoice = september(tax="9")
    BillingProfile.objects.update(tax_percent=Decimal(19))
    assert totals(invoice, *billed_again(invoice)) == ["109.00", "-109.00", "119.00"]


def test_wrong_address() -> None:
    invoice = september()
    BillingProfile.objects.update(address="2 New Street")
    note, october = billed_again(invoice)
    assert totals(invoice, note, october) == ["119.00", "-119.00", "119.00"]
    assert october.bill_to["address"] == "2 New Street"
    assert [section.heading for section in invoice_context(october).sections] == ["September 2025, billed again"]


def test_wrong_plan() -> None:
    invoice = september()
    plan = Plan.objects.create(name="Ten off")
    add_version(plan, effective_from=date(2025, 1, 1), discount_percent=Decimal(10))
    BillingProfile.objects.update(plan=plan)
    assert totals(invoice, *billed_again(invoice)) == ["119.00", "-119.00", "107.10"]


@pytest.mark.parametrize(("price", "total"), [("60", "-47.60"), ("130", "35.70")])
def test_wrong_price(price: str, total: str) -> None:
    invoice = september()
    reprice(price)
    assert totals(*close_and_issue(invoice.account, OCTOBER)) == [total]
    assert findings(SEPTEMBER, OCTOBER) == []


def test_dispute_that_ends_in_a_concession() -> None:
    invoice = september()
    [line] = invoice.lines.all()
    note = through_review(credit(invoice.pk, user=approver(), reason="agreed", amounts={line.pk: Decimal(20)}))
    assert totals(invoice, note) == ["119.00", "-23.80"]
    assert close_and_issue(invoice.account, OCTOBER) == []
    assert charged(invoice.account) == Decimal("95.20")


def test_write_off() -> None:
    invoice = september()
    note = through_review(credit(invoice.pk, user=approver(), reason="waived"))
    assert totals(invoice, note) == ["119.00", "-119.00"]
    reprice("60")
    assert close_and_issue(invoice.account, OCTOBER) == []
    assert charged(invoice.account) == Decimal(0)


def test_a_line_is_billed_again_at_the_same_terms() -> None:
    invoice = september()
    [line] = invoice.lines.all()
    note = credit_and_bill_again(invoice.pk, user=approver(), reason="the wrong PO number", line_ids=[line.pk])
    through_review(note)
    [october] = close_and_issue(invoice.account, OCTOBER)
    assert totals(note, october) == ["-119.00", "119.00"]
    assert findings(SEPTEMBER, OCTOBER) == []
