"""Credit notes give back what was issued, and never more."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from billing.enums import InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.invoices.crediting import credit, creditable
from billing.invoices.drafting import draft_invoice
from billing.invoices.review import approve, issue, submit, void
from billing.models import Invoice, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version
from llm.models import Account
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_person, make_preparer

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")


@pytest.fixture
def issued() -> Invoice:
    """10.00 of input and 3.33 of output, and 19 % of tax: 2.53."""
    account, preparer, approver = make_account(), make_preparer(), make_approver()
    make_profile(account, tax_percent=Decimal(19))
    price = make_price("gpt-4o", input="10", output="3.33")
    make_call(account, price=price, prompt_tokens=1_000_000, completion_tokens=1_000_000)
    draft = draft_invoice(account, OCTOBER)
    assert draft is not None
    submit(draft.pk, user=preparer)
    approve(draft.pk, user=approver)
    return issue(draft.pk, user=approver)


def through_review(note: Invoice) -> Invoice:
    submit(note.pk, user=make_preparer("pia"))
    approver = make_approver("ada")
    approve(note.pk, user=approver)
    return issue(note.pk, user=approver)


@pytest.mark.slow
def test_a_whole_credit_takes_everything_back_to_the_last_cent(issued: Invoice) -> None:
    note = credit(issued.pk, user=make_approver("ann"), reason="duplicate")
    assert (note.kind, note.state, note.original, note.credit_sequence) == (
        InvoiceKind.CREDIT_NOTE,
        InvoiceState.DRAFT,
        issued,
        1,
    )
    assert (note.subtotal, note.tax, note.total) == (-issued.subtotal, -issued.tax, -issued.total)
    final = through_review(note)
    assert final.label.startswith("CN-")
    assert final.label.endswith("-000001")
    assert set(creditable(issued).values()) == {Decimal(0)}


def test_credits_by_line_add_up_to_the_invoice_and_no_further(issued: Invoice) -> None:
    user = make_approver("ann")
    first, second = issued.lines.order_by("position")
    part = credit(issued.pk, user=user, reason="an outage", amounts={first.pk: Decimal("3.33")})
    assert (part.subtotal, part.tax, part.total) == (Decimal("-3.33"), Decimal("-0.63"), Decimal("-3.96"))
    with pytest.raises(InvoiceError, match=r"exceeds the 6\.67 USD left"):
        credit(issued.pk, user=user, reason="more", amounts={first.pk: Decimal("6.68")})
    rest = credit(issued.pk, user=user, reason="the rest")
    assert [line.amount for line in rest.lines.order_by("position")] == [Decimal("-6.67"), Decimal("-3.33")]
    assert part.total + rest.total == -issued.total
    assert (part.credit_sequence, rest.credit_sequence) == (1, 2)
    with pytest.raises(InvoiceError, match="nothing left"):
        credit(issued.pk, user=user, reason="again")
    assert Invoice.objects.filter(kind=InvoiceKind.CREDIT_NOTE).count() == 2
    assert second.credits.count() == 1


@pytest.mark.slow
def test_no_more_is_credited_than_the_invoice_asked_for() -> None:
    """A line of 20 with a discount of 5: the line alone has more left than the invoice."""
    discounted = issued_with_discount(make_account("Discounted"))
    user, usage = make_approver("ann"), discounted.lines.order_by("position")[0]
    assert (usage.amount, discounted.subtotal) == (Decimal(20), Decimal(15))
    with pytest.raises(InvoiceError, match=r"15\.01 USD exceeds the 15\.00 left on invoice INV-"):
        credit(discounted.pk, user=user, reason="too much", amounts={usage.pk: Decimal("15.01")})
    assert not discounted.credit_notes.exists()
    credit(discounted.pk, user=user, reason="a part", amounts={usage.pk: Decimal(14)})
    with pytest.raises(InvoiceError, match=r"1\.01 USD exceeds the 1\.00 left"):
        credit(discounted.pk, user=user, reason="again too much", amounts={usage.pk: Decimal("1.01")})
    assert credit(discounted.pk, user=user, reason="the rest").total == Decimal(-1)


def issued_with_discount(account: Account) -> Invoice:
    plan = Plan.objects.create(name="A quarter off")
    add_version(plan, effective_from=date(2026, 1, 1), discount_percent=Decimal(25))
    make_profile(account, plan=plan)
    make_call(account, price=make_price("gpt-quarter", input="20"), model="gpt-quarter", prompt_tokens=1_000_000)
    draft = draft_invoice(account, OCTOBER)
    assert draft is not None
    return through_review(draft)


def test_a_void_credit_note_gives_nothing_back(issued: Invoice) -> None:
    user = make_approver("ann")
    note = credit(issued.pk, user=user, reason="a mistake")
    void(note.pk, user=user, reason="it was none")
    assert sum(creditable(issued).values()) == issued.subtotal


@pytest.mark.parametrize("amount", ["0", "-1", "0.001"])
def test_amounts_that_cannot_be_credited_are_refused(issued: Invoice, amount: str) -> None:
    line = issued.lines.first()
    assert line is not None
    with pytest.raises(InvoiceError, match="positive amount with at most 2 decimals"):
        credit(issued.pk, user=make_approver("ann"), reason="no", amounts={line.pk: Decimal(amount)})
    assert not Invoice.objects.filter(kind=InvoiceKind.CREDIT_NOTE).exists()


def test_another_invoices_line_is_not_credited(issued: Invoice) -> None:
    with pytest.raises(InvoiceError, match=f"not on invoice {issued.label}"):
        credit(issued.pk, user=make_approver("ann"), reason="no", amounts={10**9: Decimal(1)})


def test_only_who_may_credits_and_only_what_was_issued(issued: Invoice) -> None:
    with pytest.raises(InvoiceError, match="have permission for this"):
        credit(issued.pk, user=make_person("someone", "approve_invoice"), reason="no")
    note = credit(issued.pk, user=make_approver("ann"), reason="yes")
    with pytest.raises(InvoiceError, match="Only an issued invoice"):
        credit(note.pk, user=make_approver("ben"), reason="no")


@pytest.mark.slow
def test_a_credit_does_not_unbill_usage(issued: Invoice) -> None:
    through_review(credit(issued.pk, user=make_approver("ann"), reason="goodwill"))
    assert draft_invoice(issued.account, OCTOBER.following) is None
