"""Calls in doubt: lost ones hold up their invoice, disputed ones are only pointed out; both are billed once decided."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from billing.admin.invoices.formatting import change_text, usage_change_text
from billing.admin.invoices.page import FLAG_MEANINGS, invoice_page
from billing.api.invoice_serializers import InvoiceDetailSerializer
from billing.checks import check_seller
from billing.enums import InvoiceKind, InvoiceState
from billing.errors import InvoiceError
from billing.invoices.blockers import count_unsettled, find_blockers
from billing.invoices.closing import close_month
from billing.invoices.crediting import credit
from billing.invoices.drafting import draft_invoice, recompute
from billing.invoices.flags import FLAGS, labels_of
from billing.invoices.review import approve, issue, send_back, submit
from billing.models import BillingProfile, Invoice, InvoiceSeries, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version
from llm.audit import verify
from llm.books.adjusting import decide_call
from llm.books.rerating import rerate
from llm.enums import AdjustmentSource, CallOutcome, Meter, UsageSource, UsageStatus
from llm.models import Account, Price, Usage
from llm.prices.staff import set_price
from llm.types import Service, TokenCounts
from tests.billing.calls import LONG_AGO, make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.people import make_approver, make_preparer
from tests.llm.books.making import adjust_now

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")


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
    return make_doubtful(account, outcome=CallOutcome.LOST, **values)


def make_disputed(account: Account, **values: Any) -> Usage:
    return make_doubtful(account, is_disputed=True, disputed_usage={"prompt_tokens": -5}, **values)


def draft(account: Account, period: BillingPeriod = OCTOBER) -> Invoice:
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
    found = count_unsettled(account.pk, OCTOBER)
    assert (found.open_calls, found.undecided_calls, found.disputed_calls, found.unpriced_calls) == (0, 1, 2, 0)


def test_a_lost_call_holds_up_its_invoice_until_somebody_decides(account: Account) -> None:
    row = make_lost(account)
    invoice = draft(account)
    assert labels_of(invoice).count("lost calls") == 1
    with pytest.raises(InvoiceError, match=r"1 call of .* was lost when the gateway restarted: decide what it used"):
        issue_now(invoice)
    decide(row)
    assert find_blockers(invoice) == []


def test_a_disputed_call_is_pointed_out_and_holds_up_nothing(account: Account) -> None:
    make_disputed(account)
    invoice = draft(account)
    assert "disputed" in invoice.flags
    assert find_blockers(invoice) == []
    issued = issue_now(invoice)
    assert (issued.subtotal, "disputed" in issued.flags) == (Decimal(2), True)


def test_a_disputed_call_that_is_decided_on_in_time_is_billed_with_its_month(account: Account) -> None:
    decide(make_disputed(account))
    invoice = draft(account)
    assert (invoice.subtotal, "disputed" in invoice.flags) == (Decimal(4), False)


@pytest.mark.slow
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
    assert find_blockers(invoice) == [f"The seller's details are incomplete: set {named} in .env and restart."]
    with pytest.raises(InvoiceError, match="The seller's details are incomplete"):
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
    [sentence] = find_blockers(invoice)
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
    with pytest.raises(InvoiceError, match="The seller's details are incomplete"):
        issue_now(note, approver=approver, preparer=preparer)


def test_a_deployment_is_told_before_it_bills(settings: Settings) -> None:
    settings.BILLING_SELLER = {**SELLER, "address": "", "tax_id": "none"}
    assert [(each.id, each.msg) for each in check_seller(None)] == [
        ("billing.W001", "No invoice can be issued: BILLING_SELLER_ADDRESS not set.")
    ]
    settings.BILLING_SELLER = SELLER
    assert check_seller(None) == []


def test_a_draft_with_characters_that_no_font_has_says_so(account: Account, settings: Settings) -> None:
    settings.BILLING_SELLER = {**SELLER, "name": "株 GmbH"}
    invoice = draft(account)
    assert "characters without a font" in labels_of(invoice)
    assert find_blockers(invoice) == []
    meanings = [meaning for _, meaning in invoice_page(invoice, make_preparer()).flags]
    assert any("株 (U+682A)" in meaning for meaning in meanings)
    shown = InvoiceDetailSerializer(invoice, context={"viewer": SimpleNamespace(is_staff=True, sees_cost=True)}).data
    assert (shown["missing_characters"], "glyphs" in shown["flags"]) == (["株 (U+682A)"], True)
    assert "missing_characters" not in InvoiceDetailSerializer(invoice).data
    settings.BILLING_SELLER = SELLER
    assert "glyphs" not in recompute(invoice.pk).flags


def test_every_flag_has_a_meaning_on_the_invoices_page() -> None:
    assert FLAG_MEANINGS.keys() == FLAGS.keys()


@pytest.mark.parametrize(
    ("served", "words"),
    [
        ({"service_tier": "priority"}, "service_tier:priority"),
        ({"speed": "fast", "inference_geo": "us"}, "inference_geo:us, speed:fast"),
        ({"flags": "tools_unreported"}, "tools that the provider ran and didn't report"),
    ],
)
def test_a_tier_that_callers_chose_is_named_where_it_has_no_price(
    account: Account, served: dict[str, Any], words: str
) -> None:
    """Its usage stalls the invoice; whoever reads that must know which rates are missing."""
    make_call(account, prompt_tokens=5, **served)
    make_call(account, prompt_tokens=5, model="other")

    why = f", some of them for {words}, which their price doesn't list: set one with these rates"
    assert find_blockers(draft(account)) == [
        f"1 call of 2026-10 to openai gpt-4o has no price{why} and apply it to past calls, under Prices.",
        "1 call of 2026-10 to openai other has no price: set one and apply it to past calls, under Prices.",
    ]


def settle_late(row: Usage, prompt_tokens: int, *, service_tier: str = "priority") -> None:
    """The late word of a lost call's own process, in a tier that no price lists."""
    adjust_now(
        row.pk,
        AdjustmentSource.SPOOL,
        counts=TokenCounts(prompt_tokens=prompt_tokens),
        cost_pico=None,
        is_billable=True,
        reason="late",
        service=Service(service_tier),
    )


def price_priority() -> None:
    """At 5 USD per million tokens, and re-rate October by it."""
    since = LONG_AGO + timedelta(days=1)
    set_price("openai", "gpt-4o", effective_from=since, rates={Meter.INPUT: Decimal(5)}, service=Service("priority"))
    rerate("openai", "gpt-4o", first_day=OCTOBER.start, last_day=OCTOBER.last_day, reason="priority has a price")


def test_a_call_whose_cost_was_taken_back_holds_up_its_invoice_until_it_has_one(account: Account) -> None:
    row = make_lost(account)
    decide(row)
    assert draft(account).subtotal == Decimal(4)
    settle_late(row, 3_000_000)

    invoice = draft(account)

    assert (invoice.subtotal, labels_of(invoice).count("unpriced calls")) == (Decimal(2), 1)
    why = "some of them for service_tier:priority, which their price doesn't list: set one with these rates"
    assert find_blockers(invoice) == [
        f"1 call of 2026-10 to openai gpt-4o has no price, {why} and apply it to past calls, under Prices."
    ]
    price_priority()
    invoice = draft(account)
    assert (invoice.subtotal, find_blockers(invoice)) == (Decimal(17), [])
    assert verify().sentences == []


def test_what_was_billed_is_not_given_back_while_it_has_no_price(account: Account) -> None:
    row = make_lost(account)
    decide(row)
    issue_now(draft(account))
    settle_late(row, 3_000_000)

    close_month(OCTOBER.following, account=account)

    note = Invoice.objects.get(kind=InvoiceKind.CREDIT_NOTE)
    assert (note.total, note.is_reduction) == (Decimal(-2), True)
    [blocker] = find_blockers(note)
    assert blocker.startswith("1 call of 2026-10 to openai gpt-4o has no price, some of them for")
    price_priority()
    close_month(OCTOBER.following, account=account)
    note.refresh_from_db()
    assert note.state == InvoiceState.VOID


def test_usage_that_jumps_behind_a_commitment_is_flagged(account: Account) -> None:
    """The total stays what the commitment makes it; what we pay the provider more than doubles."""
    plan = Plan.objects.create(name="Committed")
    add_version(plan, effective_from=date(2025, 1, 1), minimum_commitment=Decimal(100))
    BillingProfile.objects.filter(account=account).update(plan=plan)
    make_priced(account, day=date(2026, 11, 2), prompt_tokens=2_380_000)
    preparer, approver = make_preparer(), make_approver()
    issue_now(draft(account), approver=approver, preparer=preparer)

    november = draft(account, OCTOBER.following)

    assert (november.total, november.previous_total) == (Decimal(100), Decimal(100))
    assert (november.cost_usd, november.previous_cost_usd) == (Decimal("4.76"), Decimal(2))
    assert "jump" in november.flags
    assert (change_text(november), usage_change_text(november)) == ("0.0 %", "usage +138.0 %")


@pytest.mark.parametrize(("country", "is_flagged"), [("XX", True), ("DE", False), ("", False)])
def test_a_country_of_before_that_does_not_exist_is_flagged(account: Account, country: str, is_flagged: bool) -> None:
    BillingProfile.objects.filter(account=account).update(country=country)

    assert ("profile" in draft(account).flags) is is_flagged
