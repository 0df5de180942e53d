"""Calls in doubt: lost ones hold up their invoice, disputed ones are only pointed out; both are billed once decided."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from billing.admin.invoicepage import FLAG_MEANINGS
from billing.blockers import blockers_of, unsettled_of
from billing.checks import check_seller
from billing.crediting import credit
from billing.errors import InvoiceError
from billing.flags import FLAGS, labels_of
from billing.invoicing import draft_invoice
from billing.models import Invoice, InvoiceSeries
from billing.periods import Period
from billing.review import approve, issue, send_back, submit
from llm.books.adjusting import decide_call
from llm.enums import Outcome, UsageSource, UsageStatus
from llm.models import Account, Price, Usage
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_preparer

pytestmark = pytest.mark.django_db

OCTOBER = Period.parse("2026-10")


@pytest.fixture
def account() -> Account:
    """With a call of 2 USD in October."""
    account = make_account()
    make_profile(account, address="1 Street", email="pay@acme.example")
    make_priced(account)
    return account


def make_priced(account: Account, **values: Any) -> Usage:
    """Of 2 USD."""
    price = Price.objects.first() or make_price()
    return make_call(account, price=price, **{"prompt_tokens": 1_000_000, **values})


def make_doubtful(account: Account, **values: Any) -> Usage:
    """Of 2 USD, counted by us and not billable."""
    return make_priced(
        account,
        status=UsageStatus.ESTIMATED,
        usage_source=UsageSource.ESTIMATED,
        is_billable=False,
        **values,
    )


def make_lost(account: Account, **values: Any) -> Usage:
    return make_doubtful(account, outcome=Outcome.LOST, **values)


def make_disputed(account: Account, **values: Any) -> Usage:
    return make_doubtful(account, is_disputed=True, disputed_usage={"prompt_tokens": -5}, **values)


def draft(account: Account, period: Period = OCTOBER) -> Invoice:
    invoice = draft_invoice(account, period)
    assert invoice is not None
    return invoice


def decide(row: Usage, *, is_billable: bool = True) -> None:
    decide_call(row.pk, counts=None, is_billable=is_billable, reason="their dashboard", user=None)


def issue_now(invoice: Invoice, *, approver: User | None = None, preparer: User | None = None) -> Invoice:
    approver = approver or make_approver()
    submit(invoice.pk, user=preparer or make_preparer())
    approve(invoice.pk, user=approver)
    return issue(invoice.pk, user=approver)


def test_calls_in_doubt_are_counted_for_their_account_and_month(account: Account) -> None:
    other = make_account("Other")
    make_lost(account)
    make_disputed(account)
    make_disputed(account)
    make_disputed(account, day=date(2026, 11, 1))
    make_disputed(other)
    decide(make_lost(account), is_billable=False)
    decide(make_disputed(account))
    found = unsettled_of(account.pk, OCTOBER)
    assert (found.open_calls, found.undecided_calls, found.disputed_calls, found.unpriced_calls) == (0, 1, 2, 0)


def test_a_lost_call_holds_up_its_invoice_until_somebody_decides(account: Account) -> None:
    row = make_lost(account)
    invoice = draft(account)
    assert labels_of(invoice).count("lost calls") == 1
    with pytest.raises(InvoiceError, match=r"1 calls of .* were lost with their process: decide what they used"):
        issue_now(invoice)
    decide(row)
    assert blockers_of(invoice) == []


def test_a_disputed_call_is_pointed_out_and_holds_up_nothing(account: Account) -> None:
    make_disputed(account)
    invoice = draft(account)
    assert "disputed" in invoice.flags
    assert blockers_of(invoice) == []
    issued = issue_now(invoice)
    assert (issued.subtotal, "disputed" in issued.flags) == (Decimal(2), True)


def test_a_disputed_call_that_is_decided_on_in_time_is_billed_with_its_month(account: Account) -> None:
    decide(make_disputed(account))
    invoice = draft(account)
    assert (invoice.subtotal, "disputed" in invoice.flags) == (Decimal(4), False)


def test_a_disputed_call_that_is_decided_on_after_the_issue_is_billed_with_the_next_month(account: Account) -> None:
    row = make_disputed(account)
    issue_now(draft(account))
    decide(row)
    make_priced(account, day=date(2026, 11, 2), prompt_tokens=500_000)
    november = draft(account, OCTOBER.following)
    late = [line.amount for line in november.lines.all() if line.period_start == OCTOBER.start]
    assert (late, november.subtotal) == ([Decimal(2)], Decimal(3))


# --- Who sends it -----------------------------------------------------------------------------------------------------

SELLER = {"name": "Northwind GmbH", "address": "Lagerstraße 12", "tax_id": "DE 1", "email": "", "payment": ""}
WITHOUT = {**SELLER, "name": "", "address": "", "tax_id": ""}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"name": "", "address": "", "tax_id": ""},
            "BILLING_SELLER_NAME, BILLING_SELLER_ADDRESS and BILLING_SELLER_TAX_ID (“none” if there is no tax ID)",
        ),
        ({"name": ""}, "BILLING_SELLER_NAME"),
        ({"address": ""}, "BILLING_SELLER_ADDRESS"),
        ({"tax_id": ""}, "BILLING_SELLER_TAX_ID (“none” if there is no tax ID)"),
    ],
)
def test_an_invoice_without_its_sender_is_flagged_and_not_issued(
    account: Account, settings: Settings, changes: dict[str, str], named: str
) -> None:
    settings.BILLING_SELLER = {**SELLER, **changes}
    invoice = draft(account)
    assert "incomplete seller" in labels_of(invoice)
    assert blockers_of(invoice) == [f"It doesn't say who sends it: set {named} in .env and restart."]
    with pytest.raises(InvoiceError, match="It doesn't say who sends it"):
        issue_now(invoice)
    invoice.refresh_from_db()
    assert (invoice.state, invoice.number, InvoiceSeries.objects.count()) == ("approved", None, 0)


def test_that_there_is_no_tax_id_is_an_answer(account: Account, settings: Settings) -> None:
    settings.BILLING_SELLER = {**SELLER, "tax_id": "None"}
    invoice = draft(account)
    assert "seller" not in invoice.flags
    issued = issue_now(invoice)
    assert (issued.state, issued.seller["tax_id"]) == ("issued", "")


def test_what_was_submitted_without_its_sender_goes_back_first(account: Account, settings: Settings) -> None:
    settings.BILLING_SELLER = WITHOUT
    invoice = draft(account)
    preparer, approver = make_preparer(), make_approver()
    submit(invoice.pk, user=preparer)
    settings.BILLING_SELLER = SELLER
    approve(invoice.pk, user=approver)
    invoice.refresh_from_db()
    [sentence] = blockers_of(invoice)
    assert sentence == (
        "It was submitted without BILLING_SELLER_NAME, BILLING_SELLER_ADDRESS and BILLING_SELLER_TAX_ID: "
        "send it back and submit it again."
    )
    send_back(invoice.pk, user=approver, reason="no sender")
    assert issue_now(invoice, approver=approver, preparer=preparer).seller["name"] == "Northwind GmbH"


def test_a_credit_note_needs_its_sender_too(account: Account, settings: Settings) -> None:
    preparer, approver = make_preparer(), make_approver()
    issued = issue_now(draft(account), approver=approver, preparer=preparer)
    note = credit(issued.pk, user=approver, reason="wrong")
    settings.BILLING_SELLER = WITHOUT
    with pytest.raises(InvoiceError, match="It doesn't say who sends it"):
        issue_now(note, approver=approver, preparer=preparer)


def test_a_deployment_is_told_before_it_bills(settings: Settings) -> None:
    settings.BILLING_SELLER = {**SELLER, "address": "", "tax_id": "none"}
    assert [(each.id, each.msg) for each in check_seller(None)] == [
        ("billing.W001", "No invoice can be issued: BILLING_SELLER_ADDRESS not set.")
    ]
    settings.BILLING_SELLER = SELLER
    assert check_seller(None) == []


def test_every_flag_has_a_meaning_on_the_invoices_page() -> None:
    assert FLAG_MEANINGS.keys() == FLAGS.keys()
