"""One-off lines: from the draft through review, late usage, corrections and exports."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from billing.documents import render_html, render_pdf
from billing.enums import InvoiceAction, InvoiceState
from billing.errors import InvoiceError, NotBillableError
from billing.exports.registry import FORMATS
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit, credit_and_bill_again
from billing.invoices.digests import content_digest
from billing.invoices.drafting import draft_invoice, recompute
from billing.invoices.one_off_changes import MAX_AMOUNT, add_one_off, remove_one_off
from billing.invoices.review import approve, send_back, submit, void
from billing.jobs.exports import export_month
from billing.models import BillingProfile, Invoice, OneOffLine
from llm.models import Account, Price
from tests.billing.calls import make_call, make_price
from tests.billing.exports.months import verify
from tests.billing.factories import make_account, make_profile
from tests.billing.months import (
    IN_SEPTEMBER,
    NOVEMBER,
    OCTOBER,
    SEPTEMBER,
    approver,
    charged,
    close_and_issue,
    drafts_of,
    findings,
    preparer,
    reprice,
    through_review,
)
from tests.billing.people import make_person

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture
def account() -> Account:
    account = make_account()
    make_profile(account, tax_percent=Decimal(19))
    make_call(account, day=IN_SEPTEMBER, price=price_of_100(), prompt_tokens=1_000_000)
    return account


def price_of_100() -> Price:
    return Price.objects.first() or make_price(input="100")


def september(account: Account) -> Invoice:
    draft = draft_invoice(account, SEPTEMBER)
    assert draft is not None
    return draft


def add(draft: Invoice, amount: str, description: str = "Setup fee", tax: str | None = None) -> OneOffLine:
    tax_percent = None if tax is None else Decimal(tax)
    add_one_off(
        draft.pk,
        user=preparer(),
        reason="agreed",
        description=description,
        amount=Decimal(amount),
        tax_percent=tax_percent,
    )
    draft.refresh_from_db()
    return OneOffLine.objects.latest("id")


def amounts(invoice: Invoice) -> list[tuple[str, str]]:
    rows = invoice.lines.order_by("position").values_list("description", "amount")
    return [(description, f"{amount:.2f}") for description, amount in rows]


def test_a_line_survives_whatever_recalculates_the_draft(account: Account) -> None:
    draft = september(account)
    add(draft, "500")
    assert (draft.subtotal, draft.tax, draft.total) == (Decimal(600), Decimal(114), Decimal(714))
    recompute(draft.pk)
    close_month(SEPTEMBER)
    draft.refresh_from_db()
    assert (draft.total, draft.flags) == (Decimal(714), ["first", "one_off", "profile"])
    send_back(submit(draft.pk, user=preparer()).pk, user=preparer(), reason="again")
    issued = through_review(draft)
    assert amounts(issued) == [("gpt-4o, input tokens", "100.00"), ("Setup fee", "500.00")]
    assert [event.reason for event in issued.events.filter(action=InvoiceAction.ADD_LINE)] == ["agreed"]
    assert findings(SEPTEMBER) == []
    assert close_and_issue(account, OCTOBER) == []


def test_it_is_in_the_digest_the_document_and_the_exports(account: Account, tmp_path: Path) -> None:
    draft = september(account)
    add(draft, "500", "Migration & setup")
    add(draft, "-80", "Welcome allowance")
    issued = through_review(draft)
    before = content_digest(issued)
    lines = list(issued.lines.order_by("position"))
    lines[1].amount += 1
    assert content_digest(issued, lines) != before
    assert "Migration &amp; setup" in render_html(issued)
    assert render_pdf(issued).startswith(b"%PDF")
    export_month(SEPTEMBER, tmp_path, list(FORMATS))
    assert verify(tmp_path)[0] == 0
    with (tmp_path / "focus-1.2.csv").open(encoding="utf-8") as file:
        rows = {row["ChargeDescription"]: row for row in csv.DictReader(file)}
    setup, allowance = rows["Migration & setup"], rows["Welcome allowance"]
    assert (setup["ChargeCategory"], setup["ChargeFrequency"], setup["BilledCost"]) == ("Purchase", "One-Time", "500")
    assert (allowance["ChargeCategory"], allowance["BilledCost"]) == ("Credit", "-80")
    with (tmp_path / "xero-invoices.csv").open(encoding="utf-8") as file:
        xero = [(row["*Description"], row["*UnitAmount"], row["TaxAmount"]) for row in csv.DictReader(file)]
    assert ("Migration & setup", "500.00", "95.00") in xero
    assert ("Welcome allowance", "-80.00", "-15.20") in xero


def test_an_allowance_never_makes_an_invoice_negative_and_covers_late_usage(account: Account) -> None:
    draft = september(account)
    add(draft, "-120", "Allowance")
    issued = through_review(draft)
    assert (issued.subtotal, issued.total) == (Decimal(0), Decimal(0))
    make_call(account, day=IN_SEPTEMBER, price=price_of_100(), prompt_tokens=300_000)
    [october] = close_and_issue(account, OCTOBER)
    assert [amount for _, amount in amounts(october)] == ["30.00", "-20.00"]
    assert charged(account) == Decimal("11.90")
    assert findings(SEPTEMBER, OCTOBER) == []


def test_a_reduction_gives_back_no_more_than_was_charged(account: Account) -> None:
    draft = september(account)
    add(draft, "-40", "Allowance")
    through_review(draft)
    reprice("30")
    close_and_issue(account, OCTOBER)
    assert charged(account) == Decimal(0)
    assert findings(SEPTEMBER, OCTOBER) == []
    reprice("100")
    close_and_issue(account, NOVEMBER)
    assert charged(account) == Decimal("71.40")
    assert findings(SEPTEMBER, OCTOBER, NOVEMBER) == []


def test_a_charge_has_a_tax_rate_of_its_own(account: Account) -> None:
    draft = september(account)
    add(draft, "50", "Deposit", "0")
    issued = through_review(draft)
    assert issued.taxes == [
        {"percent": "19", "net": "100", "tax": "19"},
        {"percent": "0", "net": "50", "tax": "0"},
    ]
    reprice("60")
    [note] = close_and_issue(account, OCTOBER)
    assert (note.subtotal, note.tax) == (Decimal(-40), Decimal("-7.60"))
    assert findings(SEPTEMBER, OCTOBER) == []


def test_a_correction_bills_it_again_under_the_new_tax(account: Account) -> None:
    draft = september(account)
    add(draft, "500")
    issued = through_review(draft)
    through_review(credit_and_bill_again(issued.pk, user=approver(), reason="wrong tax"))
    BillingProfile.objects.update(tax_percent=Decimal(7))
    [october] = close_and_issue(account, OCTOBER)
    assert (october.subtotal, october.tax) == (Decimal(600), Decimal(42))
    assert charged(account) == Decimal(642)
    assert findings(SEPTEMBER, OCTOBER) == []


def test_after_a_correction_it_can_be_removed(account: Account) -> None:
    draft = september(account)
    line = add(draft, "500")
    issued = through_review(draft)
    with pytest.raises(InvoiceError, match="Only drafts"):
        remove_one_off(issued.pk, user=preparer(), reason="a mistake", line_id=line.pk)
    through_review(credit_and_bill_again(issued.pk, user=approver(), reason="no setup fee"))
    close_month(OCTOBER, account=account)
    [october] = drafts_of(account)
    remove_one_off(october.pk, user=preparer(), reason="a mistake", line_id=line.pk)
    through_review(october)
    assert charged(account) == Decimal(119)
    assert findings(SEPTEMBER, OCTOBER) == []


def test_it_is_credited_up_to_its_amount(account: Account) -> None:
    draft = september(account)
    add(draft, "500")
    issued = through_review(draft)
    line = issued.lines.get(description="Setup fee")
    with pytest.raises(InvoiceError, match=r"500\.01 exceeds the 500\.00 USD left"):
        credit(issued.pk, user=approver(), reason="waived", amounts={line.pk: Decimal("500.01")})
    through_review(credit(issued.pk, user=approver(), reason="waived", amounts={line.pk: Decimal(500)}))
    assert close_and_issue(account, OCTOBER) == []
    assert charged(account) == Decimal(119)
    assert findings(SEPTEMBER, OCTOBER) == []


def test_a_draft_that_was_voided_leaves_its_lines_to_the_next_one(account: Account) -> None:
    draft = september(account)
    add(draft, "500")
    void(draft.pk, user=approver(), reason="too early")
    assert september(account).subtotal == Decimal(600)


@pytest.mark.parametrize("amount", ["-1000", "1000"])
def test_above_the_threshold_someone_else_must_approve(account: Account, settings: Any, amount: str) -> None:
    """An allowance that brings the total to nothing is no way around it."""
    settings.BILLING_SECOND_PERSON_ABOVE_USD = Decimal(150)
    draft = september(account)
    if amount == "-1000":
        add(draft, "90")
    add(draft, amount)
    both = make_person("both", "prepare_invoice", "approve_invoice")
    submitted = submit(draft.pk, user=both)
    assert submitted.needs_second_person
    with pytest.raises(InvoiceError, match="someone else"):
        approve(draft.pk, user=both)


def test_another_currency_bills_no_line_and_loses_none(account: Account) -> None:
    draft = september(account)
    OneOffLine.objects.create(
        account=account,
        period_start=SEPTEMBER.start,
        currency="EUR",
        description="Setup",
        amount=Decimal(5),
        reason="agreed",
        added_by=preparer(),
    )
    with pytest.raises(NotBillableError, match=r"“Setup” of 5\.00 EUR can't be billed in USD"):
        recompute(draft.pk)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"amount": Decimal(0)}, "other than 0"),
        ({"amount": Decimal("NaN")}, "other than 0"),
        ({"amount": Decimal("1.005")}, "at most 2 decimals"),
        ({"amount": MAX_AMOUNT + 1}, "at most 1,000,000,000.00 USD"),
        ({"description": " \n "}, "Give a description"),
        ({"description": "x" * 151}, "Give a description"),
        ({"reason": " "}, "Give a reason"),
        ({"amount": Decimal(-1), "tax_percent": Decimal(7)}, "leave the tax empty"),
        ({"tax_percent": Decimal("100.1")}, "from 0 to 100"),
        ({"tax_percent": Decimal("0.00001")}, "at most 4 decimals"),
    ],
)
def test_what_makes_no_sense_is_refused(account: Account, values: dict[str, Any], sentence: str) -> None:
    draft = september(account)
    given = {"description": "Setup fee", "amount": Decimal(1), "reason": "agreed", **values}
    with pytest.raises(InvoiceError, match=sentence):
        add_one_off(draft.pk, user=preparer(), **given)
    assert not OneOffLine.objects.exists()
    assert recompute(draft.pk).total == Decimal(119)


def test_only_preparers_change_drafts(account: Account) -> None:
    draft = september(account)
    line = add(draft, "1")
    with pytest.raises(InvoiceError, match="permission"):
        add_one_off(draft.pk, user=approver(), reason="x", description="x", amount=Decimal(1))
    with pytest.raises(InvoiceError, match="permission"):
        remove_one_off(draft.pk, user=approver(), reason="x", line_id=line.pk)
    remove_one_off(draft.pk, user=preparer(), reason="x", line_id=line.pk)
    with pytest.raises(InvoiceError, match="no such one-off line"):
        remove_one_off(draft.pk, user=preparer(), reason="x", line_id=line.pk)
    draft.refresh_from_db()
    assert (draft.total, draft.state) == (Decimal(119), InvoiceState.DRAFT)


def test_the_database_refuses_changes(account: Account) -> None:
    line = add(september(account), "1")
    for change in ({"amount": Decimal(2)}, {"description": "y"}):
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
            OneOffLine.objects.filter(pk=line.pk).update(**change)
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
        line.delete()
    assert OneOffLine.objects.get().amount == Decimal(1)


def test_a_month_without_an_invoice_is_found_by_its_one_off_lines(account: Account) -> None:
    other = make_account("Other")
    make_profile(other)
    OneOffLine.objects.create(
        account=other,
        period_start=SEPTEMBER.start,
        currency="USD",
        description="Setup",
        amount=Decimal(5),
        reason="agreed",
        added_by=preparer(),
    )
    close_and_issue(account, SEPTEMBER)
    assert any("nothing bills its one-off lines" in sentence for sentence in findings(SEPTEMBER))
    draft = draft_invoice(other, SEPTEMBER)
    assert draft is not None
    assert draft.total == Decimal(5)
