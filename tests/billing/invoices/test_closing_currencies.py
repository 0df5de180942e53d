"""An account that is billed in another currency from some month on: each month is billed once, in one currency."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError

from billing.enums import InvoiceKind
from billing.invoices.closing import close_due_months, close_month
from billing.invoices.review import approve, issue, submit
from billing.models import BillingProfile, ExchangeRate, Invoice, Plan
from billing.periods import BillingPeriod
from billing.plans import add_version
from billing.verification import verify_month
from llm.models import Account
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_exchange_rate, make_invoice, make_profile
from tests.billing.people import make_approver, make_preparer

pytestmark = pytest.mark.django_db

OCTOBER = BillingPeriod.parse("2026-10")
AFTER_OCTOBER = datetime(2026, 11, 3, tzinfo=UTC)


def issued(account: Account) -> Invoice:
    close_month(OCTOBER, account=account)
    return through_review(Invoice.objects.get(account=account))


def through_review(invoice: Invoice) -> Invoice:
    submit(invoice.pk, user=make_preparer(f"p{invoice.pk}"))
    approver = make_approver(f"a{invoice.pk}")
    approve(invoice.pk, user=approver)
    return issue(invoice.pk, user=approver)


def bill_in_euros(account: Account) -> None:
    """From now on, at 0.5 EUR a USD, so that a figure in the wrong currency shows."""
    euros = Plan.objects.create(name="Cost in euros")
    add_version(euros, effective_from=date(2026, 1, 1), currency="EUR")
    if not ExchangeRate.objects.exists():
        make_exchange_rate("EUR", "0.5", on=date(2026, 1, 1))
    BillingProfile.objects.filter(account=account).update(plan=euros, currency="EUR")
    account.refresh_from_db()


def test_a_month_that_was_billed_is_not_billed_again_in_another_currency() -> None:
    account = make_account()
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    regular = issued(account)
    bill_in_euros(account)
    assert close_month(OCTOBER).kept == [account.name]
    assert close_due_months(now=AFTER_OCTOBER).drafted == []
    assert Invoice.objects.get() == regular


def test_a_draft_changes_its_currency_with_the_profile() -> None:
    account = make_account()
    make_call(account, price=make_price(), prompt_tokens=1_000_000)
    close_month(OCTOBER)
    bill_in_euros(account)
    assert close_month(OCTOBER).drafted == [account.name]
    draft = Invoice.objects.get()
    assert (draft.currency, draft.total, draft.per_usd) == ("EUR", Decimal(1), Decimal("0.5"))
    assert submit(draft.pk, user=make_preparer()).currency == "EUR"


def test_a_month_has_one_invoice_whatever_its_currency() -> None:
    profile = make_profile(make_account())
    make_invoice(profile, currency="USD")
    with pytest.raises(IntegrityError):
        make_invoice(profile, currency="EUR")


@pytest.mark.slow
def test_late_usage_of_months_in_a_former_currency_gets_a_supplement_in_it() -> None:
    account = make_account()
    price = make_price()
    make_call(account, price=price, prompt_tokens=1_000_000)
    issued(account)
    bill_in_euros(account)
    make_call(account, price=price, prompt_tokens=500_000)
    make_call(account, day=date(2026, 11, 5), price=price, prompt_tokens=3_000_000)
    for _ in range(2):
        assert close_month(OCTOBER.following).drafted == [account.name] * 2
    supplement = Invoice.objects.get(kind=InvoiceKind.SUPPLEMENT)
    assert (supplement.period, supplement.currency, supplement.total) == (OCTOBER, "USD", Decimal(1))
    november = Invoice.objects.get(period_start=date(2026, 11, 1))
    assert (november.kind, november.currency, november.total) == (InvoiceKind.REGULAR, "EUR", Decimal(3))
    through_review(supplement)
    assert close_month(OCTOBER.following).drafted == [account.name]
    assert verify_month(OCTOBER).sentences == []
